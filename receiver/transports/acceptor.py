"""Accepts connections one at a time, so that each is counted from the start."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from receiver.errors import ConfigurationError
from receiver.rate_limit import LogThrottle
from receiver.transports import handshake
from receiver.transports.pending import PendingConnection, PendingConnections
from receiver.transports.shared_port import SharedPort

BACKLOG: Final = 1024
_AT_ONCE: Final = 64
"""Connections accepted before the open ones have their turn again."""
_NO_DESCRIPTORS_SECONDS: Final = 0.2
"""How long accepting pauses when the process has run out of file descriptors."""
_TURN_SECONDS: Final = 0.002
"""How long a connection is left to the other processes before the next look."""
_log = logging.getLogger(__name__)


Connect = Callable[[PendingConnection], Awaitable[Any]]
"""Makes a transport of an accepted socket; returns when TLS is done, or raises OSError."""


class Acceptor:
    """Accepts on listening sockets, and makes a transport of each accepted one.

    `asyncio.Server` would do that, too, but counts a connection only when its TLS is done.
    """

    def __init__(
        self,
        sockets: list[socket.socket],
        pending: PendingConnections,
        connect: Connect,
        *,
        shared: SharedPort | None = None,
    ) -> None:
        self.names: list[Any] = [listening.getsockname() for listening in sockets]
        self._sockets = sockets
        self._shared = shared
        self._pending = pending
        self._connect = connect
        self._loop = asyncio.get_running_loop()
        self._serving = True
        self._throttle = LogThrottle()
        self._connecting: set[asyncio.Task[None]] = set()
        self._start_accepting()

    @property
    def pending(self) -> int:
        """How many accepted connections are not yet upgraded or refused."""
        return len(self._pending)

    def close(self) -> None:
        """Accept no more, and drop what is in the middle of TLS; idempotent."""
        if self._serving:
            self._serving = False
            self._stop_accepting()
            for listening in self._sockets:
                listening.close()
        for task in self._connecting:
            task.cancel()

    async def wait_closed(self) -> None:
        """Return when nothing of this is left."""
        if self._connecting:
            await asyncio.wait(self._connecting)

    def _start_accepting(self) -> None:
        if self._serving:
            for listening in self._sockets:
                self._loop.add_reader(listening, self._accept, listening)

    def _stop_accepting(self) -> None:
        for listening in self._sockets:
            self._loop.remove_reader(listening)

    def _pause(self, seconds: float) -> None:
        self._stop_accepting()
        self._loop.call_later(seconds, self._start_accepting)

    def _accept(self, listening: socket.socket) -> None:
        """Accept what waits; the event loop calls again where that was not all."""
        for _ in range(_AT_ONCE):
            if self._shared is not None and not self._shared.is_ours(len(self._pending)):
                self._pause(_TURN_SECONDS)
                return
            try:
                tcp, name = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._log_failure(str(error.strerror))
                self._pause(_NO_DESCRIPTORS_SECONDS)
                return
            tcp.setblocking(False)
            pending = self._pending.add(tcp, handshake.address_of(name))
            task = self._loop.create_task(self._make_transport(pending))
            self._connecting.add(task)
            task.add_done_callback(functools.partial(self._transport_made, pending))

    def _log_failure(self, problem: str) -> None:
        """Log at most once a second; connections wait meanwhile, and are tried again sooner."""
        if times := self._throttle.count(problem, time.monotonic()):
            _log.error("cannot accept connections: %s (%d times)", problem, times)

    async def _make_transport(self, pending: PendingConnection) -> None:
        try:
            await self._connect(pending)
        except (TimeoutError, ConnectionAbortedError):  # the latter: TLS was not done in time
            pending.refuse("timeout")
        except OSError:  # TLS errors are
            pending.refuse("tls_failed")
        else:
            return
        pending.remove()
        pending.tcp.close()

    def _transport_made(self, pending: PendingConnection, task: asyncio.Task[None]) -> None:
        """Clean up after a cancelled task, perhaps before its first step, or an error of ours."""
        self._connecting.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            _log.error("a connection failed: %r", error)
        if task.cancelled() or error is not None:
            pending.remove()
            pending.tcp.close()


async def open_sockets(host: str, port: int) -> list[socket.socket]:
    """Return sockets that listen on every address of `host`; port 0 takes a free one.

    Raises:
        ConfigurationError: an address cannot be listened on.
    """
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        with contextlib.ExitStack() as stack:
            opened = []
            for family, _, _, _, address in dict.fromkeys(found):
                opened.append(stack.enter_context(socket.socket(family, socket.SOCK_STREAM)))
                _listen(opened[-1], address)
            stack.pop_all()
            return opened
    except (OSError, UnicodeError) as error:
        why = handshake.why_not_listening(error)
        raise ConfigurationError(f"cannot listen on {host} port {port}: {why}") from error


def _listen(tcp: socket.socket, address: Any) -> None:
    tcp.setblocking(False)
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if tcp.family == socket.AF_INET6:
        tcp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    tcp.bind(address)
    tcp.listen(BACKLOG)
