"""Accepts connections one at a time, and counts each from then until it is upgraded or refused.

A TLS handshake that never comes is so bounded as well. Where too many are pending, the oldest of
the address that has most is dropped: real callers are through within milliseconds, so it is the
idle ones that age. One address may exceed its share for a moment, because a provider's gateway
opens many calls at once.

With several processes all wait on the same listening sockets. With a socket for each (SO_REUSEPORT)
the kernel deals connections out by a hash: of 100 calls on 2 processes 1 in 28 deals is worse than
60:40, and a process that is killed takes with it what waits in its own queue. Here a process that
carries more than the others leaves the next connection to them.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, MutableSequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, Self

from receiver.errors import ConfigurationError
from receiver.rate_limit import LogThrottle
from receiver.transports import handshake
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
        if excess > 0 and handshake.is_in(address, self._limits.trusted_proxies):
            return 0
        return excess

    def _drop_excess(self, address: str) -> None:
        """Drop what has been pending for too long while its address exceeded its share."""
        overdue = self._loop.time() - GRACE_SECONDS
        for pending in list(self._by_address.get(address, ()))[: max(0, self._excess(address))]:
            if pending.since <= overdue:
                pending.drop()


LONGEST_WAIT_SECONDS: Final = 0.25
"""Without a sign of life of the others; then a connection is better here than not accepted."""


@dataclass(slots=True)
class SharedPort:
    """One process's share of a port. `counts` is memory that all processes share."""

    sockets: list[socket.socket]
    counts: MutableSequence[int]  # connections by process; below zero: it does not live
    place: int  # ours among the counts
    ahead: int = 0  # counted besides, because we have fewer places: all are full at one count
    own: list[socket.socket] = field(default_factory=list)  # on which nobody else accepts
    carried: int = 0  # by us, of those that were upgraded
    _pending: int = 0  # of ours, not yet upgraded, at the last look
    _left_since: float = 0.0  # when we first left to the others what none has accepted since
    _left_at: float = 0.0  # ... and the last time that we did
    _seen: list[tuple[int, int]] = field(default_factory=list)  # who carried less then

    def handed_over(self) -> dict[str, Any]:
        """Return it by name, for a process whose code may be of another version; see `of`."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Return what `handed_over` gave, of whichever version that was."""
        known = {each.name for each in fields(cls)}
        return cls(**{name: value for name, value in given.items() if name in known})

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
        self._own = shared.own if shared is not None else sockets
        self._sockets = [*sockets, *shared.own] if shared is not None else sockets
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
            if listening not in self._own and not self._is_ours():
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

    def _is_ours(self) -> bool:
        return self._shared is None or self._shared.is_ours(len(self._pending))

    def _log_failure(self, problem: str) -> None:
        """Log at most once a second; connections wait meanwhile, and are tried again sooner."""
        if times := self._throttle.count(problem, time.monotonic()):
            _log.error("cannot accept connections: %s (%d times)", problem, times)

    async def _make_transport(self, pending: PendingConnection) -> None:
        try:
            await self._connect(pending)
        except (TimeoutError, ConnectionAbortedError):  # the latter: TLS was not done in time
            pending.refuse("timeout")
        except OSError as error:  # TLS errors are
            pending.refuse("tls_failed", _tls_problem(error))
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


def _tls_problem(error: OSError) -> str:
    """Return why TLS failed, in OpenSSL's words; empty where it does not say."""
    reason = str(getattr(error, "reason", None) or "")
    if reason == "HTTP_REQUEST":
        return "plain HTTP came to a port that speaks TLS"
    return reason.replace("_", " ").lower()


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
