"""What waits for one listener: a bounded queue that drops the oldest audio and says so in order.

Goals: to put something is one append; memory is bounded whatever comes; events of the call
(keys, marks, the end) stay in their place while audio around them goes; and whatever audio a
listener does not get is covered by exactly one notice in its place.

    put:    a1 a2 key a3 a4 a5     (each a is 20 ms of audio, the limit is 40 ms)
    _left:  gap(a1 a2) key gap(a3) (what is left of what was dropped, in order)
    _items: a4 a5
    pop:    notice of 40 ms, key, notice of 20 ms, a4, a5

A gap at the end of `_left` grows with each further piece that is dropped, one gap for each
track; it is closed once an event stands behind it, or its notice was popped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from receiver.tap.encoding.format import OutMessage

LIMIT_MS: Final = 2000.0
LIMIT_BYTES: Final = 2**20
_ITEM_BYTES: Final = 200
"""What an item takes of memory besides its message."""
_MOST_COMING_MS: Final = 500.0
"""Of audio that is on its way, whatever the limit: as samples at 48 kHz it is 96 KB."""


class QueueSender(Protocol):
    """What empties a queue."""

    def wake(self) -> None:
        """Send soon, but not within this call."""
        ...

    def flush_now(self) -> None:
        """Send now what the socket takes."""
        ...


class _DroppedGap:
    """Audio of one track that was dropped, up to now."""

    __slots__ = ("end_ms", "start_ms", "track")

    def __init__(self, item: OutMessage) -> None:
        self.track = item.track
        self.start_ms = item.timestamp_ms
        self.end_ms = item.timestamp_ms + item.duration_ms


class SendQueue:
    """The queue of one listener.

    Args:
        limit_ms: audio that may wait; what is longer is dropped, oldest first.
        limit_bytes: memory that everything that waits may use.
        gap_notice: returns the text for dropped audio, given its track, where it starts on the
            stream's clock and how long it is, both in milliseconds; by default there is none.
        on_drop: called for each piece of audio that is dropped.
        on_empty: called when the sender finds the queue empty; may put more.
    """

    def __init__(
        self,
        *,
        limit_ms: float = LIMIT_MS,
        limit_bytes: int = LIMIT_BYTES,
        gap_notice: Callable[[str, float, float], str] | None = None,
        on_drop: Callable[[], None] = lambda: None,
        on_empty: Callable[[], None] = lambda: None,
    ) -> None:
        self.dropped = 0  # pieces of audio
        self.dropped_ms = 0.0
        self.sent_to_ms: float | None = None  # where the latest audio that was popped ends
        self.closing: tuple[int, str] | None = None  # how the socket is closed behind the rest
        self._sender: QueueSender | None = None
        self._limit_ms = limit_ms
        self._limit_bytes = limit_bytes
        self._gap_notice = gap_notice
        self._on_drop = on_drop
        self._on_empty = on_empty
        self._items: deque[OutMessage] = deque()
        self._left: deque[OutMessage | _DroppedGap] = deque()
        self._open: dict[str, _DroppedGap] = {}  # gaps at the end of `_left` that may still grow
        self._ms = 0.0
        self._newest_ms = 0.0  # how long the audio is that was put last
        self._bytes = 0
        self.is_idle = True  # the sender found it empty, and is to be woken

    def __len__(self) -> int:
        return len(self._items) + len(self._left)

    @property
    def waiting_ms(self) -> float:
        """Return how much audio waits."""
        return self._ms

    @property
    def waiting_bytes(self) -> int:
        """Return how much memory is used."""
        return self._bytes

    def is_crowded(self, coming_ms: float = 0) -> bool:
        """Return whether half of it is used, or will be by audio that is on its way.

        Whoever can wait before putting more should.
        """
        longest = min(self._limit_ms / 2, _MOST_COMING_MS + self._ms)
        return self._ms + coming_ms > longest or 2 * self._bytes > self._limit_bytes

    def attach(self, sender: QueueSender) -> None:
        """Wake this sender whenever there is something to send, and now if there is."""
        self._sender = sender
        if not self.is_idle or self.closing:
            sender.wake()

    def detach(self) -> None:
        """Wake no sender any longer; what is put from now on waits."""
        self._sender = None

    def close(self, code: int, reason: str) -> None:
        """Close the socket as soon as everything that waits is sent."""
        self.closing = (code, reason)
        if self._sender is not None:
            self._sender.flush_now()

    def put(self, item: OutMessage) -> None:
        """Append one item; what does not fit any longer is dropped, oldest first."""
        self._items.append(item)
        self._bytes += len(item.message) + _ITEM_BYTES
        if item.repeat == 1 and item.duration_ms:
            self._ms += item.duration_ms
            self._newest_ms = item.duration_ms
        if self._is_full():
            self._make_room()
        if self.is_idle:
            self.is_idle = False
            if self._sender is not None:
                self._sender.wake()

    def pop(self) -> OutMessage | None:
        """Return what is next, or `None`: then the sender is woken when there is more."""
        while self._left:
            self._open.clear()
            left = self._left.popleft()
            if isinstance(left, OutMessage):
                self._bytes -= len(left.message) + _ITEM_BYTES
                return left
            if self._gap_notice is not None:
                duration_ms = left.end_ms - left.start_ms
                return OutMessage(self._gap_notice(left.track, left.start_ms, duration_ms))
        if self._items:
            item = self._items.popleft()
            self._release(item)
            if item.duration_ms:
                self.sent_to_ms = item.timestamp_ms + item.duration_ms
            return item
        self.is_idle = True
        self._on_empty()
        return None

    def clear(self) -> None:
        """Drop everything without a notice, because nobody is there to send it to."""
        self._items.clear()
        self._left.clear()
        self._open.clear()
        self._ms, self._bytes, self.is_idle = 0.0, 0, True

    def _is_full(self) -> bool:
        """Return whether something must go; a single piece may be longer than the limit."""
        longest = max(self._limit_ms, self._newest_ms)
        return self._ms > longest or self._bytes > self._limit_bytes

    def _make_room(self) -> None:
        if self._sender is not None:
            self._sender.flush_now()  # much may have come at once: what is sent now is not lost
        while self._is_full():
            self._drop()

    def _release(self, item: OutMessage) -> None:
        self._bytes -= len(item.message) + _ITEM_BYTES
        if item.repeat == 1:
            self._ms -= item.duration_ms

    def _drop(self) -> None:
        if not self._items:  # nothing but events: the oldest of them go, too
            self._drop_event()
            return
        item = self._items.popleft()
        if not item.duration_ms:
            self._left.append(item)
            self._open.clear()
            return
        self._release(item)
        self.dropped += 1
        self._on_drop()
        self.dropped_ms += item.duration_ms
        gap = self._open.get(item.track)
        if gap is None:
            gap = self._open[item.track] = _DroppedGap(item)
            self._left.append(gap)
        gap.end_ms = item.timestamp_ms + item.duration_ms

    def _drop_event(self) -> None:
        """Drop the oldest event; the gaps on both of its sides become one for each track."""
        merged: dict[str, _DroppedGap] = {}
        dropped = False
        while self._left and not (dropped and isinstance(self._left[0], OutMessage)):
            left = self._left.popleft()
            if isinstance(left, OutMessage):
                dropped = True
                self._bytes -= len(left.message) + _ITEM_BYTES
            else:
                merged.setdefault(left.track, left).end_ms = left.end_ms
        if not self._left:
            self._open = dict(merged)
        self._left.extendleft(reversed(merged.values()))
