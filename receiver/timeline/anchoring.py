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

How long a stop must be is a matter of evidence: whether the sender's timestamps ever show a pause
(then they are no count of what was sent), whether its clocks are known to stop, how noisy the
network is, and what another track witnesses that came meanwhile (`_Lags.is_witnessed`).
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
_LONGEST_CREEP_MS: Final = 10_000
"""Over a longer pause, lags that fall back do so at once."""
_LEAST_MS: Final = 500
"""Where no other track went on meanwhile: a network's delay may change by less for good."""
_LEAST_SENT_MS: Final = 200
"""Likewise, of audio without timestamps: there is nothing but arrivals to go by."""
_LEAST_KNOWN_MS: Final = 100
"""Likewise, of a sender whose clocks are known to stop, or where another track went on."""
_STEP_MS: Final = 100
"""Lags that rise by less from chunk to chunk creep: a clock drifts, or a sender sends slowly."""
_LATEST_FIRST_MS: Final = 1000
"""A track that lags by less from its beginning is skewed; by more, its clock began later."""
_LATEST_KNOWN_MS: Final = 400
"""Likewise, of a sender whose clocks are known to stop."""
_OWN_BEGINNING_MS: Final = 500  # a clock that begins with its track starts earlier
_AHEAD_MS: Final = 500  # a lag that is lower by more is of audio sent ahead
_SETTLED_MS: Final = 500  # a new level is believed once starts are at it for so long,
_SETTLED: Final = 12  # or so many chunks did not come in one go,
_FEWEST: Final = 3  # or, at the end, a quarter of what is left
_FAR: Final = 20  # or, where it is higher by so many times the noise, one of them
_PACED: Final = 0.8  # or for twice as long audio came nearly as fast as it was spoken
_SOON: Final = 5  # seconds in which some chunk comes without delay
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
    shows_pauses: bool = False  # timestamps do, where no chunk is missing


Sendings = tuple[Times, Times]
"""When chunks arrived, and until when one of them or of those before them was spoken, at least."""
Anchors = dict[int, int]
"""Before which chunks silence stands because a clock stopped, and how many milliseconds of it.

Negative is how much earlier a track belongs that counts from another beginning than the call."""


def anchors(clocks: Sequence[TrackClock]) -> list[Anchors]:
    """Return where the clock of each track of a recording stopped; none has no chunks."""
    may_stop = not any(clock.shows_pauses for clock in clocks)  # a sender has one kind of clock
    seen = [_seen(_Lags(clock, may_stop=may_stop)) for clock in clocks]
    levels = [level for level, _, _ in seen]
    base = min((level for level in levels if abs(level) <= _LATEST_FIRST_MS), default=0.0)
    found = []
    for at, clock in enumerate(clocks):
        track = _Lags(clock, may_stop=may_stop)  # one at a time: it takes most of the memory
        track.noise = max(noise for _, noise, _ in seen)  # they have one network
        track.others = [sent for other, (_, _, sent) in enumerate(seen) if other != at]
        found.append(_track_anchors(track, base))
    if any(certain for certain, _ in found):  # clocks of this sender stop: less evidence is enough
        return [likely for _, likely in found]
    return [certain for certain, _ in found]


def _seen(track: _Lags) -> tuple[float, float, Sendings]:
    """Return what other tracks are to know: level, noise, and when chunks were sent."""
    return track.first_level(), track.noise, track.sendings()


def _track_anchors(track: _Lags, base: float) -> tuple[Anchors, Anchors]:
    """Return where a track's clock stopped for certain, and where if the sender's are known to."""
    first = _initial(track, base, known=False)
    certain = track.stops(known=bool(first))
    likely = _initial(track, base, known=True) | track.stops(known=True)
    return first | certain, likely


def _initial(track: _Lags, base: float, *, known: bool) -> Anchors:
    """Return by how much a track's clock began later than that of the call.

    Where clocks of this sender are known to stop, a track is hardly skewed by half a second.
    Where nothing of the others came meanwhile, the network may have stalled from the beginning.
    """
    if not track.stamped:
        base = min(base, _NOMINAL_MS)
    late = track.level_of_starts - base
    if max(late, track.early_lag() - base) < -LONGEST_JUMP_MS:  # it counts from another beginning
        return {0: round(late)}
    least = track.latest_first(known=known)
    margin_ms = -_SETTLED_MS if track.begins else None
    if late > least and track.is_witnessed(0, late, margin_ms):
        return {0: round(late)}
    if not track.begins:
        return {}
    late = track.first_level() - base
    return {0: round(late)} if late > least and track.is_settled(0) else {}


class _Lags:
    """The lags of one track; `at` and `lag` are of its starts."""

    def __init__(self, clock: TrackClock, *, may_stop: bool) -> None:
        lags = clock.arrivals - clock.stamps - clock.lengths
        self._waited = waited = _waited(clock)
        # a network that jitters leaves single short waits within what was sent in one go
        twice = np.concatenate(([True], waited[:-1]))
        paced = waited & (twice | (np.diff(clock.arrivals, prepend=-np.inf) >= _LONG_WAIT_MS))
        self.stamped = clock.stamped
        self.begins = bool(clock.stamps[0] <= _OWN_BEGINNING_MS)  # not where the call's may be
        self.others: Sequence[Sendings] = ()
        self.noise = 0.0  # how far above their level lags usually are
        self._may_stop = may_stop
        self._arrivals, self._lags = clock.arrivals, lags
        self._count(np.flatnonzero(paced))
        self.level_of_starts = self.first_level()
        self._sent_ahead = bool((lags < self.level_of_starts - _AHEAD_MS).any())
        if not self._sent_ahead:
            self._count(np.arange(len(lags)))
            return
        waits = np.diff(clock.arrivals)[waited[1:]]
        short = waits[waits < _AHEAD_MS]  # within what is sent at once
        self.noise = 4 * float(short.mean()) if 2 * len(short) > len(waits) else 0.0

    def _count(self, starts: Column) -> None:
        """Count the lags of these chunks only."""
        self._starts = starts
        self.at = self._arrivals[starts]
        self._lag = _without_absurd(self._lags[starts])
        spoken = np.cumsum(np.minimum(np.diff(self.at, prepend=self.at[0]), _LONGEST_CREEP_MS))
        creeping = (self._lag + _CREEP * spoken)[::-1]
        self._rising = np.minimum.accumulate(creeping)[::-1]
        self._lowest = self._rising - _CREEP * spoken
        self._steps = np.diff(self._lowest, prepend=self._lowest[0])
        seconds = np.flatnonzero(np.diff(self.at // _BLOCK_MS)) + 1
        self._blocks = [0, *seconds.tolist(), len(self.at)]
        self.noise = self._usual_spread()

    def sendings(self) -> Sendings:
        """Return when chunks arrived, and what had been sent by then for certain."""
        at, lag = self.at, self._lag
        if self._sent_ahead:  # then only the first of a burst says when it was sent
            begins = np.diff(at, prepend=-np.inf) >= _AHEAD_MS
            at, lag = at[begins], lag[begins]
        _, first, second = np.unique(at // _BLOCK_MS, return_index=True, return_inverse=True)
        lowest = np.minimum.reduceat(lag, first)
        padded = np.pad(lowest, (0, _SOON), constant_values=np.inf)
        level = np.lib.stride_tricks.sliding_window_view(padded, _SOON + 1).min(axis=1)
        latest = lowest[-2 * _SOON :].min()  # for it may end with a backlog
        level[-_SOON:] = np.minimum(level[-_SOON:], latest)
        rises = np.diff(level, prepend=level[0]) >= _STEP_MS / 2  # late, at first, is not sent late
        level[rises] = np.roll(level, 1)[rises]
        return at, np.maximum.accumulate(at - lag + level[second])

    def is_witnessed(self, start: int, size: float, margin_ms: float | None = None) -> bool:
        """Return whether another track says that the network did not hold a chunk up for so long.

        What came before this chunk was sent before it, and for how long it was on its way, its
        own track says.
        """
        at = self.at[start]
        if margin_ms is None:
            margin_ms = _LEAST_KNOWN_MS + self.noise
        for arrivals, sent in self.others:
            before = int(np.searchsorted(arrivals, at)) - 1
            if before >= 0 and sent[before] >= at - size + margin_ms:
                return True
        return False

    def _usual_spread(self) -> float:
        """Return how far above their level the lags of one second usually are."""
        spread = np.maximum.reduceat(self._lag - self._lowest, self._blocks[:-1])
        return float(np.median(spread))

    def _least(self, *, known: bool) -> float:
        """Return by how much lags rise at least where the clock stopped, and not the network."""
        if self._sent_ahead or not self._may_stop:
            return _LEAST_MS + 2 * self.noise
        least = _LEAST_MS if self.stamped else _LEAST_SENT_MS
        return (_LEAST_KNOWN_MS if known else least) + 2 * self.noise

    def latest_first(self, *, known: bool) -> float:
        """Return by how much a track may lag from its beginning because it is skewed."""
        if not self.stamped:
            return _LEAST_SENT_MS
        if known and self.begins:
            return _LATEST_KNOWN_MS if self._may_stop else _LEAST_MS
        noise = self.noise if self._sent_ahead or not self.begins else 0.0
        return _LATEST_FIRST_MS + 2 * noise

    def first_level(self) -> float:
        """Return the level at the beginning; audio may be sent ahead from there on."""
        return float(max(self._lowest[0], min(self._lag[0], 0.0)))

    def early_lag(self) -> float:
        """Return the usual lag at the beginning, where one timestamp may be absurd."""
        return float(np.median(self._lags[:_EARLY]))

    def is_settled(self, start: int, size: float = 0.0, least: float = np.inf) -> bool:
        """Return whether chunks come at their own time from a start on, for a while or mostly.

        Those behind the next stop say nothing of this one; it is higher by `least`.
        """
        if self._sent_ahead:
            return self._may_stop and bool(self.at[-1] - self.at[start] >= _SETTLED_MS)
        end = int(np.searchsorted(self._rising, self._rising[start] + least, side="right")) - 1
        took = float(self.at[end] - self.at[start])
        waited = self._waited[self._starts[start] + 1 : self._starts[end] + 1]
        count = int(waited.sum())
        if took >= max(2 * _SETTLED_MS, _PACED * (took - self._lag[end] + self._lag[start])):
            return count >= _FEWEST  # it came in as many parts
        fewest = 1 if size > _FAR * self.noise else _FEWEST
        return count >= _SETTLED or (count >= fewest and 4 * count >= len(waited))

    def stops(self, *, known: bool) -> Anchors:
        """Return where the clock stopped after the track's beginning.

        Args:
            known: clocks of this sender are known to stop, so that a single burst is evidence.
        """
        found: Anchors = {}
        since = 0
        least = self._least(known=known)
        least_seen = min(least, _LEAST_KNOWN_MS + self.noise) if self._may_stop else least
        level, behind, before = self.first_level(), 0.0, float(self.at[0])
        for first, last in itertools.pairwise(self._blocks):
            creep = _CREEP * max(0.0, float(self.at[last - 1]) - before)
            start = first
            while (
                stop := self._above(start, last, level + behind + creep + least_seen)
            ) is not None:
                start = stop + 1
                size = round(float(self._lowest[stop]) - level - behind)
                if not self._is_evident(stop, size, least, known=known or bool(found)):
                    continue  # a stall, and behind it only what it held up: later ones may be
                if size <= self.at[stop] + _LATEST_FIRST_MS:  # else the level was absurd
                    found |= self._shares(since, stop, size)
                since = stop
                behind += size
            lag = float(self._lag[start:last].min(initial=np.inf)) - behind
            level, before = _followed(level, lag, creep), float(self.at[last - 1])
        return found

    def _shares(self, since: int, stop: int, size: int) -> Anchors:
        """Return which of the latest steps up to a start make up so much; lags may have crept."""
        found: Anchors = {}
        for at in (np.flatnonzero(self._steps[since + 1 : stop + 1] >= _STEP_MS) + since + 1)[::-1]:
            if size >= _STEP_MS:
                found[int(self._starts[at])] = min(size, round(float(self._steps[at])))
                size -= found[int(self._starts[at])]
        if found:
            found[max(found)] += size  # by less than a step
        return found

    def _above(self, first: int, last: int, level: float) -> int | None:
        """Return the first of these starts from which on all lag by more."""
        above = np.flatnonzero(self._lowest[first:last] > level)
        return first + int(above[0]) if len(above) else None

    def _is_evident(self, start: int, size: int, least: float, *, known: bool) -> bool:
        """Return whether a track that lags to its end does so because its clock stopped.

        A burst at the very end is what a stall of the network leaves as well.
        """
        rises_here = bool(2 * self._steps[start] >= _STEP_MS)  # else what is witnessed came later
        if self._may_stop and rises_here and self.is_witnessed(start, size):
            return True
        if size < least:
            return False
        return self.is_settled(start, size, least) or (
            known and self._sent_ahead and self._may_stop
        )


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
