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
    """Calls `send` some time after a ping, when the kernel holds nothing more for us."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, send: Callable[[], None], *, delay_seconds: float
    ) -> None:
        self._loop = loop
        self._send = send
        self._delay_seconds = delay_seconds
        self._descriptor = -1
        self._timer: asyncio.TimerHandle | None = None

    def owe(self, descriptor: int) -> None:
        """Have a pong sent to the socket of `descriptor`; pings that come meanwhile share it."""
        self._descriptor = descriptor
        if self._timer is None:
            self._wait()

    def cancel(self) -> None:
        """Owe nothing any more; idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        self._timer = self._loop.call_later(self._delay_seconds, self._look)

    def _look(self) -> None:
        self._timer = None
        if _unread_bytes(self._descriptor):
            self._wait()
        else:
            self._send()


def _unread_bytes(descriptor: int) -> int:
    """Return how much the kernel holds for us."""
    count = array.array("i", [0])
    with contextlib.suppress(OSError):  # the socket is gone
        fcntl.ioctl(descriptor, termios.FIONREAD, count)
    return count[0]
