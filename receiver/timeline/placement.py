"""Along a track once, from chunk to chunk: where each belongs, by its sender's clock."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from receiver.media import ClockRule, Finding, GapKind, MediaFormat, Track
from receiver.timeline.clock import ClockLookahead, usual_size
from receiver.timeline.gaps import GapList
from receiver.timeline.jumps import LARGEST_JITTER_MS, JumpBudget
from receiver.timeline.missing import MissingChunks
from receiver.timeline.ordering import MISSING, Column, Order, TrackIndex


@dataclass(slots=True)
class Anomaly:
    """How often something was met, and the largest size of it in milliseconds."""

    times: int = 0
    most_ms: float = 0

    def met(self, size_ms: float) -> None:
        """Count it once more."""
        self.times += 1
        self.most_ms = max(self.most_ms, abs(size_ms))

    def __str__(self) -> str:
        return f"{self.times} times, up to {self.most_ms:.0f} ms"


@dataclass(slots=True)
class ClockAnomalies:
    """What was met on one track."""

    overlap: Anomaly = field(default_factory=Anomaly)
    absurd: Anomaly = field(default_factory=Anomaly)
    unstamped: int = 0

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


@dataclass(slots=True)
class TrackPlacer:
    """Puts each run of chunks that follow each other without a break where it belongs."""

    index: TrackIndex
    order: Order
    media: MediaFormat
    rule: ClockRule
    origin_ms: int
    cursor: int = 0  # where the audio so far ends, in bytes
    base: int = 0  # what the current clock's targets are shifted by
    runs: array[int] = field(default_factory=lambda: array("q"))  # rows: first chunk, last, start
    gaps: GapList = field(init=False)
    missing: MissingChunks = field(init=False)
    doubts: ClockAnomalies = field(default_factory=ClockAnomalies)
    _candidate: int | None = None  # a base that one absurd timestamp suggests
    _latest: int = -(2**62)  # the last accepted target
    _usual: int = 0
    _belief: JumpBudget = field(default_factory=JumpBudget)
    _brought: Column = field(init=False)  # bytes of audio before each chunk
    _outlook: ClockLookahead = field(init=False)

    def place_all(self) -> None:
        """Fill `runs` and `gaps`, and move the cursor to the end."""
        self._usual = usual_size(self.index)
        self.missing = MissingChunks(self.index.not_kept, self._bounds().tolist())
        self.gaps = GapList(self.missing, self.media, self._usual)
        sizes = self.index.size[self.order.chosen].astype(np.int64)
        targets = self._targets(self.index.timestamp[self.order.chosen])
        self._brought = np.concatenate(([0], np.cumsum(sizes)))
        self._outlook = ClockLookahead(targets, self._places())
        for first, last in self._stretches(sizes, targets):
            target = self._steady(first, int(targets[first]))
            if self._place(first, last, target):
                self._latest = target + int(targets[last - 1]) - int(targets[first])
            self.runs.extend((first, last, self.cursor))
            self.cursor += int(self._brought[last] - self._brought[first])
        self._place_excused_tail()

    def _bounds(self) -> Column:
        """Return the numbers of the excused rows' bounds.

        Where chunks have none, they are counted from the clock, by the usual size of a chunk.
        """
        if self.order.bounds is not None:
            return self.order.bounds
        _, stamps, _ = self.index.bounds
        if self.rule is ClockRule.CHUNKS or not self._usual:
            return np.full_like(stamps, MISSING)
        targets = self._targets(stamps)
        counted = (targets + self._usual // 2) // self._usual
        return np.where(targets == MISSING, MISSING, counted)

    def _number_at(self, position: int) -> int:
        """Return the number that a chunk in this place would have, counted likewise."""
        usual = self._usual or 2**62  # if chunks are usually empty, none has a place
        return (position - self.base + usual // 2) // usual

    def _targets(self, stamps: Column) -> Column:
        """Return where each timestamp puts a chunk, in bytes, before any shift."""
        media = self.media
        counts_samples = self.rule is ClockRule.SAMPLES
        unit = media.bytes_per_sample if counts_samples else media.bytes_per_ms
        return np.where(stamps == MISSING, MISSING, (stamps - self.origin_ms) * unit)

    def _places(self) -> Column:
        """Return where chunks would be if the sender never paused."""
        numbers: Column | None = self.order.numbers
        brought: Column = self._brought[:-1]
        if numbers is None:
            return brought
        skipped: Column = numbers - numbers[0] - np.arange(len(numbers))
        return brought + skipped * self._usual

    def _steady(self, first: int, target: int) -> int:
        """Return where chunk `first` belongs, less what only its own timestamp says."""
        one_ms = self.media.bytes_per_ms
        silence = self.base + target - self.cursor
        if self.rule is ClockRule.CHUNKS or target == MISSING or silence < one_ms:
            return target
        beyond = self._outlook.beyond(first)
        if beyond <= self._usual:  # nobody hears that, and clean clocks stay exact
            return target
        if beyond > LARGEST_JITTER_MS * one_ms:
            self.doubts.absurd.met(beyond / one_ms)
        return target - beyond

    def _stretches(self, sizes: Column, targets: Column) -> Iterator[tuple[int, int]]:
        """Yield `(first, last)` of chunks that follow each other without a break."""
        broken = targets[1:] != targets[:-1] + sizes[:-1]
        if self.rule is ClockRule.CHUNKS:
            broken = np.zeros(len(sizes) - 1, bool)
        if self.order.numbers is not None:
            broken |= np.diff(self.order.numbers) != 1
        borders = [0, *(np.flatnonzero(broken) + 1).tolist(), len(sizes)]
        return itertools.pairwise(borders)

    def _place(self, first: int, last: int, target: int) -> bool:
        """Move the cursor to where chunks `[first:last]` start; tell if the clock was followed."""
        if self.rule is ClockRule.CHUNKS and first:
            size = self._missing_before(first) * self._usual
            if self._believable(first, size):
                self._leave_hole(first, size)
            return False
        if target == MISSING:
            self.doubts.unstamped += last - first
            return False
        for base in (self.base, self._candidate):
            jump = None if base is None else self._jump(first, target, base)
            if base is not None and jump is not None:
                self.base, self._candidate = base, None
                self._go(first, jump)
                return True
        return self._stay(first, last, target)

    def _jump(self, first: int, target: int, base: int) -> int | None:
        """Return the bytes from the cursor to the target, or `None` where that is absurd."""
        jump = base + target - self.cursor
        if base == self.base:
            backwards = target < self._latest - LARGEST_JITTER_MS * self.media.bytes_per_ms
        else:
            backwards = jump < -self.media.bytes_per_ms
        return jump if not backwards and self._believable(first, jump) else None

    def _believable(self, first: int, jump: int) -> bool:
        """Whether a jump, which is then followed, is as long as the wait for chunk `first` was."""
        one_ms, brought = self.media.bytes_per_ms, int(self._brought[first])
        waited_ms = self._waited_ms(first)
        return self._belief.follows(jump / one_ms, waited_ms, audio_ms=brought / one_ms)

    def _waited_ms(self, first: int) -> int:
        """Return how long after the chunk before it chunk `first` arrived."""
        arrivals = self.index.arrival
        before = int(arrivals[self.order.chosen[first - 1]]) if first else 0
        return int(arrivals[self.order.chosen[first]]) - before

    def _go(self, first: int, jump: int) -> None:
        """Leave silence, append back to back, or append in spite of too little room."""
        one_ms = self.media.bytes_per_ms  # timestamps are whole ms, so less is rounding
        if jump <= -one_ms:
            self.doubts.overlap.met(jump / one_ms)
        hole = max(jump, self._lost(first, jump))
        if hole >= one_ms:
            self._leave_hole(first, hole)

    def _lost(self, first: int, jump: int) -> int:
        """Return the room of what is missing before `first`, where the clock does not show it.

        Once it has left too little room, audio may be ahead of it and have used that room up,
        but numbers still tell.
        """
        lost = self._missing_before(first) * self._usual
        if lost <= jump or not self.doubts.overlap.times:
            return 0
        return lost if self._believable(first, lost) else 0

    def _stay(self, first: int, last: int, target: int) -> bool:
        """Go on where the track was; believe the new clock once two chunks agree on it."""
        self.doubts.absurd.met((self.base + target - self.cursor) / self.media.bytes_per_ms)
        suggested = self.cursor - target
        if last - first > 1:
            self.base, self._candidate = suggested, None
            return True
        self._candidate = suggested
        return False

    def _missing_before(self, first: int) -> int:
        """Return how many chunk numbers are missing right before chunk `first`."""
        if self.order.numbers is None:
            return 0
        number = int(self.order.numbers[first])
        if first:
            return number - int(self.order.numbers[first - 1]) - 1
        # Counters start at 0 or 1, or anywhere: only where clock and counter agree is a
        # chunk known to be missing at the beginning.
        for origin in (1, 0):
            target = (
                int(self.index.timestamp[self.order.chosen[0]]) - self.origin_ms
            ) * self.media.bytes_per_ms
            if number > 1 and target == (number - origin) * self._usual:
                return number - origin
        return 0

    def _leave_hole(self, first: int, size: int) -> None:
        """Leave silence before chunk `first`, and say what is missing there."""
        start, stop = self._silence(size)
        if self.order.numbers is None:
            missing = range(self._number_at(start), self._number_at(stop))
            otherwise = GapKind.LOST
        else:
            number = int(self.order.numbers[first])
            missing = range(number - self._missing_before(first), number)
            otherwise = GapKind.SENDER_SILENCE
        if missing and stop > start:
            self.gaps.explain(start, stop, missing)
        else:
            self.gaps.add(start, stop, otherwise)

    def _silence(self, size: int) -> tuple[int, int]:
        """Move the cursor over silence that begins and ends on a sample.

        Half of one, left by a chunk of an odd number of bytes, is silenced with it.
        """
        unit = self.media.bytes_per_sample
        start, stop = self.cursor // unit * unit, (self.cursor + size) // unit * unit
        if stop > start:
            self.cursor = stop
        return start, stop

    def _place_excused_tail(self) -> None:
        """Keep the place of chunks that came after the last one that could be kept.

        What was lost between them is believed as far as a pause is.
        """
        if not self._usual:
            return
        numbers, usual_ms = self.order.numbers, self._usual / self.media.bytes_per_ms
        number = self._number_at(self.cursor) if numbers is None else int(numbers[-1]) + 1
        audio_ms = int(self._brought[-1]) / self.media.bytes_per_ms
        end = number
        for excuse in self.missing.behind(number):
            if excuse.kind is GapKind.SENDER_SILENCE:
                continue  # it is in the recording before this one
            beyond = excuse.last + 1 - end
            came_ms = min(excuse.chunks, beyond) * usual_ms
            if not self._belief.follows(beyond * usual_ms, came_ms, audio_ms=audio_ms):
                break
            end = excuse.last + 1
        if end > number:
            start, stop = self._silence((end - number) * self._usual)
            self.gaps.explain(start, stop, range(number, end))
