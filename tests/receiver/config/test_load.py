"""Loading settings: which source wins, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from receiver.config.settings import SETTINGS, Config, Source, load
from receiver.errors import ConfigurationError
from receiver.media import ByteOrder


def toml(folder: Path, text: str) -> Path:
    """Write a settings file."""
    file = folder / "tapreel.toml"
    file.write_text(text, "utf-8")
    return file


def load_error(**arguments: Any) -> str:
    """Return the text of the error that `load` raises."""
    with pytest.raises(ConfigurationError) as caught:
        load(arguments.pop("flags", {}), **({"environ": {}} | arguments))
    assert 3 == caught.value.exit_code
    return str(caught.value)


def test_the_defaults() -> None:
    """Without any source every setting has its default as its source."""
    config = load({}, environ={})
    assert Config() == config
    assert ("127.0.0.1", 8443, Path("recordings")) == (config.host, config.port, config.recordings)
    assert (Path("recordings/.spool"), Path(".tapreel")) == (config.spool, config.state)
    assert (500, 90, 262144, 5, 1000) == (
        config.sync_interval_ms,
        config.idle_timeout_seconds,
        config.max_message_bytes,
        config.handshake_timeout_seconds,
        config.max_streams,
    )
    assert ByteOrder.LITTLE is config.byte_order
    assert {Source.DEFAULT} == {config.source(name) for name in SETTINGS}


def test_the_higher_source_wins(tmp_path: Path) -> None:
    """Flag over environment over file, setting by setting."""
    file = toml(tmp_path, 'port = 1\nhost = "::1"\nmax_streams = 3\nstereo = true\n')
    environ = {"TAPREEL_PORT": "2", "TAPREEL_HOST": "localhost", "TAPREEL_LOG_LEVEL": " "}
    config = load({"port": 4, "host": None}, environ=environ, file=file)
    assert (4, Source.FLAG) == (config.port, config.source("port"))
    assert ("localhost", Source.ENVIRONMENT) == (config.host, config.source("host"))
    assert (3, Source.FILE) == (config.max_streams, config.source("max_streams"))
    assert (True, Source.FILE) == (config.stereo, config.source("stereo"))
    assert ("info", Source.DEFAULT) == (config.log_level, config.source("log_level"))


def test_the_spool_follows_the_recordings() -> None:
    """The spool is inside the recordings folder unless it is set."""
    assert Path("/r/.spool") == load({"recordings": Path("/r")}, environ={}).spool
    assert Path("/s") == load({}, environ={"TAPREEL_RECORDINGS": "/r", "TAPREEL_SPOOL": "/s"}).spool


def test_every_type_of_value_can_come_from_everywhere(tmp_path: Path) -> None:
    """Numbers, switches, choices, paths and pairs are the same from environment and file."""
    environ = {
        "TAPREEL_IDLE_TIMEOUT_SECONDS": "1.5",
        "TAPREEL_BEHIND_PROXY": "Yes",
        "TAPREEL_DEMO": "off",
        "TAPREEL_BYTE_ORDER": "auto",
        "TAPREEL_STATE": "~/state",
        "TAPREEL_TLS": "a cert.pem,key.pem",
    }
    text = (
        "idle_timeout_seconds = 1.5\nbehind_proxy = true\ndemo = false\n"
        'byte_order = "auto"\nstate = "~/state"\ntls = ["a cert.pem", "key.pem"]\n'
    )
    one = load({}, environ=environ)
    other = load({}, environ={}, file=toml(tmp_path, text))
    for name in ("idle_timeout_seconds", "behind_proxy", "demo", "byte_order", "state", "tls"):
        assert getattr(one, name) == getattr(other, name)
    assert (Path("a cert.pem"), Path("key.pem")) == one.tls
    assert ByteOrder.AUTO is one.byte_order
    assert Path.home() / "state" == one.state


def test_a_pair_can_be_a_table_or_two_words(tmp_path: Path) -> None:
    """Certificate and key can be named in the file, and written apart in the environment."""
    expected = (Path("c.pem"), Path("k.pem"))
    file = toml(tmp_path, '[tls]\nkey = "k.pem"\ncert = "c.pem"\n')
    assert expected == load({}, environ={}, file=file).tls
    assert expected == load({}, environ={"TAPREEL_TLS": " c.pem  k.pem "}).tls


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("PORT", "high", "a whole number from 0 to 65535"),
        ("PORT", "65536", "a whole number from 0 to 65535"),
        ("IDLE_TIMEOUT_SECONDS", "nan", "a number of seconds from 1 to 86400"),
        ("DEMO", "maybe", "true or false"),
        ("BYTE_ORDER", "middle", "little or big or auto"),
        ("TLS", "cert.pem", "two paths, certificate and key"),
        ("HOST", "a\nb", "a text"),
        ("STATE", "~no-such-user/x", "a path"),
    ],
)
def test_wrong_variables_are_named(name: str, value: str, expected: str) -> None:
    """The error names the variable and what it must be, not the value."""
    assert f"TAPREEL_{name} must be {expected}" == load_error(environ={f"TAPREEL_{name}": value})


@pytest.mark.parametrize(
    "line", ['port = "8443"', "port = 8443.0", "port = true", 'demo = "yes"', "host = 1", "tls = 1"]
)
def test_wrong_types_in_the_file_are_named(tmp_path: Path, line: str) -> None:
    """The error names file and key."""
    file = toml(tmp_path, line)
    name = line.partition(" ")[0]
    expected = f"{file}: {name} must be {SETTINGS[name].value_type.expected}"
    assert expected == load_error(file=file)


def test_wrong_flags_are_named() -> None:
    """The error names the flag as it is typed."""
    expected = "--max-streams must be a whole number from 1 to 1000000"
    assert expected == load_error(flags={"max_streams": 0})


@pytest.mark.parametrize(
    ("key", "advice"),
    [
        ("prot", "did you mean port?"),
        ("quux", "remove it; `receiver config` lists all settings"),
        ("tokens", "keep secrets out of this file and name a file with token_file"),
        ("stream_key", "keep secrets out of this file"),
    ],
)
def test_unknown_keys_are_named(tmp_path: Path, key: str, advice: str) -> None:
    """A key that is no setting is refused, with what to do instead."""
    file = toml(tmp_path, f'{key} = "hush-hush-hush-hush"')
    message = load_error(file=file)
    assert message.startswith(f"{file}: unknown setting '{key}': {advice}")
    assert "hush" not in message


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    """A missing file, a folder, bytes and broken TOML each give one line."""
    missing = tmp_path / "none.toml"
    assert f"cannot read {missing}: No such file or directory" == load_error(file=missing)
    assert f"cannot read {tmp_path}: Is a directory" == load_error(file=tmp_path)
    broken = toml(tmp_path, "port =")
    assert load_error(file=broken).startswith(f"{broken} is not TOML: ")
    broken.write_bytes(b"\xff")
    assert load_error(file=broken).startswith(f"{broken} is not TOML: ")


def test_alternatives_come_from_one_source(tmp_path: Path) -> None:
    """The highest source that chooses among alternatives overrules the others' choice."""
    file = toml(tmp_path, 'self_signed = true\ntoken_file = "t"\nstream_key_file = "k"')
    environ = {"TAPREEL_NO_TLS": "1", "TAPREEL_TOKENS": "x" * 16}
    config = load({"tls": ("c", "k")}, environ=environ, file=file)
    assert ((Path("c"), Path("k")), False, False) == (config.tls, config.no_tls, config.self_signed)
    assert ("x" * 16, None) == (config.tokens, config.token_file)
    assert Path("k") == config.stream_key_file
    assert None is load({"token_file": Path("f")}, environ=environ, file=file).tokens
    assert load({"no_tls": False}, environ={}, file=file).self_signed
