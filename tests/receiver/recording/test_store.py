"""Finding recordings on disk: which are listed, which are found, which cannot be read."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from receiver.disk import layout
from receiver.errors import NotFoundError, UnreadableError
from receiver.recording import document as recording
from receiver.recording import store
from receiver.recording.document import PreviousRecording, Recording
from receiver.recording.store import Damaged, Kept, RecordingFilter
from receiver.recording.verify import verify
from tests.receiver.helpers import recordings_builder as builder

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


def test_newest_comes_first(three: Path) -> None:
    """Within a day, between days, between years."""
    assert ["aaaa1", "aaaa2", "bbbb3"] == ids(store.select(three, RecordingFilter()))


def test_a_missing_folder_holds_nothing(tmp_path: Path) -> None:
    """Before the first call there may be no folder at all."""
    assert [] == ids(store.select(tmp_path / "missing", RecordingFilter()))


def test_only_published_names_count(three: Path) -> None:
    """Half-rendered folders, the spool, files and other names are no recordings."""
    day = next(three.glob("2026/11/22"))
    (day / ".20261122T203000Z-aaaa444444444444.partial").mkdir()
    (day / "20261122T203000Z-not-hexadecimal-").mkdir()
    (day / "20261122T203000Z-aaaa555555555555").write_text("a file")
    (three / ".spool" / "11" / "22" / "20261122T203000Z-aaaa666666666666").mkdir(parents=True)
    (three / "README.md").write_text("hello")
    assert 3 == len(ids(store.select(three, RecordingFilter())))


def test_links_are_not_followed(three: Path, tmp_path: Path) -> None:
    """A link could lead anywhere, or in circles; it is reported instead."""
    elsewhere = tmp_path / "elsewhere"
    builder.build(elsewhere, recording_id="cccc444444444444")
    (three / "2027").symlink_to(elsewhere / "2026")
    (three / "2026" / "12").symlink_to(elsewhere / "2026" / "11")
    target = next(elsewhere.glob("*/*/*/*"))
    (three / "2026" / "11" / "22" / target.name).symlink_to(target)
    found = list(store.select(three, RecordingFilter()))
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
    (problem,) = ids(store.select(recordings, RecordingFilter()))
    assert os.strerror(errno.ELOOP) in problem


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"\xff\xfe", b'{"id": "\xff"}', b"[" * 5000, b"null", b"\0" * 4096]
)
def test_a_damaged_document_hides_no_other_recording(three: Path, content: bytes) -> None:
    """It is reported in its place, and the listing goes on."""
    folder = store.find(three, "aaaa2222")
    (folder / "recording.json").write_bytes(content)
    first, second, third = store.select(three, RecordingFilter())
    assert isinstance(first, Kept)
    assert isinstance(second, Damaged)
    assert folder == second.folder
    assert second.problem.startswith("not a recording.json")
    assert isinstance(third, Kept)


def test_a_missing_document_is_reported(recordings: Path) -> None:
    """A folder of a recording's name without a document is damage."""
    folder = builder.build(recordings)
    (folder / "recording.json").unlink()
    (problem,) = ids(store.select(recordings, RecordingFilter()))
    assert "recording.json cannot be read: No such file or directory" == problem


def test_a_fifo_makes_nobody_wait(recordings: Path) -> None:
    """Opening one to read would block until somebody writes."""
    folder = builder.build(recordings)
    (folder / "recording.json").unlink()
    os.mkfifo(folder / "recording.json")
    (problem,) = ids(store.select(recordings, RecordingFilter()))
    assert "recording.json cannot be read: not a regular file" == problem


def test_a_file_in_the_place_of_the_folder_is_reported(tmp_path: Path) -> None:
    """That `--recordings` is a file is reported."""
    (tmp_path / "file").write_text("")
    assert ["cannot be read: Not a directory"] == ids(
        store.select(tmp_path / "file", RecordingFilter())
    )


def test_the_document_is_handed_out_as_it_is(recordings: Path) -> None:
    """Fields of later versions are kept in it, and do not stop this one."""
    folder = builder.build(recordings)
    path = folder / "recording.json"
    later = path.read_bytes().replace(b"{", b'{ "added_later": [1, {"x": null}],', 1)
    later = later.rpartition(b',\n  "document_sha256"')[0] + b"\n}\n"  # it would be another one
    path.write_bytes(later)
    assert later == store.read(folder).document
    assert () == verify(folder, store.read(folder).recording)


# Filters


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (RecordingFilter(call_sid="first"), ["aaaa1"]),
        (RecordingFilter(call_sid="none"), []),
        (RecordingFilter(parameters={"n": "5"}), ["aaaa1", "aaaa2"]),
        (RecordingFilter(parameters={"n": "5", "Name": "Jörg"}), ["aaaa2"]),
        (RecordingFilter(parameters={"n": "50"}), []),
        (RecordingFilter(call_sid="first", parameters={"Name": "Jörg"}), []),
        (RecordingFilter(since=NOW - timedelta(minutes=31)), ["aaaa1"]),
        (RecordingFilter(since=NOW - timedelta(minutes=30)), ["aaaa1"]),
        (RecordingFilter(since=NOW - timedelta(minutes=30) + timedelta(milliseconds=1)), []),
        (RecordingFilter(since=NOW - timedelta(days=1)), ["aaaa1", "aaaa2"]),
        (RecordingFilter(since=NOW - timedelta(days=400)), ["aaaa1", "aaaa2", "bbbb3"]),
    ],
)
def test_filters(three: Path, wanted: RecordingFilter, expected: list[str]) -> None:
    """Everything that is set must agree; a number is found by its text."""
    assert expected == ids(store.select(three, wanted))


def test_the_document_decides_where_names_are_coarse(recordings: Path) -> None:
    """A folder's name has no milliseconds."""
    builder.build(recordings, started_at_ms=builder.STARTED_AT_MS + 900)
    started = datetime.fromtimestamp(builder.STARTED_AT_MS / 1000, UTC)
    for passed_ms, count in ((500, 1), (900, 1), (901, 0), (1000, 0)):
        wanted = RecordingFilter(since=started + timedelta(milliseconds=passed_ms))
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
    """UTC where no zone is named."""
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


def test_the_part_behind_a_recording_is_found_among_those_of_its_time(recordings: Path) -> None:
    """Also of the next day, and where it began while the first was open; the first of several."""
    midnight_ms = 1_795_392_000_000
    first = builder.build(recordings, recording_id="a" * 16, started_at_ms=midnight_ms - 5000)
    before = store.read(first).recording
    assert store.next_part(recordings, before) is None
    previous = PreviousRecording("a" * 16, "s", 20)
    for name, after_ms, named in (
        ("b", 2 * HOUR_MS, previous),
        ("c", 60_000, previous),
        ("d", 2_000, previous),
        ("e", 1_000, PreviousRecording("f" * 16, "s", 20)),
        ("9", -1_000, previous),
    ):
        at_ms = midnight_ms - 5000 + after_ms
        builder.build(recordings, recording_id=name * 16, started_at_ms=at_ms, previous=named)
    (recordings / "2026/11/23/20261123T000001Z-0000000000000000").mkdir(parents=True)
    found = store.next_part(recordings, before)
    assert found is not None
    assert "d" * 16 == found.id
