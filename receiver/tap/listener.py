"""One listener's socket: what its channel puts into its queue goes out as the socket takes it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec

from receiver.media import GapReason
from receiver.rate_limit import TokenBucket
from receiver.tap.encoding.notices import Format, OutputSpec, gap_notice, opening
from receiver.tap.events import LifecycleEvent, LiveStream
from receiver.tap.queue import LIMIT_BYTES, LIMIT_MS, OutMessage, SendQueue
from receiver.transports.interface import Connection

DONE: Final = 1000
TRY_AGAIN_LATER: Final = 1013
NO_SUCH_STREAM: Final = 4404
MOST_EVENTS: Final = 1000
"""That may wait for one who watches all streams, besides the streams that it found."""
_FAILED: Final = 1011
_POLICY: Final = 1008
_MESSAGES_AT_ONCE: Final = 100
_MESSAGES_PER_SECOND: Final = 10.0
"""What a listener may say, though nobody takes notice: some programs keep sockets alive so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerLimits:
    """What one listener may take of us."""

    queue_ms: float = LIMIT_MS
    queue_bytes: int = LIMIT_BYTES
    patience_seconds: float = 30  # of a socket that takes nothing


class Attendant(Protocol):
    """Who looks after listeners: finds their streams, counts them, and what they missed."""

    def opened(self, listener: Listener) -> None:
        """Begin to serve a listener."""
        ...

    def closed(self, listener: Listener) -> None:
        """Stop serving it."""
        ...

    def missed(self) -> None:
        """Count a piece of audio that a listener does not get."""
        ...

    def listening_to(self, recording_id: str) -> int:
        """Return how many listen to a stream."""
        ...


class Sender:
    """Sends a queue's items over a socket at the socket's own pace.

    `gave_up` is called when the socket is closed because it took nothing for too long.
    """

    def __init__(
        self,
        connection: Connection,
        limits: ListenerLimits,
        *,
        gave_up: Callable[[], None] = lambda: None,
    ) -> None:
        self.slow = False  # closed because it did not read
        self._connection = connection
        self._gave_up = gave_up
        self._patience = limits.patience_seconds
        self._queue: SendQueue | None = None
        self._loop = asyncio.get_running_loop()
        self._rest: Iterator[bytes | str] = iter(())  # of the item that is being sent
        self._blocked: asyncio.TimerHandle | None = None
        self._farewell: tuple[int, str] | None = None
        self._chatter = TokenBucket(_MESSAGES_AT_ONCE, _MESSAGES_PER_SECOND)
        connection.start_sending(self._resume)

    def serve(self, queue: SendQueue) -> None:
        """Send what is, and will be, in a queue."""
        self._queue = queue

    def wake(self) -> None:
        """Send soon: never within the call that brought the audio."""
        self._loop.call_soon(self._send)

    def press(self) -> None:
        """Send now what the socket takes, before anything must be dropped."""
        self._send()

    def finish(self, code: int, reason: str) -> None:
        """Send what waits, and close."""
        self._farewell = (code, reason)
        self._send()

    def bear_message(self) -> None:
        """Count a message of the listener; each costs the time of those who record."""
        if not self._chatter.take(self._loop.time()):
            self._connection.close(_POLICY, "listeners listen: too many messages")

    def dismiss(self) -> None:
        """Close now: the token that opened the socket counts no longer."""
        self._queue = None
        self._connection.close(_POLICY, "the token is no longer valid")

    def give_up(self) -> None:
        """Close: too much waits."""
        self.slow = True
        self._gave_up()
        self._connection.close(TRY_AGAIN_LATER, "too slow: too little was read for too long")

    def stop(self) -> None:
        """Send no more: the socket is gone."""
        self._queue = None
        self._rest = iter(())
        if self._blocked is not None:
            self._blocked.cancel()

    def _resume(self) -> None:
        if self._blocked is not None:
            self._blocked.cancel()
            self._blocked = None
        self._send()

    def _send(self) -> None:
        while self._blocked is None:
            message = next(self._rest, None)
            if message is None:
                item = self._queue.take() if self._queue is not None else None
                if item is None:
                    self._part()
                    return
                self._rest = item.messages()
            elif not self._connection.send(message):
                self._blocked = self._loop.call_later(self._patience, self.give_up)

    def _part(self) -> None:
        if self._farewell is not None:
            self._connection.close(*self._farewell)


class Listener:
    """A transport's `Peer` that listens to one stream (a channel's `Sink`)."""

    def __init__(self, kind: OutputSpec, attendant: Attendant, limits: ListenerLimits) -> None:
        self.kind = kind
        self.live: LiveStream | None = None
        self.leave: Callable[[], None] = lambda: None  # ends what the attendant has begun
        self._attendant = attendant
        # Both tracks' messages wait in one queue: two seconds of audio are four of theirs.
        tracks = 2 if kind.format is Format.MESSAGES else 1
        self.queue = SendQueue(
            self._wake,
            limit_ms=limits.queue_ms * tracks,
            limit_bytes=limits.queue_bytes,
            notice=self._notice,
            rested=self._rest,
            press=self._press,
            lost=attendant.missed,
        )
        self.at_rest = asyncio.Event()  # nothing waits in the queue
        self.at_rest.set()
        self.put = self.queue.put
        self._limits = limits
        self._sender: Sender | None = None

    # A transport's peer.

    def opened(self, connection: Connection) -> None:
        """Take the socket, now that the upgrade is done."""
        self._sender = Sender(connection, self._limits)
        self._sender.serve(self.queue)
        self._attendant.opened(self)

    def message_received(self, message: bytes) -> None:
        """Take no notice, unless it is one of too many: listeners listen."""
        if self._sender is not None:
            self._sender.bear_message()

    def closed(self, *, code: int, clean: bool) -> None:
        """Forget everything, because the socket is gone."""
        self.leave()
        if self._sender is not None:
            self._sender.stop()
        self._attendant.closed(self)
        self.queue.clear()

    # A channel's outlet.

    def begin(self, live: LiveStream, timestamp_ms: float) -> None:
        """Say what is listened to."""
        self.live = live
        listeners = self._attendant.listening_to(live.recording_id)
        for item in opening(self.kind, live, listeners=listeners, timestamp_ms=timestamp_ms):
            self.queue.put(item)

    def end(self) -> None:
        """Close once everything is sent."""
        if self.live is None:
            self.refuse()
        elif self._sender is not None:
            self._sender.finish(DONE, "the stream has ended")

    def refuse(self) -> None:
        """Close: there is no such stream, or not for this listener."""
        if self._sender is not None:
            self._sender.finish(NO_SUCH_STREAM, "no such stream")

    def dismiss(self) -> None:
        """Close: the token that opened the socket is no longer valid."""
        self.leave()
        self.leave = lambda: None
        if self._sender is not None:
            self._sender.dismiss()

    def fail(self) -> None:
        """Close: something of ours went wrong."""
        if self._sender is not None:
            self._sender.finish(_FAILED, "internal error")

    @property
    def slow(self) -> bool:
        """Whether it was closed because it did not read."""
        return self._sender is not None and self._sender.slow

    def _wake(self) -> None:
        self.at_rest.clear()
        if self._sender is not None:
            self._sender.wake()

    def _rest(self) -> None:
        self.at_rest.set()

    def _press(self) -> None:
        if self._sender is not None:
            self._sender.press()

    @staticmethod
    def _notice(track: str, timestamp_ms: float, duration_ms: float) -> str:
        return gap_notice(GapReason.SLOW_LISTENER, track, timestamp_ms, duration_ms)


class Watcher:
    """A transport's `Peer` that is told what happens to streams.

    `watch` begins to tell, and returns what ends it; `describe` makes what is sent of an event.
    Events wait undescribed, so that a long list of what lives already takes no room, and none
    is ever dropped: a watcher that lets too many of them wait is closed with 1013, and finds
    what it missed in the list when it comes back.
    """

    def __init__(
        self,
        watch: Callable[[Watcher], Callable[[], None]],
        describe: Callable[[LifecycleEvent], dict[str, Any]],
        limits: ListenerLimits,
    ) -> None:
        self._watch = watch
        self._describe = describe
        self._leave: Callable[[], None] = lambda: None
        self._limits = limits
        self._waiting: deque[LifecycleEvent] = deque()
        self._most_waiting = MOST_EVENTS
        self._queue = SendQueue(self._wake, limit_bytes=limits.queue_bytes, rested=self._fill)
        self._sender: Sender | None = None

    def opened(self, connection: Connection) -> None:
        """Take the socket, now that the upgrade is done."""
        self._sender = Sender(connection, self._limits)
        self._sender.serve(self._queue)
        self._leave = self._watch(self)

    def message_received(self, message: bytes) -> None:
        """Take no notice, unless it is one of too many."""
        if self._sender is not None:
            self._sender.bear_message()

    def closed(self, *, code: int, clean: bool) -> None:
        """Be told no more, because the socket is gone."""
        self._leave()
        if self._sender is not None:
            self._sender.stop()
        self._waiting.clear()
        self._queue.clear()

    def tell(self, *events: LifecycleEvent, new: bool = True) -> None:
        """Send events; those that are not `new` tell what lives already, however much that is."""
        if self.slow:
            return
        self._most_waiting += 0 if new else len(events)
        self._waiting.extend(events)
        if len(self._waiting) > self._most_waiting and self._sender is not None:
            self._sender.give_up()
        self._fill()

    def dismiss(self) -> None:
        """Close: the token that opened the socket is no longer valid."""
        if self._sender is not None:
            self._sender.dismiss()

    @property
    def slow(self) -> bool:
        """Whether it was closed because it did not read."""
        return self._sender is not None and self._sender.slow

    def _fill(self) -> None:
        while self._waiting and not self._queue.is_crowded():
            document = self._describe(self._waiting.popleft())
            self._queue.put(OutMessage(msgspec.json.encode(document).decode()))

    def _wake(self) -> None:
        if self._sender is not None:
            self._sender.wake()
