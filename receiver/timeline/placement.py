"""Where each run of chunks belongs on a track's time line: the second half, behind ordering.

Operations: `TrackPlacer.place_all` goes along a track once, in the order of the sender, from run
to run. A run is chunks whose numbers follow each other and whose timestamps ask for no silence,
so that only its first chunk needs a decision: how much silence is before it. Positions are bytes of
payload from stream time 0 on, which are exact.

Goals: audio is never overwritten and never dropped here. Silence is left where the sender paused
or chunks are missing, and nowhere else. No clock, however mad, makes a file that is much longer
than the call was.

The plan, for the first chunk of a run:

1. Its timestamp, on the current clock, is its target. What only this one timestamp says and the
   next ones do not is taken off (`_without_jitter`).
2. The jump is the target less the cursor, where the audio so far ends. Is it neither absurdly
   backwards nor more silence than `JumpBudget` allows, it is followed (`_follow_clock`): a
   millisecond or more ahead is a gap, or a packet where no number is missing; anything else
   appends. Where the sender's clock had stopped (`anchoring`), it is shifted first.
3. An absurd jump is not followed: the run is appended. The clock that it suggests is remembered,
   and followed from there once two chunks agree on it (`_append_off_clock`).
4. What is left of silence is a gap, with the numbers that are missing there (`_add_gap`).

An example, with chunks of 20 ms:

    timestamp   0     20    80    3600000   3600020   3600060
    number      1     2     5     6         7         9
    position    0     20    80    100       120       160
    before it   -     -     lost  -         -         lost
                                  absurd    a new clock: from here on shifted by 3,599,900
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from receiver.media import ClockRule, Finding, GapKind, MediaFormat, Track
from receiver.timeline.anchoring import Anchors
from receiver.timeline.clock import ClockLookahead, SenderTimes
from receiver.timeline.gaps import GapList, LossRecord, MissingChunks
from receiver.timeline.jumps import LARGEST_JITTER_MS, JumpBudget
from receiver.timeline.ordering import Order
from receiver.timeline.track_index import MISSING, Column, TrackIndex

_FEWEST_AT_ONCE: Final = 32
_MOST_AT_ONCE: Final = 4096


@dataclass(slots=True)
class Anomaly:
    """How often something was met, and the largest size of it in milliseconds."""

    times: int = 0
    most_ms: float = 0

    def count(self, size_ms: float) -> None:
        """Count it once more."""
        self.times += 1
        self.most_ms = max(self.most_ms, abs(size_ms))

    def __str__(self) -> str:
        return f"{self.times} times, up to {self.most_ms:.0f} ms"


@dataclass(slots=True)
class ClockAnomalies:
    """Where the clock of one track could not be followed."""

    overlap: Anomaly = field(default_factory=Anomaly)  # too little room for the audio
    absurd: Anomaly = field(default_factory=Anomaly)  # a jump that was not followed
    unstamped: int = 0  # chunks without a timestamp

    def findings(self, track: Track, rule: ClockRule) -> Iterator[Finding]:
        """Yield what a listener should know about how the track was placed."""
        if rule is not ClockRule.TIMESTAMP:
            yield Finding("clock_rule", f"chunks were placed by {rule.value}", track)
        if self.unstamped and rule is not ClockRule.CHUNKS:
            yield Finding("timestamps_missing", f"on {self.unstamped} chunks", track)
        if self.absurd.times:
            yield Finding("timestamps_absurd", f"{self.absurd}; not followed", track)
        if self.overlap.times:
            text = f"too little room {self.overlap}; the audio was appended"
            yield Finding("timestamps_overlap", text, track)


def _not_kept_numbers(index: TrackIndex, order: Order, times: SenderTimes) -> Column:
    """Return the numbers of the first and last chunk of each row that was not kept.

    Where chunks have none, they are counted from the clock, by the usual size of a chunk.
    """
    if order.not_kept_numbers is not None:
        return order.not_kept_numbers
    stamps = index.not_kept_bounds.timestamps
    if times.rule is ClockRule.CHUNKS or not times.usual:
        return np.full_like(stamps, MISSING)
    targets = times.of_stamps(stamps)
    counted = (targets + times.usual // 2) // times.usual
    return np.where(targets == MISSING, MISSING, counted)


def _end_of_known(
    records: Iterable[LossRecord], number: int, usual_ms: float, budget: JumpBudget, audio_ms: float
) -> int:
    """Return the number behind the last chunk that came from `number` on, as far as allowed."""
    end = number
    for record in records:
        if record.kind is GapKind.SENDER_SILENCE:
            continue
        beyond = record.last + 1 - end
        came_ms = min(record.chunks, beyond) * usual_ms
        if not budget.spend(beyond * usual_ms, came_ms, audio_ms=audio_ms):
            break
        end = record.last + 1
    return end


@dataclass(slots=True)
class TrackPlacer:
    """Places one track, once: the module's docstring has the plan.

    `runs` has three numbers for each: its first chunk, the one behind its last (both as places in
    `order.chosen`), and the byte of the time line at which it starts.
    """

    index: TrackIndex
    order: Order
    media: MediaFormat
    times: SenderTimes
    anchors: Anchors = field(default_factory=dict)  # where the clock stopped
    cursor: int = 0  # where the audio so far ends, in bytes
    shift: int = 0  # what the current clock's targets are shifted by, in bytes
    runs: array[int] = field(default_factory=lambda: array("q"))
    gaps: GapList = field(init=False)
    missing: MissingChunks = field(init=False)
    anomalies: ClockAnomalies = field(default_factory=ClockAnomalies)
    untold: int = 0  # chunks that are known to be lost, and no gap stands for them
    _candidate: int | None = None  # a shift that one absurd timestamp suggests
    _latest_target: int = -(2**62)  # the last one that was followed
    _usual: int = 0  # bytes of a usual chunk
    _budget: JumpBudget = field(default_factory=JumpBudget)
    _packet: int = 0  # a usual chunk, or a millisecond
    _lookahead: ClockLookahead = field(init=False)
    _breaks: NDArray[np.bool_] = field(init=False)  # before which chunks a run must end

    def __post_init__(self) -> None:
        self._usual = self.times.usual
        self._packet = max(self._usual, self.media.bytes_per_ms)
        self._lookahead = ClockLookahead(self.times)
        self._breaks = self.times.breaks()
        self._breaks[list(self.anchors)] = True
        self.anomalies.unstamped = self.times.unstamped
        numbers = _not_kept_numbers(self.index, self.order, self.times)
        self.missing = MissingChunks(self.index.not_kept, numbers.tolist())
        self.gaps = GapList(self.missing, self.media, self._usual, self.times.longest)

    def place_all(self) -> None:
        """Fill `runs` and `gaps`, and move the cursor to the end of the track."""
        first, count, reached = 0, len(self.times.sizes), -1
        while first < count:
            followed = self._move_cursor(first)
            last = self._end_of_run(first) if followed else first + 1
            if self.cursor == reached:
                self.runs[-2] = last  # the run before goes on
            else:
                self.runs.extend((first, last, self.cursor))
            self.cursor += int(self.times.audio_before[last] - self.times.audio_before[first])
            if followed:
                starts = self.cursor - self.shift - int(self.times.sizes[last - 1])
                self._latest_target = min(int(self.times.targets[last - 1]), starts)
            first, reached = last, self.cursor
        self._add_tail()

    def _end_of_run(self, first: int) -> int:
        """Return the chunk behind the last one that follows chunk `first` back to back.

        Most do: so they are asked by hundreds, the more the longer a run already is.
        """
        start, width = first + 1, _FEWEST_AT_ONCE
        while start < len(self.times.sizes):
            stop = min(start + width, len(self.times.sizes))
            end = self._break_within(first, start, stop)
            if end < stop:
                return end
            start, width = stop, min(2 * width, _MOST_AT_ONCE)
        return start

    def _break_within(self, first: int, start: int, stop: int) -> int:
        """Return which of chunks `[start:stop]` is the first that needs a decision, or `stop`."""
        breaks = self._breaks[start:stop].copy()
        if self.times.rule is ClockRule.CHUNKS:
            return start + int(breaks.argmax()) if breaks.any() else stop
        audio = self.times.audio_before[start:stop] - self.times.audio_before[first]
        jumps = self.shift + self.times.targets[start:stop] - self.cursor - audio
        wide = np.flatnonzero((jumps >= self.times.least_silence) & ~breaks)
        if len(wide):
            ahead = self._lookahead.ahead(wide + start)
            ahead[ahead <= self._packet] = 0
            absurd = ahead > LARGEST_JITTER_MS * self.media.bytes_per_ms
            breaks[wide] = absurd | (jumps[wide] - ahead >= self.times.least_silence)
        end = int(breaks.argmax()) if breaks.any() else stop - start
        steps = np.diff(self.times.targets[start - 1 : start + end])
        overlaps = jumps[:end][steps != self.times.sizes[start - 1 : start + end - 1]]
        for size in overlaps[overlaps <= -self.media.bytes_per_ms].tolist():
            self.anomalies.overlap.count(size / self.media.bytes_per_ms)
        return start + end

    def _without_jitter(self, first: int) -> int:
        """Return where chunk `first` belongs, less what only its own timestamp says."""
        one_ms, target = self.media.bytes_per_ms, int(self.times.targets[first])
        silence = self.shift + target - self.cursor
        if self.times.rule is ClockRule.CHUNKS or first in self.anchors or silence < one_ms:
            return target
        ahead = int(self._lookahead.ahead(np.array([first]))[0])
        if ahead <= (self._packet if first else one_ms):  # not audible between other chunks
            return target
        if ahead > LARGEST_JITTER_MS * one_ms:
            self.anomalies.absurd.count(ahead / one_ms)
        return target - ahead

    def _move_cursor(self, first: int) -> bool:
        """Move the cursor to where chunk `first` starts; return if the clock was followed.

        A track that is placed by its chunk numbers has no clock to leave.
        """
        stopped = self.anchors.get(first, 0) * self.media.bytes_per_ms
        if self.times.rule is ClockRule.CHUNKS and first:
            size = self._missing_before(first) * self._usual + stopped
            if self._spend(first, size):
                self._add_gap(first, size)
            return True
        if stopped:
            self.shift += stopped
            self._latest_target = -(2**62)
        target = self._without_jitter(first)
        for shift in (self.shift, self._candidate):
            jump = None if shift is None else self._jump(first, target, shift)
            if shift is not None and jump is not None:
                self.shift, self._candidate = shift, None
                self._follow_clock(first, jump)
                return True
        return self._append_off_clock(first, target)

    def _jump(self, first: int, target: int, shift: int) -> int | None:
        """Return the bytes from the cursor to the target, or `None` where that is absurd.

        On the current clock a step back by jitter is none; on a new one, any is.
        """
        jump = shift + target - self.cursor
        if shift == self.shift:
            jitter = LARGEST_JITTER_MS * self.media.bytes_per_ms
            backwards = target < self._latest_target - jitter
        else:
            backwards = jump < -self.media.bytes_per_ms
        return jump if not backwards and self._spend(first, jump) else None

    def _spend(self, first: int, jump: int) -> bool:
        """Return whether the budget allows a jump before chunk `first`, and spend it if so."""
        one_ms, audio_before = self.media.bytes_per_ms, int(self.times.audio_before[first])
        waited_ms = self.times.waited_ms(first)
        return self._budget.spend(jump / one_ms, waited_ms, audio_ms=audio_before / one_ms)

    def _follow_clock(self, first: int, jump: int) -> None:
        """Leave silence, append back to back, or append in spite of too little room."""
        one_ms = self.media.bytes_per_ms  # timestamps are whole ms, so less is rounding
        if jump <= -one_ms:
            self.anomalies.overlap.count(jump / one_ms)
        size = max(jump, self._hidden_loss(first, jump))
        runs_on = first and not self._missing_before(first)
        if size >= (self.times.least_silence if runs_on else one_ms):
            self._add_gap(first, size)

    def _hidden_loss(self, first: int, jump: int) -> int:
        """Return the bytes of what is missing before `first` where the clock does not show it.

        Once the clock has left too little room, audio may be ahead of it and have used that room
        up, but numbers still say what is missing.
        """
        missing = self._missing_before(first)
        lost, least = missing * self._usual, missing * self.times.shortest
        if min(lost, least) <= jump or not (self.anomalies.overlap.times or self.order.proven):
            return 0
        return self._usual_loss(first)

    def _usual_loss(self, first: int) -> int:
        """Return the bytes of what is missing before `first` by the usual size of a chunk."""
        missing = self._missing_before(first)
        if self._spend(first, missing * self._usual):
            return missing * self._usual
        self.untold += missing
        return 0

    def _append_off_clock(self, first: int, target: int) -> bool:
        """Append a run whose jump is absurd; follow its clock once two chunks agree on it."""
        self.anomalies.absurd.count((self.shift + target - self.cursor) / self.media.bytes_per_ms)
        self._add_gap(first, self._usual_loss(first))
        suggested = self.cursor - target
        steps, sizes = (
            np.diff(self.times.targets[first : first + 2]),
            self.times.sizes[first : first + 1],
        )
        if (steps == sizes).any() and not self._breaks[first + 1]:
            self.shift, self._candidate = suggested, None
            return True
        self._candidate = suggested
        return False

    def _missing_before(self, first: int) -> int:
        """Return how many chunk numbers are missing right before chunk `first`.

        Counters start at 0 or 1, or anywhere: before the very first chunk some are known to be
        missing only where clock and counter agree on how many, or where the recording before this
        one has the chunks up to some number.
        """
        if self.order.numbers is None:
            return 0
        number = int(self.order.numbers[first])
        if first:
            return number - int(self.order.numbers[first - 1]) - 1
        if self.order.head is not None:
            return self.order.head
        before = self.order.number_before
        if before is not None:
            return max(0, number - before - 1)
        return _missing_at_start(number, int(self.times.targets[0]), self._usual)

    def _add_gap(self, first: int, size: int) -> None:
        """Leave `size` bytes of silence before chunk `first`, and list them as gaps.

        With numbers, missing ones say that chunks were lost and none that the sender paused.
        Without, nobody can say, so it counts as lost, unless the sender's clock had stopped there.
        """
        start, stop = self._skip(size)
        missing, otherwise = range(0), GapKind.SENDER_SILENCE
        if self.order.numbers is not None:
            number = int(self.order.numbers[first])
            missing = range(number - self._missing_before(first), number)
        elif first not in self.anchors:
            missing = range(
                self.times.number_at(start - self.shift), self.times.number_at(stop - self.shift)
            )
            otherwise = GapKind.LOST
        if missing and stop > start:
            self.gaps.add_missing(start, stop, missing)
        else:
            self.gaps.add(start, stop, otherwise)

    def _skip(self, size: int) -> tuple[int, int]:
        """Move the cursor over silence that begins and ends on a sample; return both ends.

        Half of one, left by a chunk of an odd number of bytes, is silenced with it.
        """
        unit = self.media.bytes_per_sample
        start, stop = self.cursor // unit * unit, (self.cursor + size) // unit * unit
        if stop > start:
            self.cursor = stop
        return start, stop

    def _add_tail(self) -> None:
        """Add the gap of chunks that came after the last one that was kept.

        What was lost between them or behind them is silence as far as a pause would be. What is
        in the recording before this one is not part of it.
        """
        if not self._usual:
            return
        usual = self.times.expected if self.order.proven else self._usual
        numbers, usual_ms = self.order.numbers, usual / self.media.bytes_per_ms
        number = (
            self.times.number_at(self.cursor - self.shift)
            if numbers is None
            else int(numbers[-1]) + 1
        )
        audio_ms = int(self.times.audio_before[-1]) / self.media.bytes_per_ms
        records = self.missing.ending_from(number)
        end = _end_of_known(records, number, usual_ms, self._budget, audio_ms)
        lost_ms = (number + self.order.tail - end) * usual_ms
        if self._budget.spend(lost_ms, self.order.waited_ms, audio_ms=audio_ms):
            end = max(end, number + self.order.tail)
        else:
            self.untold += number + self.order.tail - end
        if end > number:
            start, stop = self._skip((end - number) * usual)
            self.gaps.add_missing(start, stop, range(number, end))


def _missing_at_start(number: int, target: int, usual: int) -> int:
    """Return how many chunks are missing before the first one, by its number and its place."""
    for counter_start in (1, 0):
        if number > 1 and target == (number - counter_start) * usual:
            return number - counter_start
    return 0
