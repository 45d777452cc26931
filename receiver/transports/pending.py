"""Connections that are not yet upgraded or refused, and how many of them there may be.

They are counted from `accept` on, so that a TLS handshake that never comes is bounded as well.
Where there are too many, the oldest of the address that has most is dropped: real callers are
through within milliseconds, so it is the idle ones that age. One address may exceed its share
for a moment, because a provider's gateway opens many calls at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from receiver.transports.handshake import is_in
from receiver.transports.interface import Limits

GRACE_SECONDS: Final = 1.0
"""How long an address may have more pending connections than its share."""


@dataclass(eq=False, slots=True)
class PendingConnection:
    """A connection that was accepted but not yet upgraded or refused."""

    tcp: socket.socket
    address: str
    since: float  # by the event loop's clock
    _all: PendingConnections
    decided: bool = False  # by the policy, which so knows of this connection

    def remove(self) -> None:
        """Count the connection no more: it was upgraded, or it is gone. Idempotent."""
        self._all.remove(self)

    def move(self, address: str) -> None:
        """Count the connection as one of another address, which a trusted proxy has named."""
        self._all.move(self, address)

    def refuse(self, reason: str, detail: str = "") -> None:
        """Report why the connection ends, unless the policy has decided; idempotent."""
        if not self.decided:
            self.decided = True
            self._all.count_refused(reason, self.address, detail)

    def drop(self) -> None:
        """End the connection, whichever object holds it by now."""
        self.refuse("crowded")
        self.remove()
        with contextlib.suppress(OSError):  # it is gone already
            self.tcp.shutdown(socket.SHUT_RDWR)


class PendingConnections:
    """All pending connections, the oldest first.

    `count_refused` is called with a reason, an address and a detail; see `UpgradePolicy`.
    """

    def __init__(self, limits: Limits, count_refused: Callable[[str, str, str], None]) -> None:
        self.count_refused = count_refused
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._all: dict[PendingConnection, None] = {}
        self._by_address: dict[str, dict[PendingConnection, None]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def add(self, tcp: socket.socket, address: str) -> PendingConnection:
        """Count one more connection; where that is one too many, drop another one."""
        if len(self._all) >= self._limits.max_pending:
            most = max(self._by_address.values(), key=len)
            next(iter(most)).drop()
        added = PendingConnection(tcp, address, self._loop.time(), self)
        self._insert(added)
        return added

    def move(self, pending: PendingConnection, address: str) -> None:
        """Count a connection under another address, unless it is counted no more."""
        if address != pending.address and pending in self._all:
            self.remove(pending)
            pending.address = address
            self._insert(pending)

    def _insert(self, pending: PendingConnection) -> None:
        address = pending.address
        self._all[pending] = None
        self._by_address.setdefault(address, {})[pending] = None
        if self._excess(address) > 0:
            self._loop.call_later(GRACE_SECONDS, self._drop_excess, address)

    def remove(self, pending: PendingConnection) -> None:
        """Count a connection no more; idempotent."""
        self._all.pop(pending, None)
        same_address = self._by_address.get(pending.address, {})
        same_address.pop(pending, None)
        if not same_address:
            self._by_address.pop(pending.address, None)

    def _excess(self, address: str) -> int:
        """Return by how many connections an address exceeds its share."""
        share = self._limits.max_pending_per_address
        excess = 0 if share is None else len(self._by_address.get(address, ())) - share
        # What a trusted proxy has accepted for others is no address's, until their names are read.
        return 0 if excess > 0 and is_in(address, self._limits.trusted_proxies) else excess

    def _drop_excess(self, address: str) -> None:
        """Drop what has been pending for too long while its address exceeded its share."""
        overdue = self._loop.time() - GRACE_SECONDS
        for pending in list(self._by_address.get(address, ()))[: max(0, self._excess(address))]:
            if pending.since <= overdue:
                pending.drop()
