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
from dataclasses import dataclass
from typing import Final

HEAD_START: Final = 1
"""How many more connections than the others a process may carry and still accept."""
LONGEST_WAIT_SECONDS: Final = 0.05
"""After this long nobody else has come: better here than not at all."""


@dataclass(slots=True)
class SharedPort:
    """One process's share of a port. `counts` is memory that all processes share."""

    sockets: list[socket.socket]
    counts: MutableSequence[int]  # connections by process; below zero: it does not live
    place: int  # ours among the counts
    carried: int = 0  # by us, of those that were admitted
    _left_since: float = 0.0  # when we first left the connection that waits to the others
    _left_at: float = 0.0  # ... and when we last did

    def carry(self, connections: int) -> None:
        """Note how many admitted connections this process has."""
        self.counts[self.place] += connections - self.carried
        self.carried = connections

    def is_ours(self, waiting: int) -> bool:
        """Return whether to accept now; `waiting` are our connections not yet admitted."""
        ours = self.counts[self.place] = self.carried + waiting
        least = min(count for count in self.counts if count >= 0)
        if ours < least + HEAD_START:
            return True
        now = time.monotonic()
        if now - self._left_at > LONGEST_WAIT_SECONDS:
            self._left_since = now  # it is another connection than the last one we left
        self._left_at = now
        return now - self._left_since > LONGEST_WAIT_SECONDS
