"""Floods by one peer, while twenty others stream."""

from __future__ import annotations

import base64
import contextlib
import os
import resource
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bounds import at_most
from tests.end_to_end import sender
from tests.end_to_end.receiver_process import TOKEN
from tests.faults.accounting import Tally
from tests.faults.calls import Callers
from tests.faults.trial import Trial
from tests.faults.watching import Watch

STREAMS = 20
MOST_GROWTH_BYTES = 48 * 2**20
CONNECTIONS = 2000
IDLE_SECONDS = 4
"""When a stream without media is cut in these trials; 90 s in production."""
MOST_SECONDS = at_most(15.0)
"""How long a flood goes on if its peer is not cut."""
LEAST_SECONDS = 2.0
"""For so long a peer that is cut connects again."""
LONGEST_ANSWER_SECONDS = at_most(1.0)
"""The longest allowed wait for `/healthz` while an admitted peer floods."""
Attack = Callable[[int], bool]
"""Attacks the receiver at a port; returns whether the peer was cut."""
_MASK = bytes(4)
_TEXT, _CONTINUED, _PING, _PONG, _FINAL = 1, 0, 9, 10, 0x80


def dial(port: int) -> socket.socket:
    """Open a TCP connection that never waits again."""
    tcp = socket.create_connection(("127.0.0.1", port), timeout=at_most(5))
    tcp.setblocking(False)
    return tcp


def upgraded(port: int) -> socket.socket:
    """Open a stream's WebSocket by hand."""
    tcp = socket.create_connection(("127.0.0.1", port), timeout=at_most(5))
    key = base64.b64encode(os.urandom(16)).decode()
    tcp.sendall(
        f"GET /audio HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
        f"Authorization: Bearer {TOKEN}\r\n\r\n".encode()
    )
    answer = tcp.recv(4096)
    assert answer.startswith(b"HTTP/1.1 101"), answer
    tcp.setblocking(False)
    return tcp


def piece(first_byte: int, payload: bytes, *, claimed: int | None = None) -> bytes:
    """Return one WebSocket frame, masked with zeros; its length may be a lie."""
    length = len(payload) if claimed is None else claimed
    if length < 126:
        head = struct.pack("!BB", first_byte, 0x80 | length)
    else:
        head = struct.pack("!BBQ", first_byte, 0x80 | 127, length)
    return head + _MASK + payload


def pour(tcp: socket.socket, block: Callable[[], bytes], *, seconds: float) -> bool:
    """Send without reading until the peer cuts us; return whether it did in time."""
    over = time.monotonic() + seconds
    rest = b""
    while time.monotonic() < over:
        if _is_cut(tcp):
            return True
        _, writable, _ = select.select([], [tcp], [], 0.05)
        try:
            rest = rest or block()
            if writable:
                rest = rest[tcp.send(rest) :]
        except BlockingIOError:
            continue
        except OSError:
            return True
    return False


def _is_cut(tcp: socket.socket) -> bool:
    """Whether the other end has closed; what it sent before stays unread."""
    poll = select.poll()
    poll.register(tcp, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
    return bool(poll.poll(0))


def pings(port: int) -> bool:
    """Pings from a peer that never reads the pongs."""
    block = piece(_FINAL | _PING, b"x" * 100) * 200
    with upgraded(port) as tcp:
        return pour(tcp, lambda: block, seconds=MOST_SECONDS)


def tiny_fragments(port: int) -> bool:
    """A message in pieces of one byte that never ends."""
    with upgraded(port) as tcp:
        tcp.send(piece(_TEXT, b"{"))
        return pour(tcp, lambda: piece(_CONTINUED, b" ") * 2000, seconds=MOST_SECONDS)


def _repeat(port: int, units: bytes) -> bool:
    """Start a stream, then send the same units as fast as they are taken."""
    block = units * (65_536 // len(units))
    with upgraded(port) as tcp:
        tcp.send(piece(_FINAL | _TEXT, sender.start(stream_sid="flood").encode()))
        return pour(tcp, lambda: block, seconds=MOST_SECONDS)


def empty_pongs(port: int) -> bool:
    """The smallest units there are."""
    return _repeat(port, piece(_FINAL | _PONG, b""))


def empty_fragments(port: int) -> bool:
    """Messages of two fragments, one of them empty."""
    return _repeat(port, piece(_TEXT, b"{}") + piece(_FINAL | _CONTINUED, b""))


def empty_messages(port: int) -> bool:
    """Messages that cannot be used."""
    return _repeat(port, piece(_FINAL | _TEXT, b""))


def unknown_events(port: int) -> bool:
    """Good messages of no known kind."""
    return _repeat(port, piece(_FINAL | _TEXT, b'{"event":"x"}'))


def marks(port: int) -> bool:
    """Good messages that belong into the recording."""
    return _repeat(port, piece(_FINAL | _TEXT, b'{"event":"mark","mark":{"name":"x"}}'))


def short_streams(port: int) -> bool:
    """Recordings that end when they have begun."""
    start, stop = sender.start(stream_sid="flood").encode(), sender.stop().encode()
    return _repeat(port, piece(_FINAL | _TEXT, start) + piece(_FINAL | _TEXT, stop))


def oversized_message(port: int) -> bool:
    """A message with a header for 100 MiB."""
    head = [piece(_FINAL | _TEXT, b"", claimed=100 * 2**20)]
    with upgraded(port) as tcp:
        return pour(tcp, lambda: head.pop() if head else b" " * 65536, seconds=MOST_SECONDS)


def huge_headers(port: int) -> bool:
    """A request that never comes to its end, fast."""
    head = [b"GET /audio HTTP/1.1\r\nHost: x\r\n"]

    def more() -> bytes:
        return head.pop() if head else b"X-Padding: " + b"x" * 4000 + b"\r\n"

    with dial(port) as tcp:
        return pour(tcp, more, seconds=MOST_SECONDS)


def slow_headers(port: int) -> bool:
    """A hundred requests that come byte by byte."""
    request = b"GET /audio HTTP/1.1\r\nHost: x\r\nX-Padding: " + b"x" * 100
    with _many(port, 100) as sockets:
        for byte in request:
            if all(map(_is_cut, sockets)):
                return True
            for tcp in sockets:
                with contextlib.suppress(OSError):
                    tcp.send(bytes([byte]))
            time.sleep(0.1)  # the slowness is the fault
        return False


def idle_connects(port: int) -> bool:
    """Thousands of connections that never send a byte."""
    over = time.monotonic() + MOST_SECONDS
    with _many(port, CONNECTIONS) as sockets:
        while time.monotonic() < over:
            if all(map(_is_cut, sockets)):
                return True
            time.sleep(0.1)  # there is no event for when the last one is cut
        return False


@contextlib.contextmanager
def _many(port: int, count: int) -> Iterator[list[socket.socket]]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * count + 500)), hard))
    with contextlib.ExitStack() as stack:
        sockets = []
        for _ in range(count):
            with contextlib.suppress(OSError):  # refused is as good as cut
                sockets.append(stack.enter_context(dial(port)))
        yield sockets
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _insist(attack: Attack, port: int) -> bool:
    """Connect again whenever we are cut, for a while; return whether we were each time."""
    over = time.monotonic() + LEAST_SECONDS
    while attack(port):
        if time.monotonic() >= over:
            return True
    return False


ADMITTED = (
    *(pings, tiny_fragments, oversized_message, empty_pongs, empty_fragments, empty_messages),
    *(unknown_events, marks, short_streams),
)
"""Floods by peers that were admitted."""
FLOODS = (*ADMITTED, huge_headers, slow_headers, idle_connects)


def flood(folder: Path, seed: int, *, streams: int = STREAMS) -> Tally:
    """One kind of flood: its peer is cut, memory stays, and no other stream has a gap."""
    attack = FLOODS[seed % len(FLOODS)]
    with Trial(folder) as trial:
        receiver = trial.start("--idle-timeout-seconds", str(IDLE_SECONDS))
        with Callers(receiver.url, streams, seed) as callers:
            callers.wait_for(100)
            with Watch(receiver) as watch:
                cut = _insist(attack, receiver.port)
            callers.wait_for(len(callers.streams[0].chunks) + 50)
        trial.wait_until_published()
        tally = trial.account(callers.streams)
        tally.problems[:] = [p for p in tally.problems if "who never called" not in p]
        tally.expect(cut, f"{attack.__name__}: the peer was not cut")
        grown = watch.growth_bytes
        tally.expect(grown < MOST_GROWTH_BYTES, f"{attack.__name__}: memory grew by {grown}")
        if attack in ADMITTED:
            waited = watch.slowest_seconds
            tally.expect(waited < LONGEST_ANSWER_SECONDS, f"{attack.__name__}: {waited:.1f} s")
        tally.figures.append(f"{attack.__name__}: {watch.figures}")
        return tally
