"""What waits for one listener: a bounded queue that drops the oldest audio and says so in order.

Putting is one append, and the listener's own overflow is all the work there may be besides.
What happens on the call (keys, marks, the end) is kept in its place while audio around it goes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

LIMIT_MS: Final = 2000.0
LIMIT_BYTES: Final = 2**20
_SILENCE_BLOCK_BYTES: Final = 2**15
_ITEM_BYTES: Final = 200
"""What an item takes of memory besides its message."""
_MOST_COMING_MS: Final = 500.0
"""Of audio that is on its way, whatever the limit: as samples at 48 kHz it is 96 KB."""


class OutMessage(msgspec.Struct, frozen=True):
    """One message to a listener, `str` as text and `bytes` as binary.

    Audio has a duration and the name of its track. Silence is `repeat` times the message: it
    takes no room in the queue, however long it is.
    """

    message: bytes | str
    track: str = ""
    timestamp_ms: float = 0
    duration_ms: float = 0
    repeat: int = 1

    def messages(self) -> Iterator[bytes | str]:
        """Return what is to be sent."""
        if self.repeat == 1 or isinstance(self.message, str):
            return iter((self.message,))
        return self._blocks(self.message)

    def _blocks(self, message: bytes) -> Iterator[bytes]:
        at_a_time = max(1, _SILENCE_BLOCK_BYTES // len(message))
        whole, rest = divmod(self.repeat, at_a_time)
        block = message * at_a_time
        for _ in range(whole):
            yield block
        if rest:
            yield message * rest


class _Gap:
    """Audio of one track that was dropped, up to now."""

    __slots__ = ("end_ms", "start_ms", "track")

    def __init__(self, item: OutMessage) -> None:
        self.track = item.track
        self.start_ms = item.timestamp_ms
        self.end_ms = item.timestamp_ms + item.duration_ms


class SendQueue:
    """The queue of one listener.

    `wake` is called when it has been empty and no longer is, `rested` when it was found empty,
    `press` before anything is dropped, and may take what there is; `notice(track, timestamp_ms,
    duration_ms)` returns what tells of a gap, if anything does. `lost` is called for each piece of
    audio that is dropped.
    """

    def __init__(
        self,
        wake: Callable[[], None],
        *,
        limit_ms: float = LIMIT_MS,
        limit_bytes: int = LIMIT_BYTES,
        notice: Callable[[str, float, float], str | None] = lambda *_: None,
        rested: Callable[[], None] = lambda: None,
        press: Callable[[], None] = lambda: None,
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        self.dropped = 0  # pieces of audio
        self.dropped_ms = 0.0
        self._wake = wake
        self._limit_ms = limit_ms
        self._limit_bytes = limit_bytes
        self._notice = notice
        self._rested = rested
        self._press = press
        self._lost = lost
        self._items: deque[OutMessage] = deque()
        self._kept: deque[OutMessage | _Gap] = deque()  # what is left of what was dropped, in order
        self._open: dict[str, _Gap] = {}  # gaps at the end of `_kept` that may still grow
        self._ms = 0.0
        self._newest_ms = 0.0  # how long the audio is that was put last
        self._bytes = 0
        self._idle = True

    def __len__(self) -> int:
        return len(self._items) + len(self._kept)

    @property
    def waiting_ms(self) -> float:
        """Return how much audio waits."""
        return self._ms

    @property
    def waiting_bytes(self) -> int:
        """Return how much memory is used."""
        return self._bytes

    def is_crowded(self, coming_ms: float = 0) -> bool:
        """Whether half of it is used, or will be by audio that is on its way.

        Who can wait, should.
        """
        longest = min(self._limit_ms / 2, _MOST_COMING_MS + self._ms)
        return self._ms + coming_ms > longest or 2 * self._bytes > self._limit_bytes

    def put(self, item: OutMessage) -> None:
        """Append one item; what does not fit any longer is dropped, oldest first."""
        self._items.append(item)
        self._bytes += len(item.message) + _ITEM_BYTES
        if item.repeat == 1 and item.duration_ms:
            self._ms += item.duration_ms
            self._newest_ms = item.duration_ms
        if self._is_full():
            self._press()  # much may have come at once: what the socket takes now is not lost
            while self._is_full():
                self._drop()
        if self._idle:
            self._idle = False
            self._wake()

    def take(self) -> OutMessage | None:
        """Return what is next, or `None`: then `wake` tells when there is more."""
        while self._kept:
            self._open.clear()
            kept = self._kept.popleft()
            if isinstance(kept, OutMessage):
                self._bytes -= len(kept.message) + _ITEM_BYTES
                return kept
            told = self._notice(kept.track, kept.start_ms, kept.end_ms - kept.start_ms)
            if told is not None:
                return OutMessage(told)
        if self._items:
            item = self._items.popleft()
            self._forget(item)
            return item
        self._idle = True
        self._rested()
        return None

    def _is_full(self) -> bool:
        """Whether something must go; audio that alone is longer than the limit need not."""
        longest = max(self._limit_ms, self._newest_ms)
        return self._ms > longest or self._bytes > self._limit_bytes

    def clear(self) -> None:
        """Drop everything without a word: nobody is there any longer."""
        self._items.clear()
        self._kept.clear()
        self._open.clear()
        self._ms, self._bytes, self._idle = 0.0, 0, True

    def _forget(self, item: OutMessage) -> None:
        self._bytes -= len(item.message) + _ITEM_BYTES
        if item.repeat == 1:
            self._ms -= item.duration_ms

    def _drop(self) -> None:
        if not self._items:  # nothing but events: the oldest of them go, too
            self._drop_event()
            return
        item = self._items.popleft()
        if not item.duration_ms:
            self._kept.append(item)
            self._open.clear()
            return
        self._forget(item)
        self.dropped += 1
        self._lost()
        self.dropped_ms += item.duration_ms
        gap = self._open.get(item.track)
        if gap is None:
            gap = self._open[item.track] = _Gap(item)
            self._kept.append(gap)
        gap.end_ms = item.timestamp_ms + item.duration_ms

    def _drop_event(self) -> None:
        """Forget the oldest event; the gaps on both of its sides become one for each track."""
        joined: dict[str, _Gap] = {}
        dropped = False
        while self._kept and not (dropped and isinstance(self._kept[0], OutMessage)):
            kept = self._kept.popleft()
            if isinstance(kept, OutMessage):
                dropped = True
                self._bytes -= len(kept.message) + _ITEM_BYTES
            else:
                joined.setdefault(kept.track, kept).end_ms = kept.end_ms
        if not self._kept:
            self._open = dict(joined)
        self._kept.extendleft(reversed(joined.values()))
