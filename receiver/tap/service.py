"""Everything under `/tap`: who may listen, to what, and who listens now.

Unknown streams and forbidden ones answer alike, also where a caller waits for a stream: what
may not be heard does not exist.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from receiver.auth.leases import Lease, Leases
from receiver.auth.tap_tokens import Scope, TapGrant, TapTokens
from receiver.counters import TapCounters
from receiver.errors import BadRequest, Refused
from receiver.media import ByteOrder
from receiver.rate_limit import LogThrottle
from receiver.tap import query as tap_requests
from receiver.tap.encoding.notices import OutputSpec
from receiver.tap.events import LifecycleEvent, LiveStream, StreamStarted
from receiver.tap.feed import Feed, Feeds
from receiver.tap.hub import Hub
from receiver.tap.listener import Listener, ListenerLimits
from receiver.tap.query import TapRequest
from receiver.tap.replay import Replay
from receiver.tap.watchers import WatcherPool
from receiver.transports.interface import HttpAnswer, Peer, UpgradeRequest

_UNAUTHORIZED: Final = HttpAnswer(401, "Unauthorized\n", (("WWW-Authenticate", "Bearer"),))
_NO_STREAM: Final = HttpAnswer(404, "no such stream\n")
_NOT_HERE: Final = HttpAnswer(404, "no such stream in this worker: each serves its own only\n")
_FULL: Final = HttpAnswer(503, "too many listeners\n", (("Retry-After", "5"),))
_NO_RESAMPLER: Final = HttpAnswer(501, "rate needs the extra dsp: pip install 'tapreel[dsp]'\n")
_JSON: Final = (("Content-Type", "application/json"), ("Cache-Control", "no-store"))

log = structlog.get_logger("receiver.taps")


@dataclass(frozen=True, slots=True, kw_only=True)
class TapOptions:
    """What the house gives its listeners."""

    journal_of: Callable[[str], Path]  # where a live recording's journal is
    flush: Callable[[], None] = lambda: None  # has journals written now
    byte_order: ByteOrder = ByteOrder.LITTLE
    limits: ListenerLimits = field(default_factory=ListenerLimits)
    max_listeners: int = 1000
    among_workers: bool = False  # whose streams cannot be heard here
    figures: TapCounters = field(default_factory=TapCounters)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What one listener asked for, and what it may have."""

    name: str
    request: TapRequest
    ticket: TapGrant

    def means(self, live: LiveStream) -> bool:
        named = self.name in (live.recording_id, live.stream_sid, live.call_sid)
        return named and self.ticket.scope.permits(live.call_sid, live.parameters)


@dataclass(frozen=True, slots=True)
class _Visit:
    """The attendant of one listener: remembers what it asked for."""

    taps: TapService
    asked: _Asked

    def opened(self, listener: Listener) -> None:
        self.taps.opened(listener, self.asked)

    def closed(self, listener: Listener) -> None:
        self.taps.closed(listener)

    def missed(self) -> None:
        self.taps.figures.dropped["slow_listener"] += 1

    def listening_to(self, recording_id: str) -> int:
        return self.taps.listening_to(recording_id)


class TapService:
    """The tap's end of the gate, and all that listen."""

    def __init__(
        self, hub: Hub, channels: Feeds, tokens: TapTokens, *, options: TapOptions
    ) -> None:
        self._tickets = Leases(tokens)
        self.figures = options.figures
        self._hub = hub
        self._options = options
        self.listeners: dict[Listener, Lease] = {}  # whose sockets are open
        self._listening: Counter[str] = Counter()  # by recording id
        self._channels = channels
        self._watchers = WatcherPool(
            hub,
            options.limits,
            figures=options.figures,
            described=self._described,
            tickets=self._tickets,
        )
        self._throttle = LogThrottle()

    def __len__(self) -> int:
        return len(self.listeners) + len(self._watchers)

    @property
    def tokens(self) -> TapTokens:
        """Return the tokens that count; who came with one that is taken away has to go."""
        return self._tickets.tokens

    @tokens.setter
    def tokens(self, tokens: TapTokens) -> None:
        self._tickets.replace(tokens)

    # The gate.

    def admit(self, request: UpgradeRequest) -> HttpAnswer | Peer:
        """Decide about one request for a path under `/tap`."""
        try:
            token = tap_requests.access_token(request.query)
            ticket = self.tokens.admit(request.authorization, token, now=time.time())
            return self._route(tap_requests.name_in(request.path), request.query, ticket)
        except Refused as refused:
            self._refuse(refused.reason.value, request)
            return _UNAUTHORIZED
        except BadRequest as bad:
            return HttpAnswer(400, f"{bad}\n")

    def _route(self, name: str, query: str, ticket: TapGrant) -> HttpAnswer | Peer:
        if not name:
            return self._list(query, ticket.scope)
        if len(self) >= self._options.max_listeners:
            return _FULL
        if name == tap_requests.ALL:
            return self._watchers.watcher(tap_requests.parse_filters(query), ticket)
        asked = _Asked(name, tap_requests.parse_request(query), ticket)
        live = self._find(asked)
        if _needs_resampler(asked.request.kind, live) and not _can_resample():
            return _NO_RESAMPLER
        if live is None and not asked.request.wait_seconds:
            return _NOT_HERE if self._options.among_workers else _NO_STREAM
        return Listener(asked.request.kind, _Visit(self, asked), self._options.limits)

    def _list(self, query: str, scope: Scope) -> HttpAnswer:
        filters = tap_requests.parse_filters(query)
        found = [
            self._described(live)
            for live in self._hub.streams()
            if scope.permits(live.call_sid, live.parameters)
            and tap_requests.matches(filters, live.parameters)
        ]
        return HttpAnswer(200, msgspec.json.encode(found).decode() + "\n", _JSON)

    def _described(self, live: LiveStream) -> dict[str, Any]:
        return {**live.described(), "listeners": self.listening_to(live.recording_id)}

    def _refuse(self, reason: str, request: UpgradeRequest) -> None:
        """Count a refusal, and tell of each address at most once a second."""
        self.figures.refused[reason] += 1
        address = request.remote_address
        if times := self._throttle.count(f"{address} {reason}", time.monotonic()):
            log.warning("listener_refused", reason=reason, remote_address=address, times=times)

    # The listeners.

    def opened(self, listener: Listener, asked: _Asked) -> None:
        """Find the listener's stream, or wait for it."""
        hold = self._tickets.start(asked.ticket, dismiss=listener.dismiss)
        self.listeners[listener] = hold
        self.figures.listeners = len(self.listeners)
        live = self._find(asked)
        if live is not None:
            self._open(listener, live, asked.request)
        elif asked.request.wait_seconds:
            self._wait(listener, asked)
        else:  # it ended within the handshake
            listener.refuse()

    def closed(self, listener: Listener) -> None:
        """Forget a listener."""
        if hold := self.listeners.pop(listener, None):
            hold.release()
        self.figures.listeners = len(self.listeners)
        if listener.slow:
            self.figures.closed_slow += 1
            live = listener.live
            log.warning("listener_too_slow", call_sid=live.call_sid if live else None)

    def listening_to(self, recording_id: str) -> int:
        """Return how many listen to a stream."""
        return self._listening[recording_id]

    def _find(self, asked: _Asked) -> LiveStream | None:
        """Return the newest stream that is meant: a call may have several."""
        found = None
        for live in self._hub.streams():
            if asked.means(live):
                found = live
        return found

    def _wait(self, listener: Listener, asked: _Asked) -> None:
        def tell(event: LifecycleEvent) -> None:
            if isinstance(event, StreamStarted) and asked.means(event.live):
                listener.leave()
                self._open(listener, event.live, asked.request)

        leave = self._hub.watch(tell)
        loop = asyncio.get_running_loop()
        timer = loop.call_later(asked.request.wait_seconds, listener.refuse)

        def stop() -> None:
            leave()
            timer.cancel()

        listener.leave = stop

    def _open(self, listener: Listener, live: LiveStream, request: TapRequest) -> None:
        """Let a listener hear a stream, if its token is still good."""
        hold = self.listeners[listener]
        if hold.is_valid():
            hold.keep_until_closed()
            self._attach(listener, live, request)

    def _attach(self, listener: Listener, live: LiveStream, request: TapRequest) -> None:
        self._listening[live.recording_id] += 1
        if request.since_seconds:
            self._rewind(listener, live.recording_id, request)
        else:
            self._join(listener, live.recording_id)

    def _join(self, listener: Listener, recording_id: str) -> None:
        leave = self._channels.join(recording_id, listener.kind, listener)

        def stop() -> None:
            listener.leave = _nothing
            self._forget_listening(recording_id)
            leave()

        listener.leave = stop

    def _rewind(self, listener: Listener, recording_id: str, request: TapRequest) -> None:
        rewind = Replay(
            self._hub,
            lambda begin_ms: Feed(
                listener.kind,
                byte_order=self._options.byte_order,
                begin_ms=begin_ms,
                count=self._channels.count,
            ),
            flush=self._options.flush,
        )
        task = asyncio.ensure_future(
            rewind.play(
                listener,
                recording_id,
                since_seconds=request.since_seconds,
                journal=self._options.journal_of(recording_id),
            )
        )

        def done(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and task.exception() is not None:
                log.error("past_unreadable", recording_id=recording_id, error=str(task.exception()))
                listener.fail()

        task.add_done_callback(done)

        def stop() -> None:
            listener.leave = _nothing
            self._forget_listening(recording_id)
            task.cancel()
            rewind.stop()

        listener.leave = stop

    def _forget_listening(self, recording_id: str) -> None:
        self._listening[recording_id] -= 1
        if not self._listening[recording_id]:
            del self._listening[recording_id]


def _needs_resampler(kind: OutputSpec, live: LiveStream | None) -> bool:
    """Whether another rate than a stream's own is asked for; of an unknown one, any may be."""
    own = live.media_format.sample_rate if live is not None else None
    return kind.rate not in (None, own)


def _can_resample() -> bool:
    from receiver.tap import resampler  # only here: it needs numpy

    return resampler.available()


def _nothing() -> None:
    """Leave what has been left."""
