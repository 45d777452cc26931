"""A receiver whose calls can be listened to, and listeners that share no code with it."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.end_to_end import sender
from tests.end_to_end.receiver_process import WAIT_SECONDS, ReceiverProcess, running_receiver

TAP_TOKEN = "a-tap-token-for-tests"
TAP_KEY = "a-tap-key-for-tests-of-32-letters"
BEARER = {"Authorization": f"Bearer {TAP_TOKEN}"}
CALL = f"/{sender.CALL_SID}"


def secret_file(path: Path, content: str) -> Path:
    """Write a file that only we can read."""
    path.write_text(content + "\n")
    path.chmod(0o600)
    return path


@contextlib.contextmanager
def tapped_receiver(folder: Path, *options: str) -> Iterator[ReceiverProcess]:
    """Run a receiver that accepts `TAP_TOKEN`, and tap tokens signed with `TAP_KEY`."""
    tokens = secret_file(folder / "tap-tokens", TAP_TOKEN)
    keys = secret_file(folder / "tap-keys", TAP_KEY)
    files = ("--tap-token-file", str(tokens), "--tap-key-file", str(keys))
    with stopping_receiver(folder, *files, *options) as process:
        yield process


@contextlib.contextmanager
def stopping_receiver(folder: Path, *options: str) -> Iterator[ReceiverProcess]:
    """Run a receiver that ends by itself when it is asked to, as it should whoever listens."""
    with running_receiver(folder, *options) as process:
        yield process
        if process.process.poll() is None:
            assert 0 == process.stop(signal.SIGINT)
            assert "Traceback" not in process.raw_log


def tap_url(process: ReceiverProcess, rest: str = "") -> str:
    """Return the URL of something under `/tap`."""
    return process.url.removesuffix("/audio") + "/tap" + rest


def open_tap(
    process: ReceiverProcess, rest: str, *, token: str | None = TAP_TOKEN
) -> ClientConnection:
    """Open a tap as a listener."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return connect(
        tap_url(process, rest),
        additional_headers=headers,
        compression=None,
        proxy=None,
        max_queue=None,  # reads whatever comes, while the test is busy
        legacy=True,  # no `with` yet: listeners are opened by the dozen
    )


def ask(
    process: ReceiverProcess, rest: str = "", *, token: str | None = TAP_TOKEN
) -> tuple[int, str]:
    """Return status and body of a plain GET."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = tap_url(process, rest).replace("ws", "http", 1)
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  http, on loopback
    try:
        with urllib.request.urlopen(request) as answer:  # noqa: S310  http, on loopback
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read().decode()


def read_event(socket: ClientConnection) -> dict[str, Any]:
    """Return the next message, which is a text."""
    message = socket.recv(timeout=WAIT_SECONDS)
    assert isinstance(message, str)
    document: dict[str, Any] = json.loads(message)
    return document


def read_all(socket: ClientConnection) -> list[bytes | str]:
    """Return all messages up to the end of the connection."""
    return list(socket)


def audio_of(messages: list[bytes | str]) -> bytes:
    """Return the binary ones, one behind the other."""
    return b"".join(message for message in messages if isinstance(message, bytes))


def texts_of(messages: list[bytes | str]) -> list[dict[str, Any]]:
    """Return the texts."""
    return [json.loads(message) for message in messages if isinstance(message, str)]


def wait_for_sockets(receiver: ReceiverProcess, count: int) -> None:
    """Wait until so many sockets to a receiver are open."""
    deadline = time.monotonic() + WAIT_SECONDS
    local = f":{receiver.port:04X}"
    while time.monotonic() < deadline:
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        if sum(row[1].endswith(local) and row[3] == "01" for row in rows) >= count:
            return
        time.sleep(0.02)  # there is no event for when another process has connected
    raise AssertionError("no listener connected")


def payload(track: str, number: int) -> bytes:
    """Return the payload of a chunk, different for each track and number."""
    return random.Random(f"{track} {number}").randbytes(160)


@contextlib.contextmanager
def start_call(receiver: ReceiverProcess, **parameters: str) -> Iterator[ClientConnection]:
    """Start a call, and wait until the receiver has opened its stream."""
    with sender.dial(receiver.url) as call:
        sender.send_call(call, [sender.connected(), sender.start(parameters)])
        receiver.wait_for("stream_started")
        yield call


def send_chunks(call: ClientConnection, numbers: range) -> None:
    """Send chunks, those of both tracks at once."""
    for number in numbers:
        both = (
            sender.media(track, number, payload(track, number), sequence=number)
            for track in ("inbound", "outbound")
        )
        sender.send_at_once(call, both)
