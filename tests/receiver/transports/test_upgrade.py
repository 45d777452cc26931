"""Decisions about upgrades that take their time."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import socket
from collections.abc import Coroutine
from typing import Any

import pytest

from receiver.transports.acceptor import PendingConnections
from receiver.transports.interface import Connection, Decision, Limits, UpgradeRequest
from receiver.transports.listener import UpgradeProtocol, listen
from tests.receiver.helpers.wire import KeepingPeer, call, request

pytestmark = pytest.mark.integration


class OrderPeer(KeepingPeer):
    """Appends to a list when it is opened."""

    def __init__(self, order: list[str]) -> None:
        super().__init__()
        self._order = order

    def opened(self, connection: Connection) -> None:
        """Append that, too."""
        self._order.append("opened")
        super().opened(connection)


class SlowPolicy:
    """Admits every request, two at the same moment, and keeps what happened in which order."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.decisions: list[Coroutine[Any, Any, Decision]] = []
        self._both_asked = asyncio.Barrier(2)

    def admit(self, _: UpgradeRequest) -> Decision | Coroutine[Any, Any, Decision]:
        """Wait for some time."""
        self.decisions.append(self._admit_later())
        return self.decisions[-1]

    async def _admit_later(self) -> Decision:
        await self._both_asked.wait()
        self.order.append("decided")
        return OrderPeer(self.order)

    def count_refused(self, reason: str, remote_address: str, detail: str = "") -> None:
        """Expect nothing of the kind."""
        raise AssertionError((reason, remote_address))


async def test_a_stream_is_opened_before_the_next_is_decided_about() -> None:
    """So the policy can count the streams there are."""
    policy = SlowPolicy()
    listener = await listen(policy, host="127.0.0.1", port=0, ssl_context=None, limits=Limits())
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(listener.close)
        callers = [await call(listener.port, None) for _ in range(2)]
        for caller in callers:
            stack.push_async_callback(caller.leave)
        answers = await asyncio.gather(*(caller.upgrade() for caller in callers))
        assert all(answer.startswith(b"HTTP/1.1 101 ") for answer in answers)
        assert ["decided", "opened"] * 2 == policy.order


async def test_a_connection_that_is_gone_at_once_is_not_decided_about() -> None:
    """The policy's coroutine is closed before its first step."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        policy = SlowPolicy()
        pending = PendingConnections(Limits(), policy.count_refused)
        ongoing: set[UpgradeProtocol] = set()
        protocol = UpgradeProtocol(
            policy,
            pending.add(ours, "192.0.2.1"),
            Limits(),
            ongoing=ongoing,
            on_accepted=lambda _: None,
            on_done=lambda: None,
        )
        protocol.connection_made(asyncio.Transport({"peername": ("192.0.2.1", 1)}))
        protocol.data_received(request())
        protocol.connection_lost(None)
        (deciding,) = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait([deciding])
        assert ([], set(), 0) == (policy.order, ongoing, len(pending))
        assert [inspect.CORO_CLOSED] == [inspect.getcoroutinestate(one) for one in policy.decisions]
