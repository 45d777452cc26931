"""Connections that nobody has admitted yet, and how many of them there may be.

They are counted from `accept` on, so that a TLS handshake that never comes is bounded as well.
Where there are too many, the oldest of the address that has most goes: real callers are through
within milliseconds, so it is the idle ones that age. One address may have more than its share
for a moment, because a provider's gateway opens many calls at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from receiver.transports.interface import Limits

GRACE_SECONDS: Final = 1.0
"""How long an address may have more connections waiting than its share."""


@dataclass(eq=False, slots=True)
class PendingConnection:
    """A connection that was accepted but not yet admitted."""

    tcp: socket.socket
    address: str
    since: float  # by the event loop's clock
    _lobby: PendingConnections
    asked: bool = False  # the gate has decided, and so knows of this connection

    def leave(self) -> None:
        """Count the connection no more: it was admitted, or it is gone. Idempotent."""
        self._lobby.forget(self)

    def turn_away(self, reason: str) -> None:
        """Tell the gate why the connection ends, unless it knows; idempotent."""
        if not self.asked:
            self.asked = True
            self._lobby.count_refused(reason, self.address)

    def cut(self) -> None:
        """End the connection, whoever holds it by now."""
        self.turn_away("crowded")
        self.leave()
        with contextlib.suppress(OSError):  # it is gone already
            self.tcp.shutdown(socket.SHUT_RDWR)


class PendingConnections:
    """All connections that wait, the oldest first."""

    def __init__(self, limits: Limits, count_refused: Callable[[str, str], None]) -> None:
        self.count_refused = count_refused  # is told the reason and the address
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[PendingConnection, None] = {}
        self._by_address: dict[str, dict[PendingConnection, None]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def enter(self, tcp: socket.socket, address: str) -> PendingConnection:
        """Count one more, and make room for it where there is none."""
        if len(self._waiting) >= self._limits.max_pending:
            crowd = max(self._by_address.values(), key=len)
            next(iter(crowd)).cut()
        entered = PendingConnection(tcp, address, self._loop.time(), self)
        self._waiting[entered] = None
        neighbours = self._by_address.setdefault(address, {})
        neighbours[entered] = None
        if self._excess(address) > 0:
            self._loop.call_later(GRACE_SECONDS, self._thin_out, address)
        return entered

    def forget(self, waiting: PendingConnection) -> None:
        """Count a connection no more."""
        self._waiting.pop(waiting, None)
        neighbours = self._by_address.get(waiting.address, {})
        neighbours.pop(waiting, None)
        if not neighbours:
            self._by_address.pop(waiting.address, None)

    def _excess(self, address: str) -> int:
        """Return by how many connections an address is over its share."""
        share = self._limits.max_pending_per_address
        return 0 if share is None else len(self._by_address.get(address, ())) - share

    def _thin_out(self, address: str) -> None:
        """End what has waited for too long while its address was over its share."""
        overdue = self._loop.time() - GRACE_SECONDS
        for waiting in list(self._by_address.get(address, ()))[: max(0, self._excess(address))]:
            if waiting.since <= overdue:
                waiting.cut()
