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
from receiver.transports.acceptor import Acceptor, open_sockets
from receiver.transports.interface import Limits
from receiver.transports.pending import PendingConnection, PendingConnections

pytestmark = pytest.mark.integration


class Hall:
    """An acceptor whose connections wait until the test lets them go on."""

    def __init__(self, limits: Limits) -> None:
        self.count_refused: list[tuple[str, str]] = []
        self.lobby = PendingConnections(limits, lambda *told: self.count_refused.append(told))
        self.came: asyncio.Queue[PendingConnection] = asyncio.Queue()
        self.failure: Exception | None = None

    async def open(self) -> None:
        """Listen on a free port."""
        sockets = await open_sockets("127.0.0.1", 0)
        self.port: int = sockets[0].getsockname()[1]
        self.acceptor = Acceptor(sockets, self.lobby, self._connect)

    async def _connect(self, waiting: PendingConnection) -> None:
        self.came.put_nowait(waiting)
        if self.failure is not None:
            raise self.failure


@pytest.fixture
async def hall() -> AsyncIterator[Hall]:
    """An acceptor on a free port."""
    made = Hall(Limits(max_pending=2))
    await made.open()
    yield made
    made.acceptor.close()
    await made.acceptor.wait_closed()


async def test_connections_are_counted_from_accept_on(hall: Hall) -> None:
    """Also one that never says a word, as in a TLS handshake that never comes."""
    callers = [await asyncio.open_connection("127.0.0.1", hall.port) for _ in range(3)]
    came = [await hall.came.get() for _ in callers]
    assert 2 == len(hall.lobby)
    assert b"" == await callers[0][0].read()
    for waiting, (_, writer) in zip(came, callers, strict=True):
        waiting.tcp.close()
        writer.close()


async def test_a_handshake_that_fails_leaves_nothing(hall: Hall) -> None:
    """A broken TLS handshake closes its socket and counts no more."""
    hall.failure = ConnectionResetError()
    reader, writer = await asyncio.open_connection("127.0.0.1", hall.port)
    assert b"" == await reader.read()
    assert 0 == len(hall.lobby)
    assert [("tls_failed", "127.0.0.1")] == hall.count_refused
    writer.close()


async def test_a_handshake_that_takes_too_long_is_counted(hall: Hall) -> None:
    """A TLS handshake that never comes is another reason than one that fails."""
    hall.failure = TimeoutError()
    reader, writer = await asyncio.open_connection("127.0.0.1", hall.port)
    assert b"" == await reader.read()
    assert [("timeout", "127.0.0.1")] == hall.count_refused
    writer.close()


class Told(logging.Handler):
    """What the acceptor logs, as it comes."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: asyncio.Queue[str] = asyncio.Queue()

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line."""
        self.lines.put_nowait(record.getMessage())


@contextlib.contextmanager
def told_by(name: str) -> Iterator[Told]:
    """Listen to a logger for the length of a `with` block."""
    told, logger = Told(), logging.getLogger(name)
    logger.addHandler(told)
    try:
        yield told
    finally:
        logger.removeHandler(told)


@contextlib.contextmanager
def no_more_descriptors() -> Iterator[None]:
    """Let the process open nothing for the length of a `with` block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_running_out_of_descriptors_is_told_once_a_second(hall: Hall) -> None:
    """With a count; and the connection is taken as soon as that is possible."""
    with told_by("receiver.transports.acceptor") as told, socket.socket() as tcp:
        tcp.setblocking(False)
        with no_more_descriptors():
            await asyncio.get_running_loop().sock_connect(tcp, ("127.0.0.1", hall.port))
            first, second = await told.lines.get(), await told.lines.get()
        waiting = await hall.came.get()
        waiting.tcp.close()
    assert "cannot accept connections: Too many open files (1 times)" == first
    times = second.removeprefix("cannot accept connections: Too many open files (")
    assert 2 < int(times.removesuffix(" times)"))


async def test_closing_twice_is_fine(hall: Hall) -> None:
    """Nobody is accepted any more, and the port is free again."""
    assert hall.acceptor.is_serving()
    hall.acceptor.close()
    hall.acceptor.close()
    await hall.acceptor.wait_closed()
    assert not hall.acceptor.is_serving()
    with pytest.raises(OSError):  # noqa: PT011  refused, in the words of the system
        await asyncio.open_connection("127.0.0.1", hall.port)


async def test_an_address_in_use_is_one_clear_line(hall: Hall) -> None:
    """The reason is the system's, without a number or a traceback."""
    with pytest.raises(ConfigurationError, match=r"address already in use$"):
        await open_sockets("127.0.0.1", hall.port)
