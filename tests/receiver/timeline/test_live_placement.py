"""Where live chunks are placed: by the rules of the recording, without a look ahead."""

from __future__ import annotations

import random

import pytest

from receiver.journal.records import ChunkRecord
from receiver.media import Chunk, Encoding, GapReason, MediaFormat, Track
from receiver.timeline import track_timeline
from receiver.timeline.live_placement import (
    AudioPiece,
    LivePlacer,
    Piece,
    ReanchorPiece,
    SilencePiece,
)
from receiver.timeline.track_index import TrackIndex

MULAW = MediaFormat()
LINEAR = MediaFormat(Encoding.L16, 8000)
A, B, C = bytes([1]) * 160, bytes([2]) * 160, bytes([3]) * 160


def chunk(
    number: int | None, at_ms: int | None, payload: bytes = A, sequence: int | None = None
) -> Chunk:
    """Return a chunk of the inbound track."""
    return Chunk(Track.INBOUND, sequence, number, at_ms, payload)


def placed(chunks: list[Chunk], *, media: MediaFormat = MULAW, begin: int = 0) -> list[Piece]:
    """Place chunks that arrive when their timestamps say."""
    placer = LivePlacer(media, begin=begin)
    return [piece for c in chunks for piece in placer.feed(c, max(0, c.timestamp_ms or 0))]


def test_chunks_in_a_row_are_back_to_back() -> None:
    """No silence, no notice."""
    assert [AudioPiece(0, A), AudioPiece(160, B)] == placed([chunk(1, 0), chunk(2, 20, B)])


@pytest.mark.parametrize(("number", "reason"), [(3, GapReason.LOST), (2, GapReason.SENDER_SILENCE)])
def test_a_jump_of_the_clock_is_silence(number: int, reason: GapReason) -> None:
    """Missing numbers are a loss, and without any the sender paused."""
    pieces = placed([chunk(1, 0), chunk(number, 40, B)])
    assert [AudioPiece(0, A), SilencePiece(160, 320, reason, 160), AudioPiece(320, B)] == pieces


def test_a_late_start_is_silence_from_the_beginning() -> None:
    """The stream's clock began at 0, whatever the first timestamp."""
    assert [SilencePiece(0, 792, GapReason.SENDER_SILENCE, 0), AudioPiece(792, A)] == placed(
        [chunk(1, 99)]
    )


@pytest.mark.parametrize(
    "again",
    [chunk(1, 0), chunk(None, 0), chunk(1, None)],
    ids=["chunk and time", "time", "chunk"],
)
def test_what_comes_twice_or_late_is_left_out(again: Chunk) -> None:
    """Its place has been given away."""
    placer = LivePlacer(MULAW)
    for c in (chunk(1, 0), chunk(2, 20, B)):
        placer.feed(c, 0)
    assert () == placer.feed(again, 60)
    assert 1 == placer.left_out


def test_the_sequence_number_tells_where_nothing_else_does() -> None:
    """Neither chunk numbers nor timestamps: what is newer is appended, the rest left out."""
    chunks = [chunk(None, None, p, s) for p, s in ((A, 5), (B, 6), (C, 6))]
    assert [AudioPiece(0, A), AudioPiece(160, B)] == placed(chunks)


def test_a_restarted_counter_is_followed() -> None:
    """A number far behind on a clock that goes on is no late chunk."""
    pieces = placed([chunk(65_535, 0), chunk(0, 20, B), chunk(1, 40, C)])
    assert [A, B, C] == [piece.payload for piece in pieces if isinstance(piece, AudioPiece)]
    assert not [piece for piece in pieces if isinstance(piece, SilencePiece)]


def test_a_sender_without_timestamps_is_placed_by_numbers() -> None:
    """A missing number is as much silence as the chunk before it was long."""
    pieces = placed([chunk(1, None), chunk(3, None, B)])
    assert [
        AudioPiece(0, A),
        SilencePiece(160, 320, GapReason.LOST, 160),
        AudioPiece(320, B),
    ] == pieces


def test_too_little_room_appends() -> None:
    """Audio is never overwritten: a clock that runs slow delays what follows."""
    pieces = placed([chunk(1, 0), chunk(2, 10, B), chunk(3, 20, C)])
    assert [AudioPiece(0, A), AudioPiece(160, B), AudioPiece(320, C)] == pieces


def test_an_absurd_timestamp_is_not_followed() -> None:
    """Neither a day ahead nor back; the clock counts again where it makes sense."""
    chunks = [chunk(1, 0), chunk(2, 86_400_000, B), chunk(3, 40, C), chunk(4, 60)]
    placer = LivePlacer(MULAW)
    pieces = [piece for c in chunks for piece in placer.feed(c, 20)]
    assert [AudioPiece(0, A), AudioPiece(160, B), AudioPiece(320, C), AudioPiece(480, A)] == pieces


@pytest.mark.parametrize(("step_ms", "arrives"), [(59_000, 0), (59_000, 1), (35, 0), (35, 1)])
def test_a_clock_that_creeps_is_followed_as_far_as_by_the_recording(
    step_ms: int, arrives: int
) -> None:
    """Live audio is as long as the recording, which may wait with less than a packet."""
    placer, index = LivePlacer(MULAW), TrackIndex(Track.INBOUND)
    for n in range(200):
        at_ms, arrival_ms = n * step_ms, n * step_ms * arrives
        placer.feed(chunk(n, at_ms), arrival_ms)
        index.add(ChunkRecord(Track.INBOUND, None, n, at_ms, arrival_ms, A), 0)
    assert 0 <= placer.cursor - track_timeline.place(index, MULAW).length < len(A)
    assert arrives == (placer.cursor // 8 == 199 * step_ms + 20) or step_ms < 60


def test_timestamps_that_jitter_do_not_make_it_longer_and_longer() -> None:
    """A step back is too little room, not another clock: the next step ahead leaves no silence."""
    placer, source = LivePlacer(MULAW), random.Random(1)
    for n in range(1000):
        placer.feed(chunk(n + 1, 500 + n * 20 + source.randint(-60, 60)), n * 20)
    assert 20_500 - 60 <= placer.cursor // 8 <= 20_500 + 60
    assert 0 == placer.left_out


def test_a_new_clock_is_followed_when_two_chunks_agree() -> None:
    """A sender whose clock was set goes on without silence, and loses chunks as before."""
    stamps = [(1, 0), (2, 10**9), (3, 10**9 + 20), (5, 10**9 + 60)]
    placer = LivePlacer(MULAW)
    pieces = [piece for n, at in stamps for piece in placer.feed(chunk(n, at), n * 20)]
    starts = [piece.start for piece in pieces if isinstance(piece, AudioPiece)]
    assert [0, 160, 320, 640] == starts


def test_timestamps_that_count_samples_are_noticed() -> None:
    """160 for each chunk of 20 ms is no silence of 140 ms; a mistake about it is mended."""
    placer = LivePlacer(MULAW)
    pieces = [piece for n in range(5) for piece in placer.feed(chunk(n, n * 160), n * 20)]
    assert [AudioPiece(n * 160, A) for n in range(5)] == pieces
    for n in range(5, 8):
        placer.feed(chunk(n, 640 + (n - 4) * 20), n * 20)
    assert 8 * 160 == placer.cursor
    assert 0 == placer.left_out


def test_halves_of_samples_are_joined() -> None:
    """Chunks of an odd number of bytes keep their samples whole; silence swallows a half."""
    odd, rest = bytes(range(159)), bytes(range(161))
    pieces = placed(
        [chunk(1, 0, odd), chunk(2, 10, rest), chunk(3, 20, odd), chunk(5, 40, A)], media=LINEAR
    )
    whole = odd + rest
    assert [
        AudioPiece(0, whole[:158]),
        AudioPiece(158, whole[158:]),
        AudioPiece(320, odd[:158]),
        SilencePiece(478, 640, GapReason.LOST, 478),
        AudioPiece(640, A),
    ] == pieces


def test_what_is_before_the_beginning_is_cut() -> None:
    """A listener who joins in the middle of a chunk gets its second half."""
    placer = LivePlacer(MULAW, begin=240)
    assert () == placer.feed(chunk(1, 0), 0)
    assert (AudioPiece(240, B[80:]),) == placer.feed(chunk(2, 20, B), 20)
    assert 0 == placer.left_out  # it was not there yet: nothing came too late


def test_filled_silence_is_reported_when_the_track_goes_on() -> None:
    """The notice covers all that was silent, whoever asked for it."""
    placer = LivePlacer(MULAW)
    placer.feed(chunk(1, 0), 0)
    assert SilencePiece(160, 320, GapReason.SENDER_SILENCE, 160) == placer.fill_silence(320)
    assert placer.fill_silence(480) is None  # it goes on
    assert placer.fill_silence(480) is None
    silence, audio = placer.feed(chunk(6, 100, B), 100)
    assert SilencePiece(480, 800, GapReason.LOST, 160) == silence
    assert AudioPiece(800, B) == audio


@pytest.mark.parametrize(
    ("number", "at_ms", "reason"),
    [
        (4, 60, GapReason.LOST),
        (3, 60, GapReason.LOST),
        (5, 60, GapReason.SENDER_SILENCE),
        (1, 60, GapReason.SENDER_SILENCE),
        (None, 60, GapReason.SENDER_SILENCE),
    ],
)
def test_what_is_missing_before_the_first_chunk_is_lost(
    number: int | None, at_ms: int, reason: GapReason
) -> None:
    """Where clock and counter agree on it; counters begin with 0, with 1, or anywhere."""
    assert [SilencePiece(0, 480, reason, 0), AudioPiece(480, A)] == placed([chunk(number, at_ms)])


def test_what_is_filled_as_lost_is_reported_once() -> None:
    """What goes on of it is reported when it ends; it may still come, too late."""
    placer = LivePlacer(MULAW)
    placer.feed(chunk(1, 0), 0)
    assert SilencePiece(160, 240, GapReason.LOST, 160) == placer.fill_silence(240, lost=True)
    assert placer.fill_silence(480, lost=True) is None
    assert (SilencePiece(480, 480, GapReason.LOST, 240), AudioPiece(480, A)) == placer.feed(
        chunk(4, 60), 60
    )
    assert SilencePiece(640, 800, GapReason.LOST, 640) == placer.fill_silence(800, lost=True)
    assert (AudioPiece(800, A),) == placer.feed(chunk(6, 100), 100)
    for number, start in ((2, 160), (3, 320), (5, 640)):
        late = placer.feed(chunk(number, (number - 1) * 20), 110)
        assert (SilencePiece(start + 160, start + 160, GapReason.LATE, start),) == late


def test_late_behind_what_was_filled_as_lost() -> None:
    """Only what was not reported of what is missing before it, and its own place."""
    placer = LivePlacer(MULAW)
    placer.feed(chunk(1, 0), 0)
    placer.fill_silence(240, lost=True)
    placer.fill_silence(1600)
    reports = (
        SilencePiece(320, 320, GapReason.LOST, 240),
        SilencePiece(480, 480, GapReason.LATE, 320),
    )
    assert () == placer.feed(chunk(3, 40), 200)
    assert 200 == placer.behind_since_ms
    placer.tolerated_ms = 180
    assert () == placer.release_due(259)
    assert reports == placer.release_due(260)
    assert placer.behind_since_ms is None


def test_a_clock_can_be_taken_over_in_mid_call() -> None:
    """Where timestamps are no time since the start, what follows is still back to back."""
    placer = LivePlacer(MULAW, begin=1600, arrival_ms=200)
    placer.follow_clock(chunk(7, 10**12))
    placer.follow_clock(chunk(7, None))
    assert (AudioPiece(1600, B),) == placer.feed(chunk(8, 10**12 + 20, B), 220)


def test_silence_that_was_filled_is_reported_once() -> None:
    """Where nothing is missing, only what more there is of it is reported."""
    placer = LivePlacer(MULAW)
    placer.feed(chunk(1, 0), 0)
    placer.fill_silence(480)
    assert (AudioPiece(480, B),) == placer.feed(chunk(2, 60, B), 60)
    placer.fill_silence(800)
    silence, _ = placer.feed(chunk(3, 120, C), 120)
    assert SilencePiece(800, 960, GapReason.SENDER_SILENCE, 800) == silence


def test_what_comes_after_its_place_was_filled_is_reported() -> None:
    """What is missing before it, and its own place; what comes then is audio, a little late."""
    placer = LivePlacer(MULAW)
    placer.feed(chunk(1, 0), 0)
    placer.fill_silence(1600)
    assert () == placer.feed(chunk(3, 40), 220)
    assert (SilencePiece(320, 320, GapReason.LATE, 160),) == placer.feed(chunk(2, 20), 221)
    assert () == placer.feed(chunk(2, 20), 222)
    lost, late, audio = placer.feed(chunk(4, 150, B), 223)
    assert SilencePiece(320, 320, GapReason.LOST, 160) == lost
    assert SilencePiece(480, 480, GapReason.LATE, 320) == late
    assert AudioPiece(1600, B) == audio
    assert 3 == placer.left_out
    assert (AudioPiece(1760, C),) == placer.feed(chunk(5, 170, C), 224)
    gap = SilencePiece(1920, 2080, GapReason.SENDER_SILENCE, 1920)
    assert (gap, AudioPiece(2080, C)) == placer.feed(chunk(6, 260, C), 260)


def test_what_is_missing_before_a_late_chunk_is_lost() -> None:
    """No more of it than what belongs before that chunk."""
    placer = LivePlacer(MULAW)
    placer.feed(chunk(1, 0), 0)
    placer.fill_silence(640)
    lost = SilencePiece(320, 320, GapReason.LOST, 160)
    assert (lost, AudioPiece(640, B)) == placer.feed(chunk(3, 40, B), 120)


def test_a_clock_that_begins_with_its_track_is_anchored() -> None:
    """After 60 ms, with all that came meanwhile, where it comes as late as the other track."""
    placer = LivePlacer(MULAW)
    placer.level_ms = 50
    placer.fill_silence(48_000)
    for number in range(3):
        assert () == placer.feed(chunk(number + 1, number * 20), 6_070 + number * 20)
    anchored, *audio = placer.feed(chunk(4, 60), 6_130)
    assert ReanchorPiece(48_000, 48_000) == anchored
    assert [AudioPiece(48_000 + n * 160, A) for n in range(4)] == audio
    assert (AudioPiece(48_640, B),) == placer.feed(chunk(5, 80, B), 6_150)
    assert 0 == placer.left_out


@pytest.mark.parametrize("drop_ms", [0, 3000])
def test_a_backlog_is_no_clock_of_its_own(drop_ms: int) -> None:
    """What came at once behind a stall is late; what stays behind then is anchored."""
    placer = LivePlacer(MULAW)
    placer.feed(chunk(1, 0), 0)
    placer.fill_silence(80_000)
    for number in range(2, 150):
        assert () == placer.feed(chunk(number, number * 20), 10_000)
    stamp = 3000 + drop_ms * 2
    pieces = [*placer.feed(chunk(150, stamp), 10_060), *placer.feed(chunk(151, stamp + 20), 10_080)]
    anchors = [piece for piece in pieces if isinstance(piece, ReanchorPiece)]
    late = [p for p in pieces if isinstance(p, SilencePiece) and p.reason is GapReason.LATE]
    assert 1 == len(anchors)
    assert (148 if drop_ms else 142) <= len(late) <= 148


def test_a_last_chunk_that_is_behind_is_kept() -> None:
    """Nothing more comes that could say what it is."""
    placer = LivePlacer(MULAW)
    placer.fill_silence(80_000)
    placer.feed(chunk(1, 0), 10_000)
    assert 2 == len(placer.release_due(10_000, last=True))


def test_half_a_sample_behind_a_loss_is_left_out() -> None:
    """Where it sounds as if a chunk began within a sample; only of tracks that share samples."""
    odd = bytes(159)
    for first, kept in ((odd, odd[1:]), (bytes(160), odd[:158])):
        placer = LivePlacer(LINEAR, starts_within=lambda _: True)
        placer.feed(chunk(1, 0, first), 0)
        assert AudioPiece(640, kept) == placer.feed(chunk(5, 40, odd), 40)[-1]


def test_few_are_remembered_of_many_that_are_lost() -> None:
    """The latest of them, in audio of the usual length."""
    placer = LivePlacer(MULAW)
    placer.feed(chunk(1, 0), 0)
    placer.feed(chunk(1002, 20_020), 20_020)
    assert () == placer.feed(chunk(700, 13_980), 20_021)
    assert 1 == len(placer.feed(chunk(1001, 20_000), 20_022))
