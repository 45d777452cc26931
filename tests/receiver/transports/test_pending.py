"""Connections that nobody has admitted yet: bounded, and the oldest goes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest

from receiver.transports.interface import Limits
from receiver.transports.pending import GRACE_SECONDS, PendingConnections
from tests.patience import at_most


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    """Connected sockets: our end, the caller's end."""
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(6):
            ends = socket.socketpair()
            for end in ends:
                stack.enter_context(end).settimeout(at_most(10))
            made.append(ends)
        yield made


def nobody(reason: str, address: str) -> None:
    """Take no notice."""


def is_cut(caller: socket.socket) -> bool:
    """Whether the other end of `caller` was ended."""
    caller.setblocking(False)
    try:
        return caller.recv(1) == b""
    except BlockingIOError:
        return False


async def received(caller: socket.socket) -> bytes:
    """Return what comes next."""
    caller.setblocking(False)
    return await asyncio.get_running_loop().sock_recv(caller, 1)


async def test_the_oldest_goes_where_there_are_too_many(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    """Those that come later get the room of those that idle."""
    told: list[tuple[str, str]] = []
    limits = Limits(max_pending=3, max_pending_per_address=None)
    lobby = PendingConnections(limits, lambda *count_refused: told.append(count_refused))
    for ours, _ in pairs[:4]:
        lobby.enter(ours, "192.0.2.1")
    assert [True, False, False, False] == [is_cut(caller) for _, caller in pairs[:4]]
    assert [("crowded", "192.0.2.1")] == told
    assert 3 == len(lobby)


async def test_a_crowd_makes_room_for_others(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    """Where there are too many, those of the address that has most go."""
    lobby = PendingConnections(Limits(max_pending=4, max_pending_per_address=16), nobody)
    lobby.enter(pairs[0][0], "192.0.2.1")
    for ours, _ in pairs[1:6]:
        lobby.enter(ours, "192.0.2.9")
    cut = [is_cut(caller) for _, caller in pairs[:6]]
    assert [False, True, True, False, False, False] == cut


async def test_one_address_takes_no_room_from_others(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    """Over its share, an address loses its own oldest connection, but not at once."""
    lobby = PendingConnections(Limits(max_pending=100, max_pending_per_address=2), nobody)
    lobby.enter(pairs[0][0], "192.0.2.1")
    for ours, _ in pairs[1:4]:
        lobby.enter(ours, "192.0.2.9")
    assert not any(is_cut(caller) for _, caller in pairs)
    assert b"" == await received(pairs[1][1])
    assert [False, True, False, False] == [is_cut(caller) for _, caller in pairs[:4]]


async def test_a_burst_of_callers_is_no_flood(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    """Those that are through in time were never too many, and those that follow are not theirs."""
    lobby = PendingConnections(Limits(max_pending=100, max_pending_per_address=1), nobody)
    *burst, idle = [lobby.enter(ours, "192.0.2.9") for ours, _ in pairs]
    for waiting in burst:
        waiting.leave()
    latecomer, neighbour = socket.socketpair()
    with latecomer, neighbour:
        lobby.enter(latecomer, "192.0.2.9")
        assert b"" == await received(pairs[-1][1])
        assert [True, False] == [is_cut(pairs[-1][1]), is_cut(neighbour)]
    assert not any(is_cut(caller) for _, caller in pairs[:-1])
    assert idle.since <= asyncio.get_running_loop().time() - GRACE_SECONDS


async def test_who_was_admitted_is_counted_no_more(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    """Leaving makes room, twice is once, and nothing is remembered of an address."""
    lobby = PendingConnections(Limits(max_pending=1, max_pending_per_address=1), nobody)
    for ours, caller in pairs:
        waiting = lobby.enter(ours, "192.0.2.1")
        waiting.leave()
        waiting.leave()
        assert not is_cut(caller)
    assert 0 == len(lobby)
    assert {} == lobby._by_address


async def test_who_was_asked_is_known_to_the_gate(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    """A connection that waits for the end of its refusal is not counted once more."""
    told: list[tuple[str, str]] = []
    lobby = PendingConnections(Limits(), lambda *count_refused: told.append(count_refused))
    answered, slow = [lobby.enter(ours, "192.0.2.1") for ours, _ in pairs[:2]]
    answered.asked = True
    answered.turn_away("timeout")
    slow.turn_away("timeout")
    slow.cut()
    assert [("timeout", "192.0.2.1")] == told


async def test_cutting_what_is_gone_already_is_fine(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    """A connection may end by itself at the same moment."""
    waiting = PendingConnections(Limits(), nobody).enter(pairs[0][0], "192.0.2.1")
    pairs[0][0].close()
    waiting.cut()
