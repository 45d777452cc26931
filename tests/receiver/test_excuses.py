"""Why chunks are missing: what was refused or dropped is told from what never came."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.excuses import Excuses
from receiver.journal import DroppedRecord
from receiver.media import GapKind, RejectedChunk, Track
from receiver.ordering import TrackIndex

LOST, DISK, REJECTED = GapKind.LOST, GapKind.DISK, GapKind.REJECTED


def dropped(
    first: int | None, last: int | None, chunks: int, kind: GapKind = DISK
) -> DroppedRecord:
    """Return a row of chunks that could not be kept."""
    return DroppedRecord(kind, Track.INBOUND, chunks, first, last, None, None)


def excuses(rows: list[DroppedRecord], refused: list[int | None] | None = None) -> Excuses:
    """Return what is known of a track without any chunk."""
    index = TrackIndex(Track.INBOUND)
    index.dropped += rows
    index.rejected += [RejectedChunk(Track.INBOUND, chunk=number) for number in refused or []]
    return Excuses(index)


def test_a_chunk_that_nobody_knows_of_is_lost() -> None:
    """No record is no excuse."""
    assert LOST is excuses([]).kind_of(5)
    assert [(LOST, 3)] == excuses([]).rows(1, 4)


def test_each_chunk_of_a_hole_has_its_own_reason() -> None:
    """Rows are as long as the reason stays the same."""
    known = excuses([dropped(4, 6, 3), dropped(10, 10, 1)], refused=[2, 3, 12, None])
    expected = [(LOST, 1), (REJECTED, 2), (DISK, 3), (LOST, 3), (DISK, 1), (LOST, 1)]
    assert [*expected, (REJECTED, 1), (LOST, 1)] == known.rows(1, 14)


@pytest.mark.parametrize(
    "row",
    [
        dropped(None, 9, 5),
        dropped(1, None, 5),
        dropped(9, 1, 5),
        dropped(0, 2**52, 5),
        dropped(5, 15, 5),
    ],
)
def test_counters_that_make_no_sense_excuse_nothing(row: DroppedRecord) -> None:
    """A row of five chunks cannot reach over ten numbers, or backwards."""
    assert [(LOST, 20)] == excuses([row]).rows(0, 20)


def test_a_row_may_hold_numbers_that_never_came() -> None:
    """Chunks that were lost on the way while others were dropped cannot be told apart."""
    assert [(LOST, 1), (DISK, 9), (LOST, 1)] == excuses([dropped(1, 9, 5)]).rows(0, 11)


def test_a_huge_hole_is_not_asked_chunk_by_chunk() -> None:
    """A nonsense counter costs no time."""
    assert [(LOST, 2**50)] == excuses([dropped(4, 6, 3)]).rows(0, 2**50)


def test_without_numbers_the_first_row_speaks_for_the_track() -> None:
    """Where chunks were dropped, a hole is likely theirs."""
    assert DISK is excuses([dropped(None, None, 3)]).of_unnumbered()
    assert LOST is excuses([]).of_unnumbered()


@given(st.sets(st.integers(0, 60)), st.lists(st.tuples(st.integers(0, 50), st.integers(1, 8))))
def test_rows_and_single_answers_agree(refused: set[int], rows: list[tuple[int, int]]) -> None:
    """Each chunk has one reason, and rows cover a hole exactly."""
    known = excuses([dropped(first, first + n - 1, n) for first, n in rows], list(refused))
    unrolled = [kind for kind, count in known.rows(0, 70) for _ in range(count)]
    assert [known.kind_of(number) for number in range(70)] == unrolled
    covered = {number for first, n in rows for number in range(first, first + n)}
    for number, kind in enumerate(unrolled):
        expected = REJECTED if number in refused else DISK if number in covered else LOST
        assert expected is kind
