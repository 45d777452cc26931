"""Finding recordings on disk, and telling every kind of damage."""

from __future__ import annotations

import errno
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from receiver.audio import wav_reader
from receiver.disk import layout
from receiver.errors import NotFoundError, UnreadableError
from receiver.media import Gap, GapKind, Ledger, MediaFormat, Track
from receiver.recording import document as recording
from receiver.recording import store
from receiver.recording.document import Recording
from receiver.recording.store import Damaged, Kept, Wanted
from tests.receiver.helpers import recordings_builder as builder
from tests.receiver.helpers.recordings_builder import change_document, change_track

HOUR_MS = 3_600_000
NOW = datetime(2026, 11, 22, 21, tzinfo=UTC)


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Return a recordings folder that holds nothing yet."""
    folder = tmp_path / "recordings"
    folder.mkdir(0o700)
    return folder


@pytest.fixture
def three(recordings: Path) -> Path:
    """Return a folder of three recordings, an hour and a year apart."""
    hour_ago = builder.STARTED_AT_MS - HOUR_MS
    year_ago = builder.STARTED_AT_MS - 365 * 24 * HOUR_MS
    builder.build(
        recordings, recording_id="aaaa111111111111", call_sid="first", parameters={"n": 5}
    )
    builder.build(
        recordings,
        recording_id="aaaa222222222222",
        started_at_ms=hour_ago,
        parameters={"n": 5, "Name": "Jörg"},
    )
    builder.build(recordings, recording_id="bbbb333333333333", started_at_ms=year_ago)
    return recordings


def ids(found: Iterator[Kept | Damaged]) -> list[str]:
    """Return what was found in short: the first letters of ids, or what is damaged."""
    return [e.recording.id[:5] if isinstance(e, Kept) else e.problem for e in found]


def problems_of(folder: Path) -> tuple[str, ...]:
    """Verify a folder against the document in it."""
    return store.verify(folder, store.read(folder).recording)


def change_wav(folder: Path, edit: Callable[[bytearray], None], name: str = "inbound.wav") -> None:
    """Change bytes of a WAV file and let the document agree with its new hash."""
    path = folder / name
    content = bytearray(path.read_bytes())
    edit(content)
    path.write_bytes(content)
    change_track(folder, sha256=builder.sha256(path))


# Walking


def test_newest_comes_first(three: Path) -> None:
    """Within a day, between days, between years."""
    assert ["aaaa1", "aaaa2", "bbbb3"] == ids(store.select(three, Wanted()))


def test_a_missing_folder_holds_nothing(tmp_path: Path) -> None:
    """Before the first call there may be no folder at all."""
    assert [] == ids(store.select(tmp_path / "missing", Wanted()))


def test_only_published_names_count(three: Path) -> None:
    """Half-rendered folders, the spool, files and other names are no recordings."""
    day = next(three.glob("2026/11/22"))
    (day / ".20261122T203000Z-aaaa444444444444.partial").mkdir()
    (day / "20261122T203000Z-not-hexadecimal-").mkdir()
    (day / "20261122T203000Z-aaaa555555555555").write_text("a file")
    (three / ".spool" / "11" / "22" / "20261122T203000Z-aaaa666666666666").mkdir(parents=True)
    (three / "README.md").write_text("hello")
    assert 3 == len(ids(store.select(three, Wanted())))


def test_links_are_not_followed(three: Path, tmp_path: Path) -> None:
    """A link could lead anywhere, or in circles; whoever looks for more than that is told."""
    elsewhere = tmp_path / "elsewhere"
    builder.build(elsewhere, recording_id="cccc444444444444")
    (three / "2027").symlink_to(elsewhere / "2026")
    (three / "2026" / "12").symlink_to(elsewhere / "2026" / "11")
    target = next(elsewhere.glob("*/*/*/*"))
    (three / "2026" / "11" / "22" / target.name).symlink_to(target)
    found = list(store.select(three, Wanted()))
    assert 3 == sum(isinstance(entry, Kept) for entry in found)
    links = {entry.folder.name: entry.problem for entry in found if isinstance(entry, Damaged)}
    assert (
        dict.fromkeys(("2027", "12", target.name), "is a symbolic link, which is not followed")
        == links
    )


def test_a_linked_document_is_not_followed(recordings: Path) -> None:
    """The document of a recording is a file of its own."""
    folder = builder.build(recordings)
    (folder / "recording.json").rename(folder / "elsewhere.json")
    (folder / "recording.json").symlink_to(folder / "elsewhere.json")
    (problem,) = ids(store.select(recordings, Wanted()))
    assert os.strerror(errno.ELOOP) in problem


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"\xff\xfe", b'{"id": "\xff"}', b"[" * 5000, b"null", b"\0" * 4096]
)
def test_a_damaged_document_hides_no_other_recording(three: Path, content: bytes) -> None:
    """It is reported in its place, and the walk goes on."""
    folder = store.find(three, "aaaa2222")
    (folder / "recording.json").write_bytes(content)
    first, second, third = store.select(three, Wanted())
    assert isinstance(first, Kept)
    assert isinstance(second, Damaged)
    assert folder == second.folder
    assert second.problem.startswith("not a recording.json")
    assert isinstance(third, Kept)


def test_a_missing_document_is_reported(recordings: Path) -> None:
    """A folder of a recording's name without a document is damage."""
    folder = builder.build(recordings)
    (folder / "recording.json").unlink()
    (problem,) = ids(store.select(recordings, Wanted()))
    assert "recording.json cannot be read: No such file or directory" == problem


def test_a_fifo_makes_nobody_wait(recordings: Path) -> None:
    """Opening one to read would block until somebody writes."""
    folder = builder.build(recordings)
    (folder / "recording.json").unlink()
    os.mkfifo(folder / "recording.json")
    (problem,) = ids(store.select(recordings, Wanted()))
    assert "recording.json cannot be read: not a regular file" == problem


def test_a_file_in_the_place_of_the_folder_is_reported(tmp_path: Path) -> None:
    """Whoever set `--recordings` to a file should be told."""
    (tmp_path / "file").write_text("")
    assert ["cannot be read: Not a directory"] == ids(store.select(tmp_path / "file", Wanted()))


def test_the_document_is_handed_out_as_it_is(recordings: Path) -> None:
    """Fields of later versions are kept in it, and do not stop this one."""
    folder = builder.build(recordings)
    path = folder / "recording.json"
    later = path.read_bytes().replace(b"{", b'{ "added_later": [1, {"x": null}],', 1)
    path.write_bytes(later)
    assert later == store.read(folder).document
    assert () == problems_of(folder)


# Filters


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Wanted(call_sid="first"), ["aaaa1"]),
        (Wanted(call_sid="none"), []),
        (Wanted(parameters={"n": "5"}), ["aaaa1", "aaaa2"]),
        (Wanted(parameters={"n": "5", "Name": "Jörg"}), ["aaaa2"]),
        (Wanted(parameters={"n": "50"}), []),
        (Wanted(call_sid="first", parameters={"Name": "Jörg"}), []),
        (Wanted(since=NOW - timedelta(minutes=31)), ["aaaa1"]),
        (Wanted(since=NOW - timedelta(minutes=30)), ["aaaa1"]),
        (Wanted(since=NOW - timedelta(minutes=30) + timedelta(milliseconds=1)), []),
        (Wanted(since=NOW - timedelta(days=1)), ["aaaa1", "aaaa2"]),
        (Wanted(since=NOW - timedelta(days=400)), ["aaaa1", "aaaa2", "bbbb3"]),
    ],
)
def test_filters(three: Path, wanted: Wanted, expected: list[str]) -> None:
    """Everything that is set must agree; a number is found by its text."""
    assert expected == ids(store.select(three, wanted))


def test_the_document_decides_where_names_are_coarse(recordings: Path) -> None:
    """A folder's name has no milliseconds."""
    builder.build(recordings, started_at_ms=builder.STARTED_AT_MS + 900)
    moment = datetime.fromtimestamp(builder.STARTED_AT_MS / 1000, UTC)
    for passed_ms, count in ((500, 1), (900, 1), (901, 0), (1000, 0)):
        wanted = Wanted(since=moment + timedelta(milliseconds=passed_ms))
        assert count == len(ids(store.select(recordings, wanted)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2h", NOW - timedelta(hours=2)),
        ("3d", NOW - timedelta(days=3)),
        ("90s", NOW - timedelta(seconds=90)),
        ("15m", NOW - timedelta(minutes=15)),
        ("1w", NOW - timedelta(weeks=1)),
        ("2026-11-22", datetime(2026, 11, 22, tzinfo=UTC)),
        ("2026-11-22T20:30:00Z", datetime(2026, 11, 22, 20, 30, tzinfo=UTC)),
        ("2026-11-22T20:30:00.250+02:00", datetime(2026, 11, 22, 18, 30, 0, 250_000, UTC)),
        ("2026-11-22T20:30:00", datetime(2026, 11, 22, 20, 30, tzinfo=UTC)),
    ],
)
def test_since_is_a_date_a_time_or_an_age(text: str, expected: datetime) -> None:
    """UTC unless told otherwise."""
    assert expected == store.parse_since(text, NOW)


@pytest.mark.parametrize(
    "text", ["", "yesterday", "h", "-2h", "2 h", "2026-13-01", "999999w", "0001-01-01T00:00+23:00"]
)
def test_any_other_since_is_refused(text: str) -> None:
    """With one error, whatever was wrong."""
    with pytest.raises(ValueError, match="not a date"):
        store.parse_since(text, NOW)


# Finding one


@pytest.mark.parametrize("asked", ["aaaa111111111111", "aaaa1", "AAAA1", "bbbb", "bbbb3333"])
def test_find_takes_an_id_or_its_beginning(three: Path, asked: str) -> None:
    """Four characters are enough where they are unique."""
    found = layout.recording_id_of(store.find(three, asked))
    assert found is not None
    assert found.startswith(asked.lower())


def test_find_takes_a_folder_name(three: Path) -> None:
    """As `ls` shows it, and as `verify` prints it."""
    folder = store.find(three, "bbbb")
    assert folder == store.find(three, folder.name)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ("aaaa", "2 recordings match"),
        ("aaa", "too short"),
        ("", "too short"),
        ("cccc", "no recording 'cccc'"),
        ("aaaa1111111111112", "no recording"),
        ("../../etc/passwd", "no recording"),
        ("****", "no recording"),
    ],
)
def test_find_says_why_it_finds_nothing(three: Path, asked: str, reason: str) -> None:
    """Ambiguous, too short, unknown: each in one line."""
    with pytest.raises(NotFoundError, match=reason.replace("*", r"\*")):
        store.find(three, asked)


# Verifying


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
    change_track(folder, sha256=builder.sha256(folder / "inbound.wav"))
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
    """And told once."""
    folder = builder.build(recordings, stereo=True)
    (folder / name).unlink()
    assert (f"{name} is missing",) == problems_of(folder)


def test_a_missing_document_is_found(recordings: Path) -> None:
    """By whoever still has it in memory."""
    folder = builder.build(recordings)
    document = store.read(folder).recording
    (folder / "recording.json").unlink()
    problem = store.verify(folder, document)[0]
    assert "recording.json cannot be read: No such file or directory" == problem


def test_a_missing_folder_is_found(recordings: Path) -> None:
    """It may be removed while it is looked at."""
    folder = builder.build(recordings)
    document = store.read(folder).recording
    shutil.rmtree(folder)
    assert (f"{folder.name} cannot be read: No such file or directory",) == store.verify(
        folder, document
    )


def test_a_folder_that_is_a_link_is_found(recordings: Path, tmp_path: Path) -> None:
    """A recording is a folder of its own."""
    folder = builder.build(recordings)
    document = store.read(folder).recording
    link = tmp_path / folder.name
    link.symlink_to(folder)
    assert (f"{folder.name} is not a folder",) == store.verify(link, document)


def test_a_stray_file_is_found(recordings: Path) -> None:
    """A half-written file, or one that somebody put there."""
    folder = builder.build(recordings)
    (folder / "inbound.wav.tmp").touch(0o600)
    assert ("a stray file 'inbound.wav.tmp'",) == problems_of(folder)


def test_a_stereo_file_nobody_named_is_stray(recordings: Path) -> None:
    """What the document does not know of was not published."""
    folder = builder.build(recordings, stereo=True)
    change_document(folder, stereo=None)
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
    change_track(folder, file=name)
    assert f"the document names a file {name!r} instead of inbound.wav" in problems_of(folder)


def test_a_document_cannot_name_another_stereo_file(recordings: Path) -> None:
    """The same goes for both tracks in one."""
    folder = builder.build(recordings, stereo=True)
    change_document(folder, stereo={})
    assert ("the document names a file '' instead of stereo.wav",) == problems_of(folder)


def test_a_track_named_twice_is_found(recordings: Path) -> None:
    """One file cannot be two tracks."""
    folder = builder.build(recordings, tracks=(Track.INBOUND,))
    (track,) = store.read(folder).recording.tracks
    change_document(folder, tracks=(track, track))
    assert ("the document names a track twice",) == problems_of(folder)


def test_another_recordings_document_is_found(recordings: Path) -> None:
    """The folder's name says whose it is."""
    folder = builder.build(recordings)
    change_document(folder, id="ffff000000000000")
    assert ("the document is of another recording, 'ffff000000000000'",) == problems_of(folder)


GOOD_LEDGER = Ledger(received=52, written=49, duplicate=1, late=2, conflict=1, rejected=1)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"chunks": Ledger(52, 50, 1, 2, 1, 1)}, "inbound: the ledger does not balance"),
        ({"chunks": Ledger(52, 49, 1, 50, 1, 1)}, "inbound: the ledger does not balance"),
        ({"chunks": Ledger(52, 53, -1, 0, 0, 0)}, "inbound: the ledger does not balance"),
        ({"chunks": Ledger(1, 0, 1)}, "inbound: 160 samples of silence do not fit 0 chunks"),
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
    change_track(folder, **fields)
    assert problem in problems_of(folder)


LOST = GapKind.LOST


@pytest.mark.parametrize(
    ("gaps", "problem"),
    [
        ((Gap(100, 10, LOST), Gap(109, 10, LOST)), "the gap at 109 ms overlaps the one before"),
        ((Gap(110, 10, LOST), Gap(100, 10, LOST)), "the gap at 100 ms overlaps the one before"),
        ((Gap(990, 20, LOST),), "the gap at 990 ms goes beyond the end"),
        ((Gap(-10, 20, LOST),), "the gap at -10 ms is no whole number of samples"),
        (
            (Gap(100, 0, LOST), Gap(110, 20, LOST)),
            "the gap at 100 ms is no whole number of samples",
        ),
        ((Gap(100.01, 20, LOST),), "the gap at 100.01 ms is no whole number of samples"),
        ((Gap(120, 20, LOST),), "inbound.wav: there is sound in the gap at sample 960"),
        ((Gap(99, 20, LOST),), "inbound.wav: there is sound in the gap at sample 792"),
    ],
)
def test_gaps_that_cannot_be_are_found(
    recordings: Path, gaps: tuple[Gap, ...], problem: str
) -> None:
    """Inside the recording, in order, apart, of whole samples, and silent."""
    folder = builder.build(recordings)
    change_track(folder, gaps=gaps)
    assert [p for p in problems_of(folder) if p.endswith(problem)]


def test_more_silence_than_recording_is_found(recordings: Path) -> None:
    """Each gap may be fine by itself."""
    folder = builder.build(recordings)
    change_track(folder, gaps=(Gap(0, 2000, LOST),), silence_ms=2000)
    assert "inbound: 16000 samples of silence do not fit 49 chunks" in problems_of(folder)


@pytest.mark.parametrize("tracks", [(), tuple(Track)])
def test_a_wrong_duration_is_found(recordings: Path, tracks: tuple[Track, ...]) -> None:
    """The recording is as long as its tracks; without any it has no length."""
    folder = builder.build(recordings, tracks=tracks)
    change_document(folder, duration_ms=1020)
    assert ("a duration of 1020 ms is not that of the tracks",) == problems_of(folder)


@pytest.mark.parametrize("rate", [0, -1, 44_100])
def test_an_impossible_rate_is_found(recordings: Path, rate: int) -> None:
    """Nothing can be counted with it."""
    folder = builder.build(recordings)
    change_document(folder, media_format=MediaFormat(sample_rate=rate))
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
    change_track(folder, sha256=builder.sha256(folder / "inbound.wav"))
    assert ("inbound.wav: it is not 16-bit PCM, 1 channels at 8000 Hz",) == problems_of(folder)


def edit_at(folder: Path, position: int, content: bytes) -> None:
    """Overwrite bytes of inbound.wav; its hash in the document follows."""

    def overwrite(whole: bytearray) -> None:
        whole[position : position + len(content)] = content

    change_wav(folder, overwrite)


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

    change_wav(folder, cut)
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

    change_wav(folder, cut)
    (problem,) = problems_of(folder)
    assert problem.startswith("inbound.wav: its chunk at byte")


def test_long_gaps_are_read_in_blocks(recordings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last block counts as much as the first."""
    monkeypatch.setattr(wav_reader, "BLOCK_BYTES", 64)
    folder = builder.build(recordings, gaps=(Gap(100, 500, LOST),))
    assert () == problems_of(folder)
    change_track(folder, gaps=(Gap(100, 501, LOST),), silence_ms=501)
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


def test_every_field_of_the_document_survives(recordings: Path) -> None:
    """What is read is what was written, byte order and all."""
    folder = builder.build(recordings)
    document: Recording = builder.as_l16(store.read(folder).recording)
    builder.write_document(folder, document)
    assert document == store.read(folder).recording
    assert recording.encode(document) == store.read(folder).document


def test_an_unreadable_document_is_one_error(recordings: Path) -> None:
    """The caller need not know of system errors."""
    with pytest.raises(UnreadableError, match="No such file"):
        store.read(recordings)
