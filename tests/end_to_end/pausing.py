"""Calls that are paused: a receiver that takes orders, a sender that never stops, and orders."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

from receiver.auth.bearer import mint_control
from tests.bounds import at_most
from tests.end_to_end import sender
from tests.end_to_end.receiver_process import TOKEN, ReceiverProcess, running_receiver
from tests.end_to_end.taps import secret_file, tapped_receiver

KEY = "a-control-key-for-tests-of-32-letters"
DIGITS = "4929-0661-7733"
MARKER = bytes((i * 37 + 11) % 128 for i in range(160))
"""A chunk that may be nowhere; its bytes are in no other one."""
SPEECH = bytes(128 + (i * 53 + 7) % 128 for i in range(160))


class Live:
    """A call whose sender never stops: a thread sends 20 ms of both tracks, each at its time."""

    def __init__(self, receiver: ReceiverProcess, *, call_sid: str = sender.CALL_SID) -> None:
        self.payload = SPEECH
        self.numbers: dict[bytes, list[int]] = {SPEECH: [], MARKER: []}
        self._receiver = receiver
        self._ending = threading.Event()
        self._sequence, self._number = 1, 0
        self.socket = connect(
            receiver.url,
            additional_headers={"Authorization": f"Bearer {TOKEN}"},
            compression=None,
            proxy=None,
            legacy=True,  # no `with`: it lives as long as the call
        )
        start = sender.start({"queue": "sales"}, call_sid=call_sid)
        sender.send_call(self.socket, [sender.connected(), start])
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def _send(self) -> None:
        began, ahead = time.monotonic(), 0
        with contextlib.suppress(Exception):  # the receiver was killed
            while not self._ending.wait(max(0.0, began + ahead * 0.02 - time.monotonic())):
                ahead += 1
                with self._lock:
                    self._send_chunk()

    def _send_chunk(self) -> None:
        self._number += 1
        for track in ("inbound", "outbound"):
            self._sequence += 1
            text = sender.media(track, self._number, self.payload, sequence=self._sequence)
            self.socket.send(text)
        self.numbers[self.payload].append(self._number)

    def press(self) -> None:
        """Press a key, and pass a mark of the same name."""
        for body in ({"event": "dtmf", "dtmf": {"digit": DIGITS}},):
            with self._lock:
                self._sequence += 1
                self.socket.send(json.dumps({**body, "sequenceNumber": str(self._sequence)}))

    def burst(self, count: int) -> None:
        """Send many chunks at once, as after a stall of the network."""
        with self._lock:
            for _ in range(count):
                self._send_chunk()

    def wait_for(self, payload: bytes, count: int) -> None:
        """Wait until so many chunks of one kind were sent."""
        deadline = time.monotonic() + at_most(60)
        while len(self.numbers[payload]) < count:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def hang_up(self) -> None:
        """Send stop, and close."""
        self._ending.set()
        self._thread.join()
        with contextlib.suppress(Exception):
            self._sequence += 1
            stop = {"event": "stop", "sequenceNumber": str(self._sequence)}
            self.socket.send(json.dumps(stop))
            self.socket.close()


@contextlib.contextmanager
def paused_receiver(
    folder: Path, *options: str, environment: dict[str, str] | None = None
) -> Iterator[ReceiverProcess]:
    """Run a receiver that takes orders."""
    key = secret_file(folder / "control-keys", KEY)
    orders = ("--control-key-file", str(key))
    if environment is not None:
        with running_receiver(folder, *orders, *options, environment=environment) as receiver:
            yield receiver
        return
    with tapped_receiver(folder, *orders, *options) as receiver:
        yield receiver


def order(receiver: ReceiverProcess, token: str, document: dict[str, Any]) -> dict[str, Any]:
    """Give an order with a token."""
    url = receiver.url.removesuffix("/audio") + "/control"
    headers = {"Authorization": f"Bearer {token}"}
    with connect(url, additional_headers=headers, proxy=None, compression=None) as socket:
        socket.send(json.dumps(document))
        answer: dict[str, Any] = json.loads(socket.recv(timeout=at_most(30)))
        return answer


def token(call_sid: str = sender.CALL_SID, *, jti: str | None = None, ttl: int = 60) -> str:
    """Return a control token."""
    now = time.time()
    jti = jti or str(time.monotonic_ns())
    return mint_control(KEY, call_sid, jti=jti, who="ann", now=now, ttl_seconds=ttl)


def pausing(**more: Any) -> dict[str, Any]:
    """Return an order to pause the call."""
    return {"order": "pause", "call_sid": sender.CALL_SID, **more}


def resuming() -> dict[str, Any]:
    """Return an order to resume it."""
    return {"order": "resume", "call_sid": sender.CALL_SID}
