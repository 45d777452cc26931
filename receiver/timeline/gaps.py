"""The gaps of a track's time line, and why the chunks that they stand for are missing.

A gap is bytes of the time line that no chunk covers. Where chunk numbers are missing in it, it
is split by what became of those chunks: refused, dropped while the disk was full, in the
recording before this one, or lost (nobody knows of them). An example, with chunks of 20 ms
between number 4 (which ends at 80 ms) and number 10 (which the clock puts at 240 ms):

    missing     5         6         7         8         9
    known       -         rejected  disk      disk      disk
    gaps        80-100    100-120   120-240
    kind        lost      rejected  disk

The clock left 160 ms for five chunks of 20 ms, so the sender also paused for 60 ms. Where chunks
came during the pause and the disk took none, it is part of that outage. Otherwise the pause is
behind them, silence of the sender: what is lost is never longer than the chunks that are.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from receiver.journal.records import MOST_APART, DroppedRecord
from receiver.media import GapKind, MediaFormat
from receiver.timeline.track_index import MISSING

_KINDS: Final = tuple(GapKind)
_OUTAGES: Final = (GapKind.DISK, GapKind.PAUSED)
"""While they last nothing is kept, so a pause of the sender in one is part of it."""


@dataclass(frozen=True, slots=True)
class LossRecord:
    """Of the chunks `first` to `last`, `chunks` came and were not kept, as row `row` says."""

    first: int
    last: int
    kind: GapKind
    chunks: int
    row: int


class MissingChunks:
    """What is known of a track's missing chunks, by chunk number, and for what of it gaps stand.

    Args:
        rows: chunks that came and were not kept, as the journal has them.
        bounds: the numbers of the first and the last chunk of each, one after the other;
            `MISSING` where there is none.
    """

    def __init__(self, rows: Sequence[DroppedRecord], bounds: Sequence[int]) -> None:
        self.rows = rows
        self._unshown = [row.chunks for row in rows]
        pairs = zip(bounds[::2], bounds[1::2], strict=True)
        self._known = [
            LossRecord(first, last, rows[at].kind, rows[at].chunks, at)
            for at, (first, last) in enumerate(pairs)
            if _makes_sense(first, last, rows[at].chunks)
        ]
        self._known.sort(key=_last)
        self._disjoint = _disjoint(self._known)

    def split(self, missing: range) -> Iterator[tuple[LossRecord | None, int]]:
        """Yield missing chunks as parts of one reason, each with its length; `None` is lost."""
        first, stop = missing.start, missing.stop
        for at in range(bisect_left(self._disjoint, first, key=_last), len(self._disjoint)):
            record = self._disjoint[at]
            if record.first >= stop:
                break
            if record.first > first:
                yield None, record.first - first
            start, first = max(first, record.first), min(stop, record.last + 1)
            yield record, first - start
        if first < stop:
            yield None, stop - first

    def ending_from(self, number: int) -> Sequence[LossRecord]:
        """Return what ends at `number` or behind it, the nearest end first."""
        return self._known[bisect_left(self._known, number, key=_last) :]

    def mark_shown(self, record: LossRecord, chunks: int) -> None:
        """Count that a gap stands for so many chunks of a record."""
        self._unshown[record.row] -= chunks

    def unshown(self) -> Counter[GapKind]:
        """Return how many chunks came, were not kept, and have no gap that stands for them."""
        return _by_kind(zip(self.rows, self._unshown, strict=True))


def chunks_not_kept(rows: Iterable[DroppedRecord]) -> Counter[GapKind]:
    """Return how many chunks came and were not kept, by the kind of gap they would leave."""
    return _by_kind((row, row.chunks) for row in rows)


def _by_kind(rows: Iterable[tuple[DroppedRecord, int]]) -> Counter[GapKind]:
    found: Counter[GapKind] = Counter()
    for row, chunks in rows:
        found[row.kind] += max(0, chunks)
    return +found  # without those of which there is none


def _last(record: LossRecord) -> int:
    return record.last


def _makes_sense(first: int, last: int, chunks: int) -> bool:
    return MISSING not in (first, last) and first <= last < first + MOST_APART * chunks


def _disjoint(records: Sequence[LossRecord]) -> list[LossRecord]:
    """Return records in their order, none over another.

    What is known of a single chunk counts before what is known of several, then what begins
    first.
    """
    single = {record.first: record for record in records if record.first == record.last}
    numbers, found = sorted(single), list(single.values())
    behind = MISSING
    for row in sorted(records, key=lambda record: record.first):
        first = max(row.first, behind)
        within = numbers[bisect_left(numbers, first) : bisect_right(numbers, row.last)]
        for number in (*within, row.last + 1):
            if first < number:
                found.append(replace(row, first=first, last=number - 1))
            first = number + 1
        behind = max(behind, row.last + 1)
    return sorted(found, key=_last)


@dataclass(frozen=True, slots=True)
class ByteGap:
    """Bytes `[start, stop)` of the time line that no chunk covers."""

    start: int
    stop: int
    kind: GapKind


class GapList:
    """The gaps of one track in their order; each begins and ends on a sample.

    Args:
        missing: what is known of the track's missing chunks; what is shown here is counted there.
        media: the format, for the size of a sample.
        usual_bytes: what each missing chunk is taken to have.
        longest_bytes: what one may have at the most; in a longer gap the sender also paused.
    """

    def __init__(
        self, missing: MissingChunks, media: MediaFormat, usual_bytes: int, longest_bytes: int
    ) -> None:
        self._missing = missing
        self._usual_bytes = usual_bytes
        self._longest = longest_bytes
        self._sample = media.bytes_per_sample
        self._rows = array("q")  # a lossy call has so many that objects would take most memory

    def __iter__(self) -> Iterator[ByteGap]:
        for start, stop, kind in zip(*[iter(self._rows)] * 3, strict=True):
            yield ByteGap(start, stop, _KINDS[kind])

    def add(self, start: int, stop: int, kind: GapKind) -> None:
        """Add a gap of one kind, unless it is empty."""
        if stop > start:
            self._rows.extend((start, stop, _KINDS.index(kind)))

    def add_missing(self, start: int, stop: int, missing: range) -> None:
        """Add a gap where the `missing` chunks would be, split by what became of them.

        If it is longer than they are, the sender also paused.
        """
        count = missing.stop - missing.start
        parts = list(self._missing.split(missing))
        longest = max(range(len(parts)), key=lambda at: parts[at][1])
        outage = parts[longest][0]
        end = stop
        usual = self._usual_bytes  # half of one more is jitter of the clock
        most = max(count * self._longest, count * usual + usual // 2)
        if not (outage and outage.kind in _OUTAGES) and stop - start > most:
            end = start + count * usual // self._sample * self._sample
        self._add_parts(start, end, parts, longest)
        self.add(end, stop, GapKind.SENDER_SILENCE)

    def _add_parts(
        self, start: int, stop: int, parts: Sequence[tuple[LossRecord | None, int]], longest: int
    ) -> None:
        before, border, position = len(self._rows), start, start
        for record, count, size in self._shares(stop - start, parts, longest):
            position += size
            end = position // self._sample * self._sample
            kind = record.kind if record else GapKind.LOST
            if len(self._rows) > before and kind is _KINDS[self._rows[-1]]:
                self._rows[-2] = end  # it goes on where one of its kind ended
            else:
                self.add(border, end, kind)
            if record and end > border:
                self._missing.mark_shown(record, count)
            border = end

    def _shares(
        self, size: int, parts: Sequence[tuple[LossRecord | None, int]], longest: int
    ) -> Iterator[tuple[LossRecord | None, int, int]]:
        """Yield the parts of missing chunks, and how many of a gap's bytes are each one's.

        What is more than all of their bytes is the longest part's.
        """
        chunks = sum(count for _, count in parts)
        usual = min(self._usual_bytes, size // chunks)
        rest = size - usual * chunks
        for at, (record, count) in enumerate(parts):
            yield record, count, count * usual + (rest if at == longest else 0)
