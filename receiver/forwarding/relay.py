"""Forwarding: one provider stream to any number of media-stream servers, as the provider speaks.

A relay carries one stream to one consumer. It has a listener's queue, sends as a listener is
sent to, and loses what a listener would lose, but says nothing of it: consumers are programs
written for providers, and the counters of the messages tell them. Ours tell, too. A consumer
that is down, or was closed because it took nothing, is tried again with backoff and joins in
mid-call with `connected` and `start`; one that closes with 1000 has had enough.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import structlog

from receiver.config.checks import is_loopback
from receiver.counters import TapCounters
from receiver.errors import ConfigurationError, DialError, LineClosed
from receiver.tap.encoding.notices import Format, OutputSpec, opening
from receiver.tap.events import LifecycleEvent, LiveStream, StreamStarted, StreamStopped
from receiver.tap.feed import Feeds, Sink
from receiver.tap.hub import Hub, Unsubscribe
from receiver.tap.listener import DONE, ListenerLimits, Sender
from receiver.tap.query import matches
from receiver.tap.queue import OutMessage, SendQueue
from receiver.transports.client import Backoff, Line, dial

KIND: Final = OutputSpec(Format.MESSAGES, "stereo")
_TRACKS: Final = 2
_FIRST_DELAY_SECONDS: Final = 0.25
_LONGEST_DELAY_SECONDS: Final = 10.0
_FAREWELL_SECONDS: Final = 10.0
_FILTER: Final = "param."

log = structlog.get_logger("receiver.forward")


@dataclass(frozen=True, slots=True)
class Consumer:
    """A media-stream server, and which streams it gets."""

    url: str
    filters: dict[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Return the URL without what may be secret in it, for logs."""
        parts = urlsplit(self.url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def parse_consumer(text: str) -> Consumer:
    """Return the consumer that `URL` or `URL#param.NAME=VALUE&...` names.

    Raises:
        ConfigurationError: it is no wss URL (or ws on loopback), or has another fragment.
    """
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
        pairs = (
            parse_qsl(parts.fragment, keep_blank_values=True, strict_parsing=True)
            if parts.fragment
            else []
        )
    except ValueError as error:
        raise ConfigurationError("a consumer is wss://HOST/PATH[#param.NAME=VALUE]") from error
    if not host or parts.scheme not in ("ws", "wss"):
        raise ConfigurationError("a consumer must be given as wss://HOST/PATH")
    if parts.scheme == "ws" and not is_loopback(host):
        raise ConfigurationError("a consumer elsewhere needs wss: ws sends audio in the clear")
    if any(not name.startswith(_FILTER) or name == _FILTER for name, _ in pairs):
        raise ConfigurationError("the filter behind # must be param.NAME=VALUE")
    filters = {name.removeprefix(_FILTER): value for name, value in pairs}
    return Consumer(urlunsplit(parts._replace(fragment="")), filters)


class ConsumerQueue:
    """What waits for one consumer (a channel's `Sink`)."""

    def __init__(self, limits: ListenerLimits, *, lost: Callable[[], None]) -> None:
        self.queue = SendQueue(
            self._wake,
            limit_ms=limits.queue_ms * _TRACKS,
            limit_bytes=limits.queue_bytes,
            press=self._press,
            lost=lost,
        )
        self.put = self.queue.put
        self.ended = False
        self._sender: Sender | None = None

    def begin(self, live: LiveStream, timestamp_ms: float) -> None:
        """Greet as the provider does."""
        for item in opening(KIND, live, listeners=0, timestamp_ms=timestamp_ms):
            self.queue.put(item)

    def end(self) -> None:
        """Close once everything is sent."""
        self.ended = True
        if self._sender is not None:
            self._sender.finish(DONE, "the stream has ended")

    def use(self, sender: Sender) -> None:
        """Have what waits, and what comes, sent."""
        self._sender = sender
        sender.serve(self.queue)
        if self.ended:
            self.end()
        else:
            sender.wake()

    def abandon(self) -> int:
        """Send no more; return how many pieces of audio have waited in vain."""
        self._sender = None
        waiting = iter(self.queue.take, None)
        return sum(bool(item.duration_ms) for item in waiting)

    def _wake(self) -> None:
        if self._sender is not None:
            self._sender.wake()

    def _press(self) -> None:
        if self._sender is not None:
            self._sender.press()


class AbsentConsumer:
    """Stands in for a consumer that is not there, and counts what it misses (an `Sink`)."""

    def __init__(self, lost: Callable[[], None]) -> None:
        self._lost = lost

    def begin(self, live: LiveStream, timestamp_ms: float) -> None:
        """Greet nobody."""

    def put(self, item: OutMessage) -> None:
        """Count audio."""
        if item.duration_ms:
            self._lost()

    def end(self) -> None:
        """Part from nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardOptions:
    """How consumers are reached, and what they may take of us."""

    token: str | None = field(default=None, repr=False)
    trust: ssl.SSLContext | None = None
    limits: ListenerLimits = field(default_factory=ListenerLimits)
    figures: TapCounters = field(default_factory=TapCounters)


class Relay:
    """One stream on its way to one consumer. `attach` begins to fill an outlet."""

    def __init__(
        self,
        consumer: Consumer,
        attach: Callable[[Sink], Unsubscribe],
        way: ForwardOptions,
        *,
        call_sid: str,
    ) -> None:
        self._consumer = consumer
        self._attach = attach
        self._way = way
        self._names = {"consumer": consumer.address, "call_sid": call_sid}
        self._over = asyncio.Event()
        self._lost = 0  # pieces of audio that the consumer does not get
        self.trouble: DialError | None = None
        self._open()  # in the call that told of the stream, so that its first chunk is not lost

    def _open(self) -> None:
        self._outbox = ConsumerQueue(self._way.limits, lost=self._count_slow)
        self._leave = self._attach(self._outbox)

    def _count_slow(self) -> None:
        self._count_lost("slow_consumer", 1)

    def _count_absent(self) -> None:
        self._count_lost("absent_consumer", 1)

    def _count_lost(self, reason: str, pieces: int) -> None:
        self._lost += pieces
        self._way.figures.dropped[reason] += pieces

    def stop(self) -> None:
        """Try no more: the stream has ended. What is on its way is still sent."""
        self._over.set()

    async def run(self) -> None:
        """Carry the stream until it ends or the consumer has had enough; never fails.

        Afterwards `trouble` says why the consumer was not there at the end, if it was not.
        """
        try:
            await self._persist()
        finally:
            if self._lost:
                log.warning("consumer_missed_audio", chunks=self._lost, **self._names)

    async def _persist(self) -> None:
        backoff = Backoff(
            first_seconds=_FIRST_DELAY_SECONDS, longest_seconds=_LONGEST_DELAY_SECONDS
        )
        while True:
            had_enough = False
            try:
                had_enough = await self._try(backoff)
            finally:
                self._leave()
                waited = self._outbox.abandon()
                self._count_lost("absent_consumer", 0 if had_enough else waited)
            if had_enough:
                return
            await self._pause(backoff.next_seconds())
            if self._over.is_set():
                return
            self._open()  # what comes while we dial waits

    async def _try(self, backoff: Backoff) -> bool:
        """Dial once and carry; false where the consumer is to be tried again."""
        try:
            line = await dial(self._consumer.url, token=self._way.token, trust=self._way.trust)
        except DialError as error:
            self.trouble = error
            self._note("consumer_unreachable", str(error))
            return False
        self.trouble = None
        log.info("forwarding", **self._names)
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            return await self._carry(line)
        finally:
            line.abort()
            backoff.note_held(clock() - began)

    async def _carry(self, line: Line) -> bool:
        """Send until the end and return true, or false where the consumer is to be tried again."""
        sender = Sender(line, self._way.limits, gave_up=self._note_slow)
        self._outbox.use(sender)
        closed = await _closing(line)
        sender.stop()
        if sender.slow:
            return False
        if self._outbox.ended and not len(self._outbox.queue):
            return True
        self._note("consumer_closed", str(closed))
        return closed.code == DONE

    async def _pause(self, seconds: float) -> None:
        leave = self._attach(AbsentConsumer(self._count_absent))
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), seconds)
        finally:
            leave()

    def _note_slow(self) -> None:
        self._way.figures.closed_slow += 1
        self._note("consumer_too_slow", "nothing was read for too long")

    def _note(self, event: str, reason: str) -> None:
        log.warning(event, reason=reason, **self._names)


async def _closing(line: Line) -> LineClosed:
    """Read what a consumer says, which on a one-way stream means nothing, until it closes."""
    while True:
        try:
            await line.receive()
        except LineClosed as closed:
            return closed


class Forwarder:
    """Has every stream of a hub carried to the consumers that want it."""

    def __init__(
        self, hub: Hub, channels: Feeds, consumers: tuple[Consumer, ...], way: ForwardOptions
    ) -> None:
        self._hub = hub
        self._channels = channels
        self._consumers = consumers
        self._way = way
        self._relays: dict[str, set[Relay]] = {}  # by recording id
        self._tasks: set[asyncio.Task[None]] = set()
        self._leave: Unsubscribe = lambda: None

    def start(self) -> None:
        """Begin, with the streams that live already."""
        self._leave = self._hub.watch(self._tell)
        for live in self._hub.streams():
            self._begin(live)

    def take_token(self, token: str | None) -> None:
        """Have streams that begin from now on carried with another token."""
        self._way = replace(self._way, token=token)

    async def close(self) -> None:
        """Let what is on its way arrive, for a while; idempotent."""
        self._leave()
        for relays in self._relays.values():
            for relay in relays:
                relay.stop()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_FAREWELL_SECONDS)
            for task in late:
                task.cancel()

    def _tell(self, event: LifecycleEvent) -> None:
        if isinstance(event, StreamStarted):
            self._begin(event.live)
        elif isinstance(event, StreamStopped):
            for relay in self._relays.pop(event.live.recording_id, ()):
                relay.stop()

    def _begin(self, live: LiveStream) -> None:
        for consumer in self._consumers:
            if matches(consumer.filters, live.parameters):
                self._relay(consumer, live)

    def _relay(self, consumer: Consumer, live: LiveStream) -> None:
        def attach(outlet: Sink) -> Unsubscribe:
            return self._channels.join(live.recording_id, KIND, outlet)

        relay = Relay(consumer, attach, self._way, call_sid=live.call_sid)
        self._relays.setdefault(live.recording_id, set()).add(relay)
        task = asyncio.ensure_future(relay.run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
