"""Chunks of one live track that overtook each other, put in order while there is time.

Operations: `feed` takes a chunk as it arrived and returns those that may be placed now;
`release_due` returns what has waited long enough, and is to be called as time goes on.

Goals: audio that is in order is never held up. Only where a chunk number is missing does what
came behind it wait for it: `max_wait_ms` by arrival times, and in audio no longer than that
either, so that a burst after a network stall is not held.

An example, with a longest wait of 60 ms:

    at 0 ms     feed(1)         [1]
    at 20 ms    feed(3)         []        2 is missing
    at 30 ms    feed(2)         [2, 3]
    at 60 ms    feed(5)         []        4 is missing
    at 120 ms   release_due     [5]       if 4 comes now, it is released at once and placed as late

Numbers may be shared by both tracks, so one that skips what the other track has (`elsewhere`), or
where the clock has no room for a chunk (`_follows`), misses nothing. A number that falls far back
is a counter that restarted: what is held goes first. Counters of 16 bits go on behind 65,535
(`unwrapped`), with what was overtaken there. What only sequence numbers show to be missing is
not waited for: `LiveLedger` says whose it was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from receiver.media import Chunk, MediaFormat

_RESTART: Final = 1000
"""A counter that falls back by more has restarted."""
_FIRST: Final = 1
"""What counters begin with, if not with 0."""
_MOST_BEFORE_THE_FIRST: Final = 50
"""A first chunk of a higher number is none that overtook others."""
_FEW: Final = 3
"""So many are held however long they are: of 20 ms, they are what comes within 60 ms."""
_WRAP: Final = 65_536
_REMEMBERED: Final = 256
"""Runs of numbers of a track that are compared with the other's."""
_ENOUGH_NUMBERS: Final = 3
_NEARLY_ALL: Final = 0.8
_MANY_NUMBERS: Final = 20
"""Of both tracks, if one of them has few."""
FEW_ON_THEIR_WAY: Final = 20
"""Numbers of the other track that have yet to come, where it is behind by up to 0.4 s."""
_FAR: Final = 50
"""A counter that is further behind the other one is another one."""
_MOST_AGAIN: Final = 0.01
_FEWEST_MESSAGES: Final = 4
_FEWEST_STEADY: Final = 50
_LEAST_STEADY: Final = 0.1
_MOSTLY: Final = 0.5
"""Sequence numbers are believed if this share follows the one before, or at least so many do."""
_NO_ROOM: Final = 1.5
"""A step of timestamps that is shorter than so many of the shortest one leaves no room."""
Arrived = tuple[Chunk, int]
"""A chunk, and when it arrived, in milliseconds since the recording opened."""


def unwrapped(number: int, latest: int) -> int:
    """Return the number that a counter of 16 bits means by `number`, near the `latest` one."""
    if abs(number - latest) <= _RESTART or number >= _WRAP:
        return number
    ahead = (number - latest) % _WRAP
    step = ahead if ahead < _WRAP // 2 else ahead - _WRAP
    return latest + step if abs(step) <= _RESTART and latest + step >= 0 else number


class SharedCounter:
    """Whether two tracks are counted together, as far as can be known while they come.

    They are while nearly all numbers of both come, and none comes on both:

        inbound    1   3   5       outbound   2   4   6   together: nothing is missing on either
        inbound    1   2   3       outbound   1   2   3   each its own

    Of counters with 16 bits, one track may be behind the wrap before the other one comes to it.
    """

    def __init__(self) -> None:
        self._runs: dict[str, deque[list[int]]] = {}  # of numbers, first and last
        self._first: dict[str, int] = {}
        self._lost: dict[str, deque[range]] = {}
        self._before: dict[str, int] = {}  # the number that each track had when this began
        self._latest: int | None = None  # of either track
        self._highest = -1
        self._is_shared = False
        self._is_decided = False

    @property
    def is_shared(self) -> bool:
        """Return whether the tracks are taken to be counted together."""
        return self._is_shared

    def start_after(self, track: str, number: int | None) -> None:
        """Set the number that came before the first one of a track that is added."""
        if number is None:
            return
        self._before[track] = number
        if self._latest is None or number >= self._latest - _FAR:
            self.add(track, number)

    def add(self, track: str, number: int | None) -> None:
        """Record the number of a chunk that came."""
        if number is None or (self._is_decided and not self._is_shared):
            return
        if self._latest is not None:
            number = unwrapped(number, self._latest)
        self._latest = number
        is_first = track not in self._first
        self._first.setdefault(track, number)
        self._record(track, number)
        is_newest = number > self._highest
        self._highest = max(self._highest, number)
        if is_newest and self._is_decided:
            return  # nearly always: neither track has it
        others = [run for name, runs in self._runs.items() if name != track for run in runs]
        highest = max((last for _, last in others), default=number)
        if number < highest - _FAR or any(first <= number <= last for first, last in others):
            self._is_shared, self._is_decided = False, True
        elif is_first and sum(last - first + 1 for first, last in others) >= _MANY_NUMBERS:
            self._is_shared = highest < number <= highest + FEW_ON_THEIR_WAY  # for now
        elif others and not self._is_decided:
            self._decide()

    def add_lost(self, track: str, numbers: range) -> None:
        """Record which numbers were reported as lost of a track: the other one lacks none."""
        self._lost.setdefault(track, deque(maxlen=_REMEMBERED)).append(numbers)

    def elsewhere(self, track: str) -> Callable[[int], bool]:
        """Return what says of a number whether it is another track's: it is missing on neither.

        What was before the beginning is missing on neither, either.
        """

        def is_elsewhere(number: int) -> bool:
            if not self._is_shared:
                return False
            return any(
                number <= self._before.get(other, -1)
                or any((number - first) % _WRAP <= last - first for first, last in reversed(runs))
                or any(number in numbers for numbers in self._lost.get(other, ()))
                for other, runs in self._runs.items()
                if other != track
            )

        return is_elsewhere

    def _record(self, track: str, number: int) -> None:
        runs = self._runs.setdefault(track, deque(maxlen=_REMEMBERED))
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])

    def _decide(self) -> None:
        """Compare the numbers that came since both tracks did.

        What one of them has yet to bring says nothing against a shared counter.
        """
        latest = [runs[-1][1] for runs in self._runs.values()]
        for end in (max(latest), min(latest)):
            share = self._share(max(self._first.values()), end)
            self._is_decided = share is not None and (share >= _NEARLY_ALL or end == min(latest))
            if self._is_decided:
                self._is_shared = share is not None and share >= _NEARLY_ALL
                return

    def _share(self, start: int, end: int) -> float | None:
        """Return which share of these numbers came, or `None` where too few did."""
        since = [
            sum(max(0, min(last, end) - max(first, start) + 1) for first, last in runs)
            for runs in self._runs.values()
        ]
        if min(since) >= _ENOUGH_NUMBERS or (min(since) and sum(since) >= _MANY_NUMBERS):
            return sum(since) / (end - start + 1)
        return None


class LiveLedger:
    """What sequence numbers say each track lacks so far: the live twin of `ledger`.

    They count the messages of a stream, whatever they carry. Where some never come, and no other
    track skips chunk numbers or time for them, they were chunks of the track that is silent:

        sequence    2   3   4   5   6   -   8   -   10
        track       in  out in  out in      in      in     two chunks of outbound have not come

    Only a track that has come before is taken to have lost any, as in the recording.
    `counter` is kept, too: it says whether chunk numbers are of both tracks together.

    Args:
        came: how many messages came before the first one that is added.
        missing: how many never came before it, if that is known.
    """

    def __init__(self, came: int = 0, missing: int | None = None) -> None:
        self.counter = SharedCounter()
        self._highest: int | None = None
        self._came = came
        self._following = max(0, came - (missing or 0))  # of them, the one before
        self._again = 0  # messages whose number another one had right before
        self._is_ledger = True
        self._latest: dict[str, Chunk] = {}
        self._steps: dict[str, int] = {}  # the shortest between timestamps of a track
        self._missing: dict[str, int] = {}  # since the latest chunk of each track

    def start_after(self, chunk: Chunk) -> None:
        """Set the latest chunk of a track before the first message that is added."""
        self.counter.start_after(chunk.track, chunk.chunk)
        self._latest[chunk.track] = chunk
        self._missing[chunk.track] = 0
        if chunk.sequence_number is not None:
            highest = self._highest or chunk.sequence_number
            self._highest = max(highest, unwrapped(chunk.sequence_number, highest))

    def add_chunk(self, chunk: Chunk) -> None:
        """Record a chunk that came."""
        self.counter.add(chunk.track, chunk.chunk)
        if chunk.sequence_number is None:
            self._is_ledger = False
            return
        if self.add(chunk.sequence_number):
            self._claim(self._skipped(chunk))
            self._missing[chunk.track] = 0
            self._latest[chunk.track] = chunk

    def add(self, number: int | None) -> bool:
        """Record the sequence number of any message that came; return whether it is the newest."""
        if number is None:
            return False
        if self._highest is None:
            self._highest = number - 1
        number = unwrapped(number, self._highest)
        step = number - self._highest
        self._came += 1
        self._following += step == 1
        self._again += step == 0
        if step - 1 > self._came:  # more than all that ever came: it counts something else
            self._is_ledger = False
        if step > 1:
            for track in self._missing:
                self._missing[track] += step - 1
        elif step < 0:
            self._is_ledger = self._is_ledger and step > -_RESTART
            self._claim(1)  # it came after all
        self._highest = max(self._highest, number)
        return step > 0

    def missing(self, track: str) -> int:
        """Return how many chunks of a track never came since its latest one; 0 if unknown."""
        if not self._is_ledger or self._came < _FEWEST_MESSAGES:
            return 0
        fewest = max(_FEWEST_STEADY, _LEAST_STEADY * self._came)
        if self._following < min(fewest, _MOSTLY * self._came):
            return 0
        if self._again > _MOST_AGAIN * self._came:  # two tracks that have the same numbers
            return 0
        return self._missing.get(track, 0)

    def missing_at_end(self, track: str) -> int:
        """Return how many chunks never came behind the last one; of two tracks nobody knows whose.

        The stop message says so, or whatever came last.
        """
        return self.missing(track) if len(self._latest) == 1 else 0

    def _claim(self, count: int) -> None:
        for track, missing in self._missing.items() if count else ():
            self._missing[track] = max(0, missing - count)

    def _skipped(self, chunk: Chunk) -> int:
        """Return how many chunks its own track lacks before a chunk, as far as that is known."""
        latest = self._latest.get(chunk.track)
        if latest is None:
            return 0
        if chunk.chunk is not None and latest.chunk is not None:
            return 0 if self.counter.is_shared else max(0, chunk.chunk - latest.chunk - 1)
        if chunk.timestamp_ms is None or latest.timestamp_ms is None:
            return 0
        step = chunk.timestamp_ms - latest.timestamp_ms
        if step <= 0:
            return 0
        shortest = self._steps[chunk.track] = min(step, self._steps.get(chunk.track, step))
        return 0 if step < _NO_ROOM * shortest else round(step / shortest) - 1


class JitterBuffer:
    """One track's chunks on their way to their places.

    Args:
        media: the format of the payloads.
        max_wait_ms: how long a chunk waits for one before it.
        from_the_first: whether the track is received from its first chunk on, so that one
            before the first that arrives may be awaited.
    """

    def __init__(
        self, media: MediaFormat, max_wait_ms: int, *, from_the_first: bool = False
    ) -> None:
        self.max_wait_ms = max_wait_ms  # may be changed at any time
        self.origin_ms = 0  # the timestamp at which stream time begins
        self.duplicates = 0  # chunks that came again while the first was held
        self.elsewhere: Callable[[int], bool] = lambda _: False  # of the other track's numbers
        self._from_the_first = from_the_first
        self._media = media
        self._latest: Chunk | None = None  # the last one released that had a number
        self._held: dict[int, Arrived] = {}  # by chunk number

    def __bool__(self) -> bool:
        return bool(self._held)

    @property
    def waiting_since_ms(self) -> int | None:
        """Return when the oldest chunk arrived that is held."""
        return min((arrived[1] for arrived in self._held.values()), default=None)

    @property
    def first(self) -> Chunk:
        """Return the first in order of what is held."""
        return self._held[min(self._held)][0]

    def start_after(self, chunk: Chunk) -> None:
        """Set the chunk that came before the first one that is fed."""
        if chunk.chunk is not None:
            self._latest = chunk

    def feed(self, chunk: Chunk, arrival_ms: int) -> list[Arrived]:
        """Return what may be placed now, in order."""
        number = chunk.chunk
        if number is None:
            return [(chunk, arrival_ms)]
        if self._latest is not None and self._latest.chunk is not None:
            number = unwrapped(number, self._latest.chunk)
            if number != chunk.chunk:
                chunk = msgspec.structs.replace(chunk, chunk=number)
        expected = self._expected(chunk, number)
        if not self._held and (number == expected or self._follows(chunk)):
            self._latest = chunk
            return [(chunk, arrival_ms)]
        if number < expected:
            return self._behind(chunk, arrival_ms, restarted=expected - number > _RESTART)
        if number in self._held:
            self.duplicates += 1
            return []
        self._held[number] = (chunk, arrival_ms)
        released = self.release_first_run() if number == expected else []
        while len(self._held) > _FEW and self._held_ms() > self.max_wait_ms:
            released += self.release_first_run()
        return released

    def release_due(self, now_ms: int) -> list[Arrived]:
        """Return what has waited long enough at `now_ms`, on the clock of arrival times."""
        released = self.release_first_run() if self._held and self._is_ready() else []
        while (since := self.waiting_since_ms) is not None and now_ms - since >= self.max_wait_ms:
            released += self.release_first_run()
        return released

    def release_first_run(self) -> list[Arrived]:
        """Return what is held up to the next number that is missing."""
        released: list[Arrived] = []
        number = min(self._held, default=0)
        while number in self._held or (self._held and self.elsewhere(number)):
            if number in self._held:
                released.append(self._held.pop(number))
            number += 1
        if released:
            self._latest = released[-1][0]
        return released

    def release_all(self) -> list[Arrived]:
        """Return everything that is held, in order."""
        released: list[Arrived] = []
        while self._held:
            released += self.release_first_run()
        return released

    def _behind(self, chunk: Chunk, arrival_ms: int, *, restarted: bool) -> list[Arrived]:
        """Return a chunk whose number was passed already: placement decides whether it is late."""
        if not restarted:
            return [(chunk, arrival_ms)]
        released = [*self.release_all(), (chunk, arrival_ms)]
        self._latest = chunk
        return released

    def _expected(self, chunk: Chunk, number: int) -> int:
        """Return the number that would be released at once; before the first, perhaps its own."""
        latest = self._latest
        if latest is not None and latest.chunk is not None:
            return self._next(latest.chunk)
        if self._held:
            return _FIRST
        missing = self._from_the_first and self._lacks_the_first(chunk, number)
        return _FIRST if missing else number

    def _next(self, number: int) -> int:
        """Return the next number of this track."""
        number += 1
        while self.elsewhere(number):
            number += 1
        return number

    def _is_ready(self) -> bool:
        """Whether what is missing turned out to be the other track's."""
        latest = self._latest
        return (
            latest is not None
            and latest.chunk is not None
            and (self._next(latest.chunk) in self._held)
        )

    def _lacks_the_first(self, chunk: Chunk, number: int) -> bool:
        """Whether a first chunk is a later one, and the clock has room for one before it.

        Counters may begin anywhere, so the counter alone says nothing. Stream time may begin a
        little later than the track, so there need not be room for all of them.
        """
        if not _FIRST < number <= _MOST_BEFORE_THE_FIRST or chunk.timestamp_ms is None:
            return False
        room = (chunk.timestamp_ms - self.origin_ms) * self._media.bytes_per_ms
        return room >= len(chunk.payload)

    def _follows(self, chunk: Chunk) -> bool:
        """Whether a chunk has no room before it, though numbers are missing.

        A sender may count the chunks of both tracks together; nothing is missing then.
        """
        latest = self._latest
        if latest is None or latest.chunk is None or chunk.chunk is None:
            return False
        if latest.timestamp_ms is None or chunk.timestamp_ms is None or chunk.chunk <= latest.chunk:
            return False
        end = latest.timestamp_ms + len(latest.payload) / self._media.bytes_per_ms
        return latest.timestamp_ms < chunk.timestamp_ms < end + 1

    def _held_ms(self) -> float:
        size = sum(len(chunk.payload) for chunk, _ in self._held.values())
        return size / self._media.bytes_per_ms
