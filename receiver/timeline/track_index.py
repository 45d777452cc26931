"""What is kept in memory of a track's chunks while a journal is read."""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from receiver.journal.records import ChunkRecord, DroppedRecord
from receiver.media import GapKind, Track

Column = NDArray[np.int64]

MISSING: Final = -(2**63)
"""Stands for a missing counter in a column."""
_LATEST_ARRIVAL_MS: Final = 2**31 - 1  # after 24 days


class Bounds(NamedTuple):
    """The first and the last chunk of each row that was not kept, one after the other."""

    numbers: Column
    timestamps: Column
    chunks_before: Column  # how many chunks had come when the row was written


class TrackIndex:
    """Columns of one track's chunks, in the order in which they arrived: 44 bytes per chunk.

    Payloads stay in the journal: `end` and `size` say where each is. A counter that a chunk
    lacks is `MISSING`.
    """

    def __init__(self, track: Track) -> None:
        self.track = track
        self.number_before: int | None = None  # of the last chunk in the recording before
        self.not_kept: list[DroppedRecord] = []  # chunks that came: refused, or the disk was full
        self._chunks_before = array("q")  # each of those rows
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
        """Add a chunk whose payload ends at byte `end` of the journal."""
        self._number.append(MISSING if record.chunk is None else record.chunk)
        self._sequence.append(MISSING if record.sequence_number is None else record.sequence_number)
        self._timestamp.append(MISSING if record.timestamp_ms is None else record.timestamp_ms)
        self._arrival.append(min(record.arrival_ms, _LATEST_ARRIVAL_MS))
        self._end.append(end)
        self._size.append(len(record.payload))
        self._checksum.append(zlib.crc32(record.payload))

    def add_not_kept(self, row: DroppedRecord) -> None:
        """Add a row of chunks that came after those so far, and were not kept."""
        self.not_kept.append(row)
        self._chunks_before.append(len(self))

    @property
    def rejected(self) -> int:
        """Return how many chunks were refused."""
        return sum(row.chunks for row in self.not_kept if row.kind is GapKind.REJECTED)

    @property
    def not_kept_bounds(self) -> Bounds:
        """Return where each row of chunks that were not kept begins and ends."""
        numbers = [(row.first_chunk, row.last_chunk) for row in self.not_kept]
        stamps = [(row.first_timestamp_ms, row.last_timestamp_ms) for row in self.not_kept]
        return Bounds(_paired(numbers), _paired(stamps), np.repeat(_column(self._chunks_before), 2))

    def forget_counters(self) -> None:
        """Free what is needed only until chunks are placed."""
        self._number = self._sequence = self._timestamp = array("q")
        self._arrival = array("i")
        self._checksum = array("I")

    def forget_payloads(self) -> None:
        """Free where payloads are; only the rows that were not kept are left."""
        self._end = array("q")
        self._size = array("i")

    number = property(lambda self: _column(self._number))
    sequence = property(lambda self: _column(self._sequence))
    timestamp = property(lambda self: _column(self._timestamp))
    arrival = property(lambda self: np.frombuffer(self._arrival, np.int32))
    end = property(lambda self: _column(self._end))
    size = property(lambda self: np.frombuffer(self._size, np.int32))
    checksum = property(lambda self: np.frombuffer(self._checksum, np.uint32))


class MessageIndex:
    """The sequence numbers of messages other than chunks that were kept, as they came."""

    def __init__(self) -> None:
        self.incomplete = False  # some came that are not in the journal
        self.unnumbered = 0  # came, and may have used a number that is not known
        self.started_ms = 0  # when the first one arrived
        self.ended_ms = 0  # when the stream ended
        self._sequences = array("q")
        self._ends = array("q")

    def add(self, sequence: int | None, end: int) -> None:
        """Add a message that ends at byte `end` of the journal."""
        if sequence is not None:
            self._sequences.append(sequence)
            self._ends.append(end)

    def around(self, first: int, last: int) -> tuple[Column, Column]:
        """Return the numbers of what came before byte `first`, and behind byte `last`."""
        return self.sequences[self.ends < first], self.sequences[self.ends > last]

    sequences = property(lambda self: _column(self._sequences))
    ends = property(lambda self: _column(self._ends))


def _column(values: array[int]) -> Column:
    return np.frombuffer(values, np.int64)


def _paired(pairs: Iterable[tuple[int | None, int | None]]) -> Column:
    known = [MISSING if bound is None else bound for pair in pairs for bound in pair]
    return np.array(known, np.int64)
