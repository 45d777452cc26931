"""Everything under `/tap`: who may listen, to what, and who listens now.

Unknown streams and forbidden ones are answered alike, also where a caller waits for a stream:
nobody can find out that there is something which they may not hear.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from receiver.auth.tap_tokens import Scope, TapGrant, TapTokens
from receiver.counters import TapCounters
from receiver.errors import BadRequest, LedgerError, Refused
from receiver.lifecycle.ledger_thread import LedgerThread
from receiver.media import ByteOrder, clipped
from receiver.rate_limit import LogThrottle
from receiver.tap import query as tap_query
from receiver.tap.encoding.format import LONGEST_WAIT_MS, Format
from receiver.tap.feed import Feed, Feeds, LevelMeter
from receiver.tap.hub import Hub, LifecycleEvent, LiveStream, StreamRefused, StreamStarted
from receiver.tap.listener import (
    Leases,
    Listener,
    ListenerLimits,
    ListenRequest,
    Watcher,
    WatchRequest,
)
from receiver.tap.replay import Replay
from receiver.transports.interface import Decision, HttpAnswer, UpgradeRequest

_UNAUTHORIZED: Final = HttpAnswer(401, "Unauthorized\n", (("WWW-Authenticate", "Bearer"),))
_NO_STREAM: Final = HttpAnswer(404, "no such stream\n")
_NOT_HERE: Final = HttpAnswer(404, "no such stream in this worker: each serves its own only\n")
_NOT_ENTERED: Final = HttpAnswer(
    503, "the ledger takes no entry, so nobody may listen\n", (("Retry-After", "5"),)
)
_FULL: Final = HttpAnswer(503, "too many listeners\n", (("Retry-After", "5"),))
_DECODERS: Final = ("receiver.tap.encoding.aligned", "receiver.tap.resampler")
"""What only listeners to samples need: it loads numpy."""
_JSON: Final = (("Content-Type", "application/json"), ("Cache-Control", "no-store"))

log = structlog.get_logger("receiver.taps")


@dataclass(frozen=True, slots=True, kw_only=True)
class TapOptions:
    """What a receiver gives its listeners."""

    journal_of: Callable[[str], Path]  # where a live recording's journal is
    flush: Callable[[], None] = lambda: None  # writes journals now
    unsynced_seconds: Callable[[], float] = lambda: 0.0  # how old the oldest audio in memory is
    byte_order: ByteOrder = ByteOrder.LITTLE
    longest_wait_ms: int = LONGEST_WAIT_MS  # of one track for the other
    limits: ListenerLimits = field(default_factory=ListenerLimits)
    max_listeners: int = 1000
    among_workers: bool = False  # other processes have streams that are not known here
    counters: TapCounters = field(default_factory=TapCounters)
    ledger: LedgerThread | None = None  # that has who listens to what
    entered_elsewhere: bytes = b""  # digest of the console's token: it enters people by name

    def ledger_for(self, grant: TapGrant) -> LedgerThread | None:
        """Return the ledger that is to have a listener, unless whoever dials has entered it."""
        own = self.entered_elsewhere
        return None if own and grant.token_digest == own else self.ledger


class TapService:
    """Decides about requests under `/tap`, and connects listeners with their streams."""

    def __init__(self, hub: Hub, feeds: Feeds, tokens: TapTokens, *, options: TapOptions) -> None:
        self.hub = hub
        self.options = options
        self.counters = options.counters
        self.leases = Leases(tokens)
        self.listeners: set[Listener] = set()  # with an open socket
        self.watchers: set[Watcher] = set()
        self.levels = LevelMeter(hub, byte_order=options.byte_order)
        self._feeds = feeds
        self._listening: Counter[str] = Counter()  # by recording id
        self._throttle = LogThrottle(longest_seconds=60)
        self._has_decoders = False  # they are imported for the first listener to samples

    def __len__(self) -> int:
        return len(self.listeners) + len(self.watchers)

    @property
    def tokens(self) -> TapTokens:
        """Return the valid tokens; whoever came with one that is taken away is dismissed."""
        return self.leases.tokens

    @tokens.setter
    def tokens(self, tokens: TapTokens) -> None:
        self.leases.replace(tokens)

    # Requests.

    def admit(self, request: UpgradeRequest) -> Decision | Coroutine[Any, Any, Decision]:
        """Decide about one request for a path under `/tap`."""
        try:
            token = tap_query.access_token(request.query)
            grant = self.tokens.admit(request.authorization, token, now=time.time())
            return self._route(request, grant)
        except Refused as refused:
            self._count_refused(refused.reason.value, request)
            return _UNAUTHORIZED
        except BadRequest as bad:
            return HttpAnswer(400, f"{bad}\n")

    def _route(
        self, upgrade: UpgradeRequest, grant: TapGrant
    ) -> Decision | Coroutine[Any, Any, Decision]:
        name, query = tap_query.name_in(upgrade.path), upgrade.query
        if not name:
            return self._list(query, grant.scope)
        if len(self) >= self.options.max_listeners:
            return _FULL
        if name == tap_query.ALL:
            watched = WatchRequest(*tap_query.parse_watch(query), grant, upgrade.remote_address)
            return Watcher(watched, self)
        request = ListenRequest(name, tap_query.parse(query), grant, upgrade.remote_address)
        live = _find(self.hub, request)
        if isinstance(live, StreamRefused):
            return HttpAnswer(422, f"nobody can listen to this stream: {live.reason}\n")
        if live is None and not request.query.wait_seconds:
            return _NOT_HERE if self.options.among_workers else _NO_STREAM
        if self.options.ledger_for(grant) is None and self._is_ready(request):
            return Listener(request, self)
        return self._prepare_and_admit(upgrade, request, live)

    def _is_ready(self, request: ListenRequest) -> bool:
        return request.query.spec.format is Format.MESSAGES or self._has_decoders

    async def _prepare_and_admit(
        self, upgrade: UpgradeRequest, request: ListenRequest, live: LiveStream | None
    ) -> Decision:
        """Admit a listener once what it needs is imported, and it is in the ledger.

        Importing takes a third of a second and the ledger waits for a disk, both in threads, so
        that no recording waits for either.
        """
        loop = asyncio.get_running_loop()
        for module in () if self._is_ready(request) else _DECODERS:
            await loop.run_in_executor(None, importlib.import_module, module)
        self._has_decoders |= request.query.spec.format is not Format.MESSAGES
        listener = Listener(request, self)
        ledger = self.options.ledger_for(request.grant)
        if ledger is not None:
            try:
                await ledger.append("listening_live", **_entry(listener, live))
            except LedgerError:
                self._count_refused("ledger", upgrade)
                return _NOT_ENTERED
            listener.entered = live.recording_id if live else ""
        full = len(self) >= self.options.max_listeners  # others have come meanwhile
        return _FULL if full else listener

    def _list(self, query: str, scope: Scope) -> HttpAnswer:
        filters = tap_query.parse_filters(query)
        found = [
            self.described(live)
            for live in self.hub.streams()
            if scope.permits(live.call_sid, live.parameters)
            and tap_query.matches(filters, live.parameters)
        ]
        return HttpAnswer(200, msgspec.json.encode(found).decode() + "\n", _JSON)

    def _count_refused(self, reason: str, request: UpgradeRequest) -> None:
        """Count a refusal, and log those of one address once a second, then less often."""
        self.counters.refused[reason] += 1
        address = request.remote_address
        if times := self._throttle.count(f"{address} {reason}", time.monotonic()):
            log.warning("listener_refused", reason=reason, remote_address=address, times=times)

    # Called by listeners and watchers.

    def described(self, live: LiveStream) -> dict[str, Any]:
        """Return what the list of streams says of one."""
        return {**live.described(), "listeners": self.listeners_of(live.recording_id)}

    def listeners_of(self, recording_id: str) -> int:
        """Return how many listen to a stream."""
        return self._listening[recording_id]

    def count_slow(self) -> None:
        """Count a piece of audio that a listener does not get because it did not read."""
        self.counters.dropped["slow_listener"] += 1

    def listener_opened(self, listener: Listener) -> None:
        """Connect a listener with its stream, or wait for that to start."""
        request = listener.request
        listener.lease = self.leases.start(request.grant, dismiss=listener.dismiss)
        self.listeners.add(listener)
        self.counters.listeners = len(self.listeners)
        live = _find(self.hub, request)
        if live is not None:
            self._subscribe(listener, live)
        elif request.query.wait_seconds:
            self._wait(listener)
        else:  # it ended within the handshake
            listener.refuse()

    def listening_started(self, listener: Listener) -> None:
        """Count, log and enter that a listener is sent a call from now on.

        It is in the ledger already, unless it waited for the call without knowing which it is.
        """
        _count_started(listener, self.counters)
        live, ledger = listener.live, self.options.ledger_for(listener.request.grant)
        if ledger and live and live.recording_id != listener.entered:
            ledger.submit("listening_live", **_entry(listener, live))

    def listener_closed(self, listener: Listener) -> None:
        """Remove a listener."""
        if listener.live is not None:
            part = _count_ended(listener, self.counters)
            if ledger := self.options.ledger_for(listener.request.grant):
                ledger.submit("listened_live", **_entry(listener, listener.live, part))
        self.listeners.discard(listener)
        listener.lease.release()
        self.counters.listeners = len(self.listeners)
        if listener.closed_slow:
            self.counters.closed_slow += 1
            live = listener.live
            log.warning("listener_too_slow", call_sid=live.call_sid if live else None)

    def watcher_opened(self, watcher: Watcher) -> None:
        """Count a watcher."""
        log.info("watcher_started", **watcher.names)
        self.watchers.add(watcher)
        self.counters.watchers = len(self.watchers)

    def watcher_closed(self, watcher: Watcher) -> None:
        """Remove a watcher."""
        log.info("watcher_ended", **watcher.names)
        self.watchers.discard(watcher)
        self.counters.watchers = len(self.watchers)
        if watcher.closed_slow:
            self.counters.closed_slow += 1
            log.warning("watcher_too_slow", **watcher.names)

    # How listeners get their stream.

    def _wait(self, listener: Listener) -> None:
        request = listener.request

        def on_event(event: LifecycleEvent) -> None:
            if isinstance(event, StreamStarted | StreamRefused) and request.matches(event.live):
                listener.unsubscribe()
                self._subscribe(listener, _find(self.hub, request) or event.live)

        unwatch = self.hub.watch(on_event)
        loop = asyncio.get_running_loop()
        timer = loop.call_later(request.query.wait_seconds, listener.refuse)

        def stop() -> None:
            unwatch()
            timer.cancel()

        listener.unsubscribe = stop

    def _subscribe(self, listener: Listener, live: LiveStream | StreamRefused) -> None:
        """Start to send a stream to a listener, if its token is still valid and anybody can."""
        if not listener.lease.is_valid():
            return
        if isinstance(live, StreamRefused):
            listener.refuse_audio(live.reason)
            return
        listener.lease.keep_until_closed()
        self._listening[live.recording_id] += 1
        if listener.request.query.since_seconds:
            self._replay(listener, live.recording_id)
        else:
            self._share_feed(listener, live.recording_id)

    def _share_feed(self, listener: Listener, recording_id: str) -> None:
        unsubscribe = self._feeds.subscribe(recording_id, listener.spec, listener)
        self._on_unsubscribe(listener, recording_id, unsubscribe)

    def _replay(self, listener: Listener, recording_id: str) -> None:
        replay = Replay(
            self.hub,
            lambda start_ms: Feed(
                listener.spec,
                byte_order=self.options.byte_order,
                start_ms=start_ms,
                longest_wait_ms=self.options.longest_wait_ms,
                on_drop=self._feeds.count_dropped,
            ),
            flush=self.options.flush,
        )
        task = asyncio.ensure_future(
            replay.play(
                listener,
                recording_id,
                since_seconds=listener.request.query.since_seconds,
                journal=self.options.journal_of(recording_id),
            )
        )

        def done(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and task.exception() is not None:
                log.error("past_unreadable", recording_id=recording_id, error=str(task.exception()))
                listener.fail()

        def stop() -> None:
            task.cancel()
            replay.stop()

        task.add_done_callback(done)
        self._on_unsubscribe(listener, recording_id, stop)

    def _on_unsubscribe(
        self, listener: Listener, recording_id: str, stop: Callable[[], None]
    ) -> None:
        def unsubscribe() -> None:
            listener.unsubscribe = _nothing
            self._listening[recording_id] -= 1
            if not self._listening[recording_id]:
                del self._listening[recording_id]
            stop()

        listener.unsubscribe = unsubscribe


def _find(hub: Hub, request: ListenRequest) -> LiveStream | StreamRefused | None:
    """Return the newest stream that is asked for, or one of it that nobody can listen to.

    A call may have several.
    """
    found: list[LiveStream | StreamRefused] = [
        event for event in hub.refused() if request.matches(event.live)
    ]
    found += [live for live in hub.streams() if request.matches(live)]
    return found[-1] if found else None


def _count_started(listener: Listener, counters: TapCounters) -> None:
    """Count and log a beginning, under the token's name."""
    request = listener.request
    counters.started[request.grant.name] += 1
    log.info(
        "listener_started",
        **_names(listener),
        format=listener.spec.format.value,
        from_ms=round(listener.started_at_ms),
        remote_address=request.remote_address,
    )


def _count_ended(listener: Listener, counters: TapCounters) -> dict[str, float]:
    """Count and log which part of a call a listener was sent, and what it did not read in time.

    Returns:
        From where to where that was, in seconds of the stream's clock, as the ledger has it.
    """
    queue, name = listener.queue, listener.request.grant.name
    start_ms = listener.started_at_ms
    end_ms = start_ms if queue.sent_to_ms is None else queue.sent_to_ms
    counters.ended[name] += 1
    counters.listened_ms[name] += max(0, round(end_ms - start_ms))
    counters.lost[name] += queue.dropped
    log.info(
        "listener_ended",
        **_names(listener),
        from_ms=round(start_ms),
        to_ms=round(end_ms),
        lost=queue.dropped,
        lost_ms=round(queue.dropped_ms),
    )
    return {"from_s": round(start_ms / 1000, 3), "to_s": round(end_ms / 1000, 3)}


def _entry(
    listener: Listener, live: LiveStream | None, part: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """Return the fields of a listener's entry in the ledger; `part` is what it was sent."""
    request = listener.request
    what: dict[str, Any] = {"call": clipped(live.call_sid)} if live else {"asked": request.name}
    if part is None:
        what |= {"format": listener.spec.format.value, "address": request.remote_address}
    return {
        "who": request.grant.name,
        "via": "tap",
        "recording": live.recording_id if live else "",
        "track": listener.spec.track,
        **what,
        **(part or {}),
    }


def _names(listener: Listener) -> dict[str, str]:
    """Return what log lines name a listener by: never its token."""
    live = listener.live
    return {
        "token_name": listener.request.grant.name,
        "call_sid": live.call_sid if live else "",
        "recording_id": live.recording_id if live else "",
        "track": listener.spec.track,
    }


def _nothing() -> None:
    """Unsubscribe again, which does nothing."""
