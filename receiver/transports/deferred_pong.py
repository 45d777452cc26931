"""Pongs that wait until the socket has been read empty.

A write to a socket that the other end has reset makes the event loop drop it with all that was
received and not yet read. On a stream that records, pongs are all we write. A pong may wait
(RFC 6455, section 5.5.3: the most recent ping is enough), so it does.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import termios
from collections.abc import Callable


class DeferredPong:
    """Calls `send` some time after a ping, when the kernel holds nothing more to be read."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, send: Callable[[], None], *, delay_seconds: float
    ) -> None:
        self._loop = loop
        self._send = send
        self._delay_seconds = delay_seconds
        self._descriptor = -1
        self._timer: asyncio.TimerHandle | None = None

    def schedule(self, descriptor: int) -> None:
        """Send a pong to the socket of `descriptor` later; pings that come meanwhile share it."""
        self._descriptor = descriptor
        if self._timer is None:
            self._start_timer()

    def cancel(self) -> None:
        """Send nothing any more; idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start_timer(self) -> None:
        self._timer = self._loop.call_later(self._delay_seconds, self._send_if_drained)

    def _send_if_drained(self) -> None:
        self._timer = None
        if _unread_bytes(self._descriptor):
            self._start_timer()
        else:
            self._send()


def _unread_bytes(descriptor: int) -> int:
    """Return how many received bytes the kernel still holds."""
    count = array.array("i", [0])
    with contextlib.suppress(OSError):  # the socket is gone
        fcntl.ioctl(descriptor, termios.FIONREAD, count)
    return count[0]
