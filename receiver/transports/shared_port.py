"""A port that several processes accept connections from, each in its turn.

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
"""After this long without a sign of life of the others: better here than not at all."""


@dataclass(slots=True)
class SharedPort:
    """One process's share of a port. `counts` is memory that all processes share."""

    sockets: list[socket.socket]
    counts: MutableSequence[int]  # connections by process; below zero: it does not live
    place: int  # ours among the counts
    ahead: int = 0  # counted besides, because we have fewer places: all are full at one count
    carried: int = 0  # by us, of those that were admitted
    _waiting: int = 0  # with us, not yet admitted, when we last looked
    _left_since: float = 0.0  # when we first left to the others what nobody has taken since
    _left_at: float = 0.0  # ... and when we last did
    _seen: list[tuple[int, int]] = field(default_factory=list)  # who carried less then

    def carry(self, connections: int) -> None:
        """Note how many admitted connections this process has."""
        admitted = max(0, connections - self.carried)  # they waited before
        self._waiting = max(0, self._waiting - admitted)
        self.carried = connections
        self.counts[self.place] = self.ahead + self.carried + self._waiting

    def is_ours(self, waiting: int) -> bool:
        """Return whether to accept now; `waiting` are our connections not yet admitted.

        Patience is measured from the last sign of life of those who carry less, not from
        connection to connection: where many come, one waits nearly always, never the same.
        """
        self._waiting = waiting
        ours = self.counts[self.place] = self.ahead + self.carried + waiting
        fewer = [(place, count) for place, count in enumerate(self.counts) if 0 <= count < ours]
        if not fewer:
            return True
        now = time.monotonic()
        if fewer != self._seen or now - self._left_at > LONGEST_WAIT_SECONDS:
            self._left_since, self._seen = now, fewer
        self._left_at = now
        return now - self._left_since > LONGEST_WAIT_SECONDS
