"""The time line: which chunks count, in which order, and where they are placed."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from receiver.journal.records import ChunkRecord, DroppedRecord
from receiver.media import ClockRule, Encoding, GapKind, MediaFormat, RejectedChunk, Track
from receiver.timeline.track_index import MessageIndex, TrackIndex
from receiver.timeline.track_timeline import Placement, gaps_in_ms, place, place_tracks
from tests.bounds import examples
from tests.receiver.helpers.journals import chunk

MULAW = MediaFormat()
L16 = MediaFormat(Encoding.L16, 16000)
SILENCE = b"."
"""Stands for one byte that no chunk covers."""


def index_of(
    records: Iterable[ChunkRecord | DroppedRecord], rejected: Sequence[RejectedChunk] = ()
) -> tuple[TrackIndex, dict[int, bytes]]:
    """Return an index of `records`, and their payloads by arrival."""
    index, payloads = TrackIndex(Track.INBOUND), {}
    for record in records:
        if isinstance(record, DroppedRecord):
            index.add_not_kept(record)
        else:
            payloads[len(index)] = record.payload
            index.add(record, 0)
    for row in rejected:
        bounds = (row.chunk, row.chunk, row.timestamp_ms, row.timestamp_ms)
        index.add_not_kept(DroppedRecord(GapKind.REJECTED, row.track, 1, *bounds))
    return index, payloads


def laid_out(
    records: Iterable[ChunkRecord | DroppedRecord],
    media: MediaFormat = MULAW,
    rejected: Sequence[RejectedChunk] = (),
) -> tuple[bytes, Placement]:
    """Return what the placed track would look like, byte by byte."""
    index, payloads = index_of(records, rejected)
    placement = place(index, media)
    line = bytearray(SILENCE * placement.length)
    for run in placement.runs:
        position = run.start
        for chosen in placement.order.chosen[run.first : run.last]:
            payload = payloads[int(chosen)]
            assert SILENCE * len(payload) == line[position : position + len(payload)]
            line[position : position + len(payload)] = payload
            position += len(payload)
    return bytes(line), placement


def spoken(number: int, size: int = 160) -> bytes:
    """Return a payload that names its chunk and is never silence."""
    return (b"%08d" % number) * (size // 8)


def call(numbers: Iterable[int], *, first: int = 0, step_ms: int = 20) -> list[ChunkRecord]:
    """Return chunks as a provider sends them: number and timestamp advance together."""
    return [
        chunk(n + first, spoken(n), timestamp_ms=n * step_ms, arrival_ms=n * 20) for n in numbers
    ]


def kinds(placement: Placement) -> list[tuple[int, int, GapKind]]:
    """Return the gaps as (start, stop, kind) in milliseconds of mu-law."""
    return [(gap.start // 8, gap.stop // 8, gap.kind) for gap in placement.gaps]


@given(
    sent=st.integers(1, 60),
    seed=st.integers(0, 2**32),
    loss=st.sampled_from([0.0, 0.1, 0.3, 0.7]),
    doubled=st.sampled_from([0.0, 0.2]),
    shuffled=st.booleans(),
    first=st.sampled_from([0, 1, 77]),
)
@example(sent=14, seed=1095, loss=0.1, doubled=0.0, shuffled=True, first=1)
def test_every_surviving_chunk_is_at_its_place(
    sent: int, seed: int, loss: float, doubled: float, shuffled: bool, first: int
) -> None:
    """Whatever is lost, doubled and reordered, the rest is where its timestamp says."""
    source = random.Random(seed)
    survivors = [n for n in range(sent) if source.random() >= loss] or [0]
    arrived = [n for n in survivors for _ in range(1 + (source.random() < doubled))]
    if shuffled:
        source.shuffle(arrived)
    line, placement = laid_out(call(arrived, first=first))
    expected = b"".join(
        spoken(n) if n in survivors else SILENCE * 160 for n in range(survivors[-1] + 1)
    )
    assert expected == line
    assert len(survivors) == placement.ledger.written
    assert len(arrived) - len(survivors) == placement.ledger.duplicate
    assert placement.ledger.balanced
    assert ClockRule.TIMESTAMP is placement.clock_rule
    silence = sum(gap.duration_ms for gap in gaps_in_ms(placement, placement.length, MULAW))
    assert 20 * (survivors[-1] + 1 - len(survivors)) == silence


@given(
    st.lists(
        st.tuples(
            st.none() | st.integers(-(2**53), 2**53) | st.integers(0, 20),
            st.none() | st.integers(-(2**53), 2**53) | st.integers(0, 500),
            st.none() | st.integers(0, 30),
            st.integers(0, 200_000),
            st.binary(max_size=50).map(lambda payload: payload.replace(SILENCE, b"x")),
        ),
        min_size=1,
        max_size=30,
    ),
    st.sampled_from([MULAW, L16]),
)
def test_any_counters_keep_every_distinct_chunk(
    fields: list[tuple[int | None, int | None, int | None, int, bytes]], media: MediaFormat
) -> None:
    """Nonsense in counters never loses audio without counting it, nor makes an absurd file."""
    records = [
        chunk(number, payload, timestamp_ms=stamp, sequence_number=sequence, arrival_ms=arrival)
        for number, stamp, sequence, arrival, payload in fields
    ]
    line, placement = laid_out(records, media)
    ledger = placement.ledger
    assert ledger.balanced
    assert len(records) == ledger.received
    written = [payload for _, payload in index_of(records)[1].items()]
    audio = sum(len(written[int(n)]) for n in placement.order.chosen)
    assert audio == len(line) - sum(gap.stop - gap.start for gap in placement.gaps) or (
        media is L16  # half a sample before a gap is silenced with it
    )
    longest = (60_000 + 200_000) * (len(records) + 1) * media.bytes_per_ms
    assert len(line) <= longest


def test_lost_chunks_are_silence_and_listed() -> None:
    """A gap in numbers and timestamps is one `lost` gap of exactly that length."""
    _, placement = laid_out(call([0, 1, 4, 5]))
    assert [(40, 80, GapKind.LOST)] == kinds(placement)


def test_a_clock_that_jumps_between_neighbours_is_silence_of_the_sender() -> None:
    """Contiguous numbers with a jump in time: the sender had nothing to say."""
    records = [chunk(1, spoken(1), timestamp_ms=0), chunk(2, spoken(2), timestamp_ms=520)]
    line, placement = laid_out(records)
    assert spoken(1) + SILENCE * 500 * 8 + spoken(2) == line
    assert [(20, 520, GapKind.SENDER_SILENCE)] == kinds(placement)


def test_a_track_that_starts_late_begins_with_silence() -> None:
    """The recording starts at stream time 0, whatever the first timestamp is."""
    line, placement = laid_out([chunk(1, spoken(1), timestamp_ms=99)])
    assert SILENCE * 99 * 8 + spoken(1) == line
    assert [(0, 99, GapKind.SENDER_SILENCE)] == kinds(placement)
    assert placement.first_timestamp_ms == 99


def test_chunks_lost_at_the_beginning_are_known_by_clock_and_counter() -> None:
    """The third chunk at the third place says that two were lost."""
    _, placement = laid_out([chunk(3, spoken(3), timestamp_ms=40)])
    assert [(0, 40, GapKind.LOST)] == kinds(placement)


def test_a_rejected_chunk_leaves_a_gap_of_its_own_kind() -> None:
    """What came but could not be used is not what never came."""
    refused = [RejectedChunk(Track.INBOUND, chunk=2), RejectedChunk(Track.INBOUND, chunk=5)]
    _, placement = laid_out(call([0, 1, 4]), rejected=refused)
    expected = [
        (40, 60, GapKind.REJECTED),
        (60, 80, GapKind.LOST),
        (100, 120, GapKind.REJECTED),
    ]
    assert expected == kinds(placement)
    assert (5, 3, 2) == (
        placement.ledger.received,
        placement.ledger.written,
        placement.ledger.rejected,
    )


def test_the_same_number_with_other_bytes_keeps_the_first() -> None:
    """A conflict is counted, and the first to arrive stays."""
    records = call([0, 1, 2])
    records.append(chunk(1, spoken(99), timestamp_ms=20))
    line, placement = laid_out(records)
    assert spoken(0) + spoken(1) + spoken(2) == line
    assert (1, 0) == (placement.ledger.conflict, placement.ledger.duplicate)


def test_a_counter_that_never_counts_loses_nothing() -> None:
    """Where chunk numbers all repeat, sequence numbers and timestamps identify chunks."""
    records = [
        chunk(1, spoken(n), timestamp_ms=n * 20, sequence_number=n + 1) for n in (0, 2, 1, 3)
    ]
    line, placement = laid_out(records)
    assert b"".join(map(spoken, range(4))) == line
    assert ["counters_unusable"] == [finding.code for finding in placement.findings]


def test_a_counter_that_begins_anew_goes_on() -> None:
    """A 16-bit counter that wraps is no row of conflicts."""
    numbers = [*range(64_000, 65_536), *range(1600)]
    records = [chunk(n, spoken(i), timestamp_ms=i * 20) for i, n in enumerate(numbers)]
    line, placement = laid_out(records)
    assert b"".join(map(spoken, range(len(numbers)))) == line
    assert (0, 0) == (placement.ledger.conflict, placement.ledger.duplicate)
    assert [] == kinds(placement)


@pytest.mark.parametrize("lost", [1, 2, 5, 40])
@pytest.mark.parametrize("before", [-3, -1, 0, 1])
def test_what_is_lost_where_a_counter_wraps_is_lost(lost: int, before: int) -> None:
    """Right before the wrap, across it or behind it."""
    place = 50 + before
    sent = [n for n in range(120) if not place <= n < place + lost]
    records = [chunk((65_486 + n) % 65_536, spoken(n), timestamp_ms=20 * n) for n in sent]
    _, placement = laid_out(records)
    assert [(20 * place, 20 * (place + lost), GapKind.LOST)] == kinds(placement)


def test_a_clock_that_was_set_back_before_a_wrap_moves_nothing_to_the_front() -> None:
    """The order is that of the numbers; the clock does not have to catch up first."""
    records = [
        chunk((65_000 + n) % 65_536, spoken(n), timestamp_ms=20 * n + (0 if n < 500 else -5000))
        for n in range(600)
    ]
    line, _ = laid_out(records)
    assert b"".join(map(spoken, range(600))) == line


@pytest.mark.parametrize(("lost", "pause_ms"), [(1, 5000), (1, 20), (3, 100), (10, 5000)])
def test_a_pause_beside_lost_chunks_is_silence_of_the_sender(lost: int, pause_ms: int) -> None:
    """Lost is no more than the missing numbers say."""
    later = [chunk(n, spoken(n), timestamp_ms=20 * n + pause_ms) for n in range(50 + lost, 100)]
    _, placement = laid_out([*call(range(50)), *later])
    end = 1000 + 20 * lost
    expected = [(1000, end, GapKind.LOST), (end, end + pause_ms, GapKind.SENDER_SILENCE)]
    assert expected == kinds(placement)


def test_a_lost_chunk_may_be_as_long_as_the_longest_ones() -> None:
    """Where sizes are mixed, the clock says how long it was."""
    sizes, at, records = [10, 20, 160] * 40, 0, []
    for number, size in enumerate(sizes):
        if number != 62:
            records.append(chunk(number, spoken(number, 8 * size), timestamp_ms=at))
        at += size
    _, placement = laid_out(records)
    assert [(3830, 3990, GapKind.LOST)] == kinds(placement)


def test_lost_chunks_that_would_make_an_absurd_file_are_counted() -> None:
    """A ledger says that they are lost, and no gap stands for them."""
    messages = MessageIndex()
    index = TrackIndex(Track.INBOUND)
    messages.add(1, 1)
    for number in range(400):
        record = chunk(number, spoken(number), timestamp_ms=20 * number, sequence_number=2 + number)
        index.add(record, 2 + number)
    messages.add(4402, 500)
    ((placement,), _) = place_tracks([index], MULAW, messages=messages)
    assert 400 * 160 == placement.length
    assert {GapKind.LOST: 4000} == placement.unshown


def test_a_clock_that_counts_samples_is_recognised() -> None:
    """Timestamps that advance by the number of samples place chunks by samples."""
    line, placement = laid_out(call([0, 1, 2, 3, 5, 6], step_ms=160))
    assert ClockRule.SAMPLES is placement.clock_rule
    expected = [spoken(n) if n != 4 else SILENCE * 160 for n in range(7)]
    assert b"".join(expected) == line
    assert [(80, 100, GapKind.LOST)] == kinds(placement)


@pytest.mark.parametrize(
    ("step", "alone"), [(20, 0), (20, 40), (160, 0), (160, 40), (7, 0), (7, 40), (None, 0)]
)
def test_a_counter_that_both_tracks_share_loses_nothing(step: int | None, alone: int) -> None:
    """Every other number is the other track's, and the clock leaves no room for a chunk there."""
    numbers = [*range(alone), *range(alone, alone + 200, 2)]
    stamps = [None if step is None else i * step for i in range(len(numbers))]
    records = [
        chunk(n, spoken(n), timestamp_ms=stamp, arrival_ms=i * 20)
        for i, (n, stamp) in enumerate(zip(numbers, stamps, strict=True))
    ]
    line, placement = laid_out(records)
    assert b"".join(map(spoken, numbers)) == line
    assert [] == kinds(placement)
    assert "counters_unusable" == placement.findings[0].code


@pytest.mark.parametrize("often", [2, 20])
def test_a_shared_counter_is_known_by_its_clock_also_where_the_other_track_says_little(
    often: int,
) -> None:
    """A slow clock does not hide that it goes on as if nothing was missing."""
    records = [chunk(n + n // often, spoken(n), timestamp_ms=n * 20 - n // 10) for n in range(1000)]
    line, placement = laid_out(records)
    assert b"".join(map(spoken, range(1000))) == line
    assert [] == kinds(placement)


def test_a_shared_counter_keeps_the_gaps_of_the_clock() -> None:
    """What the clock leaves free is a gap; nobody can say that nothing was lost there."""
    records = [
        chunk(2 * n, spoken(n), timestamp_ms=20 * n + (300 if n >= 50 else 0)) for n in range(100)
    ]
    _, placement = laid_out(records)
    assert [(1000, 1300, GapKind.LOST)] == kinds(placement)


@pytest.mark.parametrize(("every", "step"), [(2, 20), (3, 20), (3, 160)])
def test_regular_loss_is_no_shared_counter(every: int, step: int) -> None:
    """Where the clock leaves room for every number, chunks are lost, however many."""
    _, placement = laid_out(call([n for n in range(200) if n % every], step_ms=step))
    silence = sum(stop - start for start, stop, _ in kinds(placement))
    assert 20 * len(range(0, 200, every)) == silence
    assert "counters_unusable" not in {finding.code for finding in placement.findings}


@pytest.mark.parametrize("step_ms", [0, 1, 10, 19])
def test_a_slow_clock_appends_and_still_knows_what_is_missing(step_ms: int) -> None:
    """Where timestamps leave too little room, chunk numbers place the audio."""
    line, placement = laid_out(call([0, 1, 2, 3, 5, 6], step_ms=step_ms))
    assert ClockRule.CHUNKS is placement.clock_rule
    expected = [spoken(n) if n != 4 else SILENCE * 160 for n in range(7)]
    assert b"".join(expected) == line
    assert ["clock_rule"] == [finding.code for finding in placement.findings]


def test_chunks_without_timestamps_are_appended() -> None:
    """Missing timestamps leave chunk numbers to place the audio."""
    records = [chunk(n, spoken(n)) for n in (1, 0, 2)]
    line, placement = laid_out(records)
    assert b"".join(map(spoken, range(3))) == line
    assert ClockRule.CHUNKS is placement.clock_rule


def test_chunks_without_any_counter_are_kept_as_they_came() -> None:
    """Nothing to go by: arrival order, nothing dropped, even where bytes are equal."""
    line, placement = laid_out([chunk(None, b"same" * 40) for _ in range(3)])
    assert b"same" * 120 == line
    assert (3, 0) == (placement.ledger.written, placement.ledger.duplicate)


def test_one_chunk_without_a_timestamp_follows_the_one_before_it() -> None:
    """A single missing timestamp is placed by its neighbours, with a finding."""
    records = call(range(6))
    records[3] = chunk(3, spoken(3))
    line, placement = laid_out(records)
    assert b"".join(map(spoken, range(6))) == line
    assert ["timestamps_missing"] == [finding.code for finding in placement.findings]


@pytest.mark.parametrize("absurd", [-5_000, -(2**53), 30_000, 10_000_000, 2**53, 61_000])
def test_one_absurd_timestamp_fills_nothing(absurd: int) -> None:
    """A jump backwards or far ahead of arrival is not followed, and the rest stays put."""
    records = call(range(10))
    records[4] = chunk(4, spoken(4), timestamp_ms=absurd, arrival_ms=80)
    line, placement = laid_out(records)
    assert b"".join(map(spoken, range(10))) == line
    assert ["timestamps_absurd"] == [finding.code for finding in placement.findings]


@pytest.mark.parametrize("absurd", [-900, -5, 59, 200])
def test_one_timestamp_that_is_off_fills_nothing(absurd: int) -> None:
    """Back or ahead, where the next ones go on as before; the audio keeps its length."""
    records = call(range(40))
    records[4] = chunk(4, spoken(4), timestamp_ms=80 + absurd, arrival_ms=80)
    line, _ = laid_out(records)
    assert b"".join(map(spoken, range(40))) == line


@pytest.mark.parametrize("offset", [-100, -3_000, 3_600_000])
def test_a_clock_that_was_set_anew_is_followed_from_there(offset: int) -> None:
    """After an absurd jump that stays, losses are still found by the new clock."""
    records = call(range(5))
    later = [n for n in range(5, 12) if n != 8]
    records += [chunk(n, spoken(n), timestamp_ms=n * 20 + offset, arrival_ms=n * 20) for n in later]
    line, placement = laid_out(records)
    expected = [spoken(n) if n != 8 else SILENCE * 160 for n in range(12)]
    assert b"".join(expected) == line
    assert [(160, 180, GapKind.LOST)] == kinds(placement)


@pytest.mark.parametrize("offset", [-3_000, 3_600_000])
def test_what_is_lost_where_a_clock_was_set_anew_has_its_length(offset: int) -> None:
    """The clock says nothing of it, but numbers do."""
    records = call(range(5))
    records += [
        chunk(n, spoken(n), timestamp_ms=n * 20 + offset, arrival_ms=n * 20) for n in range(8, 12)
    ]
    line, placement = laid_out(records)
    expected = [spoken(n) if n not in (5, 6, 7) else SILENCE * 160 for n in range(12)]
    assert b"".join(expected) == line
    assert [(100, 160, GapKind.LOST)] == kinds(placement)


def test_two_chunks_are_enough_to_follow_a_clock_that_was_set_anew() -> None:
    """They agree on it, so one nonsense timestamp later it is still the clock to go by."""
    stamps = {n: n * 20 + (3_600_000 if n > 4 else 0) for n in range(10) if n != 8} | {7: -1000}
    records = [chunk(n, spoken(n), timestamp_ms=ms, arrival_ms=n * 20) for n, ms in stamps.items()]
    line, placement = laid_out(records)
    expected = [spoken(n) if n != 8 else SILENCE * 160 for n in range(10)]
    assert b"".join(expected) == line
    assert [(160, 180, GapKind.LOST)] == kinds(placement)


def test_a_pause_of_a_minute_is_silence() -> None:
    """Up to 60 s of silence is followed without a look at arrival times."""
    records = call(range(3))
    records.append(chunk(3, spoken(3), timestamp_ms=60_060, arrival_ms=61))
    _, placement = laid_out(records)
    assert [(60, 60_060, GapKind.SENDER_SILENCE)] == kinds(placement)


@pytest.mark.parametrize(("arrival_ms", "followed"), [(600_060, True), (61, False)])
def test_a_longer_pause_is_silence_only_if_we_waited_as_long(
    arrival_ms: int, followed: bool
) -> None:
    """Ten minutes on hold are kept; ten minutes that nobody waited for are not."""
    records = call(range(3))
    records.append(chunk(3, spoken(3), timestamp_ms=600_060, arrival_ms=arrival_ms))
    line, _ = laid_out(records)
    assert (600_080 if followed else 80) * 8 == len(line)


def test_a_clock_that_creeps_makes_no_absurd_file() -> None:
    """Each jump is just short enough; in sum they may be a minute more than the audio."""
    records = [
        chunk(n + 1, spoken(n), timestamp_ms=n * 59_000, arrival_ms=n // 50) for n in range(499)
    ]
    line, placement = laid_out(records)
    audio_ms = 499 * 20
    assert len(line) // 8 <= 2 * audio_ms + 60_000
    assert ["timestamps_absurd"] == [finding.code for finding in placement.findings]
    assert line.replace(SILENCE, b"") == b"".join(map(spoken, range(499)))


def test_numbers_that_creep_make_no_absurd_file_on_a_slow_clock() -> None:
    """Where chunk numbers place the audio, they are followed no further."""
    records = [chunk(n * 2900, spoken(n), timestamp_ms=n, arrival_ms=0) for n in range(499)]
    line, placement = laid_out(records)
    assert ClockRule.CHUNKS is placement.clock_rule
    assert len(line) // 8 <= 2 * 499 * 20 + 60_000


@pytest.mark.parametrize(("arrival", "spoken_share"), [(0, 0.5), (1, 0.05)])
def test_pauses_of_a_whole_hour_are_silence(arrival: int, spoken_share: float) -> None:
    """Sent at once, with as much speech as pauses; or as it happened, however little was said."""
    stamps = [ms for ms in range(0, 3_600_000, 20) if ms % 40_000 < 40_000 * spoken_share]
    records = [
        chunk(n, spoken(n), timestamp_ms=ms, arrival_ms=ms * arrival) for n, ms in enumerate(stamps)
    ]
    line, placement = laid_out(records)
    assert () == placement.findings
    assert len(line) // 8 == stamps[-1] + 20
    assert all(line[ms * 8 :].startswith(spoken(n)) for n, ms in list(enumerate(stamps))[::997])


def test_an_absurd_chunk_number_makes_no_absurd_file_on_a_slow_clock() -> None:
    """Where chunk numbers place the audio, a nonsense number leaves no gap."""
    records = [*call(range(6), step_ms=1), chunk(2**52, spoken(6), timestamp_ms=6)]
    line, _ = laid_out(records)
    assert b"".join(map(spoken, range(7))) == line


def test_too_little_room_appends_and_says_so() -> None:
    """Real audio is never overwritten: a chunk that would overlap moves back."""
    records = call(range(10))
    records[5] = chunk(5, spoken(5, 320), timestamp_ms=100)
    line, placement = laid_out(records)
    expected = [spoken(n, 320 if n == 5 else 160) for n in range(10)]
    assert b"".join(expected) == line
    assert ["timestamps_overlap"] == [finding.code for finding in placement.findings]


@given(
    sent=st.integers(5, 120),
    slow=st.sampled_from([0, 100, 1000, 5000, 9000]),
    long=st.integers(0, 4),
    lost=st.sets(st.integers(5, 119)),
)
def test_what_is_lost_is_silence_also_where_the_clock_is_behind(
    sent: int, slow: int, long: int, lost: set[int]
) -> None:
    """A slow clock, or one long chunk, leaves too little room, but chunk numbers still say so."""
    kept = [n for n in range(sent) if n not in lost]
    records = [
        chunk(
            n,
            spoken(n, 960 if n == long else 160),
            timestamp_ms=n * (20_000_000 - 20 * slow) // 10**6,
        )
        for n in kept
    ]
    _, placement = laid_out(records)
    runs = [(before, n - before - 1) for before, n in itertools.pairwise(kept) if n > before + 1]
    assert len(runs) == len(kinds(placement))
    for (_, missing), gap in zip(runs, placement.gaps, strict=True):
        assert gap.kind is GapKind.LOST
        assert 0 <= missing * 160 - (gap.stop - gap.start) <= 8 * (1 + missing)


def test_a_number_that_is_absurd_is_no_loss_where_the_clock_is_behind() -> None:
    """Numbers are followed as far as pauses are."""
    records = [chunk(0, spoken(0, 320), timestamp_ms=0), *call(range(1, 9))]
    records.append(chunk(2**52, spoken(9), timestamp_ms=180))
    line, _ = laid_out(records)
    assert spoken(0, 320) + b"".join(map(spoken, range(1, 10))) == line


def trembling(numbers: Iterable[int], jitter_ms: int, seed: int) -> list[ChunkRecord]:
    """Return chunks whose timestamps are off by up to so much, but for the first."""
    source = random.Random(seed)
    stamps = {n: n and max(0, n * 20 + source.randint(-jitter_ms, jitter_ms)) for n in numbers}
    return [
        chunk(n, spoken(n), timestamp_ms=stamp, arrival_ms=n * 20) for n, stamp in stamps.items()
    ]


@given(jitter=st.integers(0, 300), seed=st.integers(0, 2**32), sent=st.integers(100, 1000))
@settings(max_examples=examples(30))
def test_timestamps_that_jitter_make_no_longer_and_longer_recording(
    jitter: int, seed: int, sent: int
) -> None:
    """In all it is longer by no more than the largest jitter, and no audio is missing."""
    line, placement = laid_out(trembling(range(sent), jitter, seed))
    assert b"".join(map(spoken, range(sent))) == line.replace(SILENCE, b"")
    assert 0 <= len(line) // 8 - sent * 20 <= jitter
    assert "timestamps_absurd" not in {finding.code for finding in placement.findings}


@pytest.mark.parametrize("jitter", [15, 30, 60, 200])
def test_silence_that_one_timestamp_asks_for_and_the_next_ones_do_not_is_not_left(
    jitter: int,
) -> None:
    """After a minute of them a recording is a packet or so longer, not minutes."""
    last = chunk(3000, spoken(3000), timestamp_ms=60_000)
    _, placement = laid_out([*trembling(range(3000), jitter, jitter), last])
    assert 60_020 <= placement.length // 8 <= 60_020 + 30


@pytest.mark.parametrize("jitter", [0, 12, 30, 100])
def test_a_pause_between_jittering_timestamps_is_kept(jitter: int) -> None:
    """It begins where the audio before it ended, and lasts as long within the jitter."""
    before, after = trembling(range(200), jitter, 1), trembling(range(200, 400), jitter, 2)
    later = [
        chunk(record.chunk, record.payload, timestamp_ms=(record.timestamp_ms or 0) + 2000)
        for record in after
    ]
    _, placement = laid_out([*before, *later])
    longest = max(placement.gaps, key=lambda gap: gap.stop - gap.start)
    assert 200 * 20 <= longest.start // 8 <= 200 * 20 + jitter
    assert 2000 - 2 * jitter <= (longest.stop - longest.start) // 8 <= 2000 + 2 * jitter
    assert 400 * 20 + 2000 - jitter <= placement.length // 8 <= 400 * 20 + 2000 + jitter


@given(jitter=st.integers(0, 100), seed=st.integers(0, 2**32))
@example(jitter=67, seed=247)
@settings(max_examples=examples(30))
def test_what_is_lost_between_jittering_timestamps_is_listed(jitter: int, seed: int) -> None:
    """Chunk numbers say so, whatever the timestamps say."""
    source = random.Random(seed)
    kept = [n for n in range(500) if n < 100 or source.random() > 0.05] + [500]
    _, placement = laid_out(trembling(kept, jitter, seed))
    runs = sum(n > before + 1 for before, n in itertools.pairwise(kept))
    lost = [gap for gap in placement.gaps if gap.kind is GapKind.LOST]
    assert runs == len(lost)


@pytest.mark.parametrize("size", [152, 168, 240, 800])
def test_unusual_payload_sizes_are_normal(size: int) -> None:
    """Packet times other than 20 ms, even with fractions of a millisecond, leave no seams."""
    records = [chunk(n, spoken(n, size), timestamp_ms=n * size // 8) for n in range(50)]
    line, placement = laid_out(records)
    assert b"".join(spoken(n, size) for n in range(50)) == line
    assert () == placement.findings


def test_odd_l16_chunks_are_joined_to_samples() -> None:
    """A sample that is split between two chunks is one sample again."""
    audio = bytes(range(1, 129)) * 10
    pieces = [audio[:641], audio[641:]]
    records = [chunk(n, piece, timestamp_ms=n * 20) for n, piece in enumerate(pieces)]
    line, placement = laid_out(records, L16)
    assert audio == line
    assert [] == list(placement.gaps)


def test_half_a_sample_before_a_gap_is_silenced_with_it() -> None:
    """Gaps begin and end on whole samples."""
    records = [
        chunk(0, b"\1" * 639, timestamp_ms=0),
        chunk(1, b"\1" * 640, timestamp_ms=20),
        chunk(3, b"\1" * 640, timestamp_ms=60),
    ]
    index, _ = index_of(records)
    placement = place(index, L16)
    assert all(gap.start % 2 == 0 == gap.stop % 2 for gap in placement.gaps)


def test_audio_behind_a_gap_begins_on_a_whole_sample() -> None:
    """A gap as long as a chunk of an odd number of bytes moves no sample by half of one."""
    index, _ = index_of(chunk(n, b"\1" * 639) for n in (0, 1, 3, 4))
    placement = place(index, L16)
    (gap,) = placement.gaps
    assert (0, 0) == (gap.start % 2, gap.stop % 2)
    assert [(0, 2, 0), (2, 4, gap.stop)] == [(r.first, r.last, r.start) for r in placement.runs]
    assert GapKind.LOST is gap.kind


def test_late_chunks_are_counted_among_the_written_ones() -> None:
    """A chunk that arrives behind its successors is late, and in its place."""
    _, placement = laid_out(call([0, 2, 3, 1, 4]))
    assert (5, 1) == (placement.ledger.written, placement.ledger.late)


def test_the_drift_of_the_senders_clock_is_measured() -> None:
    """A clock that gains 100 ppm on ours says so."""
    records = [
        chunk(n, spoken(n), timestamp_ms=n * 20, arrival_ms=round(n * 20 / 1.0001))
        for n in range(3000)
    ]
    _, placement = laid_out(records)
    assert placement.drift_ppm == pytest.approx(100, abs=3)


def test_a_track_without_numbers_calls_a_gap_lost() -> None:
    """Nobody can say whether something is missing there, so a listener may miss it."""
    records = [chunk(None, spoken(n), timestamp_ms=n * 20) for n in (0, 1, 2, 4, 5)]
    _, placement = laid_out(records)
    assert [(60, 80, GapKind.LOST)] == kinds(placement)


def test_half_a_sample_at_the_end_is_silenced_with_the_rest() -> None:
    """The silence that fills a track up begins on a whole sample, too."""
    index, _ = index_of([chunk(0, b"\1" * 639, timestamp_ms=0)])
    (filled,) = gaps_in_ms(place(index, L16), 1280, L16)
    assert (638 / 32, 642 / 32) == (filled.start_ms, filled.duration_ms)


def dropped(
    chunks: range, *, numbered: bool = True, most: int = 2**62, count: int | None = None
) -> DroppedRecord:
    """Return a row of chunks of a call that the disk did not take; numbers are below `most`."""
    first, last = chunks[0], chunks[-1]
    return DroppedRecord(
        GapKind.DISK,
        Track.INBOUND,
        count or len(chunks),
        first_chunk=first % most if numbered else None,
        last_chunk=last % most if numbered else None,
        first_timestamp_ms=20 * first,
        last_timestamp_ms=20 * last,
    )


@given(
    events=st.lists(
        st.tuples(st.sampled_from(["kept", "lost", "dropped"]), st.integers(1, 60)), max_size=8
    ),
    form=st.sampled_from(["numbers", "no numbers", "16 bits"]),
    first=st.integers(0, 200),
)
def test_what_the_disk_did_not_take_is_at_its_place(
    events: list[tuple[str, int]], form: str, first: int
) -> None:
    """Behind lost chunks and up to the end, without numbers, and where a counter begins anew."""
    most = 2**16 if form == "16 bits" else 2**62
    shift = most - first if form == "16 bits" else 0
    fates: list[str] = ["kept"]
    for what, count in events:
        # Nobody knows how many are lost where a counter begins anew.
        fates += ["kept" if form == "16 bits" and what == "lost" else what] * count
    records: list[ChunkRecord | DroppedRecord] = []
    for (fate, _), run in itertools.groupby(
        enumerate(fates), lambda place: (place[1], (place[0] + shift) // most)
    ):
        row = [number for number, _ in run]
        numbers = [None if form == "no numbers" else (n + shift) % most for n in row]
        if fate == "kept":
            records += [
                chunk(number, spoken(n), timestamp_ms=20 * n)
                for n, number in zip(row, numbers, strict=True)
            ]
        elif fate == "dropped":
            bounds = (numbers[0], numbers[-1], 20 * row[0], 20 * row[-1])
            records.append(DroppedRecord(GapKind.DISK, Track.INBOUND, len(row), *bounds))
    line, placement = laid_out(records)
    while fates[-1] == "lost":
        fates.pop()
    kinds_of = {"dropped": GapKind.DISK, "lost": GapKind.LOST}
    expected = [
        (20 * group[0], 20 * group[-1] + 20, kinds_of[fate])
        for fate, places in itertools.groupby(range(len(fates)), fates.__getitem__)
        if (group := list(places)) and fate != "kept"
    ]
    assert expected == kinds(placement)
    assert len(fates) * 160 == len(line)
    assert not placement.unshown


@pytest.mark.parametrize("lost", [1, 400])
def test_a_tail_behind_lost_chunks_is_listed(lost: int) -> None:
    """Refused ones are, too."""
    begins = 20 + 2 * lost
    refused = [
        RejectedChunk(Track.INBOUND, chunk=n, timestamp_ms=20 * n)
        for n in range(begins, begins + 30)
    ]
    _, placement = laid_out([*call(range(20)), dropped(range(20 + lost, begins))], rejected=refused)
    expected = [
        (400, 400 + 20 * lost, GapKind.LOST),
        (400 + 20 * lost, 20 * begins, GapKind.DISK),
        (20 * begins, 20 * begins + 600, GapKind.REJECTED),
    ]
    assert expected == kinds(placement)


@pytest.mark.parametrize("numbered", [True, False])
def test_an_absurd_tail_makes_no_absurd_file(numbered: bool) -> None:
    """What is too long for a pause is too long for lost chunks; it is counted."""
    far = [
        dropped(range(at, at + 2), numbered=numbered) for at in (10**5, 10**9, 10**12, 2**50 // 20)
    ]
    creeping = [dropped(range(at, at + 1), numbered=numbered) for at in range(2900, 10**6, 2900)]
    line, placement = laid_out([*call(range(20)), *far, *creeping])
    assert 20 * 20 <= len(line) // 8 <= 2 * 20 * 20 + 60_000 + 20 * len(creeping)
    shown = sum(kind is GapKind.DISK for _, _, kind in kinds(placement))
    assert len(creeping) + 8 - shown == placement.unshown[GapKind.DISK] > 100


def test_half_an_hour_without_a_disk_is_one_gap() -> None:
    """However many chunks it is."""
    back = 120_000
    _, placement = laid_out(
        [*call(range(20)), dropped(range(20, back)), *call(range(back, back + 9))]
    )
    assert [(400, 20 * back, GapKind.DISK)] == kinds(placement)


def test_a_pause_within_an_outage_is_part_of_it() -> None:
    """Only chunks lost at its border are not; where clock and numbers differ, their count says."""
    later = [chunk(n, spoken(n), timestamp_ms=20 * n + 5000) for n in range(100, 110)]
    _, placement = laid_out([*call(range(20)), dropped(range(21, 100)), *later])
    assert [(400, 420, GapKind.LOST), (420, 7000, GapKind.DISK)] == kinds(placement)
    assert not placement.unshown


def test_a_gap_too_short_for_its_chunks_is_shared() -> None:
    """A clock that stood still hides nothing: each kind has a gap."""
    later = [chunk(n, spoken(n), timestamp_ms=20 * n - 1400) for n in range(100, 110)]
    _, placement = laid_out([*call(range(20)), dropped(range(60, 100)), *later])
    assert [GapKind.LOST, GapKind.DISK] == [gap.kind for gap in placement.gaps]
    assert not placement.unshown


@pytest.mark.parametrize(
    "row",
    [
        dropped(range(3, 4)),  # a duplicate of one that was kept
        dropped(range(20, 30), numbered=False),  # no number, on a track that has them
        dropped(range(20, 40), count=3, most=30),
        DroppedRecord(GapKind.DISK, Track.INBOUND, 3, None, None, None, None),
    ],
)
@pytest.mark.parametrize("more", [[], call(range(20, 30))])
def test_chunks_that_no_gap_stands_for_are_counted(
    row: DroppedRecord, more: list[ChunkRecord]
) -> None:
    """Whatever their counters say, they are counted."""
    _, placement = laid_out([*call(range(20)), row, *more])
    assert [] == kinds(placement)
    assert {GapKind.DISK: row.chunks} == placement.unshown


def test_a_counter_without_room_on_the_clock_hides_nothing() -> None:
    """Ten chunks were dropped, and the clock says that there were none."""
    later = [chunk(n + 10, spoken(n), timestamp_ms=20 * n) for n in range(20, 40)]
    line, placement = laid_out([*call(range(20)), dropped(range(20, 30)), *later])
    assert b"".join(map(spoken, range(40))) == line
    assert {GapKind.DISK: 10} == placement.unshown


@given(
    st.lists(
        st.tuples(
            st.integers(0, 40),
            st.none() | st.integers(-(2**53), 2**53) | st.integers(0, 5000),
            st.none() | st.integers(-(2**53), 2**53) | st.integers(0, 50_000),
        ),
        max_size=6,
    ),
    st.integers(0, 2**32),
)
def test_counters_of_what_was_not_kept_move_no_audio(
    refused: list[tuple[int, int | None, int | None]], seed: int
) -> None:
    """A refused chunk may say what it likes."""
    records: list[ChunkRecord | DroppedRecord] = [*call(range(40))]
    random.Random(seed).shuffle(records)
    expected, _ = laid_out(records)
    for at, number, stamp in refused:
        bounds = (number, number, stamp, stamp)
        records.insert(at, DroppedRecord(GapKind.REJECTED, Track.INBOUND, 1, *bounds))
    line, placement = laid_out(records)
    assert expected == line[: len(expected)]
    assert (40, len(refused)) == (placement.ledger.written, placement.ledger.rejected)


def test_two_gaps_with_a_chunk_between_them_stay_two() -> None:
    """Also where it is half a sample, which is silenced with the second one."""
    records = [chunk(n, b"\1", timestamp_ms=20 * n) for n in range(1, 4)]
    index, _ = index_of(records)
    gaps = [(gap.start, gap.stop) for gap in place(index, L16).gaps]
    assert [(0, 640), (640, 1280), (1280, 1920)] == gaps


def test_gaps_of_one_kind_that_touch_are_one_row() -> None:
    """Also with the silence that fills a track up, and around half a sample that is silenced."""
    records = [chunk(n, b"\1", timestamp_ms=20 * n) for n in range(1, 4)]
    index, _ = index_of(records)
    placement = place(index, L16)
    (silence,) = gaps_in_ms(placement, placement.length + 1280 - placement.length % 2, L16)
    assert (0, 60 + 40, GapKind.SENDER_SILENCE) == (
        silence.start_ms,
        silence.duration_ms,
        silence.kind,
    )


@given(seed=st.integers(0, 2**32), lost=st.sets(st.integers(5, 150), max_size=20))
@example(seed=42, lost={*range(11, 14), 27, 28, 31, 33, 40, 55, *range(60, 76, 3), 113, 134, 148})
@example(seed=341, lost={14, *range(19, 23), 27, 43, 61, 69, 71, 81, 85, 91, 105, 117, 136, 150})
@settings(max_examples=examples(50))
def test_mixed_sizes_lose_what_the_clock_leaves(seed: int, lost: set[int]) -> None:
    """Chunks of 10 to 160 ms, whose timestamps say how long those were that are missing."""
    source = random.Random(seed)
    sizes = [source.choice([80, 160, 320, 640, 1280]) for _ in range(160)]
    starts = list(itertools.accumulate(sizes, initial=0))
    records = [
        chunk(n, spoken(n, size), timestamp_ms=start // 8)
        for n, (start, size) in enumerate(zip(starts, sizes, strict=False))
        if n not in lost
    ]
    line, placement = laid_out(records)
    expected = b"".join(
        SILENCE * size if n in lost else spoken(n, size) for n, size in enumerate(sizes)
    )
    assert expected == line
    assert {GapKind.LOST} >= {gap.kind for gap in placement.gaps}


def test_timestamps_that_jitter_make_no_more_runs() -> None:
    """What is back to back is written in one go, which an hour of jitter would cost dearly."""
    _, placement = laid_out(trembling(range(5000), 40, 1))
    assert len(list(placement.runs)) <= 10


def test_tracks_that_count_from_beginnings_of_their_own_are_placed_by_arrivals() -> None:
    """As RTP timestamps do: each at random."""
    indices = [
        index_of(
            chunk(n, spoken(n), timestamp_ms=base + 20 * n, arrival_ms=late + 20 * n)
            for n in range(100)
        )[0]
        for base, late in ((1_234_000, 0), (3_400_000, 6000))
    ]
    (first, second), _ = place_tracks(indices, MULAW, origin_ms=1_234_000)
    assert [(0, 0)] == [(run.first, run.start) for run in first.runs]
    assert [(0, 6000 * 8)] == [(run.first, run.start) for run in second.runs]
    assert ["clock_reanchored"] == [finding.code for finding in second.findings]


@pytest.mark.parametrize("numbered", [True, False])
def test_a_clock_that_stopped_leaves_silence_of_the_sender(numbered: bool) -> None:
    """Also where nobody can say that nothing was lost: there is no clock that says it was."""
    records = [
        chunk(
            n if numbered else None,
            spoken(n),
            timestamp_ms=20 * n,
            arrival_ms=20 * n + (3000 if n >= 50 else 0),
        )
        for n in range(100)
    ]
    line, placement = laid_out(records)
    before, behind = (b"".join(map(spoken, range(at, at + 50))) for at in (0, 50))
    assert before + SILENCE * 3000 * 8 + behind == line
    assert [(1000, 4000, GapKind.SENDER_SILENCE)] == kinds(placement)
    assert ["clock_reanchored"] == [finding.code for finding in placement.findings]
