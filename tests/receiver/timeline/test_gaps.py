"""Why chunks are missing: what was refused or dropped, and what never came."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.journal.records import MOST_APART, DroppedRecord
from receiver.media import GapKind, Track
from receiver.timeline.gaps import MissingChunks, chunks_not_kept
from receiver.timeline.track_index import MISSING

LOST, DISK, REJECTED = GapKind.LOST, GapKind.DISK, GapKind.REJECTED


def dropped(
    first: int | None, last: int | None, chunks: int, kind: GapKind = DISK
) -> DroppedRecord:
    """Return a row of chunks that could not be kept."""
    return DroppedRecord(kind, Track.INBOUND, chunks, first, last, None, None)


def known_of(rows: list[DroppedRecord], refused: list[int | None] | None = None) -> MissingChunks:
    """Return what is known of a track's missing chunks, numbered as the journal does."""
    rows = [*rows, *(dropped(number, number, 1, REJECTED) for number in refused or [])]
    bounds = [
        MISSING if n is None else n for row in rows for n in (row.first_chunk, row.last_chunk)
    ]
    return MissingChunks(rows, bounds)


def kinds(known: MissingChunks, first: int, stop: int) -> list[tuple[GapKind, int]]:
    """Return why these chunks are missing, as rows of one kind; all of them are shown."""
    found = []
    for record, count in known.split(range(first, stop)):
        if record:
            known.mark_shown(record, count)
        found.append((record.kind if record else LOST, count))
    groups = itertools.groupby(found, lambda row: row[0])
    return [(kind, sum(count for _, count in row)) for kind, row in groups]


def test_a_chunk_that_nobody_knows_of_is_lost() -> None:
    """What no record is of was lost on the way."""
    assert [(LOST, 3)] == kinds(known_of([]), 1, 4)


def test_each_chunk_of_a_gap_has_its_own_reason() -> None:
    """Rows are as long as the reason stays the same; what is said of one chunk counts first."""
    known = known_of([dropped(4, 6, 2), dropped(10, 10, 1)], refused=[2, 3, 5, 12, None])
    expected = [(LOST, 1), (REJECTED, 2), (DISK, 1), (REJECTED, 1), (DISK, 1), (LOST, 3), (DISK, 1)]
    assert [*expected, (LOST, 1), (REJECTED, 1), (LOST, 1)] == kinds(known, 1, 14)
    assert {REJECTED: 1} == known.unshown()


@pytest.mark.parametrize(
    "row",
    [
        dropped(None, 9, 5),
        dropped(1, None, 5),
        dropped(9, 1, 5),
        dropped(0, 2**52, 5),
        dropped(0, 5 * MOST_APART, 5),
    ],
)
def test_counters_that_make_no_sense_explain_nothing(row: DroppedRecord) -> None:
    """Chunks of a row are near each other; but that they came is not forgotten."""
    known = known_of([row])
    assert [(LOST, 2**53)] == kinds(known, 0, 2**53)
    assert [] == list(known.ending_from(0))
    assert {DISK: 5} == known.unshown()


def test_a_row_may_hold_numbers_that_never_came() -> None:
    """Chunks that were lost on the way while others were dropped look the same."""
    assert [(LOST, 1), (DISK, 9), (LOST, 1)] == kinds(known_of([dropped(1, 9, 5)]), 0, 11)


def test_a_huge_gap_is_not_asked_chunk_by_chunk() -> None:
    """Neither a nonsense counter nor an hour without a disk costs time."""
    known = known_of([dropped(4, 10**9, 10**9 - 3)])
    assert [(LOST, 4), (DISK, 10**9 - 3), (LOST, 2**50 - 10**9 - 1)] == kinds(known, 0, 2**50)


def test_what_no_gap_stands_for_is_counted() -> None:
    """By kind, and without what a gap does stand for."""
    known = known_of([dropped(4, 6, 3), dropped(10, 13, 4), dropped(None, None, 7)], refused=[1])
    assert {DISK: 14, REJECTED: 1} == known.unshown() == chunks_not_kept([*known.rows])
    kinds(known, 5, 11)
    assert {DISK: 11, REJECTED: 1} == known.unshown()
    kinds(known, 0, 5)
    assert {DISK: 10} == known.unshown()


def test_what_is_behind_a_number_is_found_by_its_end() -> None:
    """The nearest first, whole, whatever of it is before."""
    known = known_of([dropped(30, 40, 11), dropped(4, 6, 3), dropped(10, 33, 4)], refused=[9, 20])
    assert [(20, 20), (10, 33), (30, 40)] == [(x.first, x.last) for x in known.ending_from(10)]


@given(
    st.sets(st.integers(0, 60)),
    st.lists(st.tuples(st.integers(0, 50), st.integers(2, 8))),
    st.integers(0, 60),
    st.integers(1, 70),
)
def test_each_chunk_has_one_reason(
    refused: set[int], rows: list[tuple[int, int]], first: int, count: int
) -> None:
    """Wherever a gap begins and ends, it is covered exactly."""
    known = known_of([dropped(first, first + n - 1, n) for first, n in rows], list(refused))
    found = kinds(known, first, first + count)
    unrolled = [kind for kind, length in found for _ in range(length)]
    assert count == len(unrolled)
    covered = {number for begin, n in rows for number in range(begin, begin + n)}
    for number, kind in enumerate(unrolled, first):
        expected = REJECTED if number in refused else DISK if number in covered else LOST
        assert expected is kind
    missed = refused - set(range(first, first + count))
    assert len(missed) == known.unshown()[REJECTED]
