"""Which chunks of a track count, and in which order: the first half of the time line.

Settled with the whole track in view, so any reordering is repaired, not just what fits a
window. A chunk's identity is its chunk number; where that is missing or makes no sense, the
stream's sequence number, and where that is too, its timestamp.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from receiver.journal.records import ChunkRecord, DroppedRecord
from receiver.media import Finding, GapKind, Track

Column = NDArray[np.int64]

MISSING: Final = -(2**63)
"""Stands for a missing counter in a column."""
_LATEST_ARRIVAL_MS: Final = 2**31 - 1  # after 24 days
_RESTART: Final = 1000
"""A number this far behind the highest one, later on the clock, is a restarted counter."""
_MOST_RESTARTS: Final = 64


class TrackIndex:
    """What is remembered of a track's chunks while the journal is read: 44 bytes for each.

    Columns are in arrival order; payloads stay in the journal, `end` says where one ends.
    """

    def __init__(self, track: Track) -> None:
        self.track = track
        self.not_kept: list[DroppedRecord] = []  # what came and was not kept, also what was refused
        self._not_kept_at = array("q")  # behind how many chunks
        self._number = array("q")
        self._sequence = array("q")
        self._timestamp = array("q")
        self._arrival = array("i")
        self._end = array("q")
        self._size = array("i")
        self._checksum = array("L" if array("L").itemsize == 4 else "I")

    def __len__(self) -> int:
        return len(self._end)

    def add(self, record: ChunkRecord, end: int) -> None:
        """Remember one chunk whose payload ends at byte `end` of the journal."""
        self._number.append(MISSING if record.chunk is None else record.chunk)
        self._sequence.append(MISSING if record.sequence_number is None else record.sequence_number)
        self._timestamp.append(MISSING if record.timestamp_ms is None else record.timestamp_ms)
        self._arrival.append(min(record.arrival_ms, _LATEST_ARRIVAL_MS))
        self._end.append(end)
        self._size.append(len(record.payload))
        self._checksum.append(zlib.crc32(record.payload))

    def add_not_kept(self, row: DroppedRecord) -> None:
        """Remember chunks that came now, and were not kept."""
        self.not_kept.append(row)
        self._not_kept_at.append(len(self))

    @property
    def rejected(self) -> int:
        """Return how many chunks were refused."""
        return sum(row.chunks for row in self.not_kept if row.kind is GapKind.REJECTED)

    @property
    def bounds(self) -> tuple[Column, Column, Column]:
        """Return of each excused row's first and last chunk: number, timestamp, place among chunks.

        The place is how many chunks had come before.
        """
        numbers = [(row.first_chunk, row.last_chunk) for row in self.not_kept]
        stamps = [(row.first_timestamp_ms, row.last_timestamp_ms) for row in self.not_kept]
        return _paired(numbers), _paired(stamps), np.repeat(_column(self._not_kept_at), 2)

    def forget_counters(self) -> None:
        """Keep only where the payloads are: the rest has done its part once chunks are placed."""
        self._number = self._sequence = self._timestamp = array("q")
        self._arrival = array("i")
        self._checksum = array("I")

    def forget_payloads(self) -> None:
        """Keep only what was excused."""
        self._end = array("q")
        self._size = array("i")

    number = property(lambda self: _column(self._number))
    sequence = property(lambda self: _column(self._sequence))
    timestamp = property(lambda self: _column(self._timestamp))
    arrival = property(lambda self: np.frombuffer(self._arrival, np.int32))
    end = property(lambda self: _column(self._end))
    size = property(lambda self: np.frombuffer(self._size, np.int32))
    checksum = property(lambda self: np.frombuffer(self._checksum, np.uint32))


def _column(values: array[int]) -> Column:
    return np.frombuffer(values, np.int64)


def _paired(pairs: Iterable[tuple[int | None, int | None]]) -> Column:
    known = [MISSING if bound is None else bound for pair in pairs for bound in pair]
    return np.array(known, np.int64)


@dataclass(frozen=True, slots=True)
class Order:
    """The chunks to write, as indices into the columns, in the order of the sender.

    `numbers` are their chunk numbers (restarts undone), or `None` where chunks are known by
    something else, so that nobody can say how many are missing between two of them; `bounds`,
    likewise, are those of the first and the last chunk of each excused row.
    """

    chosen: Column
    numbers: Column | None = None
    bounds: Column | None = None
    duplicate: int = 0
    conflict: int = 0
    late: int = 0
    findings: tuple[Finding, ...] = ()


def order(index: TrackIndex) -> Order:
    """Return the order of `index`, which holds at least one chunk."""
    findings: list[Finding] = []
    numbers, _, _ = index.bounds
    unknown = np.full_like(numbers, MISSING)
    columns = (("chunk", index.number, numbers), ("sequence", index.sequence, unknown))
    for name, keys, bounds in columns:
        if (keys == MISSING).any():
            continue
        unwrapped, unwrapped_bounds, restarts = _unwrapped(keys, bounds, index)
        found = _sorted_by(unwrapped, index)
        if found.conflict > 2 and 2 * found.conflict >= len(index):
            findings.append(_note(index, "counters_unusable", f"the {name} numbers repeat"))
            continue
        if restarts:
            findings.append(_note(index, "counters_restarted", f"{restarts} times"))
        if name == "chunk":
            found = replace(found, numbers=unwrapped[found.chosen], bounds=unwrapped_bounds)
        return replace(found, findings=tuple(findings))
    return replace(_without_numbers(index), findings=tuple(findings))


def _note(index: TrackIndex, code: str, detail: str) -> Finding:
    return Finding(code, detail, index.track)


def _unwrapped(keys: Column, bounds: Column, index: TrackIndex) -> tuple[Column, Column, int]:
    """Return the keys of chunks and of excused rows with restarts undone, and how many there were.

    A counter may have begun anew among chunks that were not kept.
    """
    _, stamps, places = index.bounds
    known = bounds != MISSING
    kept = np.insert(np.ones(len(keys), bool), places[known], False)
    merged, restarts = _undo_restarts(
        np.insert(keys, places[known], bounds[known]),
        np.insert(index.timestamp, places[known], stamps[known]),
        kept,
    )
    unwrapped_bounds = bounds.copy()
    unwrapped_bounds[known] = merged[~kept]
    return merged[kept], unwrapped_bounds, restarts


def _undo_restarts(numbers: Column, timestamps: Column, kept: Column) -> tuple[Column, int]:
    """Let numbers go on where the sender's counter began anew (16-bit ones do after 22 min).

    Only a chunk that is far behind by number and ahead of everything by timestamp shows a
    restart: a late chunk is behind by both. What was not `kept` hides none by a clock of its own.
    """
    unwrapped = numbers
    newest = np.maximum.accumulate(np.where(kept, timestamps, MISSING))
    for restarts in range(_MOST_RESTARTS):
        highest = np.maximum.accumulate(unwrapped)
        behind = unwrapped[1:] < highest[:-1] - _RESTART
        restarted = np.flatnonzero(behind & (timestamps[1:] > newest[:-1]))
        if not len(restarted):
            return unwrapped, restarts
        first = int(restarted[0]) + 1
        step = int(highest[first - 1]) + 1 - int(unwrapped[first])
        new_epoch = np.arange(len(numbers)) >= first
        new_epoch &= timestamps >= timestamps[first]
        unwrapped = np.where(new_epoch, unwrapped + step, unwrapped)
    return numbers, 0


def _sorted_by(keys: Column, index: TrackIndex, *, keep_conflicts: bool = False) -> Order:
    """Sort by `keys`; of equal keys keep the first to arrive and tell what the others were."""
    arrived = np.argsort(keys, kind="stable")
    ordered = keys[arrived]
    repeats = np.concatenate(([False], ordered[1:] == ordered[:-1]))
    first = np.maximum.accumulate(np.where(repeats, 0, np.arange(len(arrived))))
    size, checksum = index.size[arrived], index.checksum[arrived]
    equal = (size == size[first]) & (checksum == checksum[first])
    dropped = repeats & equal if keep_conflicts else repeats
    chosen = arrived[~dropped]
    return Order(
        chosen,
        duplicate=int((repeats & equal).sum()),
        conflict=int((dropped & ~equal).sum()),
        late=_late(keys, chosen),
    )


def _late(keys: Column, chosen: Column) -> int:
    """Count the chosen chunks that arrived behind one that belongs after them."""
    behind = keys < np.maximum.accumulate(keys)
    return int(behind[chosen].sum())


def _without_numbers(index: TrackIndex) -> Order:
    """Order by timestamps if they can tell chunks apart, else as the chunks arrived."""
    timestamps = index.timestamp
    told_apart = len(np.unique(timestamps)) * 2 > len(timestamps)
    if told_apart and not (timestamps == MISSING).any():
        return _sorted_by(timestamps, index, keep_conflicts=True)
    return Order(np.arange(len(index)))
