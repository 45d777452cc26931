"""Dropped chunks: all are counted, in a few rows whose bounds are true."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.journal.records import MOST_APART, ChunkRecord, DroppedRecord
from receiver.journal.writer import DroppedChunks
from receiver.media import GapKind, Track

COUNTERS = st.none() | st.integers(-(2**53), 2**53)
CHUNKS = st.lists(
    st.tuples(
        st.sampled_from(Track),
        COUNTERS | st.integers(0, 9999),
        COUNTERS | st.integers(0, 99_999),
    ),
    max_size=60,
)


def rows_of(*chunks: tuple[Track, int | None, int | None]) -> list[DroppedRecord]:
    """Return the rows of dropped chunks, each a track, a chunk number and a timestamp."""
    dropped = DroppedChunks()
    for track, number, stamp in chunks:
        dropped.add(ChunkRecord(track, None, number, stamp, 0, b"x"))
    assert bool(chunks) == bool(dropped.held_bytes)
    rows = dropped.drain()
    assert 0 == len(dropped) == dropped.held_bytes
    return rows


def inbound(chunks: int, *bounds: int | None) -> DroppedRecord:
    """Return a row of the inbound track: first and last number, first and last timestamp."""
    return DroppedRecord(GapKind.DISK, Track.INBOUND, chunks, *bounds)


def test_chunks_of_one_outage_are_one_row_per_track() -> None:
    """Whatever the order in which they come."""
    numbers = [(Track.INBOUND, 4), (Track.OUTBOUND, 7), (Track.INBOUND, 2), (Track.INBOUND, 3)]
    rows = rows_of(*((track, number, 20 * number) for track, number in numbers))
    outbound = DroppedRecord(GapKind.DISK, Track.OUTBOUND, 1, 7, 7, 140, 140)
    assert [inbound(3, 2, 4, 40, 80), outbound] == rows


@pytest.mark.parametrize("numbered", [True, False])
def test_a_late_chunk_is_a_row_of_its_own(numbered: bool) -> None:
    """The bounds of both together would say nothing; a counter that restarts makes two rows."""
    numbers = [65_534, 65_535, 5, 0, 1]
    stamps = [2_000_000, 2_000_020, 100, 2_000_040, 2_000_060]
    rows = rows_of(
        *((Track.INBOUND, n if numbered else None, t) for n, t in zip(numbers, stamps, strict=True))
    )
    if numbered:
        assert [
            inbound(2, 65_534, 65_535, 2_000_000, 2_000_020),
            inbound(1, 5, 5, 100, 100),
            inbound(2, 0, 1, 2_000_040, 2_000_060),
        ] == rows
    else:
        late = inbound(1, None, None, 100, 100)
        assert [inbound(4, None, None, 2_000_000, 2_000_060), late] == rows


def test_chunks_without_any_counter_are_one_row_without_bounds() -> None:
    """Nothing says where they were."""
    assert [inbound(3, *[None] * 4)] == rows_of(*[(Track.INBOUND, None, None)] * 3)


def test_what_is_beyond_the_last_row_is_counted_without_a_place() -> None:
    """Counters that are anywhere fill no memory."""
    rows = rows_of(*((Track.INBOUND, 100_000 * n, None) for n in range(20)))
    assert 8 == len(rows)
    assert inbound(13, *[None] * 4) == rows[-1]


@given(CHUNKS)
def test_every_chunk_is_counted_in_a_few_rows(
    chunks: list[tuple[Track, int | None, int | None]],
) -> None:
    """Whatever their counters are, memory is bounded, and no bounds are too wide to be true."""
    found = rows_of(*chunks)
    for track in Track:
        rows = [row for row in found if row.track is track]
        assert sum(t is track for t, _, _ in chunks) == sum(row.chunks for row in rows)
        assert len(rows) <= 8
        for row in rows:
            first, last = row.first_chunk or 0, row.last_chunk or 0
            assert 0 <= last - first < MOST_APART * row.chunks
