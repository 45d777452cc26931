"""The command line: help, versions, exit codes, and one line for every error."""

from __future__ import annotations

import json
import logging
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import trustme

from receiver import __version__
from receiver.cli import main as cli
from receiver.cli.main import COMMANDS, main
from receiver.cli.options import named_settings, recordings_folder, settings
from receiver.config.settings import Config
from receiver.errors import ConfigurationError, NotFoundError

pytestmark = pytest.mark.integration

RECEIVER = [sys.executable, "-m", "receiver"]


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("TAPREEL_")}
    return subprocess.run(
        [*RECEIVER, *arguments], env=clean | environ, capture_output=True, text=True, check=False
    )


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep this machine's own settings out."""
    for name in [name for name in os.environ if name.startswith("TAPREEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what makes a function the subcommand `probe`."""

    def install(function: Any) -> None:
        command = function if isinstance(function, click.Command) else click.command()(function)
        monkeypatch.setattr(sys.modules[__name__], "probed", command, raising=False)
        monkeypatch.setitem(cli.COMMANDS, "probe", (f"{__name__}:probed", "Probe."))

    return install


def test_help_lists_every_command_and_imports_none() -> None:
    """`--help` shows one line per command without numpy, websockets or structlog."""
    code = (
        "import sys; from receiver.cli.main import main; code = main(['--help']);"
        "heavy = {'numpy', 'websockets', 'structlog', 'cryptography', 'receiver.config.settings'};"
        "sys.exit(f'imported {heavy & set(sys.modules)}' if heavy & set(sys.modules) else code)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (0, "") == (result.returncode, result.stderr)
    for name, (_, short) in COMMANDS.items():
        assert name in result.stdout
        assert short in result.stdout


def test_help_is_quick() -> None:
    """`--help` needs a fraction of a second of CPU time, at best of three."""
    times = []
    for _ in range(3):
        start = processor_seconds()
        assert 0 == run("--help").returncode
        times.append(processor_seconds() - start)
    assert min(times) < 0.3


def processor_seconds() -> float:
    """Return the CPU time of processes that have ended: it does not grow on a busy machine."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_the_version() -> None:
    """`-v` and `--version` print it."""
    for flag in ("-v", "--version"):
        assert f"receiver, version {__version__}\n" == run(flag).stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "Missing command. (see receiver --help)"),
        (["nonsense"], "No such command 'nonsense'. (see receiver --help)"),
        (["serve", "--xyz"], "No such option '--xyz'. (see receiver serve --help)"),
        (["serve", "--tls", "a"], "Option '--tls' requires 2 arguments."),
        (["show"], "Missing argument 'ID'. (see receiver show --help)"),
        (["list", "--since", "x"], "Invalid value for '--since': not a date, an RFC 3339 time, or"),
    ],
)
def test_usage_errors_are_one_line_and_end_with_2(arguments: list[str], expected: str) -> None:
    """A wrong command line is explained on stderr, as that of `starter` is."""
    result = run(*arguments)
    assert (2, "") == (result.returncode, result.stdout)
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"receiver: {expected}")


@pytest.mark.parametrize(
    ("expected", "error"),
    [
        ((3, "receiver: port must be a number\n"), ConfigurationError("port must\nbe a number")),
        ((5, "receiver: no such recording\n"), NotFoundError("no such recording")),
        ((1, "receiver: unexpected ValueError: oh no\n"), ValueError("oh no")),
        ((1, ""), BrokenPipeError()),
        ((130, "\n"), KeyboardInterrupt()),
    ],
)
def test_every_error_is_one_line_and_a_code(
    probe: Any,
    capsys: pytest.CaptureFixture[str],
    expected: tuple[int, str],
    error: BaseException,
) -> None:
    """Our own errors have an exit code; anything else is 1, without a traceback."""

    def failing() -> None:
        raise error

    probe(failing)
    assert expected == (main(["probe"]), capsys.readouterr().err)


def test_a_traceback_is_for_debugging(
    probe: Any, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """At the level debug the traceback of the unforeseen is shown too."""

    def failing() -> None:
        raise ValueError("oh no")

    probe(failing)
    with caplog.at_level(logging.DEBUG):
        assert 1 == main(["probe"])
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_error() -> None:
    """`receiver config | head -0` prints nothing on stderr."""
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run(
        [*RECEIVER, "config", "--no-tls", "--demo"],
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writing)
    assert (1, b"") == (result.returncode, result.stderr)


def test_every_option_of_a_folder_reaches_the_command(
    probe: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`--recordings` over its variable over the file over the default, as a Path."""
    seen: list[tuple[Path, ...]] = []

    @click.command()
    @click.argument("name", default="-")
    @recordings_folder
    def show(name: str, recordings: Path) -> None:
        seen.append((recordings,))

    @click.command()
    @named_settings("recordings", "spool")
    def recover(recordings: Path, spool: Path) -> None:
        seen.append((recordings, spool))

    file = tmp_path / "t.toml"
    file.write_text('recordings = "from-file"')
    probe(show)
    main(["probe"])
    main(["probe", "name", "--config", str(file)])
    monkeypatch.setenv("TAPREEL_CONFIG", str(file))
    main(["probe"])
    monkeypatch.setenv("TAPREEL_RECORDINGS", "from-environment")
    main(["probe"])
    main(["probe", "--recordings", "from-flag"])
    probe(recover)
    main(["probe", "--recordings", "from-flag"])
    main(["probe", "--spool", "elsewhere"])
    names = ["recordings", "from-file", "from-file", "from-environment", "from-flag"]
    assert [(Path(name),) for name in names] == seen[:5]
    assert (Path("from-flag"), Path("from-flag/.spool")) == seen[5]
    assert (Path("from-environment"), Path("elsewhere")) == seen[6]


def test_every_setting_is_a_flag(probe: Any) -> None:
    """`serve` has a flag for every setting that is no secret."""
    seen: list[Config] = []

    @click.command()
    @settings
    def keep(config: Config) -> None:
        seen.append(config)

    probe(keep)
    flags = ["--tls", "c.pem", "k.pem", "--port", "1", "--stereo", "--byte-order", "big"]
    assert 0 == main(["probe", *flags, "--idle-timeout-seconds", "2.5", "--demo"])
    (config,) = seen
    assert (Path("c.pem"), Path("k.pem")) == config.tls
    assert (1, True, "big", 2.5, True) == (
        config.port,
        config.stereo,
        config.byte_order,
        config.idle_timeout_seconds,
        config.demo,
    )


def test_config_shows_values_and_sources_without_secrets() -> None:
    """Every setting, where it came from, and a mask in place of secrets."""
    result = run("config", "--port", "1", "--tls", "c", "k", TAPREEL_TOKENS="hush-hush-hush-1")
    words = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines()}
    assert ["1", "flag"] == words["port"]
    assert ["c", "k", "flag"] == words["tls"]
    assert ["********", "environment"] == words["tokens"]
    assert ["false", "default"] == words["stereo"]
    assert ["-", "default"] == words["token_file"]
    assert 0 == result.returncode
    assert "note: `receiver serve` would refuse these settings: cannot read c" in result.stderr
    assert "hush" not in result.stdout


def test_config_says_which_certificates_providers_refuse(tmp_path: Path) -> None:
    """One without its intermediate is served, and no provider would connect."""
    root = trustme.CA()
    pair = root.create_child_ca().issue_cert("rec.example.com")
    for name, part in (("k.pem", pair.private_key_pem), ("root.pem", root.cert_pem)):
        part.write_to_path(tmp_path / name)
        (tmp_path / name).chmod(0o600)
    notes = []
    for part in pair.cert_chain_pems:
        part.write_to_path(tmp_path / "c.pem", append=True)
        arguments = ("config", "--tls", "c.pem", "k.pem")
        notes.append(run(*arguments, TAPREEL_TOKENS="hush-hush-hush-1", SSL_CERT_FILE="root.pem"))
    assert "note: providers would refuse this certificate" in notes[0].stderr
    assert "fullchain.pem" in notes[0].stderr
    assert [(0, ""), (0, "")] == [(notes[0].returncode, ""), (notes[1].returncode, notes[1].stderr)]


def test_config_masks_user_and_password_of_urls() -> None:
    """As text, as JSON and in what `serve` would say."""
    for url in (
        *("wss://jane:hush@rec.example.com/a@b?c=@", "WSS://hush@rec.example.com"),
        *("wss://jane:hush/hush@rec.example.com/", "wss://jane:a#hush@rec.example.com/"),
        "wss://jane@rec.example.com/?room=1&access_token=hush#track=inbound",
    ):
        results = [run("config", *more, "--forward", url) for more in ([], ["--json"])]
        for result in results:
            assert "hush" not in result.stdout + result.stderr
            assert "//********@rec.example.com" in result.stdout
    for url in ("wss://rec.example.com/a@b", "wss://rec.example.com:443/a@b?c=d@e"):
        assert f"{url} " in run("config", "--forward", url).stdout
    forgotten = run("config", "--forward", "jane:hush@rec.example.com/").stdout
    assert " ********@rec.example.com/ " in forgotten


def test_config_as_json_and_what_serve_would_say() -> None:
    """The same as JSON; settings that `serve` would refuse are noted on stderr."""
    result = run("config", "--json", TAPREEL_STREAM_KEY="hush" * 8, TAPREEL_SPOOL="/s")
    document = json.loads(result.stdout)
    assert {"value": "********", "source": "environment"} == document["stream_key"]
    assert {"value": "/s", "source": "environment"} == document["spool"]
    assert {"value": None, "source": "default"} == document["tls"]
    assert {"value": 8443, "source": "default"} == document["port"]
    assert 0 == result.returncode
    assert "hush" not in result.stdout + result.stderr
    assert "--self-signed" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "choose one of --tls CERT KEY, --self-signed and --no-tls"),
        (["--no-tls"], "no token is configured"),
        (["--no-tls", "--demo", "--host", "0.0.0.0"], "--behind-proxy"),  # noqa: S104  refused
        (["--config", "none.toml"], "cannot read none.toml: No such file or directory"),
    ],
)
def test_serve_refuses_with_one_line(arguments: list[str], expected: str) -> None:
    """Settings that must not be served with end with 3 before anything is started."""
    result = run("serve", *arguments)
    assert (3, "") == (result.returncode, result.stdout)
    assert 1 == len(result.stderr.splitlines())
    assert result.stderr.startswith("receiver: ")
    assert expected in result.stderr


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (3, ["serve", "--config", "file"]),
        (3, ["serve", "--demo", "--tls", "file", "file"]),
        (3, ["token", "tap", "--all", "--tap-key-file", "file"]),
        (3, ["listen", "CA1", "--token-file", "file"]),
        (3, ["listen", "CA1", "--ca-file", "file"]),
        (3, ["forward", "CA1", "ws://127.0.0.1:9", "--forward-token-file", "file"]),
        (3, ["forward", "CA1", "wss://127.0.0.1:9", "--consumer-ca-file", "file"]),
        (6, ["render", "file"]),
    ],
)
def test_a_file_is_judged_by_who_reads_it(
    monkeypatch: pytest.MonkeyPatch, code: int, arguments: list[str]
) -> None:
    """Its permissions are no matter of usage; as root they are not checked."""
    Path("file").write_text("[junk")
    monkeypatch.setenv("TAPREEL_TAP_TOKENS", "tap-token-of-the-tests")
    program = (
        "import os, sys; os.access = lambda *_: False;"
        "from receiver.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
    )

    assert (code, "") == (ended.returncode, ended.stdout)
    assert 1 == ended.stderr.count("\n")
