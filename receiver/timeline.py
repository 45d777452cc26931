"""Where every chunk of a track belongs: the second half of the time line.

Chunks are placed by timestamp; the recording starts at stream time 0, so tracks line up with
each other to the sample. Positions are counted in payload bytes of the decoded-from stream,
which are exact: every sample rate has whole samples per millisecond.
"""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from receiver.clock import Belief, clock_rule, drift_ppm, usual_size
from receiver.excuses import Excuses
from receiver.media import ClockRule, Finding, Gap, GapKind, MediaFormat
from receiver.ordering import MISSING, Column, Order, TrackIndex, order
from receiver.recording import Ledger

_KINDS: Final = tuple(GapKind)


@dataclass(frozen=True, slots=True)
class Run:
    """Chunks `chosen[first:last]`, back to back from byte `start` of the time line on."""

    first: int
    last: int
    start: int


@dataclass(frozen=True, slots=True)
class Hole:
    """Bytes `[start, stop)` of the time line that no chunk covers."""

    start: int
    stop: int
    kind: GapKind


@dataclass(frozen=True, slots=True)
class Placement:
    """A track's time line. `length` is where its audio ends, in bytes."""

    order: Order
    length: int
    clock_rule: ClockRule
    findings: tuple[Finding, ...]
    ledger: Ledger
    first_timestamp_ms: int | None
    drift_ppm: float | None
    _runs: array[int]  # a lossy call has so many that objects would take most of the memory
    _holes: array[int]

    @property
    def runs(self) -> Iterator[Run]:
        """Yield the runs, in their order."""
        return itertools.starmap(Run, zip(*[iter(self._runs)] * 3, strict=True))

    @property
    def holes(self) -> Iterator[Hole]:
        """Yield the holes, in their order."""
        for start, stop, kind in zip(*[iter(self._holes)] * 3, strict=True):
            yield Hole(start, stop, _KINDS[kind])


def place(index: TrackIndex, media: MediaFormat, *, origin_ms: int = 0) -> Placement:
    """Return the time line of one track that carried at least one chunk.

    `origin_ms` is the timestamp at which the time line begins.
    """
    ordered = order(index)
    rule = clock_rule(index, ordered, media)
    walk = _Walk(index, ordered, media, rule, origin_ms)
    walk.place_all()
    findings = (*ordered.findings, *walk.findings())
    return Placement(
        order=replace(ordered, numbers=None),  # they have done their part
        length=walk.cursor,
        clock_rule=rule,
        findings=findings,
        ledger=_ledger(index, ordered),
        first_timestamp_ms=_present(int(index.timestamp[ordered.chosen[0]])),
        drift_ppm=drift_ppm(index, ordered, rule),
        _runs=walk.runs,
        _holes=walk.holes,
    )


def gaps(placement: Placement, length: int, media: MediaFormat) -> tuple[Gap, ...]:
    """Return the holes of a track in milliseconds, filled up to `length` bytes at its end."""
    holes = list(placement.holes)
    end = placement.length - placement.length % media.bytes_per_sample
    if length > end:
        holes.append(Hole(end, length, GapKind.SENDER_SILENCE))
    return tuple(
        Gap(
            milliseconds(hole.start, media),
            milliseconds(hole.stop, media) - milliseconds(hole.start, media),
            hole.kind,
        )
        for hole in holes
    )


def milliseconds(position: int, media: MediaFormat) -> float:
    """Return a position or length in bytes as milliseconds."""
    exact, rest = divmod(position, media.bytes_per_ms)
    return exact if not rest else position / media.bytes_per_ms


def _ledger(index: TrackIndex, ordered: Order) -> Ledger:
    return Ledger(
        received=len(index) + len(index.rejected),
        written=len(ordered.chosen),
        duplicate=ordered.duplicate,
        late=ordered.late,
        conflict=ordered.conflict,
        rejected=len(index.rejected),
    )


def _present(number: int) -> int | None:
    return None if number == MISSING else number


@dataclass(slots=True)
class _Trouble:
    """How often something was met, and the largest size of it in milliseconds."""

    times: int = 0
    most_ms: float = 0

    def met(self, size_ms: float) -> None:
        self.times += 1
        self.most_ms = max(self.most_ms, abs(size_ms))


@dataclass(slots=True)
class _Walk:
    """Goes along a track once, from run to run, and puts each where it belongs."""

    index: TrackIndex
    order: Order
    media: MediaFormat
    rule: ClockRule
    origin_ms: int
    cursor: int = 0  # where the audio so far ends, in bytes
    base: int = 0  # what the current clock's targets are shifted by
    runs: array[int] = field(default_factory=lambda: array("q"))  # rows of Run's fields
    holes: array[int] = field(default_factory=lambda: array("q"))  # the same of Hole
    overlap: _Trouble = field(default_factory=_Trouble)
    absurd: _Trouble = field(default_factory=_Trouble)
    unstamped: int = 0
    _candidate: int | None = None  # a base that one absurd timestamp suggests
    _latest: int = -(2**62)  # the last accepted target
    _usual: int = 0
    _belief: Belief = field(default_factory=Belief)
    _brought: Column = field(init=False)  # bytes of audio before each chunk
    _excuses: Excuses = field(init=False)

    def place_all(self) -> None:
        self._usual = usual_size(self.index)
        self._excuses = Excuses(self.index)
        sizes = self.index.size[self.order.chosen].astype(np.int64)
        targets = self._targets()
        self._brought = np.concatenate(([0], np.cumsum(sizes)))
        for first, last in self._stretches(sizes, targets):
            if self._place(first, last, int(targets[first])):
                self._latest = int(targets[last - 1])
            self.runs.extend((first, last, self.cursor))
            self.cursor += int(self._brought[last] - self._brought[first])
        self._place_excused_tail()

    def _targets(self) -> Column:
        """Return where each chunk's timestamp puts it, in bytes, before any shift."""
        stamps = self.index.timestamp[self.order.chosen]
        media = self.media
        counts_samples = self.rule is ClockRule.SAMPLES
        unit = media.bytes_per_sample if counts_samples else media.bytes_per_ms
        return np.where(stamps == MISSING, MISSING, (stamps - self.origin_ms) * unit)

    def _stretches(self, sizes: Column, targets: Column) -> Iterator[tuple[int, int]]:
        """Yield `(first, last)` of chunks that follow each other without a break."""
        broken = targets[1:] != targets[:-1] + sizes[:-1]
        if self.rule is ClockRule.CHUNKS:
            broken = np.zeros(len(sizes) - 1, bool)
            if self.order.numbers is not None:
                broken = np.diff(self.order.numbers) != 1
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
            self.unstamped += last - first
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
        backwards = target < self._latest if base == self.base else jump < -self.media.bytes_per_ms
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
        if jump >= one_ms:
            self._leave_hole(first, jump)
        elif jump <= -one_ms:
            self.overlap.met(jump / one_ms)

    def _stay(self, first: int, last: int, target: int) -> bool:
        """Go on where the track was; believe the new clock once two chunks agree on it."""
        self.absurd.met((self.base + target - self.cursor) / self.media.bytes_per_ms)
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
        start, stop = self._silence(size)
        size = stop - start
        if size <= 0:
            return
        missing = self._missing_before(first)
        if self.order.numbers is None:
            kinds = [(self._excuses.of_unnumbered(), size)]
        elif missing <= 0:
            kinds = [(GapKind.SENDER_SILENCE, size)]
        else:
            kinds = self._kinds_of(first, missing, size)
        for kind, length in kinds:
            self._add_hole(start, start + length, kind)
            start += length

    def _silence(self, size: int) -> tuple[int, int]:
        """Move the cursor over silence that begins and ends on a sample.

        Half of one, left by a chunk of an odd number of bytes, is silenced with it.
        """
        unit = self.media.bytes_per_sample
        start, stop = self.cursor // unit * unit, (self.cursor + size) // unit * unit
        if stop > start:
            self.cursor = stop
        return start, stop

    def _add_hole(self, start: int, stop: int, kind: GapKind) -> None:
        if stop > start:
            self.holes.extend((start, stop, _KINDS.index(kind)))

    def _kinds_of(self, first: int, missing: int, size: int) -> list[tuple[GapKind, int]]:
        """Split a hole by what became of its chunks, where they fill it exactly."""
        assert self.order.numbers is not None  # noqa: S101  (the caller looked)
        number = int(self.order.numbers[first])
        rows = self._excuses.rows(number - missing, number)
        if missing * self._usual == size:
            return [(kind, count * self._usual) for kind, count in rows]
        return [(rows[0][0] if len(rows) == 1 else GapKind.LOST, size)]

    def _place_excused_tail(self) -> None:
        """Keep the place of chunks that came after the last one that could be kept."""
        if self.order.numbers is None or not self._usual:
            return
        last = number = int(self.order.numbers[-1]) + 1
        while self._excuses.kind_of(last) is not GapKind.LOST:
            last += 1
        for kind, count in self._excuses.rows(number, last):
            self._add_hole(*self._silence(count * self._usual), kind)

    def findings(self) -> Iterator[Finding]:
        """Yield what a listener should know about how the track was placed."""
        track = self.index.track
        if self.rule is not ClockRule.TIMESTAMP:
            yield Finding("clock_rule", f"chunks were placed by {self.rule.value}", track)
        if self.unstamped and self.rule is not ClockRule.CHUNKS:
            yield Finding("timestamps_missing", f"on {self.unstamped} chunks", track)
        if self.absurd.times:
            text = f"{self.absurd.times} times, up to {self.absurd.most_ms:.0f} ms; not followed"
            yield Finding("timestamps_absurd", text, track)
        if self.overlap.times:
            text = (
                f"too little room {self.overlap.times} times, up to {self.overlap.most_ms:.0f} ms;"
                " the audio was appended"
            )
            yield Finding("timestamps_overlap", text, track)
