"""What was decided is done before anything else is: every adapter, on both event loops."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import socket
from collections.abc import Coroutine
from typing import Any

import pytest

from receiver.transports.interface import Connection, Decision, Limits, UpgradeRequest
from receiver.transports.listener import listen
from receiver.transports.pending import PendingConnections
from receiver.transports.upgrade import House, UpgradeProtocol
from tests.receiver.helpers.wire import KeepingPeer, call, request

pytestmark = pytest.mark.integration


class TellingPeer(KeepingPeer):
    """Tells when it is opened."""

    def __init__(self, told: list[str]) -> None:
        super().__init__()
        self._told = told

    def opened(self, connection: Connection) -> None:
        """Remember that, too."""
        self._told.append("opened")
        super().opened(connection)


class SlowPolicy:
    """Lets everybody in, two at the same moment, and keeps what happened in which order."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.asked: list[Coroutine[Any, Any, Decision]] = []
        self._both_ask = asyncio.Barrier(2)

    def admit(self, _: UpgradeRequest) -> Decision | Coroutine[Any, Any, Decision]:
        """Take some time."""
        self.asked.append(self._admit_later())
        return self.asked[-1]

    async def _admit_later(self) -> Decision:
        await self._both_ask.wait()
        self.told.append("decided")
        return TellingPeer(self.told)

    def count_refused(self, reason: str, remote_address: str) -> None:
        """Expect nothing of the kind."""
        raise AssertionError((reason, remote_address))


async def test_a_stream_is_opened_before_the_next_is_decided_about() -> None:
    """So whoever decides knows how many streams there are."""
    gate = SlowPolicy()
    listener = await listen(gate, host="127.0.0.1", port=0, ssl_context=None, limits=Limits())
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(listener.close)
        callers = [await call(listener.port, None) for _ in range(2)]
        for caller in callers:
            stack.push_async_callback(caller.leave)
        answers = await asyncio.gather(*(caller.upgrade() for caller in callers))
        assert all(answer.startswith(b"HTTP/1.1 101 ") for answer in answers)
        assert ["decided", "opened"] * 2 == gate.told


async def test_who_is_gone_at_once_is_not_decided_about() -> None:
    """The gate's question to the disk is dropped before it was begun."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        gate = SlowPolicy()
        lobby = PendingConnections(Limits(), gate.count_refused)
        house = House(gate, Limits(), upgrade=lambda _: None, left=lambda: None)
        doorway = UpgradeProtocol(house, lobby.enter(ours, "192.0.2.1"))
        doorway.connection_made(asyncio.Transport({"peername": ("192.0.2.1", 1)}))
        doorway.data_received(request())
        doorway.connection_lost(None)
        (asking,) = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait([asking])
        assert ([], set(), 0) == (gate.told, house.doorways, len(lobby))
        assert [inspect.CORO_CLOSED] == [inspect.getcoroutinestate(one) for one in gate.asked]
