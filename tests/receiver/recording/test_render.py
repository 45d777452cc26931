"""A journal in, files out: the same bytes each time, or an error, but never half a file."""

from __future__ import annotations

import contextlib
import math
import resource
import struct
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import example, given, settings
from hypothesis import strategies as st

from receiver.audio import peaks, wav_writer
from receiver.disk import files
from receiver.errors import JournalError
from receiver.journal import records as journal
from receiver.journal.records import DroppedRecord, MessageRecord, Record, RejectedRecord
from receiver.media import ByteOrder, EndReason, Finding, GapKind, RejectedChunk, Track, TrackGap
from receiver.recording import render
from receiver.recording.document import (
    DtmfPress,
    MarkPassed,
    Recording,
    RenderOptions,
    decode_timeline,
)
from receiver.recording.verify import verify
from tests.bounds import examples
from tests.receiver.helpers import journals
from tests.receiver.helpers.g711 import MULAW
from tests.receiver.helpers.journals import chunk, records, start_message, write

CODES = bytes(range(160))


def call(
    *, tracks: Sequence[Track] = (Track.INBOUND,), chunks: int = 5, missing: Sequence[int] = ()
) -> list[Record]:
    """Return a whole journal of mu-law chunks, each of them rotated by its number."""
    rows: list[Record] = [
        chunk(n, CODES[n:] + CODES[:n], track=track, timestamp_ms=20 * n)
        for n in range(chunks)
        for track in tracks
        if n not in missing
    ]
    return records(rows, reason=EndReason.STOP)


def rendered(
    folder: Path, content: Sequence[Record], options: RenderOptions | None = None
) -> tuple[Path, Recording]:
    """Render a journal of these records into a new folder."""
    folder.mkdir(0o700)
    path = write(folder.with_suffix(".journal"), content)
    return folder, journals.render(path, folder, options)


def samples(file: Path) -> list[int]:
    """Return a WAV file's samples."""
    return [int(sample) for sample in soundfile.read(file, dtype="int16")[0]]


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files in a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("stereo", [False, True])
def test_rendering_twice_gives_the_same_bytes(tmp_path: Path, stereo: bool) -> None:
    """So recovery is rendering, and doing it again changes nothing."""
    options = RenderOptions(stereo=stereo)
    content = call(tracks=tuple(Track), missing=[2])
    first, _ = rendered(tmp_path / "first", content, options)
    second, _ = rendered(tmp_path / "second", content, options)
    assert contents(first) == contents(second)
    assert stereo == ("stereo.wav" in contents(first))


def test_samples_are_at_their_places_and_silence_is_zero(tmp_path: Path) -> None:
    """Sample by sample, by the tables of G.711."""
    folder, document = rendered(tmp_path / "r", call(missing=[1]))
    expected = []
    for number in range(5):
        codes = CODES[number:] + CODES[:number]
        expected += [0] * 160 if number == 1 else [MULAW[code] for code in codes]
    assert expected == samples(folder / "inbound.wav")
    assert () == verify(folder, document)


def test_tracks_are_of_one_length(tmp_path: Path) -> None:
    """Silence at the end of the shorter one, so that they can be laid side by side."""
    longer = call(chunks=7)[2:-1]
    shorter = call(tracks=[Track.OUTBOUND], chunks=3)[2:-1]
    folder, document = rendered(
        tmp_path / "r",
        records([*longer, *shorter], reason=EndReason.STOP),
        RenderOptions(stereo=True),
    )
    assert {140} == {track.duration_ms for track in document.tracks} | {document.duration_ms}
    stereo = soundfile.read(folder / "stereo.wav", dtype="int16")[0]
    assert stereo[:, 0].tolist() == samples(folder / "inbound.wav")
    assert stereo[:, 1].tolist() == samples(folder / "outbound.wav")
    assert [0] * 640 == samples(folder / "outbound.wav")[480:]


def test_a_track_without_audio_has_no_file(tmp_path: Path) -> None:
    """But it is silent in the stereo file; a stream without any audio has no files at all."""
    folder, document = rendered(tmp_path / "one", call(), RenderOptions(stereo=True))
    assert ["inbound.wav"] == [track.file for track in document.tracks]
    stereo = soundfile.read(folder / "stereo.wav", dtype="int16")[0]
    assert not stereo[:, 1].any()
    folder, document = rendered(tmp_path / "none", call(chunks=0), RenderOptions(stereo=True))
    assert {"recording.json", "timeline.json"} == set(contents(folder))
    assert (0, (), None) == (document.duration_ms, document.tracks, document.stereo)
    assert document.peaks is None


@pytest.mark.parametrize("order", [ByteOrder.LITTLE, ByteOrder.BIG])
def test_linear_samples_are_read_in_the_order_of_the_sender(
    tmp_path: Path, order: ByteOrder
) -> None:
    """By setting, or by listening which order is smoother."""
    wave = (8000 * np.sin(np.arange(1600) / 20)).astype("<i2" if order == "little" else ">i2")
    start = start_message(encoding="audio/x-L16", sample_rate=16000)
    rows = [
        chunk(n, wave[n * 320 : (n + 1) * 320].tobytes(), timestamp_ms=20 * n) for n in range(5)
    ]
    content = records(rows, start=start, reason=EndReason.STOP)
    for name, option in (("set", order), ("found", ByteOrder.AUTO)):
        folder, document = rendered(tmp_path / name, content, RenderOptions(byte_order=option))
        assert wave.tolist() == samples(folder / "inbound.wav")
        assert order is document.byte_order
        chosen = "byte_order_chosen" in [finding.code for finding in document.findings]
        assert (option is ByteOrder.AUTO) == chosen


WAVE = (8000 * np.sin(np.arange(8000) / 20)).astype("<i2")
SIZES = st.lists(st.sampled_from([639, 641, 640, 638, 642, 1, 2, 3, 320, 1281]), max_size=40)


def split_call(sizes: Sequence[int]) -> tuple[list[Record], int]:
    """Return a call whose samples are cut at any byte, and how many bytes it carries.

    Timestamps are whole milliseconds, as providers write them.
    """
    rows: list[Record] = []
    position = 0
    for number, size in enumerate(sizes):
        payload = WAVE.tobytes()[position : position + size]
        rows.append(chunk(number, payload, timestamp_ms=round(position / 32)))
        position += len(payload)
    start = start_message(encoding="audio/x-L16", sample_rate=16000)
    return records(rows, start=start, reason=EndReason.STOP), position


@pytest.mark.parametrize("sizes", [[641, 639] * 10, [639, 641] * 10, [641, 639], [641] * 9])
@pytest.mark.parametrize("order", [ByteOrder.LITTLE, ByteOrder.AUTO])
def test_samples_that_two_chunks_share_are_whole(
    tmp_path: Path, sizes: list[int], order: ByteOrder
) -> None:
    """A chunk of an odd number of bytes goes on in the next one; no byte is missing."""
    content, size = split_call(sizes)
    options = RenderOptions(byte_order=order, stereo=True)
    folder, document = rendered(tmp_path / "r", content, options)
    assert WAVE[: size // 2].tolist() == samples(folder / "inbound.wav")
    stereo = soundfile.read(folder / "stereo.wav", dtype="int16")[0]
    assert WAVE[: size // 2].tolist() == stereo[:, 0].tolist()
    assert document.complete
    assert 0 == document.tracks[0].silence_ms
    assert order is ByteOrder.LITTLE or document.byte_order is ByteOrder.LITTLE


@pytest.mark.parametrize("lost", [0, 1, 10, 11])
@pytest.mark.parametrize("order", ["<i2", ">i2"])
def test_a_lost_chunk_turns_no_sample_behind_it_into_noise(
    tmp_path: Path, lost: int, order: str
) -> None:
    """Nobody knows how long it was, so the sound says where the next sample begins."""
    wave = WAVE.astype(order)
    sizes, rows, position = [641, 639] * 12, [], 0
    for number, size in enumerate(sizes):
        payload = wave.tobytes()[position : position + size]
        position += size
        if number != lost:
            rows.append(chunk(number, payload, timestamp_ms=20 * number))
    start = start_message(encoding="audio/x-L16", sample_rate=16000)
    content = records(rows, start=start, reason=EndReason.STOP)
    byte_order = ByteOrder.LITTLE if order == "<i2" else ByteOrder.BIG
    folder, document = rendered(tmp_path / "r", content, RenderOptions(byte_order=byte_order))
    sound = samples(folder / "inbound.wav")
    gap, beyond = lost * 320, lost * 320 + 321
    assert WAVE[:gap].tolist() == sound[:gap]
    # What is behind the gap is whole, but for its place: half a sample cannot be heard.
    rest = sound[beyond:-2]
    assert rest in [WAVE[beyond + shift :][: len(rest)].tolist() for shift in (-1, 0, 1)]
    assert 1 == len(document.tracks[0].gaps)


@given(SIZES)
def test_samples_may_be_split_anywhere(sizes: list[int]) -> None:
    """However a sender cuts its bytes into chunks, the file has every sample."""
    content, size = split_call(sizes)
    with tempfile.TemporaryDirectory() as folder:
        found, _ = rendered(Path(folder) / "r", content)
        sound = samples(found / "inbound.wav") if size > 1 else []
    assert WAVE[: size // 2].tolist() == sound


COUNTER = st.none() | st.integers(-(2**53), 2**53) | st.integers(0, 400)
KEPT = st.tuples(st.just("kept"), st.integers(1, 6), st.sampled_from([160, 320, 640, 639, 1, 0]))
GONE = st.tuples(st.sampled_from(["lost", "refused", "dropped", "paused"]), st.integers(1, 60))
ABSURD = st.one_of(
    st.tuples(st.just("absurd"), COUNTER, COUNTER, st.integers(0, 700)),
    st.tuples(st.just("dropped absurdly"), *[COUNTER] * 4),
    st.tuples(st.just("refused absurdly"), COUNTER, COUNTER),
)
EVENTS = st.lists(KEPT | GONE, max_size=8) | st.lists(KEPT | GONE | ABSURD, max_size=8)
FORMATS = [("audio/x-mulaw", 8000), ("audio/x-L16", 16000), ("audio/x-L16", 11000)]


def happened(events: list[tuple[Any, ...]], track: Track, *, numbered: bool) -> list[Record]:
    """Return the records of a track on which all of this happened, one after the other."""
    rows: list[Record] = []
    sent, now_ms = 0, 0  # how far the sender's counter and clock are
    for what, first, *more in events:
        chunks = first if what in ("kept", "lost", "refused", "dropped") else 0
        numbers = [sent + n if numbered else None for n in range(chunks)]
        stamps = [now_ms + 20 * n for n in range(chunks)]
        if what == "kept":
            rows += [
                chunk(number, b"\1" * more[0], track=track, timestamp_ms=stamp)
                for number, stamp in zip(numbers, stamps, strict=True)
            ]
        elif what == "refused":
            refused = (
                RejectedChunk(track, None, *row) for row in zip(numbers, stamps, strict=True)
            )
            rows += [RejectedRecord(now_ms, "bad_base64", row) for row in refused]
        elif what == "dropped":
            bounds = (numbers[0], numbers[-1], stamps[0], stamps[-1])
            rows.append(DroppedRecord(GapKind.DISK, track, chunks, *bounds))
        elif what == "absurd":
            stamp, size = more
            payload = b"\2" * size
            rows.append(chunk(first, payload, track=track, timestamp_ms=stamp, arrival_ms=now_ms))
        elif what == "dropped absurdly":
            rows.append(DroppedRecord(GapKind.DISK, track, 7, first, *more))
        elif what == "refused absurdly":
            rows.append(RejectedRecord(now_ms, "x", RejectedChunk(track, None, first, *more)))
        sent, now_ms = sent + chunks, now_ms + 20 * (first if what == "paused" else chunks)
    return rows


@given(
    inbound=EVENTS,
    outbound=EVENTS,
    media=st.sampled_from(FORMATS),
    numbered=st.booleans(),
)
@example(  # a number of a shared counter that skips 674 millions
    inbound=[
        ("kept", 2, 639),
        ("lost", 19),
        ("dropped absurdly", 15, 220283701760, 81, None),
        ("paused", 51),
        ("absurd", 674618727, None, 208),
        ("kept", 5, 0),
        ("refused absurdly", 435, 11825),
        ("refused", 26),
    ],
    outbound=[
        ("kept", 6, 1),
        ("paused", 39),
        ("paused", 29),
        ("kept", 2, 1),
        ("dropped", 45),
        ("kept", 6, 1),
        ("paused", 41),
    ],
    media=("audio/x-mulaw", 8000),
    numbered=True,
)
@settings(max_examples=examples(80))
def test_whatever_happened_the_files_agree_with_their_document(
    inbound: list[Any], outbound: list[Any], media: tuple[str, int], numbered: bool
) -> None:
    """Or the recording would go to the quarantine instead of being published.

    And whatever counters say: what came and was not kept is reported, by track and kind.
    """
    rows = [
        *happened(inbound, Track.INBOUND, numbered=numbered),
        *happened(outbound, Track.OUTBOUND, numbered=numbered),
    ]
    start = start_message(encoding=media[0], sample_rate=media[1])
    content = records(rows, start=start, reason=EndReason.STOP)
    with tempfile.TemporaryDirectory() as folder:
        found, document = rendered(Path(folder) / "r", content)
        assert () == verify(found, document)
    reported = {(finding.code, finding.track) for finding in document.findings}
    for track, events in ((Track.INBOUND, inbound), (Track.OUTBOUND, outbound)):
        for what, code in (("dropped", "audio_disk"), ("refused", "audio_rejected")):
            happened_so = any(event[0].startswith(what) for event in events)
            assert not happened_so or (code, track) in reported
            assert not happened_so or not document.complete


@pytest.mark.parametrize("gone", ["refused", "dropped"])
def test_what_is_missing_at_the_end_begins_on_a_sample(tmp_path: Path, gone: str) -> None:
    """Half a sample before it is silenced with it."""
    rows = happened([("kept", 2, 640), ("kept", 1, 639), (gone, 3)], Track.INBOUND, numbered=True)
    start = start_message(encoding="audio/x-L16", sample_rate=16000)
    folder, document = rendered(tmp_path / "r", records(rows, start=start, reason=EndReason.STOP))
    assert () == verify(folder, document)
    kind = GapKind.DISK if gone == "dropped" else GapKind.REJECTED
    assert (TrackGap(59.9375, 60, kind),) == document.tracks[0].gaps


@pytest.mark.parametrize(
    "others",
    [[], call()[2:-1], happened([("kept", 1, 0)], Track.OUTBOUND, numbered=True)],
)
def test_a_track_of_which_nothing_was_kept_is_not_forgotten(
    tmp_path: Path, others: list[Record]
) -> None:
    """There is no file to listen to, so a finding says how much should be in it."""
    rows = happened([("lost", 2), ("dropped", 30)], Track.OUTBOUND, numbered=True)
    content = records([*others, *rows], reason=EndReason.STOP)
    _, document = rendered(tmp_path / "r", content)
    text = "all 30 chunks came while the disk took none"
    assert Finding("audio_disk", text, Track.OUTBOUND) in document.findings
    assert not document.complete


def test_half_a_sample_is_silenced(tmp_path: Path) -> None:
    """A chunk of an odd number of bytes before a gap leaves no noise behind it."""
    start = start_message(encoding="audio/x-L16", sample_rate=8000)
    rows = [chunk(0, b"\1" * 319, timestamp_ms=0), chunk(2, b"\1" * 320, timestamp_ms=40)]
    folder, _ = rendered(tmp_path / "r", records(rows, start=start, reason=EndReason.STOP))
    assert [257] * 159 + [0] * 161 + [257] * 160 == samples(folder / "inbound.wav")


def test_long_audio_flows_through_in_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The size of a block changes nothing in the files."""
    content = call(tracks=tuple(Track), chunks=40, missing=[3, 4, 20])
    options = RenderOptions(stereo=True)
    whole, _ = rendered(tmp_path / "whole", content, options)
    for module in (render, files):
        monkeypatch.setattr(module, "BLOCK_BYTES", 250)
    monkeypatch.setattr(render, "_WINDOW_BYTES", 250)
    pieces, _ = rendered(tmp_path / "pieces", content, options)
    assert contents(whole) == contents(pieces)


def test_a_file_too_long_for_32_bits_gets_64(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above 4 GiB a WAV file is an RF64 file, which soundfile, ffmpeg and sox read."""
    monkeypatch.setattr(wav_writer, "_LARGEST_RIFF_BYTES", 1000)
    folder, document = rendered(tmp_path / "r", call())
    assert b"RF64" == (folder / "inbound.wav").read_bytes()[:4]
    assert 800 == len(samples(folder / "inbound.wav"))
    assert () == verify(folder, document)


def test_a_journal_without_an_end_is_a_crash(tmp_path: Path) -> None:
    """What is there is rendered, and the torn tail is not missed."""
    whole = b"".join(map(journal.encode, call()[:-1]))
    folder = tmp_path / "r"
    folder.mkdir()
    (tmp_path / "torn").write_bytes(whole[:-50])
    document = journals.render(tmp_path / "torn", folder)
    assert (EndReason.CRASH, False, 80) == (
        document.end_reason,
        document.complete,
        document.duration_ms,
    )


def test_what_is_no_journal_is_refused(tmp_path: Path) -> None:
    """With the reason: it cannot be opened, is a link, or holds something else."""
    (tmp_path / "junk").write_bytes(struct.pack("<II", 5, 0) + b"hello, is this a journal?")
    (tmp_path / "link").symlink_to("junk")
    for name, reason in (("junk", "checksum"), ("link", "symbolic"), ("none", "No such file")):
        with pytest.raises(JournalError, match=reason):
            journals.render(tmp_path / name, tmp_path)


@contextlib.contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """Limit the size of every file, as a full disk does: a short write, then none."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_is_full_at_any_byte_is_an_error(tmp_path: Path) -> None:
    """Header, samples, tags or document: what was not written whole is not called a recording."""
    content = call(chunks=6)
    content[1] = records([], start=start_message(Name="Jane", Note="x" * 200))[1]
    whole, _ = rendered(tmp_path / "whole", content)
    path = tmp_path / "whole.journal"
    needed = max(map(len, contents(whole).values()))
    failures = 0
    for size in [*range(0, needed + 40, 13), needed - 1, needed, needed + 1]:
        folder = tmp_path / f"{size}-{failures}"
        folder.mkdir()
        try:
            with files_no_larger_than(size):
                journals.render(path, folder)
        except OSError:
            failures += 1
            assert size < needed
        else:
            assert contents(whole) == contents(folder)
    assert failures > 100


def test_tracks_line_up_whatever_their_clock_counts_from(tmp_path: Path) -> None:
    """Timestamps since 1970 still say that one track began half a second after the other."""
    now = 1_795_379_400_000
    chunks = [
        chunk(
            n + 1,
            bytes(160),
            track=track,
            timestamp_ms=now + late + n * 20,
            arrival_ms=late + n * 20,
        )
        for track, late in ((Track.INBOUND, 0), (Track.OUTBOUND, 500))
        for n in range(10)
    ]
    journal_file = write(tmp_path / "j", records(chunks, reason=EndReason.STOP))
    (tmp_path / "out").mkdir()
    document = journals.render(journal_file, tmp_path / "out")
    gaps = {track.track: track.gaps for track in document.tracks}
    assert (TrackGap(0, 500, GapKind.SENDER_SILENCE),) == gaps[Track.OUTBOUND]
    assert (TrackGap(200, 500, GapKind.SENDER_SILENCE),) == gaps[Track.INBOUND]
    assert ["clock_origin"] == [finding.code for finding in document.findings]
    assert document.complete


@pytest.mark.parametrize("clock", [lambda n: 20 * n, lambda n: 160 * n, lambda n: None])
def test_keys_and_marks_are_on_the_time_line(
    tmp_path: Path, clock: Callable[[int], int | None]
) -> None:
    """Whatever the sender's clock counts, they are where the audio before them ends."""
    chunks: list[Record] = [
        chunk(n, bytes([n]) * 160, timestamp_ms=clock(n), arrival_ms=20 * n) for n in range(50)
    ]
    chunks.insert(30, MessageRecord(600, b'{"event":"dtmf","dtmf":{"digit":"5","duration":90}}'))
    chunks.append(MessageRecord(1000, b'{"event":"mark","mark":{"name":"m"}}'))
    _, document = rendered(tmp_path / "r", records(chunks, reason=EndReason.STOP))
    assert (DtmfPress(600, "5", 90),) == document.dtmf
    assert (MarkPassed(1000, "m"),) == document.marks


def test_first_chunks_that_overtook_each_other_shift_no_track(tmp_path: Path) -> None:
    """On any clock: the other track begins as much later as its sender says."""
    now = 1_795_379_400_000
    inbound = [chunk(n, CODES, timestamp_ms=now + n * 20, arrival_ms=n) for n in (1, 0, 2, 3)]
    later = chunk(1, CODES, track=Track.OUTBOUND, timestamp_ms=now + 500, arrival_ms=500)
    _, document = rendered(tmp_path / "r", records([*inbound, later], reason=EndReason.STOP))
    assert (TrackGap(0, 500, GapKind.SENDER_SILENCE),) == document.tracks[1].gaps
    assert ["clock_origin"] == [finding.code for finding in document.findings]


@pytest.mark.parametrize(("encoding", "payload"), [("audio/x-mulaw", b""), ("audio/x-L16", b"x")])
def test_not_one_whole_sample_is_no_track(tmp_path: Path, encoding: str, payload: bytes) -> None:
    """A chunk came, but there is no sound: no file is better than an empty one."""
    start = start_message(encoding=encoding)
    content = records([chunk(1, payload, timestamp_ms=0)], start=start, reason=EndReason.STOP)
    journal_file = write(tmp_path / "j", content)
    (tmp_path / "out").mkdir()
    assert () == journals.render(journal_file, tmp_path / "out", RenderOptions(stereo=True)).tracks
    assert {"recording.json", "timeline.json"} == set(contents(tmp_path / "out"))


def test_the_files_name_their_call(tmp_path: Path) -> None:
    """Title, date, artist and comment are in every WAV."""
    start = start_message(agent="Jane")
    content = records([chunk(1, bytes(160), timestamp_ms=0)], start=start, reason=EndReason.STOP)
    journal_file = write(tmp_path / "j", content)
    (tmp_path / "out").mkdir()
    journals.render(journal_file, tmp_path / "out")
    with soundfile.SoundFile(tmp_path / "out" / "inbound.wav") as wav:
        tags = wav.copy_metadata()
    assert "76ac3c36-aaaa-4bbb-8ccc-ddddeeeeffff inbound" == tags["title"]
    assert "2026-11-22T20:30:00.000Z" == tags["date"]
    assert "b08dacad-1111-4222-8333-444455556666" == tags["artist"]
    assert '{"agent": "Jane"}' == tags["comment"]


def test_waveform_level_and_time_line_are_made_with_the_files(tmp_path: Path) -> None:
    """Of the samples that are in the files, and of all that happened."""
    sound, silence = CODES, bytes([0xFF]) * 160
    rows: list[Record] = [
        chunk(n, sound if n < 50 else silence, timestamp_ms=20 * n) for n in range(200) if n != 10
    ]
    rows += [chunk(n, sound, track=Track.OUTBOUND, timestamp_ms=20 * n) for n in range(50)]
    rows.insert(20, MessageRecord(400, b'{"event":"dtmf","dtmf":{"digit":"5","duration":90}}'))
    rows.append(MessageRecord(4000, b'{"event":"mark","mark":{"name":"m"}}'))
    folder, document = rendered(tmp_path / "r", records(rows, reason=EndReason.STOP))
    assert () == verify(folder, document)
    found = peaks.decode((folder / "peaks.dat").read_bytes())
    assert (8000, 2, 125) == (found.sample_rate, found.channels, found.length)
    for channel, track in enumerate(document.tracks):
        values = samples(folder / track.file)
        pixels = [values[first : first + 256] for first in range(0, len(values), 256)]
        assert [min(pixel) for pixel in pixels] == list(found.lowest(channel))
        assert [max(pixel) for pixel in pixels] == list(found.highest(channel))
        assert track.level_dbfs is not None
        assert pytest.approx(20 * math.log10(max(map(abs, values)) / 32768), abs=0.05) == (
            track.level_dbfs.peak
        )
        assert pytest.approx(0.75, abs=0.01) == track.silence_share
    events = decode_timeline((folder / "timeline.json").read_bytes()).events
    assert [
        (200, 220, "inbound", "lost"),
        (420, 510, None, "dtmf"),
        (1000, 1000, None, "mark"),  # behind the latest chunk
        (1000, 4000, "outbound", "sender_silence"),
        (1024, 4000, "inbound", "silence"),
        (1024, 4000, "outbound", "silence"),
    ] == [(e.t_ms, e.end_ms, e.track, e.kind) for e in events]
