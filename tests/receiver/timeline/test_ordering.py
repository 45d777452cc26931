"""Which chunks of a track count, and in which order, whatever their counters say."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest

from receiver.journal.records import ChunkRecord
from receiver.media import Track
from receiver.timeline.ordering import Order, order
from receiver.timeline.track_index import TrackIndex
from tests.receiver.helpers.journals import chunk


def ordered(records: Iterable[ChunkRecord]) -> Order:
    """Return the order of chunks that arrived like this."""
    index = TrackIndex(Track.INBOUND)
    for record in records:
        index.add(record, 0)
    return order(index)


def numbered(*numbers: int, stamps: Sequence[int] | None = None) -> list[ChunkRecord]:
    """Return chunks with these numbers, each with other bytes; the clock goes on by 20 ms."""
    stamps = stamps or range(0, 20 * len(numbers), 20)
    return [
        chunk(number, b"%04d" % place, timestamp_ms=stamp)
        for place, (number, stamp) in enumerate(zip(numbers, stamps, strict=True))
    ]


def codes(found: Order) -> list[tuple[str, str]]:
    """Return what was found, in short."""
    return [(finding.code, finding.detail) for finding in found.findings]


def test_chunks_are_sorted_by_their_numbers() -> None:
    """Those that arrived behind a later one are late."""
    found = ordered(numbered(1, 4, 2, 3, 5, stamps=[0, 60, 20, 40, 80]))
    assert [0, 2, 3, 1, 4] == found.chosen.tolist()
    assert found.numbers is not None
    assert [1, 2, 3, 4, 5] == found.numbers.tolist()
    assert (0, 0, 2) == (found.duplicate, found.conflict, found.late)


def test_of_equal_numbers_the_first_to_arrive_stays() -> None:
    """However many there are: it is by arrival that one of them is chosen."""
    firsts = numbered(*range(300))
    again = [chunk(n % 300, b"other", timestamp_ms=n % 300 * 20) for n in range(0, 700, 7)]
    found = ordered([*firsts, *again, *firsts[::-1]])
    assert list(range(300)) == found.chosen.tolist()
    assert (300, 100) == (found.duplicate, found.conflict)


@pytest.mark.parametrize(
    ("numbers", "kept"),
    [
        ([1, 1, 1, 1, 2, 3], 6),  # half of them
        ([1, 1, 1, 1, 2, 3, 4], 4),  # less than half
        ([1, 1, 1, 2], 2),  # half, but two are chance
    ],
)
def test_numbers_that_repeat_tell_nothing_apart(numbers: list[int], kept: int) -> None:
    """From half of them on, unless there are two: then all chunks are kept, by another counter."""
    found = ordered(numbered(*numbers))
    assert kept == len(found.chosen)
    unusable = [("counters_unusable", "the chunk numbers repeat")] if kept == len(numbers) else []
    assert unusable == codes(found)
    assert (not unusable) == (found.numbers is not None)


def test_without_usable_numbers_sequence_numbers_order() -> None:
    """Nobody can say how many chunks are missing between two of them."""
    records = [
        chunk(None, b"%d" % sequence, sequence_number=sequence, timestamp_ms=0)
        for sequence in (9, 3, 5, 3)
    ]
    found = ordered(records)
    assert [1, 2, 0] == found.chosen.tolist()
    assert found.numbers is None
    assert (1, 0) == (found.duplicate, found.conflict)


def test_without_any_numbers_timestamps_order() -> None:
    """Chunks of the same time are all kept, unless they are the same chunk."""
    records = [
        chunk(None, payload, timestamp_ms=stamp)
        for payload, stamp in ((b"a", 40), (b"b", 0), (b"c", 20), (b"b", 0), (b"d", 20))
    ]
    found = ordered(records)
    assert [1, 2, 4, 0] == found.chosen.tolist()
    assert (1, 0) == (found.duplicate, found.conflict)


@pytest.mark.parametrize("stamps", [[0, 0, 20, 20], [40, 20, None, 0]])
def test_timestamps_that_tell_too_little_leave_the_arrivals(stamps: list[int | None]) -> None:
    """Half of them are the same, or one is missing."""
    found = ordered(chunk(None, b"same", timestamp_ms=stamp) for stamp in stamps)
    assert [0, 1, 2, 3] == found.chosen.tolist()
    assert (0, 0, 0) == (found.duplicate, found.conflict, found.late)


@pytest.mark.parametrize(
    ("step_back", "restarts"),
    [(1, False), (999, False), (1000, False), (1001, True), (65_535, True)],
)
def test_a_counter_restarts_only_far_behind(step_back: int, restarts: bool) -> None:
    """A small step back is a chunk in its wrong place, whatever its clock says."""
    found = ordered(numbered(65_534, 65_536, 65_536 - step_back, stamps=[0, 20, 40]))
    assert ([("counters_restarted", "1 times")] if restarts else []) == codes(found)
    assert found.numbers is not None
    expected = [65_534, 65_536, 65_537 if restarts else 65_536 - step_back]
    assert sorted(expected) == found.numbers.tolist()


@pytest.mark.parametrize("stamp", [0, 1020])
def test_a_late_chunk_is_no_restart(stamp: int) -> None:
    """Far behind by number and not ahead by its clock: it is put in its place."""
    found = ordered(numbered(5000, 5001, 2, 5002, stamps=[1000, 1020, stamp, 1040]))
    assert [2, 0, 1, 3] == found.chosen.tolist()
    assert [] == codes(found)


def test_a_straggler_of_the_old_count_goes_before_the_restart() -> None:
    """It arrives behind the first chunk of the new count, and is older by its clock."""
    found = ordered(numbered(65_533, 65_535, 0, 65_534, 1, stamps=[0, 40, 60, 20, 80]))
    assert [0, 3, 1, 2, 4] == found.chosen.tolist()
    assert found.numbers is not None
    assert [65_533, 65_534, 65_535, 65_536, 65_537] == found.numbers.tolist()
    assert 1 == found.late


def test_a_counter_that_restarts_for_ever_is_taken_as_it_is() -> None:
    """Dozens of restarts are followed; a counter that does nothing else tells nothing."""
    followed = ordered(numbered(*[5000, 0] * 32))
    assert [("counters_restarted", "32 times")] == codes(followed)
    assert list(range(64)) == followed.chosen.tolist()
    endless = ordered(numbered(*[5000, 0] * 70))
    assert ("counters_unusable", "the chunk numbers repeat") in codes(endless)


def test_forgotten_counters_leave_where_the_payloads_are() -> None:
    """What is left is enough to write the audio."""
    index = TrackIndex(Track.INBOUND)
    for end, record in enumerate(numbered(1, 2, 3)):
        index.add(record, 10 * end)
    index.forget_counters()
    assert 3 == len(index)
    assert [0, 10, 20] == index.end.tolist()
    assert [4, 4, 4] == index.size.tolist()
    assert 0 == len(index.number) == len(index.timestamp) == len(index.arrival)
