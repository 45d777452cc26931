"""`receiver listen`, `forward` and `token`: what they write, and how they refuse."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import wave
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import jwt
import numpy as np
import pytest
from click.testing import CliRunner
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from receiver.auth.tap_tokens import Scope, TapTokens
from receiver.cli.main import main
from receiver.cli.main import receiver as receiver_command
from tests.bounds import at_most
from tests.receiver.helpers.tap_messages import SAMPLES, STOPPED, gap, started

pytestmark = pytest.mark.integration

TOKEN = "a-tap-token-for-tests"
KEY = "k" * 32


@pytest.fixture
def tap() -> Iterator[str]:
    """Run a made-up receiver; return its address."""

    def play(connection: ServerConnection) -> None:
        assert connection.request is not None
        stereo = "track=stereo" in connection.request.path
        channels = 2 if stereo else 1
        lines = [
            started(channels=channels),
            SAMPLES.tobytes() * channels,
            gap("slow_listener"),
            gap("lost"),
            SAMPLES.tobytes() * channels,
            STOPPED,
        ]
        path = connection.request.path
        if "/tap/0011" in path:
            connection.close(4404)  # a client that returns finds nothing
            return
        for line in lines[:2] if "ENDLESS" in path or "LOST" in path else lines:
            connection.send(line if isinstance(line, bytes) else json.dumps(line))
        if "LOST" in path:
            connection.close(1011)
        with suppress(ConnectionClosed):
            while "ENDLESS" in path:
                connection.send(SAMPLES.tobytes())

    with serve(play, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join()


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "receiver", *arguments],
        capture_output=True,
        env={**os.environ, "TAPREEL_TAP_TOKENS": TOKEN, **environment},
    )


def test_listen_writes_samples_and_keeps_the_clock(tap: str) -> None:
    """What the tap did not send because we were slow is silence; lost audio came as such."""
    ended = run("listen", "CA1", "--format", "pcm16", "--receiver", tap)
    assert 0 == ended.returncode, ended.stderr
    expected = [*SAMPLES, *[0] * 320, *SAMPLES]
    assert expected == np.frombuffer(ended.stdout, "<i2").tolist()
    assert b"slow_listener" in ended.stderr


def test_listen_says_when_the_end_was_missed(tap: str) -> None:
    """What came is written; stderr has a line that more may have followed."""
    ended = run("listen", "LOST", "--format", "pcm16", "--receiver", tap)
    assert (0, SAMPLES.tobytes()) == (ended.returncode, ended.stdout)
    assert b"receiver: the stream ended while the connection was broken\n" == ended.stderr


@pytest.mark.parametrize("command", [("listen", "CA1"), ("forward", "CA1", "ws://127.0.0.1:9/x")])
def test_commands_that_decode_no_samples_load_no_numpy(tap: str, command: Sequence[str]) -> None:
    """They pass bytes on, and start sooner for it; Python itself lists what it imports."""
    ended = run(*command, "--receiver", tap, PYTHONPROFILEIMPORTTIME="1")
    assert b"receiver.transports.client" in ended.stderr
    assert b"numpy" not in ended.stderr


@contextmanager
def endless(tap: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run `receiver listen` on a call without end, and wait for its first sound."""
    command = [sys.executable, "-m", "receiver", "listen", "ENDLESS", "--receiver", tap]
    environment = {**os.environ, "TAPREEL_TAP_TOKENS": TOKEN}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as running:
        assert running.stdout is not None
        assert b"RIFF" == running.stdout.read(4)
        yield running


def test_ctrl_c_ends_listening(tap: str) -> None:
    """With the usual exit code, and no traceback."""
    with endless(tap) as running:
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=at_most(30))
    assert (130, b"") == (running.returncode, errors.strip())


def test_listening_ends_with_the_program_behind_the_pipe(tap: str) -> None:
    """As after `| head`: quietly, with the exit code that shells give for SIGPIPE."""
    with endless(tap) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        assert b"" == running.stderr.read()
        assert 141 == running.wait(at_most(30))


@pytest.mark.parametrize(("track", "channels"), [("inbound", 1), ("stereo", 2)])
def test_listen_writes_wav(tap: str, track: str, channels: int) -> None:
    """With a header of unknown length, as programs that read pipes accept it."""
    ended = run("listen", "CA1", "--track", track, "--receiver", tap)
    head, samples = ended.stdout[:44], ended.stdout[44:]
    known = head[:40] + len(samples).to_bytes(4, "little") + samples
    with wave.open(io.BytesIO(known)) as read:
        assert (channels, 2, 8000, 640) == read.getparams()[:4]


def listening_into(
    file: Path, tap: str, call: str, *, mode: str = "wb", before: Sequence[str] = ()
) -> subprocess.Popen[bytes]:
    """Start `receiver listen`, by the program `before` it, with stdout in a file."""
    command = [*before, sys.executable, "-m", "receiver", "listen", call, "--receiver", tap]
    environment = {**os.environ, "TAPREEL_TAP_TOKENS": TOKEN}
    with file.open(mode) as output:
        return subprocess.Popen(command, stdout=output, env=environment, stderr=subprocess.PIPE)


def test_the_head_of_a_file_has_its_length(tap: str, tmp_path: Path) -> None:
    """A file can be completed at the end, where a pipe cannot."""
    file = tmp_path / "call.wav"
    listening_into(file, tap, "CA1").communicate(timeout=at_most(30))
    with wave.open(str(file)) as read:
        assert 640 == read.getnframes()
    assert file.stat().st_size - 8 == int.from_bytes(file.read_bytes()[4:8], "little")


@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_file_is_completed_after_a_signal_too(
    tap: str, tmp_path: Path, number: signal.Signals, exit_code: int
) -> None:
    """How else would a call be left that goes on?"""
    file = tmp_path / "call.wav"
    running = listening_into(file, tap, "ENDLESS")
    while file.stat().st_size < 10_000:
        assert running.poll() is None
    running.send_signal(number)
    _, errors = running.communicate(timeout=at_most(30))
    assert (exit_code, b"") == (running.returncode, errors.strip())
    with wave.open(str(file)) as read:
        assert (file.stat().st_size - 44) // 2 == read.getnframes()


def test_nohup_is_obeyed(tap: str, tmp_path: Path) -> None:
    """A hang-up that the parent process ignores ends nothing; other signals still do."""
    file = tmp_path / "call.wav"
    with listening_into(file, tap, "ENDLESS", before=["nohup"]) as running:
        for number in (signal.SIGHUP, signal.SIGTERM):
            until = file.stat().st_size + 10_000
            while file.stat().st_size < until:
                assert running.poll() is None
            running.send_signal(number)
        running.communicate(timeout=at_most(30))
    assert 143 == running.returncode
    with wave.open(str(file)) as read:
        assert (file.stat().st_size - 44) // 2 == read.getnframes()


def test_a_file_that_is_appended_to_is_left_alone(tap: str, tmp_path: Path) -> None:
    """What was there before is not written over."""
    file = tmp_path / "calls"
    file.write_bytes(bytes(100))
    listening_into(file, tap, "CA1", mode="ab").communicate(timeout=at_most(30))
    content = file.read_bytes()
    assert (bytes(100), b"RIFF\xff\xff\xff\xff") == (content[:100], content[100:108])
    assert 100 + 44 + 2 * 640 == len(content)


def test_a_closed_stdout_is_one_clear_error(tap: str) -> None:
    """Not a traceback."""
    command = f'"{sys.executable}" -m receiver listen CA1 --receiver {tap} >&-'
    environment = {**os.environ, "TAPREEL_TAP_TOKENS": TOKEN}
    ended = subprocess.run(command, shell=True, stderr=subprocess.PIPE, env=environment)  # noqa: S602  a shell closes it
    assert 2 == ended.returncode
    assert b"receiver: stdout is closed" in ended.stderr


@pytest.mark.parametrize(
    ("options", "exit_code", "expected"),
    [
        (["--receiver", "ws://127.0.0.1:9"], 7, "no connection"),
        (["--receiver", "ws://192.0.2.1"], 3, "needs wss"),
        (["--receiver", "http://x"], 3, "--receiver must be like"),
        (["--receiver", "wss://x:y"], 3, "--receiver must be like"),
        (["--token-file", "/nowhere"], 3, "cannot read"),
        (["--track", "left"], 2, "Invalid value"),
        (["--rate", "11025"], 2, "Invalid value"),
        (["--receiver", "wss://127.0.0.1:9", "--ca-file", "/nowhere"], 3, "no usable certificate"),
    ],
)
def test_listen_reports_what_is_wrong(options: list[str], exit_code: int, expected: str) -> None:
    """One line, the right exit code, nothing on stdout."""
    ended = run("listen", "CA1", *options)
    assert (exit_code, b"") == (ended.returncode, ended.stdout)
    assert expected in ended.stderr.decode()
    assert b"Traceback" not in ended.stderr


def test_listen_needs_a_token() -> None:
    """The error names where tokens are read from."""
    ended = run("listen", "CA1", TAPREEL_TAP_TOKENS="")
    assert 3 == ended.returncode
    assert b"--token-file" in ended.stderr


def test_audio_does_not_go_to_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would only make noise of another kind."""
    monkeypatch.setenv("TAPREEL_TAP_TOKENS", TOKEN)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert 2 == main(["listen", "CA1"])


@pytest.mark.parametrize(
    ("options", "scope"),
    [
        (["--call", "CA1"], Scope(call_sid="CA1")),
        (["--param", "Queue=a=b"], Scope(parameter=("Queue", "a=b"))),
        (["--all"], Scope()),
    ],
)
def test_tap_tokens_say_what_was_asked(tmp_path: Path, options: list[str], scope: Scope) -> None:
    """The receiver that holds the same key admits them."""
    key = tmp_path / "key"
    key.write_text(KEY)
    key.chmod(0o600)
    command = ["token", "tap", *options, "--ttl", "60", "--tap-key-file", str(key)]
    token = CliRunner().invoke(receiver_command, command).output.strip()
    claims = jwt.decode(token, KEY, ["HS256"], audience="tap")
    assert 60 == claims["exp"] - claims["iat"]
    assert scope == TapTokens([], [KEY]).admit((), token, now=claims["iat"]).scope


@pytest.mark.parametrize(
    "options",
    [[], ["--all", "--call", "CA1"], ["--param", "Queue"], ["--call", ""], ["--all", "--ttl", "0"]],
)
def test_tokens_for_nothing_in_particular_are_not_minted(options: list[str]) -> None:
    """Usage errors."""
    assert 2 == main(["token", "tap", *options])


def test_a_token_needs_a_key(capsys: pytest.CaptureFixture[str]) -> None:
    """Which is a secret, and so no argument."""
    assert 3 == main(["token", "tap", "--all"])
    assert "--tap-key-file" in capsys.readouterr().err


def test_forward_checks_its_consumer() -> None:
    """Before anything is dialled."""
    ended = run("forward", "CA1", "https://x", "--receiver", "ws://127.0.0.1:9")
    assert (3, b"") == (ended.returncode, ended.stdout)
    assert b"a consumer must be given as wss://HOST/PATH" in ended.stderr
    url = "wss://x/y#track=inbound&param.Queue=sales"
    ended = run("forward", "CA1", url, "--receiver", "ws://127.0.0.1:9")
    assert (3, b"") == (ended.returncode, ended.stdout)
    assert b"param.NAME=VALUE chooses calls" in ended.stderr
