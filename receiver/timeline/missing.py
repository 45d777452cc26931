"""Why chunks that are not there are not there: refused, or dropped while the disk was full."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from receiver.journal.records import MOST_APART, DroppedRecord
from receiver.media import GapKind
from receiver.timeline.ordering import MISSING


@dataclass(frozen=True, slots=True)
class LossRecord:
    """Of the chunks `first` to `last`, `chunks` came and were not kept, as row `row` says."""

    first: int
    last: int
    kind: GapKind
    chunks: int
    row: int


class MissingChunks:
    """What is known of a track's missing chunks, by chunk number, and what of it was shown.

    `bounds` are the numbers of the first and the last chunk of each row, one after the other.
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
        self._known.sort(key=lambda excuse: excuse.last)
        self._apart = _apart(self._known)

    def of(self, missing: range) -> Iterator[tuple[LossRecord | None, int]]:
        """Yield missing chunks as rows of one reason, each with its length; `None` is no reason."""
        first, stop = missing.start, missing.stop
        for at in range(bisect_left(self._apart, first, key=_last), len(self._apart)):
            excuse = self._apart[at]
            if excuse.first >= stop:
                break
            if excuse.first > first:
                yield None, excuse.first - first
            begin, first = max(first, excuse.first), min(stop, excuse.last + 1)
            yield excuse, first - begin
        if first < stop:
            yield None, stop - first

    def behind(self, number: int) -> Sequence[LossRecord]:
        """Return what ends at `number` or behind it, the nearest end first."""
        return self._known[bisect_left(self._known, number, key=_last) :]

    def show(self, excuse: LossRecord, chunks: int) -> None:
        """Remember that a gap of its kind stands for so many chunks of an excuse."""
        self._unshown[excuse.row] -= chunks

    def unshown(self) -> Counter[GapKind]:
        """Return how many chunks came, were not kept, and have no gap that stands for them."""
        return _summed_up(zip(self.rows, self._unshown, strict=True))


def chunks_not_kept(rows: Iterable[DroppedRecord]) -> Counter[GapKind]:
    """Return how many chunks came and were not kept."""
    return _summed_up((row, row.chunks) for row in rows)


def _summed_up(rows: Iterable[tuple[DroppedRecord, int]]) -> Counter[GapKind]:
    found: Counter[GapKind] = Counter()
    for row, chunks in rows:
        found[row.kind] += max(0, chunks)
    return +found  # without those of which there is none


def _last(excuse: LossRecord) -> int:
    return excuse.last


def _makes_sense(first: int, last: int, chunks: int) -> bool:
    return MISSING not in (first, last) and first <= last < first + MOST_APART * chunks


def _apart(excuses: Sequence[LossRecord]) -> list[LossRecord]:
    """Return excuses in their order, none over another.

    What is said of one chunk counts before what is said of a row, then the row that begins
    first.
    """
    single = {excuse.first: excuse for excuse in excuses if excuse.first == excuse.last}
    numbers, apart = sorted(single), list(single.values())
    behind = MISSING
    for row in sorted(excuses, key=lambda excuse: excuse.first):
        first = max(row.first, behind)
        within = numbers[bisect_left(numbers, first) : bisect_right(numbers, row.last)]
        for number in (*within, row.last + 1):
            if first < number:
                apart.append(replace(row, first=first, last=number - 1))
            first = number + 1
        behind = max(behind, row.last + 1)
    return sorted(apart, key=_last)
