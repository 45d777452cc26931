"""Pending connections: bounded, and the oldest is dropped."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from receiver.transports.acceptor import GRACE_SECONDS, PendingConnections
from receiver.transports.interface import Limits
from tests.bounds import at_most


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


def ignore(reason: str, address: str, detail: str) -> None:
    """Count nothing."""


def is_dropped(caller: socket.socket) -> bool:
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
    """Those that come later get the places of those that idle."""
    counted: list[tuple[str, str, str]] = []
    limits = Limits(max_pending=3, max_pending_per_address=None)
    pending = PendingConnections(limits, lambda *refused: counted.append(refused))
    for ours, _ in pairs[:4]:
        pending.add(ours, "192.0.2.1")
    assert [True, False, False, False] == [is_dropped(caller) for _, caller in pairs[:4]]
    assert [("crowded", "192.0.2.1", "")] == counted
    assert 3 == len(pending)


async def test_the_address_with_most_loses_places_to_others(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    """Where there are too many, the oldest of that address are dropped."""
    pending = PendingConnections(Limits(max_pending=4, max_pending_per_address=16), ignore)
    pending.add(pairs[0][0], "192.0.2.1")
    for ours, _ in pairs[1:6]:
        pending.add(ours, "192.0.2.9")
    dropped = [is_dropped(caller) for _, caller in pairs[:6]]
    assert [False, True, True, False, False, False] == dropped


async def test_one_address_takes_no_places_from_others(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    """Over its share, an address loses its own oldest connection, but not at once."""
    pending = PendingConnections(Limits(max_pending=100, max_pending_per_address=2), ignore)
    pending.add(pairs[0][0], "192.0.2.1")
    for ours, _ in pairs[1:4]:
        pending.add(ours, "192.0.2.9")
    assert not any(is_dropped(caller) for _, caller in pairs)
    assert b"" == await received(pairs[1][1])
    assert [False, True, False, False] == [is_dropped(caller) for _, caller in pairs[:4]]


async def test_those_behind_a_trusted_proxy_share_no_limit(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    """Until the proxy has named them; from then on one of them takes no places from others."""
    proxy = (ip_network("10.0.0.0/8"),)
    limits = Limits(max_pending=100, max_pending_per_address=1, trusted_proxies=proxy)
    pending = PendingConnections(limits, ignore)
    added = [pending.add(ours, "10.0.0.1") for ours, _ in pairs]
    gone = added.pop()
    gone.remove()
    gone.move("192.0.2.9")
    for one in added[:2]:
        one.move("192.0.2.9")
    assert b"" == await received(pairs[0][1])
    assert [True, *[False] * 5] == [is_dropped(caller) for _, caller in pairs]
    assert 4 == len(pending)


async def test_a_burst_of_callers_is_no_flood(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    """Those that are through in time were never too many, and those that follow are not theirs."""
    pending = PendingConnections(Limits(max_pending=100, max_pending_per_address=1), ignore)
    *burst, idle = [pending.add(ours, "192.0.2.9") for ours, _ in pairs]
    for one in burst:
        one.remove()
    latecomer, neighbour = socket.socketpair()
    with latecomer, neighbour:
        pending.add(latecomer, "192.0.2.9")
        assert b"" == await received(pairs[-1][1])
        assert [True, False] == [is_dropped(pairs[-1][1]), is_dropped(neighbour)]
    assert not any(is_dropped(caller) for _, caller in pairs[:-1])
    assert idle.since <= asyncio.get_running_loop().time() - GRACE_SECONDS


async def test_what_was_removed_is_counted_no_more(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    """Removing makes room, twice is once, and nothing is kept of an address."""
    pending = PendingConnections(Limits(max_pending=1, max_pending_per_address=1), ignore)
    for ours, caller in pairs:
        one = pending.add(ours, "192.0.2.1")
        one.remove()
        one.remove()
        assert not is_dropped(caller)
    assert 0 == len(pending)
    assert {} == pending._by_address


async def test_what_the_policy_has_decided_is_not_counted_again(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    """A connection that waits for the end of its refusal is not counted once more."""
    counted: list[tuple[str, str, str]] = []
    pending = PendingConnections(Limits(), lambda *refused: counted.append(refused))
    answered, slow = [pending.add(ours, "192.0.2.1") for ours, _ in pairs[:2]]
    answered.decided = True
    answered.refuse("timeout")
    slow.refuse("timeout")
    slow.drop()
    assert [("timeout", "192.0.2.1", "")] == counted


async def test_dropping_what_is_gone_already_is_fine(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    """A connection may end by itself at the same moment."""
    one = PendingConnections(Limits(), ignore).add(pairs[0][0], "192.0.2.1")
    pairs[0][0].close()
    one.drop()
