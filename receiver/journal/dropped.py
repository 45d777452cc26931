"""Chunks that arrived but could not be kept: only their bounds are, as rows.

A row becomes a gap of the recording. Chunks that are near each other share a row, so that its
bounds say where they were, and there are few rows, so that memory is bounded.

Near is what is at most `MOST_APART` chunk numbers and a minute of timestamps away. Example of a
late chunk, and of a counter that restarts while the clock goes on:

    chunk      65534    65535     5     0        1
    timestamp  2000000  2000020   100   2000040  2000060
    row        1        1         2     3        3
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
"""Of one track: enough for a few late chunks, not for counters that are anywhere."""
_MOST_APART_MS: Final = 60_000  # timestamps of neighbours in a row


class DroppedChunks:
    """The bounds of chunks that were not kept.

    The event loop adds, the writer's thread drains. `lock` also guards the change between
    keeping and dropping, so that no chunk falls between the two.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._by_track: dict[Track, list[DroppedRecord]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._by_track.values()))

    @property
    def held_bytes(self) -> int:
        """Return about how many bytes the rows will be."""
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

    def drain(self) -> list[DroppedRecord]:
        """Return the rows and remove them."""
        with self.lock:
            drained, self._by_track = list(self._by_track.values()), {}
            return list(itertools.chain.from_iterable(drained))


def _row_of(record: ChunkRecord) -> DroppedRecord:
    number, stamp = record.chunk, record.timestamp_ms
    return DroppedRecord(GapKind.DISK, record.track, 1, number, number, stamp, stamp)


def _are_near(row: DroppedRecord, other: DroppedRecord) -> bool:
    """Whether a chunk belongs to a row: by the counters that both have, or where neither has any.

    A late chunk makes a row of its own, and so does a counter that restarts: the bounds of both
    together would say nothing.
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
    counters = [(chunks.first_chunk, chunks.first_timestamp_ms) for chunks in (row, other)]
    return all(near) if near else counters[0] == counters[1]


def _joined(row: DroppedRecord, other: DroppedRecord) -> DroppedRecord:
    return DroppedRecord(
        kind=row.kind,
        track=row.track,
        chunks=row.chunks + other.chunks,
        first_chunk=_outer(min, row.first_chunk, other.first_chunk),
        last_chunk=_outer(max, row.last_chunk, other.last_chunk),
        first_timestamp_ms=_outer(min, row.first_timestamp_ms, other.first_timestamp_ms),
        last_timestamp_ms=_outer(max, row.last_timestamp_ms, other.last_timestamp_ms),
    )


def _outer(choose: Callable[[int, int], int], one: int | None, other: int | None) -> int | None:
    """Return the outer one of two bounds: chunks need not come in order."""
    if one is None or other is None:
        return other if one is None else one
    return choose(one, other)
