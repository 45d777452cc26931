"""Accepting: counted from the first moment, and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
from collections.abc import AsyncIterator, Iterator

import pytest

from receiver.errors import ConfigurationError
from receiver.transports.acceptor import (
    Acceptor,
    PendingConnection,
    PendingConnections,
    open_sockets,
)
from receiver.transports.interface import Limits

pytestmark = pytest.mark.integration


class Accepting:
    """An acceptor whose connections stay pending until the test removes them."""

    def __init__(self, limits: Limits) -> None:
        self.refused: list[tuple[str, str, str]] = []
        self.pending = PendingConnections(limits, lambda *refused: self.refused.append(refused))
        self.came: asyncio.Queue[PendingConnection] = asyncio.Queue()
        self.failure: Exception | None = None

    async def open(self) -> None:
        """Listen on a free port."""
        sockets = await open_sockets("127.0.0.1", 0)
        self.port: int = sockets[0].getsockname()[1]
        self.acceptor = Acceptor(sockets, self.pending, self._connect)

    async def _connect(self, one: PendingConnection) -> None:
        self.came.put_nowait(one)
        if self.failure is not None:
            raise self.failure


@pytest.fixture
async def accepting() -> AsyncIterator[Accepting]:
    """An acceptor on a free port."""
    made = Accepting(Limits(max_pending=2))
    await made.open()
    yield made
    made.acceptor.close()
    await made.acceptor.wait_closed()


async def test_connections_are_counted_from_accept_on(accepting: Accepting) -> None:
    """Also one that never says a word, as in a TLS handshake that never comes."""
    callers = [await asyncio.open_connection("127.0.0.1", accepting.port) for _ in range(3)]
    came = [await accepting.came.get() for _ in callers]
    assert 2 == len(accepting.pending)
    assert b"" == await callers[0][0].read()
    for one, (_, writer) in zip(came, callers, strict=True):
        one.tcp.close()
        writer.close()


async def test_a_handshake_that_fails_leaves_nothing(accepting: Accepting) -> None:
    """A broken TLS handshake closes its socket and counts no more."""
    accepting.failure = ConnectionResetError()
    reader, writer = await asyncio.open_connection("127.0.0.1", accepting.port)
    assert b"" == await reader.read()
    assert 0 == len(accepting.pending)
    assert [("tls_failed", "127.0.0.1", "")] == accepting.refused
    writer.close()


async def test_a_handshake_that_takes_too_long_is_counted(accepting: Accepting) -> None:
    """A TLS handshake that never comes is another reason than one that fails."""
    accepting.failure = TimeoutError()
    reader, writer = await asyncio.open_connection("127.0.0.1", accepting.port)
    assert b"" == await reader.read()
    assert [("timeout", "127.0.0.1", "")] == accepting.refused
    writer.close()


class Logged(logging.Handler):
    """The lines that a logger got, as they come."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: asyncio.Queue[str] = asyncio.Queue()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line."""
        self.lines.put_nowait(record.getMessage())


@contextlib.contextmanager
def logged_by(name: str) -> Iterator[Logged]:
    """Collect what a logger gets within a `with` block."""
    logged, logger = Logged(), logging.getLogger(name)
    logger.addHandler(logged)
    try:
        yield logged
    finally:
        logger.removeHandler(logged)


@contextlib.contextmanager
def no_more_descriptors() -> Iterator[None]:
    """Allow the process to open nothing within a `with` block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_running_out_of_descriptors_is_logged_once_a_second(accepting: Accepting) -> None:
    """With a count; and the connection is accepted as soon as that is possible."""
    with logged_by("receiver.transports.acceptor") as logged, socket.socket() as tcp:
        tcp.setblocking(False)
        with no_more_descriptors():
            await asyncio.get_running_loop().sock_connect(tcp, ("127.0.0.1", accepting.port))
            first, second = await logged.lines.get(), await logged.lines.get()
        one = await accepting.came.get()
        one.tcp.close()
    assert "cannot accept connections: Too many open files (1 times)" == first
    times = second.removeprefix("cannot accept connections: Too many open files (")
    assert 2 < int(times.removesuffix(" times)"))


async def test_closing_twice_is_fine(accepting: Accepting) -> None:
    """No connection is accepted any more, and the port is free again."""
    accepting.acceptor.close()
    accepting.acceptor.close()
    await accepting.acceptor.wait_closed()
    with pytest.raises(OSError):  # noqa: PT011  refused, in the words of the system
        await asyncio.open_connection("127.0.0.1", accepting.port)


async def test_an_address_in_use_is_one_clear_line(accepting: Accepting) -> None:
    """The reason is the system's, without a number or a traceback."""
    with pytest.raises(ConfigurationError, match=r"address already in use$"):
        await open_sockets("127.0.0.1", accepting.port)
