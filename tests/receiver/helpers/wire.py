"""The other end, by hand: raw requests, messages and resets that no client library would send."""

from __future__ import annotations

import array
import asyncio
import base64
import contextlib
import ctypes
import fcntl
import os
import socket
import ssl
import struct
import termios
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from typing import Any

from receiver.transports.interface import Connection, Decision, HttpAnswer, UpgradeRequest
from tests.bounds import at_most

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
UPGRADE = (
    b"Host: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + base64.b64encode(bytes(16)) + b"\r\n"
)


def request(*headers: bytes, path: bytes = b"/audio", method: bytes = b"GET") -> bytes:
    """Return an upgrade request with `headers` added."""
    lines = b"".join(header + b"\r\n" for header in headers)
    return method + b" " + path + b" HTTP/1.1\r\n" + UPGRADE + lines + b"\r\n"


def frame(opcode: int, payload: bytes = b"", *, final: bool = True) -> bytes:
    """Return one masked frame (RFC 6455, section 5.2)."""
    mask = os.urandom(4)
    head = bytes([opcode | (0x80 if final else 0)])
    length = len(payload)
    if length < 126:
        head += bytes([0x80 | length])
    elif length < 65536:
        head += struct.pack(">BH", 0x80 | 126, length)
    else:
        head += struct.pack(">BQ", 0x80 | 127, length)
    repeated = (mask * (length // 4 + 1))[:length]
    mixed = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
    return head + mask + mixed.to_bytes(length, "big")


@dataclass
class KeepingPeer:
    """Keeps what it receives, in order; raises an error for messages that say so."""

    messages: list[bytes] = field(default_factory=list)
    ends: list[tuple[int, bool]] = field(default_factory=list)
    connection: Connection | None = None
    was_opened: asyncio.Event = field(default_factory=asyncio.Event)
    was_closed: asyncio.Event = field(default_factory=asyncio.Event)
    opening_fails: bool = False
    closing_fails: bool = False

    def opened(self, connection: Connection) -> None:
        """Keep the connection."""
        assert self.connection is None
        self.connection = connection
        self.was_opened.set()
        if self.opening_fails:
            raise ValueError("made to fail")

    def message_received(self, message: bytes) -> None:
        """Keep a message, or fail, or act on the connection as it says."""
        assert self.connection is not None
        assert not self.ends
        self.messages.append(message)
        if message == b"fail":
            raise ValueError("made to fail")
        if message == b"abort":
            self.connection.abort()
        if message.startswith(b"close"):
            self.connection.close(4000, message.decode())
            self.connection.close(4001, "again")

    def closed(self, *, code: int, clean: bool) -> None:
        """Keep the end."""
        self.ends.append((code, clean))
        self.was_closed.set()
        if self.closing_fails:
            raise ValueError("made to fail")


@dataclass
class KeepingPolicy:
    """Admits `/audio` and keeps every request and peer; `/fail` raises an error."""

    requests: list[UpgradeRequest] = field(default_factory=list)
    peers: list[KeepingPeer] = field(default_factory=list)
    opening_fails: bool = False
    closing_fails: bool = False
    admitted: asyncio.Event = field(default_factory=asyncio.Event)
    was_asked: asyncio.Event = field(default_factory=asyncio.Event)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    refusals: asyncio.Queue[tuple[str, str]] = field(default_factory=asyncio.Queue)
    details: list[str] = field(default_factory=list)  # of those refusals

    def count_refused(self, reason: str, remote_address: str, detail: str = "") -> None:
        """Keep a connection that was refused before a decision."""
        self.details.append(detail)
        self.refusals.put_nowait((reason, remote_address))

    def admit(self, request: UpgradeRequest) -> Decision | Coroutine[Any, Any, Decision]:
        """Keep the request, and answer by its path; below `/slow` only when `may_answer` is set."""
        self.requests.append(request)
        if request.path.startswith("/slow"):
            return self._admit_later(replace(request, path=request.path.removeprefix("/slow")))
        return self._admit(request)

    async def _admit_later(self, request: UpgradeRequest) -> Decision:
        self.was_asked.set()
        await self.may_answer.wait()
        return self._admit(request)

    def _admit(self, request: UpgradeRequest) -> Decision:
        if request.path == "/fail":
            raise ValueError("made to fail")
        if request.path != "/audio":
            return HttpAnswer(404, "nothing here\n", (("X-Kind", "test"), ("Date", "today")))
        peer = KeepingPeer(opening_fails=self.opening_fails, closing_fails=self.closing_fails)
        self.peers.append(peer)
        self.admitted.set()
        return peer


@dataclass
class Caller:
    """A socket to a listener, for a test to read and write."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def exchange(self, sent: bytes) -> bytes:
        """Send `sent` and return everything up to the end of the connection."""
        self.writer.write(sent)
        try:
            return await self.reader.read()
        except ConnectionError:
            return b""
        finally:
            await self.leave()

    async def upgrade(self, *headers: bytes) -> bytes:
        """Open a stream and return the answer's head."""
        self.writer.write(request(*headers))
        return await self.reader.readuntil(b"\r\n\r\n")

    async def leave(self) -> None:
        """Close the socket."""
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except (ConnectionError, ssl.SSLError):
            return


async def call(port: int, context: ssl.SSLContext | None) -> Caller:
    """Connect to a listener on this machine."""
    name = "localhost" if context else None
    return Caller(
        *await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    )


def send_and_reset(port: int, sent: list[bytes]) -> None:
    """Upgrade, send, wait until the other kernel has all of it, and reset the connection."""
    with upgraded(port) as sender:
        sender.sendall(b"".join(sent))
        deadline = time.monotonic() + at_most(20)
        while unacknowledged(sender) and time.monotonic() < deadline:
            pass
        reset(sender)


def upgraded(port: int) -> socket.socket:
    """Return a plain socket on which a stream is open."""
    sender = socket.create_connection(("127.0.0.1", port), timeout=at_most(20))
    sender.sendall(request())
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += sender.recv(4096)
    return sender


def fill_and_reset(sender: socket.socket, message: bytes) -> int:
    """Send as much as fits into the kernels, reset, and return how many messages arrived there."""
    sender.setblocking(False)
    sent, deadline = 0, time.monotonic() + 1
    while sent < 2**20 and time.monotonic() < deadline:
        with contextlib.suppress(BlockingIOError):
            sent += sender.send((message * 100)[sent % len(message) :])
    arrived = sent - unacknowledged(sender)
    reset(sender)
    return arrived // len(message)


def unacknowledged(sender: socket.socket) -> int:
    """Return how many bytes the other kernel does not have."""
    size = array.array("i", [0])
    fcntl.ioctl(sender, termios.TIOCOUTQ, size)
    return size[0]


def vanish(sender: socket.socket) -> None:
    """Drop, in the kernel, all that comes for a socket, as if its host had lost its network.

    A filter that accepts no packet drops also what acknowledges ours: nothing is answered.
    Newer kernels let only root put one on a TCP socket: such tests need `root`.
    """
    drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # return 0
    program = struct.pack("HxxxxxxP", 1, ctypes.addressof(drop_all))
    sender.setsockopt(socket.SOL_SOCKET, 26, program)  # SO_ATTACH_FILTER


def reset(sender: socket.socket) -> None:
    """End a connection without a word."""
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sender.close()
