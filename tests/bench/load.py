"""The load: many calls at once, paced like real ones, from bytes prepared beforehand.

Runs as a process of its own, on a processor of its own. Every call sends one chunk per track
each 20 ms; tracks and calls are spread evenly, so hardly any two chunks arrive together and
each costs the receiver a wake-up: the worst case. It prints `ready`, waits for a line, prints
`begin` and `end` around the measured seconds, then prints one JSON object.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import os
import random
import resource
import socket
import ssl
import struct
import sys
import time
from typing import Final

from tests.bounds import at_most

PACKET_SECONDS: Final = 0.02
TRACKS: Final = ("inbound", "outbound")
PAYLOAD_BYTES: Final = 160
WAIT_SECONDS: Final = at_most(20.0)
_SPIN_SECONDS: Final = 0.0002  # a sleep ends this much too late; the rest is spun away


def masked_message(text: bytes, source: random.Random) -> bytes:
    """Return one WebSocket text message as a client puts it on the wire."""
    mask = source.randbytes(4)
    size = len(text)
    head = struct.pack(">BB", 0x81, 0x80 | size) if size < 126 else b""
    head = head or struct.pack(">BBH", 0x81, 0x80 | 126, size)
    repeated = (mask * (size // 4 + 1))[:size]
    mixed = int.from_bytes(text, "big") ^ int.from_bytes(repeated, "big")
    return head + mask + mixed.to_bytes(size, "big")


def prepare_chunks(ticks: int, source: random.Random) -> list[tuple[bytes, ...]]:
    """Return, per 20 ms, one media message for each track."""
    prepared = []
    for tick in range(ticks):
        messages = []
        for index, track in enumerate(TRACKS):
            payload = base64.b64encode(source.randbytes(PAYLOAD_BYTES)).decode()
            media = {"track": track, "chunk": str(tick + 1), "timestamp": str(tick * 20)}
            document = {
                "event": "media",
                "sequenceNumber": str(tick * len(TRACKS) + index + 2),
                "media": {**media, "payload": payload},
            }
            text = json.dumps(document, separators=(",", ":")).encode()
            messages.append(masked_message(text, source))
        prepared.append(tuple(messages))
    return prepared


def start_message(call: int, source: random.Random) -> bytes:
    """Return what opens one call's stream."""
    connected = {"event": "connected", "protocol": "Call", "version": "0.2.0"}
    start = {
        "event": "start",
        "sequenceNumber": "1",
        "start": {
            "streamSid": f"stream-{call}",
            "accountSid": "account",
            "callSid": f"call-{call}",
            "tracks": list(TRACKS),
            "customParameters": {"number": str(call)},
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        },
    }
    return b"".join(masked_message(json.dumps(m).encode(), source) for m in (connected, start))


class Load:
    """All calls of one run."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._token = os.environ.get("BENCH_TOKEN", "")
        self._source = random.Random(5)
        self._trust = ssl.create_default_context(cafile=options.tls) if options.tls else None
        ticks = int((options.warm + options.seconds) / PACKET_SECONDS) + 1
        self._chunks = prepare_chunks(ticks, self._source)
        self._sockets: list[socket.socket] = []
        self._late: list[float] = []

    def open(self) -> None:
        """Open every stream, up to and including its start message."""
        for call in range(self._options.calls):
            stream = self._dial()
            stream.sendall(start_message(call, self._source))
            self._sockets.append(stream)

    def _dial(self) -> socket.socket:
        stream = socket.create_connection(("127.0.0.1", self._options.port), WAIT_SECONDS)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._trust is not None:
            stream = self._trust.wrap_socket(stream, server_hostname="localhost")
        key = base64.b64encode(self._source.randbytes(16)).decode()
        stream.sendall(
            b"GET /audio HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            + f"Sec-WebSocket-Key: {key}\r\nAuthorization: Bearer {self._token}\r\n\r\n".encode()
        )
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            part = stream.recv(1)
            if not part:
                break
            answer += part
        if not answer.startswith(b"HTTP/1.1 101 "):
            raise SystemExit(f"the subject refused a stream: {answer[:60]!r}")
        return stream

    def play(self) -> int:
        """Send everything at its time; return how many chunks fell into the measured seconds."""
        warm_ticks = int(self._options.warm / PACKET_SECONDS)
        slots = self._slots()
        began = time.monotonic()
        for tick, messages in enumerate(self._chunks):
            if tick == warm_ticks:
                self._late.clear()
                report("begin")
            for offset, track, stream in slots:
                self._wait_until(began + tick * PACKET_SECONDS + offset)
                stream.sendall(messages[track])
        report("end")
        return (len(self._chunks) - warm_ticks) * len(slots)

    def _slots(self) -> list[tuple[float, int, socket.socket]]:
        """Return when in each 20 ms every call sends which track: evenly spread."""
        count = len(self._sockets) * len(TRACKS)
        return [
            (PACKET_SECONDS * slot / count, slot // len(self._sockets), stream)
            for slot, stream in enumerate(self._sockets * len(TRACKS))
        ]

    def _wait_until(self, due: float) -> None:
        left = due - time.monotonic()
        self._late.append(max(0.0, -left))
        if left > _SPIN_SECONDS:
            time.sleep(left - _SPIN_SECONDS)
        while time.monotonic() < due:
            pass

    def close(self) -> None:
        """End every stream, regularly but without waiting."""
        stop = masked_message(b'{"event":"stop"}', self._source)
        for stream in self._sockets:
            with contextlib.suppress(OSError):
                stream.sendall(stop + b"\x88\x82\0\0\0\0\x03\xe8")
                stream.close()

    @property
    def late_p99_ms(self) -> float:
        """Return how late all but one in a hundred messages were at most."""
        late = sorted(self._late)
        return round(late[int(len(late) * 0.99)] * 1000, 2) if late else 0.0


def report(line: str) -> None:
    """Write a line to the process that started us."""
    print(line, flush=True)  # noqa: T201  stdout is how the two processes talk


def main() -> None:
    """Run one load by the arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--warm", type=float, default=1)
    parser.add_argument("--tls", metavar="CA")
    parser.add_argument("--processor", type=int, default=-1)
    options = parser.parse_args()
    if options.processor >= 0:
        os.sched_setaffinity(0, {options.processor})
    files = options.calls + 64
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(files, limit[0]), limit[1]))
    load = Load(options)
    load.open()
    report("ready")
    sys.stdin.readline()
    chunks = load.play()
    report(json.dumps({"chunks": chunks, "late_p99_ms": load.late_p99_ms}))
    sys.stdin.readline()
    load.close()


if __name__ == "__main__":
    main()
