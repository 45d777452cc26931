"""A port on which several processes accept connections, each in its turn.

All of them wait on the same listening sockets. With a socket for each (SO_REUSEPORT) the kernel
deals connections out by a hash: of 100 calls on 2 processes 1 in 28 deals is worse than 60:40,
and a process that is killed takes with it what waits in its own queue. Here a process that
carries more than the others leaves the next connection to them.
"""

from __future__ import annotations

import socket
import time
from collections.abc import MutableSequence
from dataclasses import dataclass, field
from typing import Final

LONGEST_WAIT_SECONDS: Final = 0.25
"""Without a sign of life of the others; then a connection is better here than not accepted."""


@dataclass(slots=True)
class SharedPort:
    """One process's share of a port. `counts` is memory that all processes share."""

    sockets: list[socket.socket]
    counts: MutableSequence[int]  # connections by process; below zero: it does not live
    place: int  # ours among the counts
    ahead: int = 0  # counted besides, because we have fewer places: all are full at one count
    carried: int = 0  # by us, of those that were upgraded
    _pending: int = 0  # of ours, not yet upgraded, at the last look
    _left_since: float = 0.0  # when we first left to the others what none has accepted since
    _left_at: float = 0.0  # ... and the last time that we did
    _seen: list[tuple[int, int]] = field(default_factory=list)  # who carried less then

    def carry(self, connections: int) -> None:
        """Publish how many upgraded connections this process has."""
        upgraded = max(0, connections - self.carried)  # they were pending before
        self._pending = max(0, self._pending - upgraded)
        self.carried = connections
        self.counts[self.place] = self.ahead + self.carried + self._pending

    def is_ours(self, pending: int) -> bool:
        """Return whether to accept now; `pending` are our connections not yet upgraded.

        The wait is measured from the last sign of life of those who carry less, not from
        connection to connection: where many come, one waits nearly always, never the same.
        """
        self._pending = pending
        ours = self.counts[self.place] = self.ahead + self.carried + pending
        fewer = [(place, count) for place, count in enumerate(self.counts) if 0 <= count < ours]
        if not fewer:
            return True
        now = time.monotonic()
        if fewer != self._seen or now - self._left_at > LONGEST_WAIT_SECONDS:
            self._left_since, self._seen = now, fewer
        self._left_at = now
        return now - self._left_since > LONGEST_WAIT_SECONDS
