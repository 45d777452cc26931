"""Verifying a recording: every kind of damage is found, and nothing else."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from receiver.audio import peaks, wav_reader
from receiver.media import ChunkCounts, EndReason, GapKind, MediaFormat, Track, TrackGap
from receiver.recording import store
from receiver.recording.document import Published, RenderOptions
from receiver.recording.publish import publish_journal
from receiver.recording.verify import verify
from tests.receiver.helpers import recordings_builder as builder
from tests.receiver.helpers.journals import chunk, records, write


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Return a recordings folder that holds nothing yet."""
    folder = tmp_path / "recordings"
    folder.mkdir(0o700)
    return folder


def problems_of(folder: Path) -> tuple[str, ...]:
    """Verify a folder against the document in it."""
    return verify(folder, store.read(folder).recording)


@pytest.mark.parametrize("stereo", [False, True])
@pytest.mark.parametrize("tracks", [(), (Track.INBOUND,), tuple(Track)])
def test_a_whole_recording_has_no_problems(
    recordings: Path, tracks: tuple[Track, ...], stereo: bool
) -> None:
    """With one track, with both, with none at all."""
    stereo = stereo and bool(tracks)
    assert () == problems_of(builder.build(recordings, tracks=tracks, stereo=stereo))


def test_a_restored_copy_is_as_good(recordings: Path, tmp_path: Path) -> None:
    """Wherever the folder is and whatever it is called."""
    copy = shutil.copytree(builder.build(recordings), tmp_path / "copy")
    assert () == problems_of(copy)


def test_rf64_is_as_good_as_riff(recordings: Path) -> None:
    """Longer files have 64-bit sizes, and soundfile's extensible format."""
    folder = builder.build(recordings, gaps=())
    (folder / "inbound.wav").unlink()
    samples = np.arange(builder.SAMPLES, dtype=np.int16)
    document = store.read(folder).recording
    builder.write_wav(folder / "inbound.wav", samples, document, container="RF64")
    builder.change_track(folder, sha256=builder.sha256(folder / "inbound.wav"))
    assert () == problems_of(folder)


@pytest.mark.parametrize("name", ["inbound.wav", "outbound.wav", "stereo.wav"])
def test_a_changed_byte_is_found(recordings: Path, name: str) -> None:
    """Wherever it is: in the header, the samples or the tags."""
    folder = builder.build(recordings, stereo=True)
    path = folder / name
    whole = path.read_bytes()
    for position in (0, 5, 21, 40, len(whole) // 2, len(whole) - 1):
        changed = bytearray(whole)
        changed[position] ^= 0x10
        path.write_bytes(changed)
        assert f"{name}: its SHA-256 is not the document's" in problems_of(folder)
    path.write_bytes(whole)
    assert () == problems_of(folder)


@pytest.mark.parametrize("name", ["inbound.wav", "outbound.wav", "stereo.wav"])
def test_a_missing_file_is_found(recordings: Path, name: str) -> None:
    """And reported once."""
    folder = builder.build(recordings, stereo=True)
    (folder / name).unlink()
    assert (f"{name} is missing",) == problems_of(folder)


def test_a_missing_document_is_found(recordings: Path) -> None:
    """By a caller that still has it in memory."""
    folder = builder.build(recordings)
    document = store.read(folder).recording
    (folder / "recording.json").unlink()
    problem = verify(folder, document)[0]
    assert "recording.json cannot be read: No such file or directory" == problem


def test_a_missing_folder_is_found(recordings: Path) -> None:
    """It may be removed while it is looked at."""
    folder = builder.build(recordings)
    document = store.read(folder).recording
    shutil.rmtree(folder)
    assert (f"{folder.name} cannot be read: No such file or directory",) == verify(folder, document)


def test_a_folder_that_is_a_link_is_found(recordings: Path, tmp_path: Path) -> None:
    """A recording is a folder of its own."""
    folder = builder.build(recordings)
    document = store.read(folder).recording
    link = tmp_path / folder.name
    link.symlink_to(folder)
    assert (f"{folder.name} is not a folder",) == verify(link, document)


def test_a_stray_file_is_found(recordings: Path) -> None:
    """A half-written file, or one that somebody put there."""
    folder = builder.build(recordings)
    (folder / "inbound.wav.tmp").touch(0o600)
    assert ("a stray file 'inbound.wav.tmp'",) == problems_of(folder)


def test_a_stereo_file_nobody_named_is_stray(recordings: Path) -> None:
    """What the document does not know of was not published."""
    folder = builder.build(recordings, stereo=True)
    builder.change_document(folder, stereo=None)
    assert ("a stray file 'stereo.wav'",) == problems_of(folder)


@pytest.mark.parametrize("name", ["inbound.wav", "recording.json", "."])
def test_other_peoples_access_is_found(recordings: Path, name: str) -> None:
    """Calls are private: files 0600, folders 0700."""
    folder = builder.build(recordings)
    (folder / name).chmod(0o755)
    (problem,) = problems_of(folder)
    assert "mode is 0755, not 0" in problem


def test_folders_may_have_their_group_from_the_one_above(recordings: Path) -> None:
    """A recordings folder that is open to a group hands its set-group-id bit down."""
    folder = builder.build(recordings)
    folder.chmod(0o2700)
    assert () == problems_of(folder)


def test_a_linked_file_is_found(recordings: Path, tmp_path: Path) -> None:
    """Its content may be right today."""
    folder = builder.build(recordings)
    (folder / "inbound.wav").rename(tmp_path / "inbound.wav")
    (folder / "inbound.wav").symlink_to(tmp_path / "inbound.wav")
    assert (f"inbound.wav: {os.strerror(errno.ELOOP)}",) == problems_of(folder)


@pytest.mark.parametrize(
    ("make", "problem"),
    [(os.mkfifo, "not a regular file"), (Path.mkdir, "Is a directory")],
    ids=["fifo", "folder"],
)
def test_what_is_no_regular_file_is_found(
    recordings: Path, make: Callable[[Path], None], problem: str
) -> None:
    """Without waiting for anybody to write into it."""
    folder = builder.build(recordings)
    (folder / "inbound.wav").unlink()
    make(folder / "inbound.wav")
    assert (f"inbound.wav: {problem}",) == problems_of(folder)


@pytest.mark.parametrize("name", ["/etc/passwd", "../inbound.wav", "outbound.wav", ""])
def test_a_document_cannot_name_another_file(recordings: Path, name: str) -> None:
    """Nothing but a track's own file is opened."""
    folder = builder.build(recordings)
    builder.change_track(folder, file=name)
    assert f"the document names a file {name!r} instead of inbound.wav" in problems_of(folder)


def test_a_document_cannot_name_another_stereo_file(recordings: Path) -> None:
    """The same goes for both tracks in one."""
    folder = builder.build(recordings, stereo=True)
    builder.change_document(folder, stereo={})
    assert ("the document names a file '' instead of stereo.wav",) == problems_of(folder)


def test_a_track_named_twice_is_found(recordings: Path) -> None:
    """One file cannot be two tracks."""
    folder = builder.build(recordings, tracks=(Track.INBOUND,))
    (track,) = store.read(folder).recording.tracks
    builder.change_document(folder, tracks=(track, track))
    assert ("the document names a track twice",) == problems_of(folder)


def test_another_recordings_document_is_found(recordings: Path) -> None:
    """The folder's name has its id."""
    folder = builder.build(recordings)
    builder.change_document(folder, id="ffff000000000000")
    assert ("the document is of another recording, 'ffff000000000000'",) == problems_of(folder)


GOOD_LEDGER = ChunkCounts(received=52, written=49, duplicate=1, late=2, conflict=1, rejected=1)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"chunks": ChunkCounts(52, 50, 1, 2, 1, 1)}, "inbound: the ledger does not balance"),
        ({"chunks": ChunkCounts(52, 49, 1, 50, 1, 1)}, "inbound: the ledger does not balance"),
        ({"chunks": ChunkCounts(52, 53, -1, 0, 0, 0)}, "inbound: the ledger does not balance"),
        ({"chunks": ChunkCounts(1, 0, 1)}, "inbound: 160 samples of silence do not fit 0 chunks"),
        ({"samples": 7999}, "the tracks differ in length"),
        ({"samples": 7999}, "inbound: a duration of 1000 ms is not 7999 samples"),
        ({"samples": 7999}, "inbound.wav: it holds 8000 samples, not 7999"),
        ({"duration_ms": 1000.125}, "inbound: a duration of 1000.12 ms is not 8000 samples"),
        ({"duration_ms": 1e308}, "inbound: a duration of 1e+308 ms is not 8000 samples"),
        ({"silence_ms": 19}, "inbound: silence of 19 ms is not what the gaps add up to"),
        ({"silence_ms": 20.01}, "inbound: silence of 20.01 ms is not what the gaps add up to"),
        ({"sha256": "0" * 64}, "inbound.wav: its SHA-256 is not the document's"),
    ],
)
def test_a_document_that_contradicts_itself_is_found(
    recordings: Path, fields: dict[str, Any], problem: str
) -> None:
    """Ledger, lengths, silence: everything that is said twice must agree."""
    folder = builder.build(recordings)
    builder.change_track(folder, **fields)
    assert problem in problems_of(folder)


LOST = GapKind.LOST


@pytest.mark.parametrize(
    ("gaps", "problem"),
    [
        (
            (TrackGap(100, 10, LOST), TrackGap(109, 10, LOST)),
            "the gap at 109 ms overlaps the one before",
        ),
        (
            (TrackGap(110, 10, LOST), TrackGap(100, 10, LOST)),
            "the gap at 100 ms overlaps the one before",
        ),
        ((TrackGap(990, 20, LOST),), "the gap at 990 ms goes beyond the end"),
        ((TrackGap(-10, 20, LOST),), "the gap at -10 ms is no whole number of samples"),
        (
            (TrackGap(100, 0, LOST), TrackGap(110, 20, LOST)),
            "the gap at 100 ms is no whole number of samples",
        ),
        ((TrackGap(100.01, 20, LOST),), "the gap at 100.01 ms is no whole number of samples"),
        ((TrackGap(120, 20, LOST),), "inbound.wav: there is sound in the gap at sample 960"),
        ((TrackGap(99, 20, LOST),), "inbound.wav: there is sound in the gap at sample 792"),
    ],
)
def test_gaps_that_cannot_be_are_found(
    recordings: Path, gaps: tuple[TrackGap, ...], problem: str
) -> None:
    """Inside the recording, in order, apart, of whole samples, and silent."""
    folder = builder.build(recordings)
    builder.change_track(folder, gaps=gaps)
    assert [p for p in problems_of(folder) if p.endswith(problem)]


def test_more_silence_than_recording_is_found(recordings: Path) -> None:
    """Each gap may be fine by itself."""
    folder = builder.build(recordings)
    builder.change_track(folder, gaps=(TrackGap(0, 2000, LOST),), silence_ms=2000)
    assert "inbound: 16000 samples of silence do not fit 49 chunks" in problems_of(folder)


@pytest.mark.parametrize("tracks", [(), tuple(Track)])
def test_a_wrong_duration_is_found(recordings: Path, tracks: tuple[Track, ...]) -> None:
    """The recording is as long as its tracks; without any it has no length."""
    folder = builder.build(recordings, tracks=tracks)
    builder.change_document(folder, duration_ms=1020)
    assert ("a duration of 1020 ms is not that of the tracks",) == problems_of(folder)


@pytest.mark.parametrize("rate", [0, -1, 44_100])
def test_an_impossible_rate_is_found(recordings: Path, rate: int) -> None:
    """Nothing can be counted with it."""
    folder = builder.build(recordings)
    builder.change_document(folder, media_format=MediaFormat(sample_rate=rate))
    assert (f"an impossible sample rate of {rate}",) == problems_of(folder)


def test_a_file_of_another_rate_is_found(recordings: Path) -> None:
    """The hash alone would only say that the file is the one that was published."""
    folder = builder.build(recordings)
    edit_at(folder, 24, struct.pack("<I", 16_000))
    assert ("inbound.wav: it is not 16-bit PCM, 1 channels at 8000 Hz",) == problems_of(folder)


def test_a_stereo_file_as_a_track_is_found(recordings: Path) -> None:
    """A track is one channel."""
    folder = builder.build(recordings, stereo=True)
    shutil.copy(folder / "stereo.wav", folder / "inbound.wav")
    builder.change_track(folder, sha256=builder.sha256(folder / "inbound.wav"))
    assert ("inbound.wav: it is not 16-bit PCM, 1 channels at 8000 Hz",) == problems_of(folder)


def edit_at(folder: Path, position: int, content: bytes) -> None:
    """Overwrite bytes of inbound.wav; its hash in the document follows."""

    def overwrite(whole: bytearray) -> None:
        whole[position : position + len(content)] = content

    builder.change_wav(folder, overwrite)


@pytest.mark.parametrize(
    ("position", "content", "problem"),
    [
        (0, b"RIFX", "it is no WAV file"),
        (0, b"RF64", "it is no WAV file"),
        (4, b"\0\0\0\0", "its length is not what its header says"),
        (8, b"AVI ", "its length is not what its header says"),
        (12, b"fmt\0", "its chunk at byte 12 is damaged"),
        (12, b"fmt\xff", "its chunk at byte 12 is damaged"),
        (12, b"fmd ", "it has no format or no samples"),
        (16, b"\xff\xff\xff\x7f", "its chunk at byte 12 is damaged"),
    ],
)
def test_a_damaged_header_is_found(
    recordings: Path, position: int, content: bytes, problem: str
) -> None:
    """Each field that a player needs."""
    folder = builder.build(recordings)
    edit_at(folder, position, content)
    assert (f"inbound.wav: {problem}",) == problems_of(folder)


@pytest.mark.parametrize("left", [0, 3, 11, 12, 20, 44, 8000])
def test_a_cut_file_is_found(recordings: Path, left: int) -> None:
    """A full disk, a copy that ended early."""
    folder = builder.build(recordings)

    def cut(whole: bytearray) -> None:
        del whole[left:]

    builder.change_wav(folder, cut)
    (problem,) = problems_of(folder)
    assert problem in {
        "inbound.wav: it is no WAV file",
        "inbound.wav: its length is not what its header says",
    }


def test_a_cut_file_with_a_mended_length_is_found(recordings: Path) -> None:
    """The outer length is right, the samples end too early."""
    folder = builder.build(recordings)

    def cut(whole: bytearray) -> None:
        del whole[8000:]
        whole[4:8] = struct.pack("<I", 7992)

    builder.change_wav(folder, cut)
    (problem,) = problems_of(folder)
    assert problem.startswith("inbound.wav: its chunk at byte")


def test_long_gaps_are_read_in_blocks(recordings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last block counts as much as the first."""
    monkeypatch.setattr(wav_reader, "BLOCK_BYTES", 64)
    folder = builder.build(recordings, gaps=(TrackGap(100, 500, LOST),))
    assert () == problems_of(folder)
    builder.change_track(folder, gaps=(TrackGap(100, 501, LOST),), silence_ms=501)
    assert ("inbound.wav: there is sound in the gap at sample 800",) == problems_of(folder)


def test_an_unreadable_file_is_found(recordings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails is damage of one file, not the end of the run."""
    folder = builder.build(recordings)

    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pread", fail)
    assert (
        f"inbound.wav: {os.strerror(errno.EIO)}",
        f"outbound.wav: {os.strerror(errno.EIO)}",
    ) == problems_of(folder)


@pytest.mark.parametrize("edit", ["samples", "gap", "length"])
def test_without_hashes_all_but_the_sound_is_compared(recordings: Path, edit: str) -> None:
    """Files of which the hash was just taken are not read whole again."""
    folder = builder.build(recordings)
    document = store.read(folder).recording
    assert () == verify(folder, document, hashes=False)
    path = folder / "inbound.wav"
    content = bytearray(path.read_bytes())
    start = content.index(b"data") + 8
    first_gap = start + 2 * int(document.tracks[0].gaps[0].start_ms * 8)
    content[{"samples": start, "gap": first_gap, "length": 4}[edit]] ^= 1
    path.write_bytes(content)
    found = verify(folder, document, hashes=False)
    assert bool(found) == (edit != "samples")
    assert verify(folder, document)


def published(tmp_path: Path) -> Path:
    """Return the folder of a recording that was made of a journal."""
    rows = [chunk(n, bytes(range(160)), timestamp_ms=20 * n) for n in range(9)]
    journal = write(tmp_path / "aa.journal", records(rows, reason=EndReason.STOP))
    outcome = publish_journal(journal, tmp_path / "recordings", RenderOptions())
    assert isinstance(outcome, Published)
    return outcome.folder


def test_a_document_whose_own_hash_was_taken_away_is_found(tmp_path: Path) -> None:
    """Whatever writes the rest of it writes the hash; one of before is as it was."""
    folder = published(tmp_path)
    path = folder / "recording.json"
    path.write_bytes(path.read_bytes().rpartition(b',\n  "document_sha256"')[0] + b"\n}\n")
    document = store.read(folder).recording
    assert ("recording.json: its own SHA-256 is missing",) == verify(folder, document)
    (folder / "timeline.json").unlink()
    assert () == verify(folder, replace(document, timeline=None))


@pytest.mark.parametrize("hashes", [False, True])
@pytest.mark.parametrize("name", ["peaks.dat", "timeline.json"])
def test_what_was_made_of_the_audio_is_read_whole(tmp_path: Path, name: str, hashes: bool) -> None:
    """Also where WAV files are not: every bit, the mode, and that it is there."""
    folder = published(tmp_path)
    document, path = store.read(folder).recording, folder / name
    assert () == verify(folder, document, hashes=hashes)
    whole = path.read_bytes()
    for position in (0, len(whole) // 2, len(whole) - 1):
        changed = bytearray(whole)
        changed[position] ^= 0x10
        path.write_bytes(changed)
        found = verify(folder, document, hashes=hashes)
        assert f"{name}: its SHA-256 is not the document's" in found
    path.write_bytes(whole)
    path.chmod(0o640)
    assert (f"{name}: its mode is 0640, not 0600",) == verify(folder, document, hashes=hashes)
    path.unlink()
    assert (f"{name} is missing",) == verify(folder, document, hashes=hashes)
    path.symlink_to(folder / "recording.json")
    (problem,) = verify(folder, document, hashes=hashes)
    assert problem == f"{name}: {os.strerror(errno.ELOOP)}"


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("timeline.json", b"{", "not a timeline.json"),
        ("peaks.dat", b"no", "too short"),
        ("peaks.dat", peaks.header(rate=8000, channels=1, length=0), "not as long"),
        ("peaks.dat", peaks.header(rate=8000, channels=1, length=6) + bytes(24), ""),
        ("peaks.dat", peaks.header(rate=8000, channels=2, length=6) + bytes(48), "of as many"),
        ("peaks.dat", peaks.header(rate=16000, channels=1, length=6) + bytes(24), "not as long"),
    ],
)
def test_what_is_not_made_of_this_audio_is_found(
    tmp_path: Path, name: str, content: bytes, problem: str
) -> None:
    """Even where the document has its hash."""
    folder = published(tmp_path)
    (folder / name).write_bytes(content)
    named = {"file": name, "sha256": hashlib.sha256(content).hexdigest()}
    builder.change_document(folder, **{name.partition(".")[0]: named})
    found = problems_of(folder)
    assert bool(problem) == bool(found)
    assert all(text.startswith(f"{name}: ") and problem in text for text in found)


def test_a_recording_of_an_earlier_version_has_neither_and_is_whole(recordings: Path) -> None:
    """Where the document names them not, files of these names are stray."""
    folder = builder.build(recordings)
    assert () == problems_of(folder)
    (folder / "peaks.dat").touch(0o600)
    assert ("a stray file 'peaks.dat'",) == problems_of(folder)


def test_a_document_that_names_other_files_is_damaged(tmp_path: Path) -> None:
    """Nothing outside of the folder is opened."""
    folder = published(tmp_path)
    builder.change_document(folder, peaks={"file": "../../x", "sha256": "0"})
    assert "the document names a file '../../x' instead of peaks.dat" in problems_of(folder)
