"""One journal between two threads: what it holds, on disks that take little, nothing or lie."""

from __future__ import annotations

import errno
import itertools
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from receiver.disk import files as disk_sync
from receiver.journal import records as journal
from receiver.journal.records import (
    ChunkRecord,
    DroppedRecord,
    EndRecord,
    MessageRecord,
    NoteRecord,
    Reader,
    Record,
)
from receiver.journal.writer import JournalWriter
from receiver.media import Chunk, EndReason, GapKind, Track
from tests.receiver.helpers.disks import Disk, broken
from tests.receiver.helpers.journals import HEADER, chunk, start_message

END = EndRecord(1000, EndReason.STOP, "")
START = MessageRecord(0, start_message())


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """Return the disk that journals of this test are written to."""
    return Disk(monkeypatch)


@pytest.fixture
def live(tmp_path: Path) -> Iterator[JournalWriter]:
    """Return a journal to which nothing but its header was appended."""
    opened = JournalWriter(tmp_path / "a.journal", HEADER)
    yield opened
    opened.close()


def chunks(*numbers: int, track: Track = Track.INBOUND) -> list[ChunkRecord]:
    """Return chunks that differ from each other."""
    return [chunk(n, b"%03d" % n * 50, track=track, timestamp_ms=20 * n) for n in numbers]


def append(live: JournalWriter, *records: Record) -> None:
    """Append as the event loop does."""
    for record in records:
        live.append(journal.encode(record))


def on_disk(live: JournalWriter) -> list[Record]:
    """Return what a crash at this moment would leave, which is never damaged."""
    reader = Reader([live.path.read_bytes()])
    found = [record for _, record in reader]
    assert reader.damage is None
    return found


def sync(live: JournalWriter) -> None:
    """Sync as the two threads do between them, without a failure."""
    live.start_sync()
    live.sync()
    live.mark_synced()


def test_what_was_appended_is_written_in_order(live: JournalWriter) -> None:
    """The header comes first, then every record as it came."""
    append(live, START, *chunks(1, 2))
    written = live.write()
    assert [HEADER, START, *chunks(1, 2)] == on_disk(live)
    assert live.path.stat().st_size == written
    assert 0 == live.write()


def test_memory_lets_go_only_of_what_is_synced(live: JournalWriter) -> None:
    """Written is not safe; held bytes count until the sync."""
    append(live, START)
    size = live.write()
    assert (size, True) == (live.held_bytes, live.unsynced)
    sync(live)
    assert (0, False) == (live.held_bytes, live.unsynced)


def test_a_sync_covers_what_was_written_when_it_began(live: JournalWriter, disk: Disk) -> None:
    """Writing goes on while the disk takes its time, and that is not yet safe."""
    append(live, START)
    live.write()
    live.start_sync()
    append(live, *chunks(1))
    size = live.write()
    live.sync()
    live.mark_synced()
    assert (size, True) == (live.held_bytes, live.unsynced)
    disk.sync_errors = iter([broken()])
    with pytest.raises(OSError, match="Input/output") as failed:
        live.sync()
    live.distrust(failed.value)
    live.rewrite(failed.value)
    assert [HEADER, START, *chunks(1)] == on_disk(live)[:-1]


def test_a_journal_that_ends_while_it_is_looked_at_is_not_finished(
    live: JournalWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event loop may append the last chunks and the end at any moment of the question."""
    live.write()
    sync(live)

    def end_meanwhile(journal: JournalWriter) -> bool:
        if journal._on_ended is None:
            append(journal, *chunks(1))
            journal.end(END, lambda _: None)
        return True

    monkeypatch.setattr(JournalWriter, "ended", property(end_meanwhile))
    assert not live.finished


def test_a_journal_is_finished_once_its_end_is_synced(live: JournalWriter) -> None:
    """`close` calls back once, and only when the disk holds the end."""
    finished: list[Path] = []
    live.end(END, finished.append)
    assert (True, False) == (live.ended, live.finished)
    live.write()
    assert not live.finished
    sync(live)
    assert live.finished
    assert [] == finished
    live.close()
    assert [live.path] == finished


def test_an_unfinished_journal_is_closed_in_silence(live: JournalWriter) -> None:
    """Nobody may publish what the disk does not hold."""
    finished: list[Path] = []
    live.end(END, finished.append)
    live.write()
    live.close()
    assert [] == finished


@pytest.mark.parametrize("room", [0, 1, 40, 300])
def test_what_a_full_disk_did_not_take_is_written_later(
    live: JournalWriter, disk: Disk, room: int
) -> None:
    """Half a block is written again from its start: no record is torn in the middle."""
    append(live, START, *chunks(1))
    disk.room = room
    with pytest.raises(OSError, match="No space"):
        live.write()
    assert live.failing_seconds(1e9) > 0
    disk.room = None
    append(live, *chunks(2))
    live.write()
    assert [HEADER, START, *chunks(1, 2)] == on_disk(live)
    assert 0.0 == live.failing_seconds(1e9)


def test_writes_in_pieces_are_put_together(live: JournalWriter, disk: Disk) -> None:
    """The kernel may take less than it was given."""
    disk.largest_write = 7
    append(live, START, *chunks(1, 2, 3))
    live.write()
    assert [HEADER, START, *chunks(1, 2, 3)] == on_disk(live)


def test_the_folder_entry_is_synced_until_it_works(
    live: JournalWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that a power cut would leave without a name is not safe."""
    asked: list[Path] = []

    def fail_once(folder: Path) -> None:
        asked.append(folder)
        if len(asked) == 1:
            raise broken()

    monkeypatch.setattr(disk_sync, "sync_folder", fail_once)
    live.write()
    assert [] == asked  # it may take long, and what was written survives us without it
    with pytest.raises(OSError, match="Input/output"):
        live.sync()
    sync(live)
    assert [live.path.parent] * 2 == asked
    append(live, START)
    live.write()
    sync(live)
    assert 2 == len(asked)
    assert [HEADER, START] == on_disk(live)


def test_an_existing_file_is_never_overwritten(live: JournalWriter) -> None:
    """Neither is a symbolic link followed."""
    target = live.path.with_name("precious")
    target.write_text("precious")
    live.path.symlink_to(target)
    with pytest.raises(FileExistsError):
        live.write()
    assert "precious" == target.read_text()


def fail_a_sync(live: JournalWriter, disk: Disk) -> OSError:
    """Write a synced and an unsynced part, and let the sync of the latter fail."""
    append(live, START, *chunks(1))
    live.write()
    sync(live)
    append(live, *chunks(2))
    live.write()
    disk.sync_errors = iter([broken()])
    with pytest.raises(OSError, match="Input/output") as failed:
        live.sync()
    live.distrust(failed.value)
    return failed.value


@pytest.mark.parametrize("largest", [2**30, 5])
def test_after_a_failed_sync_the_journal_is_rewritten(
    live: JournalWriter, disk: Disk, largest: int
) -> None:
    """What was synced and what memory holds go to another file, with a note."""
    error = fail_a_sync(live, disk)
    before = live.path.stat().st_ino
    disk.largest_write = largest
    live.rewrite(error)
    assert before != live.path.stat().st_ino
    *kept, note = on_disk(live)
    assert [HEADER, START, *chunks(1, 2)] == kept
    assert isinstance(note, NoteRecord)
    assert "journal_rewritten" == note.code
    assert (0, True, 0.0) == (live.held_bytes, live.trusted, live.failing_seconds(1e9))
    assert disk.synced[-1] == live.path.stat().st_size
    append(live, *chunks(3))
    live.write()
    assert chunks(3) == on_disk(live)[-1:]


def test_a_rewritten_journal_survives_a_power_cut(
    live: JournalWriter, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is synced once the other file bears the name, not before."""
    error = fail_a_sync(live, disk)
    before, fsync, named = live.path.stat().st_ino, os.fsync, []

    def note(descriptor: int) -> None:
        named.append((os.fstat(descriptor).st_ino, live.path.stat().st_ino))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    live.rewrite(error)
    after = live.path.stat().st_ino
    assert before != after
    assert [(live.path.parent.stat().st_ino, after)] == named


def test_a_failed_rewrite_is_tried_until_it_works(live: JournalWriter, disk: Disk) -> None:
    """The kernel reports an error once: a second sync that succeeds proves nothing."""
    error = fail_a_sync(live, disk)
    synced = disk.synced[-1]
    os.truncate(live.path, synced)  # the pages that it could not write are gone
    disk.room = 10
    with pytest.raises(OSError, match="No space"):
        live.rewrite(error)
    assert [live.path] == list(live.path.parent.iterdir())
    disk.room = None
    append(live, *chunks(3))
    live.write()
    with pytest.raises(OSError, match="Input/output"):
        live.sync()
    assert live.held_bytes
    assert live.failing_seconds(1e9) > 0
    live.rewrite(error)
    assert [HEADER, START, *chunks(1, 2, 3)] == on_disk(live)[:-1]


def test_a_rewrite_fails_where_the_synced_part_is_gone(live: JournalWriter, disk: Disk) -> None:
    """A file that was truncated ends in an error, not in an endless copy."""
    error = fail_a_sync(live, disk)
    os.truncate(live.path, 3)
    with pytest.raises(OSError, match="shorter") as failed:
        live.rewrite(error)
    assert errno.EIO == failed.value.errno


def test_dropped_chunks_are_one_row_per_track_with_exact_bounds(
    live: JournalWriter, disk: Disk
) -> None:
    """Messages and the end are kept all the same, and keeping starts with the next write."""
    append(live, START, *chunks(1))
    live.write()
    live.start_dropping("a test")
    append(live, *chunks(3, 4, 2), START, *chunks(7, track=Track.OUTBOUND))
    live.write()
    live.write()
    append(live, *chunks(5))
    live.write()
    rows = [
        DroppedRecord(GapKind.DISK, Track.INBOUND, 3, 2, 4, 40, 80),
        DroppedRecord(GapKind.DISK, Track.OUTBOUND, 1, 7, 7, 140, 140),
    ]
    assert [HEADER, START, *chunks(1), START, *rows, *chunks(5)] == on_disk(live)


def test_messages_are_bounded_too_while_chunks_are_dropped(live: JournalWriter) -> None:
    """A peer that goes on with large ones fills no memory; a note counts what was left out."""
    live.write()
    live.start_dropping("a test")
    append(live, *[MessageRecord(0, b"x" * 200_000)] * 20, START)
    assert live.held_bytes < 1.1 * 2**20
    live.end(END, lambda _: None)
    live.write()
    live.write()
    note = NoteRecord(0, "messages_not_kept", "16 messages while the disk took nothing")
    assert [HEADER, *[MessageRecord(0, b"x" * 200_000)] * 5, END, note] == on_disk(live)


def test_dropping_is_logged_when_it_starts_and_when_it_is_over(live: JournalWriter) -> None:
    """Once each, however often it is started, with how much was held, why, and how many."""
    append(live, START, *chunks(1))
    with capture_logs() as lines:
        live.start_dropping("a test")
        live.start_dropping("another")
        append(live, *chunks(2, 3))
        live.write()
        live.write()
    name = live.path.name
    assert [
        {"event": "dropping_chunks", "journal": name, "reason": "a test"},
        {"event": "chunks_dropped", "journal": name, "chunks": 2},
    ] == [{k: v for k, v in x.items() if k not in ("log_level", "held_bytes")} for x in lines]
    assert lines[0]["held_bytes"] > 0
    assert {"error"} == {line["log_level"] for line in lines}


def test_a_journal_that_held_too_much_drops_until_it_holds_little(live: JournalWriter) -> None:
    """A write that works is not enough: what was written waits for its sync."""
    append(live, *chunks(*range(20)))
    live.start_dropping("a test", resume_bytes=live.held_bytes / 2)
    append(live, *chunks(20))
    live.write()
    append(live, *chunks(21))
    assert live.dropping
    sync(live)
    assert live.held_bytes
    live.write()
    assert not live.dropping
    append(live, *chunks(22))
    live.write()
    row = DroppedRecord(GapKind.DISK, Track.INBOUND, 2, 20, 21, 400, 420)
    assert [row, *chunks(22)] == on_disk(live)[-2:]


def test_an_ended_journal_drops_nothing(live: JournalWriter) -> None:
    """It has no more chunks, and nothing is logged."""
    live.end(END, lambda _: None)
    with capture_logs() as lines:
        live.start_dropping("a test")
    assert [] == lines
    assert not live.dropping


def test_a_journal_that_still_has_dropped_chunks_is_not_finished(live: JournalWriter) -> None:
    """Their bounds belong on disk before it is published."""
    live.write()
    live.start_dropping("a test")
    append(live, *chunks(1))
    live.end(END, lambda _: None)
    live.write()
    sync(live)
    assert not live.finished
    live.write()
    sync(live)
    assert live.finished
    assert isinstance(on_disk(live)[-1], DroppedRecord)


def test_two_threads_lose_nothing_between_them(live: JournalWriter) -> None:
    """Every chunk is kept or counted as dropped while one thread appends and one writes."""
    most = 20_000

    def append_all() -> None:
        for number in range(most):
            live.append(journal.encode_chunk(_as_media(number), 0))

    appending = threading.Thread(target=append_all)
    appending.start()
    for turn in itertools.count():
        alive = appending.is_alive()
        live.write()
        if turn % 3 == 0 and alive:
            live.start_dropping("a test")
        if not alive:
            break
    live.write()
    live.write()
    found = on_disk(live)
    kept = [record.chunk for record in found if isinstance(record, ChunkRecord)]
    dropped = [record for record in found if isinstance(record, DroppedRecord)]
    assert sorted(set(kept)) == sorted(kept)  # type: ignore[type-var]  # all have numbers
    assert most == len(kept) + sum(row.chunks for row in dropped)


def _as_media(number: int) -> Chunk:
    return Chunk(Track.INBOUND, None, number, 20 * number, b"x" * 160)
