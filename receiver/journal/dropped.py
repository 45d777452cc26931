"""Chunks that a live stream's journal could not keep: only their bounds are, as rows.

They become gaps, so a row holds chunks that are near each other, and memory few rows.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Final

from receiver.journal import records
from receiver.journal.records import ChunkRecord, DroppedRecord
from receiver.media import GapKind, Track

_ROW_BYTES: Final = 64
_MOST_ROWS: Final = 8
"""Of one track: a few late chunks, not a sender that counts as it likes."""
_MOST_APART_MS: Final = 60_000  # timestamps of neighbours in a row


class DroppedChunks:
    """The bounds of chunks that were not kept: rows of chunks that are near each other."""

    def __init__(self) -> None:
        self.lock = threading.Lock()  # two threads add and take, and begin and end dropping
        self._by_track: dict[Track, list[DroppedRecord]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._by_track.values()))

    @property
    def held_bytes(self) -> int:
        """Return what the rows will take, more or less."""
        return _ROW_BYTES * len(self)

    def add(self, record: ChunkRecord) -> None:
        """Count one chunk."""
        with self.lock:
            rows = self._by_track.setdefault(record.track, [])
            row = _row_of(record)
            near = (at for at, before in enumerate(rows) if _are_near(before, row))
            at = next(near, len(rows))
            if at < len(rows):
                rows[at] = _joined(rows[at], row)
            elif at < _MOST_ROWS:
                rows.append(row)
            else:  # where chunks are anywhere, only their number is worth keeping
                rows[-1] = DroppedRecord(row.kind, row.track, rows[-1].chunks + 1, *[None] * 4)

    def take(self) -> list[DroppedRecord]:
        """Return the rows, and begin anew."""
        with self.lock:
            taken, self._by_track = list(self._by_track.values()), {}
            return list(itertools.chain.from_iterable(taken))


def _row_of(record: ChunkRecord) -> DroppedRecord:
    number, stamp = record.chunk, record.timestamp_ms
    return DroppedRecord(GapKind.DISK, record.track, 1, number, number, stamp, stamp)


def _are_near(row: DroppedRecord, other: DroppedRecord) -> bool:
    """Whether a chunk belongs to a row: by what both say, or where neither says anything.

    A late chunk makes a row of its own, and so does a counter that begins anew: the bounds of
    both together would say nothing.
    """
    bounds = (
        (row.first_chunk, row.last_chunk, other.first_chunk, records.MOST_APART),
        (row.first_timestamp_ms, row.last_timestamp_ms, other.first_timestamp_ms, _MOST_APART_MS),
    )
    near = [
        first - apart <= value <= last + apart
        for first, last, value, apart in bounds
        if first is not None and last is not None and value is not None
    ]
    said = [(chunks.first_chunk, chunks.first_timestamp_ms) for chunks in (row, other)]
    return all(near) if near else said[0] == said[1]


def _joined(row: DroppedRecord, other: DroppedRecord) -> DroppedRecord:
    return DroppedRecord(
        kind=row.kind,
        track=row.track,
        chunks=row.chunks + other.chunks,
        first_chunk=_known(min, row.first_chunk, other.first_chunk),
        last_chunk=_known(max, row.last_chunk, other.last_chunk),
        first_timestamp_ms=_known(min, row.first_timestamp_ms, other.first_timestamp_ms),
        last_timestamp_ms=_known(max, row.last_timestamp_ms, other.last_timestamp_ms),
    )


def _known(choose: Callable[[int, int], int], one: int | None, other: int | None) -> int | None:
    """Return the outer of two bounds: chunks need not come in order."""
    if one is None or other is None:
        return other if one is None else one
    return choose(one, other)
