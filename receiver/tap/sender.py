"""Sends what waits for one listener over its socket, at the socket's own pace."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from receiver.rate_limit import TokenBucket
from receiver.tap.queue import LIMIT_BYTES, LIMIT_MS, SendQueue
from receiver.transports.interface import Connection

DONE: Final = 1000
FAILED: Final = 1011
TRY_AGAIN_LATER: Final = 1013
NO_SUCH_STREAM: Final = 4404
_POLICY: Final = 1008
_MESSAGES_AT_ONCE: Final = 100
_MESSAGES_PER_SECOND: Final = 10.0
"""What a listener may say, though it is ignored: some programs keep sockets alive so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerLimits:
    """What one listener may use of our memory and time."""

    queue_ms: float = LIMIT_MS
    queue_bytes: int = LIMIT_BYTES
    stall_seconds: float = 30  # of a socket that takes nothing; then it is closed


class Sender:
    """Empties a queue into a connection; closes the connection that takes nothing for too long.

    It never sends within the call that put something into the queue, except when something would
    have to be dropped otherwise. `on_slow` is called when the connection is closed as too slow.
    """

    def __init__(
        self,
        connection: Connection,
        queue: SendQueue,
        limits: ListenerLimits,
        *,
        on_slow: Callable[[], None] = lambda: None,
    ) -> None:
        self.closed_slow = False  # because too little was read for too long
        self._connection = connection
        self._queue: SendQueue | None = queue
        self._stall_seconds = limits.stall_seconds
        self._on_slow = on_slow
        self._loop = asyncio.get_running_loop()
        self._rest: Iterator[bytes | str] = iter(())  # of the item that is being sent
        self._stalled: asyncio.TimerHandle | None = None  # the socket takes no more at present
        self._budget = TokenBucket(_MESSAGES_AT_ONCE, _MESSAGES_PER_SECOND)
        connection.start_sending(self._resume)
        queue.attach(self)

    def wake(self) -> None:
        """Send soon."""
        self._loop.call_soon(self.flush_now)

    def flush_now(self) -> None:
        """Send until the socket takes no more, or nothing waits."""
        while self._stalled is None:
            message = next(self._rest, None)
            if message is None:
                item = self._queue.pop() if self._queue is not None else None
                if item is None:
                    self._close_if_done()
                    return
                self._rest = item.messages()
            elif not self._connection.send(message):
                self._stalled = self._loop.call_later(self._stall_seconds, self.close_slow)

    def count_message(self) -> None:
        """Count a message of the listener; too many cost the time of those who record."""
        if not self._budget.take(self._loop.time()):
            self._connection.close(_POLICY, "listeners listen: too many messages")

    def dismiss(self) -> None:
        """Close now, because the token that opened the socket is no longer valid."""
        self._detach()
        self._connection.close(_POLICY, "the token is no longer valid")

    def close_slow(self) -> None:
        """Close now, because too much waits."""
        self.closed_slow = True
        self._on_slow()
        self._connection.close(TRY_AGAIN_LATER, "too slow: too little was read for too long")

    def stop(self) -> None:
        """Send no more, because the socket is gone."""
        self._detach()
        self._rest = iter(())
        if self._stalled is not None:
            self._stalled.cancel()

    def _detach(self) -> None:
        if self._queue is not None:
            self._queue.detach()
            self._queue = None

    def _resume(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        self.flush_now()

    def _close_if_done(self) -> None:
        if self._queue is not None and self._queue.closing is not None:
            self._connection.close(*self._queue.closing)
