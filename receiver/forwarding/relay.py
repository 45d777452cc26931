"""Forwarding: streams to consumers, which are media-stream servers, as the provider would.

A `Consumer` says where a stream goes, and which streams and tracks. The forwarder starts a relay
for each stream and each consumer that is to get it. A relay has a listener's queue, sends as a
listener is sent to, and loses what a listener would lose, but sends no notice of it: consumers are
programs written for providers, and the counters in the messages show what is missing. Our own
counters and logs do, too.

    dial -> send until the stream ends -> close with 1000, done
      |        the consumer closes with 1000: it has had enough, done
      |        it breaks off, or took nothing for too long: pause, then dial again
      fails:   pause, then dial again

While a relay pauses, audio is counted as dropped; while it dials, audio waits in the queue. A
consumer that is back joins in mid-call with `connected` and `start`.

Streams come from the hub of this process. `carry_call` forwards one call of another process, which
it gets through that one's tap.
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

from receiver.config import is_loopback
from receiver.counters import TapCounters
from receiver.errors import ConfigurationError, DialError, LineClosed, PeerError
from receiver.media import Chunk, MediaFormat
from receiver.tap.encoding.format import Format, OutMessage, OutputSpec, opening
from receiver.tap.feed import Feeds, Sink
from receiver.tap.hub import (
    Hub,
    LifecycleEvent,
    LiveStream,
    StreamStarted,
    StreamStopped,
    Unsubscribe,
)
from receiver.tap.listener import DONE, NO_SUCH_STREAM, NOT_DECODED, ListenerLimits, Sender
from receiver.tap.query import matches
from receiver.tap.queue import SendQueue
from receiver.transports.client import Backoff, Line, dial
from receiver.wire import messages, parse
from receiver.wire.messages import Connected, Start

BOTH: Final = "stereo"
_TRACKS: Final = ("inbound", "outbound")
_FILTER: Final = "param."
_FORM: Final = "wss://HOST/PATH[#track=inbound&param.NAME=VALUE]"
_FIRST_DELAY_SECONDS: Final = 0.25
_LONGEST_DELAY_SECONDS: Final = 10.0
_CLOSE_SECONDS: Final = 10.0
"""For how long what is on its way may still arrive."""

log = structlog.get_logger("receiver.forward")


@dataclass(frozen=True, slots=True)
class Consumer:
    """A media-stream server, and what it gets: of which streams, and which of their tracks."""

    url: str
    filters: dict[str, str] = field(default_factory=dict)  # custom parameters
    track: str = BOTH

    @property
    def spec(self) -> OutputSpec:
        """Return the shape of what it gets."""
        return OutputSpec(Format.MESSAGES, self.track)

    @property
    def address(self) -> str:
        """Return the URL without what may be secret in it, for logs."""
        parts = urlsplit(self.url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def parse_consumer(text: str) -> Consumer:
    """Return the consumer that `URL` or `URL#track=inbound&param.NAME=VALUE&...` names.

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
        raise ConfigurationError(f"a consumer is {_FORM}") from error
    if not host or parts.scheme not in ("ws", "wss"):
        raise ConfigurationError("a consumer must be given as wss://HOST/PATH")
    if parts.scheme == "ws" and not is_loopback(host):
        raise ConfigurationError("a consumer elsewhere needs wss: ws sends audio in the clear")
    url = urlunsplit(parts._replace(fragment=""))
    return Consumer(url, _filters(pairs), _track(pairs))


def _filters(pairs: list[tuple[str, str]]) -> dict[str, str]:
    given = dict(pairs)
    given.pop("track", None)
    if any(not name.startswith(_FILTER) or name == _FILTER for name in given):
        raise ConfigurationError(
            "a consumer's filter behind # must be track=TRACK or param.NAME=VALUE"
        )
    return {name.removeprefix(_FILTER): value for name, value in given.items()}


def _track(pairs: list[tuple[str, str]]) -> str:
    given = [value for name, value in pairs if name == "track"]
    if len(given) > 1 or not set(given) <= set(_TRACKS):
        raise ConfigurationError("a consumer's track behind # must be one of inbound and outbound")
    return given[0] if given else BOTH


class ConsumerQueue:
    """What waits for one consumer (a feed's `Sink`); it may be filled before anybody sends."""

    def __init__(
        self, spec: OutputSpec, limits: ListenerLimits, *, on_drop: Callable[[], None]
    ) -> None:
        self._spec = spec
        tracks = len(_TRACKS) if spec.track == BOTH else 1
        self.queue = SendQueue(
            limit_ms=limits.queue_ms * tracks, limit_bytes=limits.queue_bytes, on_drop=on_drop
        )
        self.put = self.queue.put

    def start(self, live: LiveStream, timestamp_ms: float) -> None:
        """Send `connected` and `start`, as the provider does."""
        for item in opening(self._spec, live, listeners=0, timestamp_ms=timestamp_ms):
            self.queue.put(item)

    def end(self) -> None:
        """Close once everything is sent."""
        self.queue.close(DONE, "the stream has ended")

    @property
    def is_finished(self) -> bool:
        """Return whether the stream has ended and everything of it is sent."""
        return self.queue.closing is not None and not len(self.queue)

    def abandon(self) -> int:
        """Drop what waits, and return how many pieces of audio that were."""
        waiting = iter(self.queue.pop, None)
        return sum(bool(item.duration_ms) for item in waiting)


class AbsentConsumer:
    """Stands in for a consumer that is not there, and counts what it misses (a `Sink`)."""

    def __init__(self, on_drop: Callable[[], None]) -> None:
        self._on_drop = on_drop

    def start(self, live: LiveStream, timestamp_ms: float) -> None:
        """Do nothing: nobody is there."""

    def put(self, item: OutMessage) -> None:
        """Count audio."""
        if item.duration_ms:
            self._on_drop()

    def end(self) -> None:
        """Do nothing: nobody is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardOptions:
    """How consumers are reached, and what they may use of our memory and time."""

    token: str | None = field(default=None, repr=False)
    trust: ssl.SSLContext | None = None
    limits: ListenerLimits = field(default_factory=ListenerLimits)
    counters: TapCounters = field(default_factory=TapCounters)


class Relay:
    """One stream on its way to one consumer. `attach` starts to fill a sink."""

    def __init__(
        self,
        consumer: Consumer,
        attach: Callable[[Sink], Unsubscribe],
        options: ForwardOptions,
        *,
        call_sid: str,
    ) -> None:
        self._consumer = consumer
        self._attach = attach
        self._options = options
        self._names = {"consumer": consumer.address, "call_sid": call_sid}
        self._over = asyncio.Event()
        self._lost = 0  # pieces of audio that the consumer does not get
        self.trouble: DialError | None = None
        self._open()  # in the call that announces the stream, so that its first chunk is not lost

    def _open(self) -> None:
        self._queue = ConsumerQueue(
            self._consumer.spec, self._options.limits, on_drop=self._count_slow
        )
        self._detach = self._attach(self._queue)

    def _count_slow(self) -> None:
        self._count_lost("slow_consumer", 1)

    def _count_absent(self) -> None:
        self._count_lost("absent_consumer", 1)

    def _count_lost(self, reason: str, pieces: int) -> None:
        self._lost += pieces
        self._options.counters.dropped[reason] += pieces

    def stop(self) -> None:
        """Dial no more: the stream has ended. What is on its way is still sent."""
        self._over.set()

    async def run(self) -> None:
        """Carry the stream until it ends or the consumer has had enough; never fails.

        Afterwards `trouble` says why the consumer was not there at the end, if it was not.
        """
        try:
            await self._dial_until_done()
        finally:
            if self._lost:
                log.warning("consumer_missed_audio", chunks=self._lost, **self._names)

    async def _dial_until_done(self) -> None:
        backoff = Backoff(
            first_seconds=_FIRST_DELAY_SECONDS, longest_seconds=_LONGEST_DELAY_SECONDS
        )
        while True:
            done = False
            try:
                done = await self._try(backoff)
            finally:
                self._detach()
                waited = self._queue.abandon()
                self._count_lost("absent_consumer", 0 if done else waited)
            if done:
                return
            await self._pause(backoff.next_seconds())
            if self._over.is_set():
                return
            self._open()  # what comes while we dial waits

    async def _try(self, backoff: Backoff) -> bool:
        """Dial once and carry; return false where the consumer is to be tried again."""
        options = self._options
        try:
            line = await dial(self._consumer.url, token=options.token, trust=options.trust)
        except DialError as error:
            self.trouble = error
            self._warn("consumer_unreachable", str(error))
            return False
        self.trouble = None
        log.info("forwarding", **self._names)
        clock = asyncio.get_running_loop().time
        opened_at = clock()
        try:
            return await self._carry(line)
        finally:
            line.abort()
            backoff.record_held(clock() - opened_at)

    async def _carry(self, line: Line) -> bool:
        """Send until the end and return true, or false where the consumer is to be tried again."""
        limits = self._options.limits
        sender = Sender(line, self._queue.queue, limits, on_slow=self._warn_slow)
        closed = await _closing(line)
        sender.stop()
        if sender.closed_slow:
            return False
        if self._queue.is_finished:
            return True
        self._warn("consumer_closed", str(closed))
        return closed.code == DONE

    async def _pause(self, seconds: float) -> None:
        detach = self._attach(AbsentConsumer(self._count_absent))
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), seconds)
        finally:
            detach()

    def _warn_slow(self) -> None:
        self._options.counters.closed_slow += 1
        self._warn("consumer_too_slow", "nothing was read for too long")

    def _warn(self, event: str, reason: str) -> None:
        log.warning(event, reason=reason, **self._names)


async def _closing(line: Line) -> LineClosed:
    """Ignore what a consumer sends, which on a one-way stream means nothing, until it closes."""
    while True:
        try:
            await line.receive()
        except LineClosed as closed:
            return closed


class Forwarder:
    """Starts a relay for each stream and each consumer whose filters match it."""

    def __init__(
        self, hub: Hub, feeds: Feeds, consumers: tuple[Consumer, ...], options: ForwardOptions
    ) -> None:
        self._hub = hub
        self._feeds = feeds
        self._consumers = consumers
        self._options = options
        self._relays: dict[str, set[Relay]] = {}  # by recording id
        self._tasks: set[asyncio.Task[None]] = set()
        self._unwatch: Unsubscribe = lambda: None

    def start(self) -> None:
        """Forward every stream from now on, and those that are live already."""
        self._unwatch = self._hub.watch(self._on_event)
        for live in self._hub.streams():
            self._forward(live)

    def replace_token(self, token: str | None) -> None:
        """Send another token to consumers of streams that start from now on."""
        self._options = replace(self._options, token=token)

    async def close(self) -> None:
        """Wait for what is on its way to arrive, but not for long; idempotent."""
        self._unwatch()
        for relays in self._relays.values():
            for relay in relays:
                relay.stop()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_CLOSE_SECONDS)
            for task in late:
                task.cancel()

    def _on_event(self, event: LifecycleEvent) -> None:
        if isinstance(event, StreamStarted):
            self._forward(event.live)
        elif isinstance(event, StreamStopped):
            for relay in self._relays.pop(event.live.recording_id, ()):
                relay.stop()

    def _forward(self, live: LiveStream) -> None:
        for consumer in self._consumers:
            if matches(consumer.filters, live.parameters):
                self._start_relay(consumer, live)

    def _start_relay(self, consumer: Consumer, live: LiveStream) -> None:
        def attach(sink: Sink) -> Unsubscribe:
            return self._feeds.subscribe(live.recording_id, consumer.spec, sink)

        relay = Relay(consumer, attach, self._options, call_sid=live.call_sid)
        self._relays.setdefault(live.recording_id, set()).add(relay)
        task = asyncio.ensure_future(relay.run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class RemoteSource:
    """Puts what comes over a tap's socket, in the provider's shape, into sinks."""

    def __init__(self, line: Line) -> None:
        self.call_sid = ""
        self._line = line
        self._sinks: tuple[Sink, ...] = ()
        self._opening: list[OutMessage] = []  # for sinks that are attached later
        self._media = MediaFormat()

    def attach(self, sink: Sink) -> Unsubscribe:
        """Start to fill a sink."""
        for item in self._opening:
            sink.put(item)
        self._sinks += (sink,)

        def detach() -> None:
            self._sinks = tuple(known for known in self._sinks if known is not sink)

        return detach

    async def wait_for_start(self) -> None:
        """Return when the stream has started.

        Raises:
            DialError: there is none.
        """
        while not self.call_sid:
            try:
                self._receive(await self._line.receive())
            except LineClosed as closed:
                status = {NO_SUCH_STREAM: 404, NOT_DECODED: 422}.get(closed.code or 0)
                raise DialError(closed.reason or "the receiver is gone", status=status) from closed

    async def run(self) -> bool:
        """Receive the stream to its end; return false where the receiver broke off before it."""
        while True:
            try:
                self._receive(await self._line.receive())
            except LineClosed as closed:
                for sink in self._sinks:
                    sink.end()
                return closed.code == DONE

    def _receive(self, message: bytes | str) -> None:
        text = message if isinstance(message, str) else message.decode("utf-8", "replace")
        item = self._item(text)
        if item is not None:
            for sink in self._sinks:
                sink.put(item)

    def _item(self, text: str) -> OutMessage | None:
        """Return what is to be sent on; a tap's own notices are not the provider's."""
        try:
            parsed = parse.parse(text.encode())
        except PeerError:
            return None
        if isinstance(parsed, Chunk):
            length_ms = len(parsed.payload) / self._media.bytes_per_ms
            return OutMessage(text, parsed.track.value, parsed.timestamp_ms or 0, length_ms)
        if isinstance(parsed, messages.Unknown) and parsed.event == "gap":
            return None
        if isinstance(parsed, Connected | Start):
            self._opening.append(OutMessage(text))
        if isinstance(parsed, Start):
            self._media = parsed.media_format
            self.call_sid = parsed.call_sid or parsed.stream_sid or "-"
        return OutMessage(text)


async def carry_call(
    url: str, consumer: Consumer, options: ForwardOptions, *, token: str, trust: ssl.SSLContext
) -> None:
    """Carry one live call to a consumer until either has had enough.

    Raises:
        DialError: there is no such call, or the receiver refuses, or it broke off; or the
            consumer could not be reached when the call ended.
    """
    line = await dial(url, token=token, trust=trust)
    source = RemoteSource(line)
    try:
        await source.wait_for_start()
        relay = Relay(consumer, source.attach, options, call_sid=source.call_sid)
        relaying = asyncio.create_task(relay.run())
        receiving = asyncio.create_task(source.run())
        await asyncio.wait((relaying, receiving), return_when=asyncio.FIRST_COMPLETED)
        relay.stop()
        await relaying
        if receiving.done() and not receiving.result():
            raise DialError("the receiver broke off")
        if relay.trouble is not None:
            text = f"the consumer was not there at the end: {relay.trouble}"
            raise DialError(text, status=relay.trouble.status)
        receiving.cancel()
    finally:
        line.abort()
