"""How late each live track comes, and how long listeners wait for it.

Stream time is what the sender says; arrival says when it can be played. Of every chunk, what
counts is how late it came: its arrival minus the end of its audio, both in milliseconds.

    real time          50  52  50  61  50      a level of 50, and jitter
    sent ahead         50  30  10 -10 -30      the first of a burst is at the level
    behind a stall   3050 3030 ... 70  50      the last of a backlog is at the level

A track's level is the value between those: it rises only to what everything of half a second
exceeded, and falls only to what nothing of five seconds exceeded. So neither a stall nor audio
that is sent ahead moves it, and a constant skew does. The stream's level is that of the latest
track, so listeners wait for the others; what is ahead of it is held back.

`wait_ms` comes on top, for jitter: how much later than its counterpart of the other track a
chunk came, on the average and at most in the last ten seconds. It starts with the longest one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from receiver.media import Track

FIRST_WAIT_MS: Final = 60
"""What is waited before anything is known; after a second of one track alone, too."""
_CALM_WAIT_MS: Final = 40
"""Where the network is calm: chunks of 20 ms may be half a chunk apart, and a little late."""
_BUCKET_MS: Final = 125
_RISES_AFTER: Final = 4
"""Buckets: half a second in which everything was later."""
_FALLS_AFTER: Final = 40
"""Buckets: five seconds in which nothing was as late."""
_STARTING_MS: Final = 1000
_CALM_AFTER_MS: Final = 10_000
_PEAK_SECONDS: Final = 10
_DEVIATIONS: Final = 17
"""Of a delay that is exponential, as in queues, one in a hundred thousand exceeds so many."""
_PEAK_MARGIN: Final = 1.15
_SHORT_PACKET_MS: Final = 20
_LONG_PACKETS: Final = 3
"""What long ones are waited for: a counterpart may end one later, and be overtaken by another."""
_REMEMBERED: Final = 128


class _Level:
    """How late one track is, apart from jitter, stalls and audio sent ahead."""

    __slots__ = ("_buckets", "_first_ms", "_floor", "ms")

    def __init__(self, late_ms: float, arrival_ms: int) -> None:
        self.ms = late_ms
        self._first_ms = arrival_ms
        self._floor = min(late_ms, 0.0)  # nothing is early by itself: lower is sent ahead
        self._buckets: deque[list[float]] = deque(maxlen=_FALLS_AFTER)  # when, least, most

    def observe(self, late_ms: float, arrival_ms: int, highest_ms: float) -> None:
        """Record a chunk; the level rises to `highest_ms` at most."""
        if arrival_ms - self._first_ms < _STARTING_MS:  # it may have started with a stall
            self.ms = max(self._floor, min(self.ms, late_ms))
        buckets, number = self._buckets, arrival_ms // _BUCKET_MS
        if buckets and buckets[-1][0] >= number:
            latest = buckets[-1]
            latest[1], latest[2] = min(latest[1], late_ms), max(latest[2], late_ms)
            return
        self._move(number, highest_ms)
        buckets.append([number, late_ms, late_ms])

    def _move(self, number: int, highest_ms: float) -> None:
        buckets = self._buckets
        recent = [b for b in list(buckets)[-_RISES_AFTER:] if number - b[0] <= _RISES_AFTER + 1]
        if len(recent) == _RISES_AFTER:
            least = min(bucket[1] for bucket in recent)
            if least > self.ms:
                self.ms = max(self.ms, min(least, highest_ms))
        if len(buckets) == _FALLS_AFTER and number - buckets[0][0] <= 2 * _FALLS_AFTER:
            self.ms = min(self.ms, max(bucket[2] for bucket in buckets))


class _Lateness:
    """How much later than their counterparts chunks come: average, deviation, peak."""

    def __init__(self) -> None:
        self.first_ms: int | None = None  # when the first arrived that had one
        self._count = 0
        self._mean = 0.0
        self._deviation = 0.0
        self._peaks: deque[list[float]] = deque(maxlen=_PEAK_SECONDS)  # second, most in it

    def observe(self, late_ms: float, arrival_ms: int) -> None:
        """Record how much later than its counterpart a chunk came."""
        if self.first_ms is None:
            self.first_ms = arrival_ms
        self._count = min(self._count + 1, 512)
        off = late_ms - self._mean
        self._mean += off / self._count
        self._deviation += (abs(off) - self._deviation) / self._count
        second = arrival_ms // 1000
        if not self._peaks or self._peaks[-1][0] < second:
            self._peaks.append([second, late_ms])
        elif late_ms > self._peaks[-1][1]:
            self._peaks[-1][1] = late_ms

    def expected_ms(self) -> float:
        """Return by how much a chunk may be late, except for a few of ten thousand."""
        peak = max((most for _, most in self._peaks), default=0.0)
        return max(self._mean + _DEVIATIONS * self._deviation, _PEAK_MARGIN * peak)


class LiveClock:
    """When live audio is due, by what was seen of its tracks so far.

    Args:
        tracks: those of the stream.
        longest_ms: the longest wait, for jitter or for a track that is behind.
    """

    def __init__(self, tracks: Iterable[Track], longest_ms: int) -> None:
        self.longest_ms = longest_ms
        self.wait_ms = longest_ms
        self._levels: dict[Track, _Level] = {}
        # Where the latest chunks of each track end, and when they would be due without a wait.
        self._recent: dict[Track, deque[tuple[float, float]]] = {
            track: deque(maxlen=_REMEMBERED) for track in tracks
        }
        self._lateness = _Lateness()
        self._first_ms: int | None = None
        self._packet_ms = 0.0  # the longest of late
        self._compared_from_ms = -(2**31)

    @property
    def level_ms(self) -> float:
        """Return how late the latest track is; 0 where none has come."""
        return max((level.ms for level in self._levels.values()), default=0.0)

    def due_ms(self, end_ms: float, arrival_ms: int) -> float:
        """Return when audio is due whose counterpart does not come."""
        levels = self._levels.values()
        level_ms = max([level.ms for level in levels]) if levels else -(2.0**60)
        return max(arrival_ms, end_ms + level_ms) + self.wait_ms

    def due_end_ms(self, track: Track, now_ms: int, wait_ms: int) -> float:
        """Return up to where other tracks came so early that `track` was waited for already."""
        return max(
            (
                end_ms
                for other, recent in self._recent.items()
                for end_ms, due_ms in (recent if other is not track else ())
                if due_ms + wait_ms <= now_ms
            ),
            default=0.0,
        )

    def observe(
        self, track: Track, end_ms: float, length_ms: float, arrival_ms: int, stamp: int | None
    ) -> None:
        """Record where a chunk ends, how long it is, and when it came.

        One without a timestamp has its place from us, so it says nothing of jitter.
        """
        if self._first_ms is None:
            self._first_ms = arrival_ms
        late_ms = arrival_ms - end_ms
        level = self._levels.get(track)
        if level is None:
            highest = self._highest_ms(track)
            self._levels[track] = _Level(min(late_ms, highest), arrival_ms)
        else:
            level.observe(late_ms, arrival_ms, self._highest_ms(track))
        if stamp is not None and arrival_ms >= self._compared_from_ms:
            self._compare(track, end_ms - length_ms, arrival_ms)
        due_ms = self.due_ms(end_ms, arrival_ms) - self.wait_ms
        self._recent[track].append((end_ms, due_ms))
        self._packet_ms = max(length_ms, self._packet_ms * (1 - 1 / 256))
        self._adapt(arrival_ms)

    def restart(self, track: Track, arrival_ms: int) -> None:
        """Start again with how late a track is: it was anchored anew."""
        self._compared_from_ms = arrival_ms + _STARTING_MS  # until then, with what was due already
        self._levels.pop(track, None)

    def level_of_others_ms(self, track: Track) -> float | None:
        """Return how late the other tracks come, if they have come."""
        return max(
            (level.ms for other, level in self._levels.items() if other is not track), default=None
        )

    def ahead_ms(self, track: Track) -> float:
        """Return how much earlier than the latest track one comes, if both have come."""
        level = self._levels.get(track)
        return 0.0 if level is None else self.level_ms - level.ms

    def _highest_ms(self, track: Track) -> float:
        """Return up to which level a track is waited for: beyond, it is to be anchored anew."""
        others_ms = self.level_of_others_ms(track)
        return 2.0**60 if others_ms is None else others_ms + self.longest_ms

    def _compare(self, track: Track, start_ms: float, arrival_ms: int) -> None:
        """Record how much later it came than what the other track has in its place."""
        for other, recent in self._recent.items():
            due_ms = None
            for end_ms, due in reversed(recent) if other is not track else ():
                if end_ms <= start_ms:
                    break
                due_ms = due
            if due_ms is not None and arrival_ms - due_ms <= self.longest_ms:
                self._lateness.observe(max(0.0, arrival_ms - due_ms), arrival_ms)

    def _adapt(self, arrival_ms: int) -> None:
        assert self._first_ms is not None  # noqa: S101  set by the first chunk
        long_ms = _LONG_PACKETS * self._packet_ms if self._packet_ms > _SHORT_PACKET_MS else 0
        if arrival_ms - self._first_ms < _STARTING_MS:
            wait_ms: float = self.longest_ms
        else:
            compared_ms = self._lateness.first_ms
            calm = compared_ms is not None and arrival_ms - compared_ms >= _CALM_AFTER_MS
            expected_ms = self._lateness.expected_ms()
            least_ms = _CALM_WAIT_MS if calm else FIRST_WAIT_MS
            wait_ms = min(max(least_ms, expected_ms), self.longest_ms)
        self.wait_ms = int(max(wait_ms, long_ms))
