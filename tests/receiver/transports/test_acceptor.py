"""Connections that nobody has admitted yet: counted from the start, and the oldest goes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import pytest

from receiver.errors import ConfigurationError
from receiver.transports import Limits
from receiver.transports.acceptor import Acceptor, Lobby, Waiting, open_sockets


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    """Connected sockets: our end, the caller's end."""
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(6):
            ends = socket.socketpair()
            for end in ends:
                stack.enter_context(end).settimeout(10)
            made.append(ends)
        yield made


def is_cut(caller: socket.socket) -> bool:
    """Whether the other end of `caller` was ended."""
    caller.setblocking(False)
    try:
        return caller.recv(1) == b""
    except BlockingIOError:
        return False


def test_the_oldest_goes_where_there_are_too_many(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    """Those that come later get the room of those that idle."""
    lobby = Lobby(Limits(max_waiting=3, max_waiting_per_address=None))
    for ours, _ in pairs[:4]:
        lobby.enter(ours, "192.0.2.1")
    assert [True, False, False, False] == [is_cut(caller) for _, caller in pairs[:4]]
    assert 3 == len(lobby)


def test_one_address_takes_no_room_from_others(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    """Over its share, an address pushes out its own oldest connection."""
    lobby = Lobby(Limits(max_waiting=100, max_waiting_per_address=2))
    lobby.enter(pairs[0][0], "192.0.2.1")
    for ours, _ in pairs[1:4]:
        lobby.enter(ours, "192.0.2.9")
    assert [False, True, False, False] == [is_cut(caller) for _, caller in pairs[:4]]


def test_who_was_admitted_is_counted_no_more(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    """Leaving makes room, twice is once, and nothing is remembered of an address."""
    lobby = Lobby(Limits(max_waiting=1, max_waiting_per_address=1))
    for ours, caller in pairs:
        waiting = lobby.enter(ours, "192.0.2.1")
        waiting.leave()
        waiting.leave()
        assert not is_cut(caller)
    assert 0 == len(lobby)
    assert {} == lobby._by_address


def test_cutting_what_is_gone_already_is_fine(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    """A connection may end by itself at the same moment."""
    waiting = Lobby(Limits()).enter(pairs[0][0], "192.0.2.1")
    pairs[0][0].close()
    waiting.cut()


class Hall:
    """An acceptor whose connections wait until the test lets them go on."""

    def __init__(self, limits: Limits) -> None:
        self.lobby = Lobby(limits)
        self.came: asyncio.Queue[Waiting] = asyncio.Queue()
        self.failure: Exception | None = None

    async def open(self) -> None:
        """Listen on a free port."""
        sockets = await open_sockets("127.0.0.1", 0)
        self.port: int = sockets[0].getsockname()[1]
        self.acceptor = Acceptor(sockets, self.lobby, self._connect)

    async def _connect(self, waiting: Waiting) -> None:
        self.came.put_nowait(waiting)
        if self.failure is not None:
            raise self.failure


@pytest.fixture
async def hall() -> AsyncIterator[Hall]:
    """An acceptor on a free port."""
    made = Hall(Limits(max_waiting=2))
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
    writer.close()


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
