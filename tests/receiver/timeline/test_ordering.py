"""Which chunks of a track count, and in which order, whatever their counters say."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.journal.records import ChunkRecord, DroppedRecord
from receiver.media import GapKind, Track
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


@pytest.mark.parametrize(
    ("numbers", "unwrapped", "order_"),
    [
        ([65_534, 0, 65_535, 1], range(65_534, 65_538), [0, 2, 1, 3]),
        ([65_533, 65_534, 2, 3], [65_533, 65_534, 65_538, 65_539], [0, 1, 2, 3]),
        ([0, 65_535, 1, 65_534], range(-2, 2), [3, 1, 0, 2]),
        ([65_000, 65_001, 700], [65_000, 65_001, 66_236], [0, 1, 2]),
    ],
)
@pytest.mark.parametrize("set_back", [0, 5000])
def test_a_16_bit_counter_wraps_whatever_the_clock_says(
    numbers: list[int], unwrapped: Sequence[int], order_: list[int], set_back: int
) -> None:
    """Each number is the nearest to its neighbours, also of those that overtake each other."""
    step = 20_000 if 700 in numbers else 20  # many lost chunks need time
    stamps = [10_000 + step * at for at in range(len(numbers))]
    if step == 20:  # a clock set back in between changes nothing
        stamps[2:] = [stamp - set_back for stamp in stamps[2:]]
    found = ordered(numbered(*numbers, stamps=stamps))
    assert found.numbers is not None
    assert list(unwrapped) == found.numbers.tolist()
    assert order_ == found.chosen.tolist()
    assert (0, 0) == (found.duplicate, found.conflict)


@pytest.mark.parametrize(
    ("numbers", "chosen"),
    [
        ([1, 2, 3, 4, 1, 2, 3], range(7)),
        ([5, 6, 7, 8, 6, 7, 8], range(7)),  # with the first ones lost
        ([1, 2, 3, 4, 1, 5, 2, 3], [0, 1, 2, 3, 5, 4, 6, 7]),  # a straggler of the old count
        ([1, 2, 3, 4, 2, 1, 3], [0, 1, 2, 3, 5, 4, 6]),  # the new count begins swapped
        ([1, 2, 3, 1, 2, 1, 2, 3], range(8)),  # twice
        ([1, 2, 3, 4, 1], range(5)),  # one chunk, and nothing behind it
        ([100, *range(101, 160), 1, 2, 3], range(63)),  # to numbers that never came
    ],
)
@pytest.mark.parametrize("counter", ["stamps", "sequences", "neither"])
def test_numbers_that_come_again_with_other_chunks_are_a_counter_that_began_anew(
    numbers: list[int], chosen: Sequence[int], counter: str
) -> None:
    """However little ago, and whether timestamps, sequence numbers or only the bytes differ."""
    places = {row: place for place, row in enumerate(chosen)}
    records = [
        chunk(
            number,
            b"%04d" % row,
            timestamp_ms=20 * places[row] if counter == "stamps" else None,
            sequence_number=row if counter == "sequences" else None,
        )
        for row, number in enumerate(numbers)
    ]
    found = ordered(records)
    assert list(chosen) == found.chosen.tolist()
    assert (0, 0) == (found.duplicate, found.conflict)
    assert "counters_restarted" == found.findings[0].code


def test_a_count_of_a_single_number_is_one() -> None:
    """The highest number comes again, with another chunk, and the next ones follow it."""
    found = ordered(numbered(1, 2, 3, 1, 1, 2, 3, 4))
    assert (list(range(8)), 0) == (found.chosen.tolist(), found.conflict)
    found = ordered(numbered(7, 7, 8, 9, 10))
    assert [("counters_restarted", "1 times")] == codes(found)
    assert found.numbers is not None
    assert [7, 8, 9, 10, 11] == found.numbers.tolist()


@pytest.mark.parametrize("by", ["timestamp", "sequence"])
def test_a_restart_is_found_however_chunks_overtake_each_other(by: str) -> None:
    """By the timestamps, or the sequence numbers, in whose order numbers fall back only there."""
    sent = [*range(1, 121), *range(1, 91)]
    rows = [
        chunk(number, b"%04d" % place, timestamp_ms=20 * place, sequence_number=place + 2)
        for place, number in enumerate(sent)
    ]
    other = {"timestamp": "sequence_number", "sequence": "timestamp_ms"}[by]
    rows = [msgspec.structs.replace(row, **{other: None}) for row in rows]
    dice = random.Random(5)
    arrived = sorted(range(210), key=lambda place: place + dice.expovariate(1 / 6))
    found = ordered([rows[place] for place in arrived])
    assert sent == [sent[arrived[row]] for row in found.chosen]
    assert (0, 0) == (found.conflict, found.duplicate)
    assert found.numbers is not None
    assert list(range(1, 211)) == found.numbers.tolist()


def test_silence_behind_a_restart_is_no_duplicate() -> None:
    """Its bytes are those of other silence; the clock and the numbers around it go on."""
    numbers = [*range(1, 30), *range(1, 30)]
    found = ordered(chunk(n, b"....", timestamp_ms=20 * at) for at, n in enumerate(numbers))
    assert list(range(58)) == found.chosen.tolist()
    assert (0, 0) == (found.duplicate, found.conflict)


@pytest.mark.parametrize("sequence", [False, True])
@pytest.mark.parametrize("quiet", [0, 6, 40])
def test_a_sender_that_begins_anew_as_a_whole_repeats_all_of_its_counters(
    sequence: bool, quiet: int
) -> None:
    """Only the bytes are others, and those of the silence that it begins with are not."""
    records = [
        chunk(
            n,
            b"...." if n < quiet else b"%d-%02d" % (count, n),
            timestamp_ms=20 * n,
            sequence_number=n if sequence else None,
        )
        for count in range(3)
        for n in range(count * 4, 60)  # and some are lost
    ]
    found = ordered(records)
    assert list(range(len(records))) == found.chosen.tolist()
    assert (0, 0) == (found.duplicate, found.conflict)


def test_a_few_chunks_that_come_again_with_other_bytes_are_conflicts() -> None:
    """Those behind them are as they were."""
    records = [*numbered(*range(60)), *numbered(*range(43))[40:], *numbered(*range(61))[60:]]
    records[60:63] = [
        chunk(n, b"else", timestamp_ms=20 * n, sequence_number=None) for n in (40, 41, 42)
    ]
    found = ordered(records)
    assert ([*range(60), 63], 3) == (found.chosen.tolist(), found.conflict)


@pytest.mark.parametrize("unit", [20, 160, 320])
@pytest.mark.parametrize("first", [0, 1, 77, 60_000])
def test_a_counter_that_counts_audio_counts_chunks(unit: int, first: int) -> None:
    """A lost chunk and a repeated one, a swap, a wrap and a restart are as with any other."""
    sent = [0, 1, 2, 4, 3, 5, 8, 8, *range(9, 100), 40, *range(100, 140)]
    numbers = [(first + unit * n) % 65_536 for n in sent] + [unit * n for n in range(50)]
    payloads = [b"%04d" % n for n in [*sent, *range(200, 250)]]
    stamps = [20 * n for n in [*sent, *range(140, 190)]]
    records = [
        chunk(n, payload, timestamp_ms=stamp)
        for n, payload, stamp in zip(numbers, payloads, stamps, strict=True)
    ]
    found = ordered(records)
    assert (2, 0) == (found.duplicate, found.conflict)
    assert len(records) - 2 == len(found.chosen)
    assert found.numbers is not None
    steps = [1] * 5 + [3] + [1] * (len(found.chosen) - 7)
    assert steps == (found.numbers[1:] - found.numbers[:-1]).tolist()


def test_chunks_that_were_not_kept_have_their_place_among_those_of_a_counter_of_audio() -> None:
    """So has the last one of the recording before."""
    index = TrackIndex(Track.INBOUND)
    index.number_before = 3 * 160
    for n in [*range(5, 20), *range(23, 40)]:
        if n == 23:
            index.add_not_kept(
                DroppedRecord(GapKind.DISK, Track.INBOUND, 3, 20 * 160, 22 * 160, None, None)
            )
        index.add(chunk(n * 160, b"%04d" % n * 40), 0)
    found = order(index)
    assert found.numbers is not None
    assert found.not_kept_numbers is not None
    assert ([20, 22], 3) == (found.not_kept_numbers.tolist(), found.number_before)
    assert [*range(5, 20), *range(23, 40)] == found.numbers.tolist()


@given(
    first=st.sampled_from([0, 1, 77, 65_500]),
    restarts=st.lists(st.sampled_from(range(20, 150, 13)), max_size=3),
    seed=st.integers(0, 2**32),
    swapped=st.sampled_from([0.0, 0.1]),
    loss=st.sampled_from([0.0, 0.1]),
    repeated=st.sampled_from([0.0, 0.05]),
)
def test_no_chunk_is_dropped_or_misplaced_by_a_counter_that_begins_anew(
    first: int, restarts: list[int], seed: int, swapped: float, loss: float, repeated: float
) -> None:
    """Whatever is swapped, lost and sent twice around it, wraps and restarts together."""
    dice = random.Random(seed)
    numbers = [(first + at) % 65_536 for at in range(200)]
    for restart in sorted(set(restarts)):
        numbers[restart:] = range(first, first + 200 - restart)
    sent = list(range(200))
    for at in range(199):
        if dice.random() < swapped and sent[at] == at:
            sent[at], sent[at + 1] = sent[at + 1], sent[at]
    came = [at for at in sent if dice.random() >= loss]
    came = [at for at in came for _ in range(1 + (dice.random() < repeated))]
    payloads = [dice.randbytes(8) for _ in range(200)]
    found = ordered(
        chunk(numbers[at], payloads[at], timestamp_ms=20 * at, sequence_number=2 + at)
        for at in came
    )
    assert sorted(set(came)) == [came[row] for row in found.chosen.tolist()]
    assert 0 == found.conflict
    assert len(came) - len(set(came)) == found.duplicate


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
