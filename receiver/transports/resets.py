"""Sockets that were reset while they were read through uvloop's `add_reader`.

libuv ends its watch over a descriptor when that has an error, and uvloop then calls the reader
once more and for the last time. What the kernel still holds of the stream would stay unread,
and the end unnoticed. A second epoll, which is asked for nothing but errors and so costs a
chunk nothing, tells of such sockets; they are read on until their end.
"""

from __future__ import annotations

import asyncio
import select
from typing import Any, Final, Protocol
from weakref import WeakValueDictionary

_PAUSED_SECONDS: Final = 0.05
"""Between two looks at a socket whose reading is paused for other reasons."""


def needed(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the event loop forgets sockets that were reset."""
    return type(loop).__module__.partition(".")[0] == "uvloop"


def possible() -> bool:
    """Whether the system can tell of them."""
    return hasattr(select, "epoll")


class WithTransport(Protocol):
    """One open connection."""

    transport: Any


class Resets:
    """Watches over the sockets of one listener; for the event loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._errors = select.epoll()
        self._watched = WeakValueDictionary[int, WithTransport]()  # by descriptor
        loop.add_reader(self._errors, self._look)

    def watch(self, socket: WithTransport) -> None:
        """Watch over an open socket until it is gone; the kernel forgets its descriptor then."""
        descriptor = socket.transport.get_extra_info("socket").fileno()
        self._watched[descriptor] = socket
        self._errors.register(descriptor, select.EPOLLONESHOT)

    def close(self) -> None:
        """Give everything back; idempotent."""
        if not self._errors.closed:
            self._loop.remove_reader(self._errors)
            self._errors.close()
        self._watched.clear()

    def _look(self) -> None:
        for descriptor, _ in self._errors.poll(0):
            socket = self._watched.pop(descriptor, None)
            if socket is not None:
                self._read_on(socket.transport)

    def _read_on(self, transport: Any) -> None:
        """Have the event loop watch it anew, once for each of its last reads, up to its end."""
        if transport.is_closing():
            return
        if transport.is_reading():
            transport.pause_reading()
            transport.resume_reading()
            self._loop.call_soon(self._read_on, transport)
        else:
            self._loop.call_later(_PAUSED_SECONDS, self._read_on, transport)
