"""Sockets that listen: to one stream, by a queue that a feed fills; or to the news of all.

A `Sender` empties a queue over its socket, at the socket's own pace. Events of all streams
(`/tap/all`) wait undescribed, so that a long list of what is live already takes no room, and none
is ever dropped: a watcher for which too many of them wait is closed with 1013, and finds what it
missed in the list when it comes back.

Each socket has a `Lease`: its grant, in use. A grant is checked again whenever something new would
be opened with it: a call that was waited for, the notice of another call. A connection that only
waits or watches is closed as soon as its token expires. A call that is being sent may go on to its
end then; but when a token or key is removed from the files and SIGHUP has them read again, every
connection that came with it is closed.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from receiver.auth.tap_tokens import Scope, TapGrant, TapTokens
from receiver.media import GapReason
from receiver.rate_limit import TokenBucket
from receiver.tap import query
from receiver.tap.encoding.format import Format, OutMessage, OutputSpec, gap_notice, opening, timed
from receiver.tap.hub import (
    LifecycleEvent,
    LiveStream,
    RecordingPublished,
    StreamRefused,
    StreamStarted,
    StreamStopped,
)
from receiver.tap.query import TapQuery
from receiver.tap.queue import LIMIT_BYTES, LIMIT_MS, SendQueue
from receiver.transports.interface import Connection

if TYPE_CHECKING:
    from receiver.tap.service import TapService


_LONGEST_WAIT_SECONDS: Final = 3600.0
"""Between two checks of the clock, which may be set meanwhile."""

log = structlog.get_logger("receiver.taps")


class Lease:
    """One grant in use by one connection; `dismiss` closes that connection."""

    def __init__(self, leases: Leases, grant: TapGrant, dismiss: Callable[[], None]) -> None:
        self._leases = leases
        self._grant = grant
        self._dismiss = dismiss
        self._is_kept = False  # until the connection closes, even if the token expires
        self._timer: asyncio.TimerHandle | None = None
        leases.open.add(self)
        self._check()

    def is_valid(self) -> bool:
        """Return whether something new may be opened now; if not, dismiss the connection."""
        valid = self._leases.tokens.still_admits(self._grant, now=time.time())
        if not valid:
            self._end()
        return valid

    def keep_until_closed(self) -> None:
        """Stop the timer: a call is being sent, which may go on when the token expires."""
        self._is_kept = True
        self._stop_timer()

    def recheck(self) -> None:
        """Dismiss the connection if its grant is not among the tokens, which have changed."""
        if not self._is_kept:
            self.is_valid()
        elif not self._leases.tokens.still_has(self._grant):
            self._end()

    def release(self) -> None:
        """Remove the connection, which is closed; idempotent."""
        self._leases.open.discard(self)
        self._stop_timer()

    def _check(self) -> None:
        self._timer = None
        expires_at = self._grant.expires_at
        if not self.is_valid() or expires_at is None:
            return
        wait = min(expires_at - time.time(), _LONGEST_WAIT_SECONDS)
        self._timer = asyncio.get_running_loop().call_later(max(wait, 0), self._check)

    def _end(self) -> None:
        if self in self._leases.open:
            self.release()
            reason = "the token is no longer valid"
            log.info("listener_dismissed", token_name=self._grant.name, reason=reason)
        self._dismiss()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Leases:
    """Every lease of an open connection, and the tokens that are valid at present.

    Everything here runs in the event loop; `dismiss` is called there, too, perhaps before `start`
    has returned and perhaps more than once.
    """

    def __init__(self, tokens: TapTokens) -> None:
        self.tokens = tokens
        self.open: set[Lease] = set()

    def start(self, grant: TapGrant, *, dismiss: Callable[[], None]) -> Lease:
        """Return the lease of a new connection, dismissed at once if its grant has ended."""
        return Lease(self, grant, dismiss)

    def replace(self, tokens: TapTokens) -> None:
        """Replace the valid tokens, and dismiss every connection that has lost its own."""
        self.tokens = tokens
        for lease in tuple(self.open):
            lease.recheck()


DONE: Final = 1000
FAILED: Final = 1011
TRY_AGAIN_LATER: Final = 1013
NO_SUCH_STREAM: Final = 4404
NOT_DECODED: Final = 4422
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


@dataclass(frozen=True, slots=True)
class ListenRequest:
    """What one listener asked for, and what its token permits."""

    name: str
    query: TapQuery
    grant: TapGrant
    remote_address: str = ""

    def matches(self, live: LiveStream) -> bool:
        """Return whether a stream has that name and may be listened to."""
        named = self.name in (live.recording_id, live.stream_sid, live.call_sid)
        return named and self.grant.scope.permits(live.call_sid, live.parameters)


class Listener:
    """A transport's `Peer` that listens to one stream, and a feed's `Sink`.

    `service` finds its stream; `unsubscribe` ends whatever the service has started for it.
    """

    lease: Lease  # from `opened` on
    _sender: Sender  # from `opened` on

    def __init__(self, request: ListenRequest, service: TapService) -> None:
        limits = service.options.limits
        self.request = request
        self.live: LiveStream | None = None  # once it is found
        self.started_at_ms = 0.0  # on its clock
        self.entered = ""  # the recording for which it is in the ledger already
        self.unsubscribe: Callable[[], None] = lambda: None
        self._service = service
        # Both tracks' messages wait in one queue: two seconds of audio are four of theirs.
        both = self.spec == OutputSpec(Format.MESSAGES, "stereo")
        self.queue = SendQueue(
            limit_ms=limits.queue_ms * (2 if both else 1),
            limit_bytes=limits.queue_bytes,
            gap_notice=self._slow_notice,
            on_drop=service.count_slow,
            on_empty=self._on_empty,
        )
        self.put = self.queue.put
        self._emptied = asyncio.Event()

    @property
    def spec(self) -> OutputSpec:
        """Return in which shape the stream is sent."""
        return self.request.query.spec

    @property
    def closed_slow(self) -> bool:
        """Return whether it was closed because it did not read."""
        return self._sender.closed_slow

    # As a transport's peer.

    def opened(self, connection: Connection) -> None:
        """Start to send over an open connection."""
        self._sender = Sender(connection, self.queue, self._service.options.limits)
        self._service.listener_opened(self)

    def message_received(self, message: bytes) -> None:
        """Ignore a message, unless it is one of too many: listeners listen."""
        self._sender.count_message()

    def closed(self, *, code: int, clean: bool) -> None:
        """Drop everything, because the socket is gone."""
        self.unsubscribe()
        self._sender.stop()
        self._service.listener_closed(self)
        self.queue.clear()

    def _slow_notice(self, track: str, timestamp_ms: float, duration_ms: float) -> str:
        notice = gap_notice(GapReason.SLOW_LISTENER, track, timestamp_ms, duration_ms)
        return self._timed(notice) if self.spec.format is not Format.MESSAGES else notice

    def _timed(self, text: str) -> str:
        """Return an event with its time and latency."""
        assert self.live is not None  # noqa: S101  or there would be none
        return timed(text, self.live.started_at, 0, time.time())

    # As a feed's sink.

    def start(self, live: LiveStream, timestamp_ms: float) -> None:
        """Send what is listened to, and where on the stream's clock it starts."""
        self.live, self.started_at_ms = live, timestamp_ms
        self._service.listening_started(self)
        listeners = self._service.listeners_of(live.recording_id)
        for item in opening(self.spec, live, listeners=listeners, timestamp_ms=timestamp_ms):
            is_ours = self.spec.format is not Format.MESSAGES
            self.queue.put(OutMessage(self._timed(str(item.message))) if is_ours else item)

    def end(self) -> None:
        """Close once everything is sent."""
        if self.live is None:
            self.refuse()
        else:
            self.queue.close(DONE, "the stream has ended")

    def refuse(self) -> None:
        """Close: there is no such stream, or not for this listener."""
        self.queue.close(NO_SUCH_STREAM, "no such stream")

    def refuse_audio(self, reason: str) -> None:
        """Close: nobody can listen to the stream, because its audio cannot be decoded."""
        self.queue.close(NOT_DECODED, f"nobody can listen: {reason}")

    def fail(self) -> None:
        """Close because of an error of ours, once everything is sent."""
        self.queue.close(FAILED, "internal error")

    def dismiss(self) -> None:
        """Close now, because the token that opened the socket is no longer valid."""
        self.unsubscribe()
        self._sender.dismiss()

    async def drained(self) -> None:
        """Return when nothing waits in the queue."""
        while not self.queue.is_idle:
            self._emptied.clear()
            await self._emptied.wait()

    def _on_empty(self) -> None:
        self._emptied.set()


MOST_EVENTS: Final = 1000
"""That may wait for one watcher, besides the streams that it found."""


@dataclass(frozen=True, slots=True)
class WatchRequest:
    """What one watcher asked for, and what its token permits."""

    filters: dict[str, str]  # custom parameters that a stream must have
    levels: bool  # whether it asked for the levels of all streams, too
    grant: TapGrant
    remote_address: str = ""

    def matches(self, about: LiveStream | RecordingPublished) -> bool:
        """Return whether this is asked for and permitted."""
        permitted = self.grant.scope.permits(about.call_sid, about.parameters)
        return permitted and query.matches(self.filters, about.parameters)


class Watcher:
    """A transport's `Peer` that gets what happens to those streams that it may watch."""

    _sender: Sender  # these two from `opened` on
    _lease: Lease

    def __init__(self, request: WatchRequest, service: TapService) -> None:
        limits = service.options.limits
        self.names = {  # for logs
            "token_name": request.grant.name,
            "remote_address": request.remote_address,
        }
        self._request = request
        self._service = service
        self._unsubscribe: list[Callable[[], None]] = []
        self._waiting: deque[LifecycleEvent] = deque()
        self._most_waiting = MOST_EVENTS
        self._queue = SendQueue(limit_bytes=limits.queue_bytes, on_empty=self._fill)

    @property
    def closed_slow(self) -> bool:
        """Return whether it was closed because it did not read."""
        return self._sender.closed_slow

    @property
    def has_caught_up(self) -> bool:
        """Whether its socket has taken everything."""
        return not self._waiting and self._queue.is_idle

    def opened(self, connection: Connection) -> None:
        """Start to send over an open connection: what is live already, then what happens."""
        service = self._service
        self._sender = Sender(connection, self._queue, service.options.limits)
        self._lease = service.leases.start(self._request.grant, dismiss=self._sender.dismiss)
        live = [
            StreamStarted(live) for live in service.hub.streams() if self._request.matches(live)
        ]
        self._most_waiting += len(live)  # however many these are
        self._send(*live)
        self._unsubscribe.append(service.hub.watch(self._on_event))
        if self._request.levels:
            self._unsubscribe.append(service.levels.subscribe(self.on_levels))
        service.watcher_opened(self)

    def message_received(self, message: bytes) -> None:
        """Ignore a message, unless it is one of too many."""
        self._sender.count_message()

    def closed(self, *, code: int, clean: bool) -> None:
        """Drop everything, because the socket is gone."""
        for unsubscribe in self._unsubscribe:
            unsubscribe()
        self._lease.release()
        self._sender.stop()
        self._service.watcher_closed(self)
        self._waiting.clear()
        self._queue.clear()

    def _on_event(self, event: LifecycleEvent) -> None:
        if isinstance(event, StreamRefused):
            return  # there is nothing to watch before it is recorded
        about = event if isinstance(event, RecordingPublished) else event.live
        if self._request.matches(about) and self._lease.is_valid() and not self.closed_slow:
            self._send(event)

    def on_levels(self, measured: Sequence[tuple[LiveStream, dict[str, Any]]]) -> None:
        """Send the levels of all streams; to a watcher that has not read what came before, none."""
        if not self.has_caught_up or not self._lease.is_valid():
            return
        streams = {
            live.recording_id: {
                **levels,
                "listeners": self._service.listeners_of(live.recording_id),
            }
            for live, levels in measured
            if self._request.matches(live)
        }
        document: dict[str, Any] = {"event": "levels", "streams": streams}
        if self._request.grant.scope == Scope():  # to others it would tell of calls beyond it
            document["unsynced_ms"] = round(self._service.options.unsynced_seconds() * 1000)
        self._queue.put(OutMessage(msgspec.json.encode(document).decode()))

    def _send(self, *events: LifecycleEvent) -> None:
        self._waiting.extend(events)
        if len(self._waiting) > self._most_waiting:
            self._sender.close_slow()
        self._fill()

    def _fill(self) -> None:
        while self._waiting and not self._queue.is_crowded():
            document = self._document(self._waiting.popleft())
            self._queue.put(OutMessage(msgspec.json.encode(document).decode()))

    def _document(self, event: LifecycleEvent) -> dict[str, Any]:
        """Return an event as it is sent."""
        if isinstance(event, StreamStarted):
            return {"event": "started", **self._service.described(event.live)}
        if isinstance(event, RecordingPublished):
            fields = msgspec.to_builtins(event)
            del fields["type"]
            return {"event": "recorded", **fields}
        assert isinstance(event, StreamStopped)  # noqa: S101  the others do not wait
        live = event.live
        return {
            "event": "stopped",
            "recording_id": live.recording_id,
            "call_sid": live.call_sid,
            "stream_sid": live.stream_sid,
            "parameters": live.parameters,
            "reason": event.reason.value,
        }
