"""What a sender's clock counts, where it begins and how fast it runs."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.journal.records import ChunkRecord
from receiver.media import ClockRule, MediaFormat, Track
from receiver.timeline.clock import (
    SenderTimes,
    clock_rules,
    drift_ppm,
    origin_ms,
    running_drift,
    usual_size,
)
from receiver.timeline.jumps import LONGEST_JUMP_MS
from receiver.timeline.ordering import order
from receiver.timeline.track_index import TrackIndex
from tests.receiver.helpers.journals import chunk

LONG_AGO_MS = 1_700_000_000_000


def index_of(records: Iterable[ChunkRecord]) -> TrackIndex:
    """Return an index of `records`."""
    index = TrackIndex(Track.INBOUND)
    for record in records:
        index.add(record, 0)
    return index


def stamped(
    *stamps: int | None, numbers: Sequence[int] | None = None, size: int = 160
) -> TrackIndex:
    """Return a track of equal chunks with these timestamps, numbered one by one."""
    numbers = numbers or range(len(stamps))
    pairs = zip(numbers, stamps, strict=True)
    return index_of(chunk(number, bytes(size), timestamp_ms=stamp) for number, stamp in pairs)


def rule(index: TrackIndex, media: MediaFormat | None = None) -> ClockRule:
    """Return what the timestamps of a track count."""
    (rule,) = clock_rules([index], [order(index)], media or MediaFormat())
    return rule


def arriving(*pairs: tuple[int | None, int]) -> list[TrackIndex]:
    """Return a track for each first timestamp and its arrival."""
    return [index_of([chunk(1, b"x", timestamp_ms=s, arrival_ms=a)]) for s, a in pairs]


@pytest.mark.parametrize(
    ("stamps", "expected"),
    [
        (range(0, 200, 20), ClockRule.TIMESTAMP),
        (range(0, 1600, 160), ClockRule.SAMPLES),
        (range(10), ClockRule.CHUNKS),
        ([0] * 10, ClockRule.CHUNKS),
        (range(0, 40_000, 4000), ClockRule.TIMESTAMP),  # pauses, all of them
        ([0, 0, 40, 40, 80, 80, 120, 120], ClockRule.CHUNKS),  # it ends before the last burst
        ([0, 0, 40, 40, 80, 80, 120, 120, 160], ClockRule.TIMESTAMP),  # the whole way has room
        ([0, 1, 2, 3], ClockRule.TIMESTAMP),  # three steps say nothing
        ([0, 1, 2, 3, 4], ClockRule.CHUNKS),
    ],
)
def test_the_steps_of_a_clock_say_what_it_counts(
    stamps: Sequence[int], expected: ClockRule
) -> None:
    """Chunks of 20 ms leave steps of 20 ms, of 160 samples, or too little room."""
    assert expected is rule(stamped(*stamps))


@given(st.integers(0, 2**32), st.integers(50, 400), st.integers(0, 80))
def test_a_clock_of_samples_may_jitter(seed: int, count: int, jitter: int) -> None:
    """No step is a packet's then, but their mean is; pauses in between change nothing."""
    dice = random.Random(seed)
    exact = [number * 160 + (number // 40) * 8000 for number in range(count)]
    jittered = [max(0, stamp + dice.randint(-jitter, jitter)) for stamp in exact]
    assert ClockRule.SAMPLES is rule(stamped(*jittered))


def test_a_track_of_a_few_chunks_counts_what_the_other_counts() -> None:
    """A sender has one clock; without another track it counts milliseconds."""
    long, short = stamped(*range(0, 1600, 160)), stamped(1600, 1760)
    orders = [order(long), order(short)]
    assert [ClockRule.SAMPLES] * 2 == clock_rules([long, short], orders, MediaFormat())
    assert ClockRule.TIMESTAMP is rule(short)


def test_steps_over_missing_chunks_are_as_long_as_those() -> None:
    """Two of three chunks are lost, which is not a clock that counts something else."""
    assert ClockRule.TIMESTAMP is rule(stamped(*range(0, 600, 60), numbers=range(0, 30, 3)))
    assert ClockRule.CHUNKS is rule(stamped(*range(0, 200, 20), numbers=range(0, 30, 3)))


def test_steps_that_make_no_sense_are_left_out() -> None:
    """A clock that was set anew, once, is still a clock."""
    assert ClockRule.TIMESTAMP is rule(stamped(0, 20, 40, 60, -500, -480, 90_000, 90_020, 90_040))


@pytest.mark.parametrize(("missing", "expected"), [(3, ClockRule.TIMESTAMP), (4, ClockRule.CHUNKS)])
def test_half_of_the_timestamps_are_enough(missing: int, expected: ClockRule) -> None:
    """With fewer, chunks are placed by their numbers."""
    assert expected is rule(stamped(*[None] * missing, *range(80, 80 + 3 * 20, 20)))


@pytest.mark.parametrize(("first", "expected"), [(-40, -40), (-60_000, -60_000), (-60_001, 0)])
def test_stream_time_begins_at_a_first_chunk_that_was_overtaken(first: int, expected: int) -> None:
    """But not at a timestamp that makes no sense, nor at one in mid-call."""
    stamps = [LONG_AGO_MS + ms for ms in (0, first, 20, *range(60, 1500, 20), -100)]
    track = index_of(
        chunk(n, b"x", timestamp_ms=stamp, arrival_ms=0) for n, stamp in enumerate(stamps)
    )
    assert LONG_AGO_MS + expected == origin_ms([track])


def test_the_usual_size_is_the_most_frequent_one() -> None:
    """Neither the largest nor the last."""
    assert 160 == usual_size(index_of(chunk(n, bytes(s)) for n, s in enumerate([160, 320, 160, 8])))


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([], 0),
        ([(0, 0)], 0),
        ([(LONGEST_JUMP_MS, 0)], 0),
        ([(LONGEST_JUMP_MS + 1, 0)], LONGEST_JUMP_MS + 1),
        ([(LONGEST_JUMP_MS + 50, 50)], 0),
        ([(LONG_AGO_MS + 40, 0), (LONG_AGO_MS, 900)], LONG_AGO_MS),
        ([(LONG_AGO_MS, 0), (20, 0)], 0),  # they do not agree
        ([(LONG_AGO_MS, 0), (None, 0)], 0),
    ],
)
def test_stream_time_begins_where_all_tracks_agree(
    pairs: list[tuple[int | None, int]], expected: int
) -> None:
    """At 0, unless every track is far from it; then with the first of them."""
    assert expected == origin_ms(arriving(*pairs))


@pytest.mark.parametrize(("stretch", "expected"), [(1.0, 0.0), (1.001, 1000.0), (0.999, -1000.0)])
def test_drift_is_how_much_faster_the_sender_runs(stretch: float, expected: float) -> None:
    """In parts per million of our clock."""
    index = index_of(
        chunk(n, b"x", timestamp_ms=round(n * 1000 * stretch), arrival_ms=n * 1000)
        for n in range(30)
    )
    assert expected == drift_ppm(index, order(index), ClockRule.TIMESTAMP)


@pytest.mark.parametrize(
    ("seconds", "stamps", "by", "known"),
    [
        (10, True, ClockRule.TIMESTAMP, True),
        (9, True, ClockRule.TIMESTAMP, False),
        (10, False, ClockRule.TIMESTAMP, False),
        (10, True, ClockRule.SAMPLES, False),
    ],
)
def test_drift_is_unknown_over_less_than_ten_seconds(
    seconds: int, stamps: bool, by: ClockRule, known: bool
) -> None:
    """And where a timestamp is missing, or none counts milliseconds."""
    index = index_of(
        chunk(n, b"x", timestamp_ms=n * 1000 if stamps or n else None, arrival_ms=n * 1000)
        for n in range(seconds + 1)
    )
    assert known == (drift_ppm(index, order(index), by) is not None)


def bursts(*starts: int, chunks: int = 100, stamp_ms: int = 0) -> TrackIndex:
    """Return bursts of chunks, each stamped when it is sent, and sent when it arrives."""
    return index_of(
        chunk(n, bytes(160), timestamp_ms=start + stamp_ms * (n % chunks), arrival_ms=start + 50)
        for n, start in enumerate(s for s in starts for _ in range(chunks))
    )


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (bursts(0, 1500), ClockRule.TIMESTAMP),
        (bursts(0, 900), ClockRule.CHUNKS),  # too short a time to know
        (bursts(0, 1500, stamp_ms=7), ClockRule.CHUNKS),  # not the time of sending
    ],
)
def test_timestamps_that_go_with_arrivals_are_those_of_sending(
    index: TrackIndex, expected: ClockRule
) -> None:
    """Bursts that overlap leave too little room, but each begins where its timestamp says."""
    assert expected is rule(index)


def times(*stamps: int, numbers: Sequence[int] | None = None) -> SenderTimes:
    """Return where timestamps put chunks of 20 ms."""
    index, media = stamped(*stamps, numbers=numbers), MediaFormat()
    return SenderTimes(index, order(index), media, ClockRule.TIMESTAMP, 0)


@pytest.mark.parametrize(
    ("stamps", "expected"),
    [
        ([20 * n for n in range(500)], 0),
        ([round(20.004 * n) for n in range(1000)], 200e-6),
        ([round(19.98 * n) for n in range(1000)], -1000e-6),
        ([round(20.004 * n) for n in range(200)], 0),  # too short to know
        ([round(20.1 * n) for n in range(1000)], 0),  # by too much for a clock
        ([20 * n + n % 2 * 7 for n in range(999)], 0),  # jitter
        ([20 * n + n // 50 * 9 for n in range(500)], 0),  # pauses, of most of which nobody knows
    ],
)
def test_drift_is_between_timestamps_and_running_audio(stamps: list[int], expected: float) -> None:
    """Nearly all steps agree on it, beyond their rounding."""
    assert expected == pytest.approx(running_drift([times(*stamps)]), abs=10e-6)


def test_tracks_share_their_drift() -> None:
    """Both have the sender's clock."""
    stamps = [round(20.01 * n) for n in range(200)]
    assert 0 == running_drift([times(*stamps)])
    assert 500e-6 == pytest.approx(running_drift([times(*stamps)] * 3), abs=50e-6)
