"""Where a sender's clock stopped while the call went on, and its track is to be anchored anew.

Some senders' timestamps count only what a track has sent, or begin with its first chunk, and some
send none. Then arrival is the evidence. The lag of a chunk is how long after the end of its
audio, by its timestamp, it arrived. What the lags of a track do says what happened:

    the clock stopped for 3 s          50  50  50  3050  3050  3050   they rise, and stay
    the network stalled for 3 s        50  50  50  3050  3030 ... 50  they fall back: a backlog
    audio is sent ahead                50  30  10 ... -2950   50  30  they fall, the next burst
                                                                      begins where this one did
    a clock drifts                     50  50  51  51  52             they creep

A chunk that came right behind another one (in a backlog, in a burst) has no lag of its own: only
those that came at their own time count, the starts. The level of a track is the lag of a calm
network: it creeps, by `_CREEP` at most. Where no later start comes back to it, less the creep,
the clock had stopped: so much silence stands before that chunk. Both tracks begin at stream time
0 with the same level, or one of them has a clock that began later.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from receiver.timeline.jumps import LONGEST_JUMP_MS

Times = NDArray[np.float64]
Column = NDArray[np.int64]
Flags = NDArray[np.bool_]

_CREEP: Final = 0.0012
"""Clocks drift by up to 1000 ppm; the level follows a little faster."""
_LEAST_MS: Final = 500
"""A shorter stop is not told from the network, whose delay may change for good."""
_LEAST_UNSTAMPED_MS: Final = 200
"""Likewise, where there is nothing but arrivals to go by."""
_STEP_MS: Final = 100
"""Lags that rise by less from chunk to chunk creep: a clock drifts, or a sender sends slowly."""
_LATEST_FIRST_MS: Final = 1000
"""A track that lags by less from its beginning is skewed; by more, its clock began later."""
_AHEAD_MS: Final = 500  # a lag that is lower by more is of audio sent ahead
_SETTLED_MS: Final = 500  # a new level is believed once starts are at it for so long,
_SETTLED: Final = 12  # or so many chunks did not come in one go,
_FEWEST: Final = 3  # or, at the end, a quarter of what is left
_PACED: Final = 0.8  # or for twice as long audio came nearly as fast as it was spoken
_BLOCK_MS: Final = 1000
_EARLY: Final = 25
_LONG_WAIT_MS: Final = 200
_NOMINAL_MS: Final = 100  # the network's delay where nothing is known of it


@dataclass(frozen=True, slots=True)
class TrackClock:
    """Chunks of one track in the order of the sender, by the clocks of both sides.

    Where timestamps place nothing, `stamps` count the audio so far.
    """

    arrivals: Times  # all are milliseconds
    stamps: Times  # since stream time 0
    lengths: Times
    stamped: bool = True


Anchors = dict[int, int]
"""Before which chunks silence stands because a clock stopped, and how many milliseconds of it.

Negative is how much earlier a track belongs that counts from another beginning than the call."""


def anchors(clocks: Sequence[TrackClock]) -> list[Anchors]:
    """Return where the clock of each track of a recording stopped; none has no chunks."""
    levels = [_Lags(clock).first_level() for clock in clocks]
    base = min((level for level in levels if abs(level) <= _LATEST_FIRST_MS), default=0.0)
    found = [_track_anchors(clock, base, clocks) for clock in clocks]
    if any(certain for certain, _ in found):  # clocks of this sender stop: less evidence is enough
        return [likely for _, likely in found]
    return [certain for certain, _ in found]


def _track_anchors(
    clock: TrackClock, base: float, clocks: Sequence[TrackClock]
) -> tuple[Anchors, Anchors]:
    """Return where a track's clock stopped for certain, and where if the sender's are known to."""
    track = _Lags(clock)  # of one track at a time: it takes most of the memory
    others = [other.arrivals for other in clocks if other is not clock]
    first = _initial(track, base, others, known=False)
    certain = track.stops(known=bool(first))
    likely = _initial(track, base, others, known=True) | track.stops(known=True)
    return first | certain, likely


def _initial(track: _Lags, base: float, others: Sequence[Times], *, known: bool) -> Anchors:
    """Return by how much a track's clock began later than that of the call.

    Where clocks of this sender are known to stop, a track is hardly skewed by half a second.
    Where nothing of the others came meanwhile, the network may have stalled from the beginning.
    """
    if not track.stamped:
        base = min(base, _NOMINAL_MS)
    stamped_ms = _LEAST_MS if known else _LATEST_FIRST_MS
    least = stamped_ms if track.stamped else _LEAST_UNSTAMPED_MS
    late = track.level_of_starts - base
    if max(late, track.early_lag() - base) < -LONGEST_JUMP_MS:  # it counts from another beginning
        return {0: round(late)}
    after, before = track.at[0] - late - _SETTLED_MS, track.at[0] - min(_SETTLED_MS, late / 2)
    if any(((after < at) & (at < before)).any() for at in others):
        return {0: round(late)} if late > least else {}
    late = track.first_level() - base
    return {0: round(late)} if late > least and track.is_settled(0) else {}


class _Lags:
    """The lags of one track; `at` and `lag` are of its starts."""

    def __init__(self, clock: TrackClock) -> None:
        lags = clock.arrivals - clock.stamps - clock.lengths
        self._waited = waited = _waited(clock)
        # a network that jitters leaves single short waits within what was sent in one go
        twice = np.concatenate(([True], waited[:-1]))
        paced = waited & (twice | (np.diff(clock.arrivals, prepend=-np.inf) >= _LONG_WAIT_MS))
        self.stamped = clock.stamped
        self._arrivals, self._lags = clock.arrivals, lags
        self._count(np.flatnonzero(paced))
        self.level_of_starts = self.first_level()
        self._sent_ahead = bool((lags < self.level_of_starts - _AHEAD_MS).any())
        if not self._sent_ahead:
            self._count(np.arange(len(lags)))

    def _count(self, starts: Column) -> None:
        """Count the lags of these chunks only."""
        self._starts = starts
        self.at = self._arrivals[starts]
        self._lag = _without_absurd(self._lags[starts])
        creeping = (self._lag + _CREEP * self.at)[::-1]
        self._lowest = np.minimum.accumulate(creeping)[::-1] - _CREEP * self.at
        self._steps = np.diff(self._lowest, prepend=self._lowest[0])
        seconds = np.flatnonzero(np.diff(self.at // _BLOCK_MS)) + 1
        self._blocks = [0, *seconds.tolist(), len(self.at)]
        least = _LEAST_MS if self.stamped else _LEAST_UNSTAMPED_MS
        self._least = least + 2 * self._noise()

    def _noise(self) -> float:
        """Return how far apart lags of one second usually are."""
        first = self._blocks[:-1]
        spread = np.maximum.reduceat(self._lag, first) - np.minimum.reduceat(self._lag, first)
        return float(np.median(spread))

    def first_level(self) -> float:
        """Return the level at the beginning; audio may be sent ahead from there on."""
        return float(max(self._lowest[0], min(self._lag[0], 0.0)))

    def early_lag(self) -> float:
        """Return the usual lag at the beginning, where one timestamp may be absurd."""
        return float(np.median(self._lags[:_EARLY]))

    def is_settled(self, start: int) -> bool:
        """Return whether chunks come at their own time from a start on, for a while or mostly."""
        took = float(self.at[-1] - self.at[start])
        if self._sent_ahead:
            return took >= _SETTLED_MS
        if took >= max(2 * _SETTLED_MS, _PACED * (took - self._lag[-1] + self._lag[start])):
            return True
        waited = self._waited[self._starts[start] + 1 :]
        count = int(waited.sum())
        return count >= _SETTLED or (count >= _FEWEST and 4 * count >= len(waited))

    def stops(self, *, known: bool) -> Anchors:
        """Return where the clock stopped after the track's beginning.

        Args:
            known: clocks of this sender are known to stop, so that a single burst is evidence.
        """
        found: Anchors = {}
        level, behind, before = self.first_level(), 0.0, float(self.at[0])
        for first, last in itertools.pairwise(self._blocks):
            creep = _CREEP * max(0.0, float(self.at[last - 1]) - before)
            start = first
            while (stop := self._above(start, last, level + behind + creep)) is not None:
                start = stop + 1
                if not self._is_evident(stop, known=known or bool(found)):
                    continue  # a stall, and behind it only what it held up: later ones may be
                size = round(float(self._lowest[stop]) - level - behind)
                # else lags crept, or the level was absurd
                if self._steps[stop] >= _STEP_MS and size <= self.at[stop] + _LATEST_FIRST_MS:
                    found[int(self._starts[stop])] = size
                behind += size
            lag = float(self._lag[start:last].min(initial=np.inf)) - behind
            level, before = _followed(level, lag, creep), float(self.at[last - 1])
        return found

    def _above(self, first: int, last: int, level: float) -> int | None:
        """Return the first of these starts from which on all lag by too much."""
        above = np.flatnonzero(self._lowest[first:last] > level + self._least)
        return first + int(above[0]) if len(above) else None

    def _is_evident(self, start: int, *, known: bool) -> bool:
        """Return whether a track that lags to its end does so because its clock stopped.

        A burst at the very end is what a stall of the network leaves as well.
        """
        if self.is_settled(start):
            return True
        return known and self._sent_ahead


def _waited(clock: TrackClock) -> Flags:
    """Return before which chunks there was a wait, so that they did not come in one go."""
    waits = np.diff(clock.arrivals, prepend=-np.inf)
    own_time = np.minimum(clock.lengths, np.concatenate((clock.lengths[:1], clock.lengths[:-1])))
    found: Flags = waits >= np.maximum(1, own_time / 2)
    return found


def _followed(level: float, lag: float, creep: float) -> float:
    """Return the level as it follows a lag; not that of audio which was sent ahead."""
    ahead = lag < level - _AHEAD_MS - creep
    return level if ahead or lag == np.inf else level + min(max(lag - level, -creep), creep)


def _without_absurd(lags: Times) -> Times:
    """Return lags without those that are lower than both neighbours by what no audio is ahead."""
    beside = np.full(len(lags) + 2, -np.inf)
    beside[1:-1] = lags
    lower_one = np.minimum(beside[:-2], beside[2:])
    absurd = np.isfinite(lower_one) & (lags < lower_one - LONGEST_JUMP_MS)
    return np.where(absurd, lower_one, lags)
