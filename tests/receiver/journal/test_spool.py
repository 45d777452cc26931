"""The spool's threads: when they write and sync, how failures stay apart, how they end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from receiver.disk import files, layout
from receiver.errors import ConfigurationError
from receiver.journal import records, spool
from receiver.journal.records import DroppedRecord, EndRecord, Header, MessageRecord, Reader, Record
from receiver.journal.spool import RunningClock, Spool
from receiver.journal.writer import JournalWriter
from receiver.media import EndReason, GapKind, Track
from tests.bounds import at_most
from tests.receiver.helpers.disks import Disk, broken
from tests.receiver.helpers.journals import STARTED_AT_MS, chunk, start_message

START = MessageRecord(0, start_message())
END = EndRecord(1000, EndReason.STOP, "")
LONGEST_WAIT_SECONDS = at_most(10.0)
NEVER_MS = 60_000

Open = Callable[..., Spool]


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """Return the disk under every spool of the test."""
    return Disk(monkeypatch)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Return what opens the test's spool; it is closed at the end."""
    found: list[Spool] = []

    def open_spool(*, sync_interval_ms: int = 0) -> Spool:
        found.append(Spool(tmp_path / "spool", sync_interval_ms=sync_interval_ms))
        return found[-1]

    yield open_spool
    for one in found:
        one.close()


def until(condition: Callable[[], object]) -> None:
    """Wait for what another thread does; fail when it does not."""
    deadline = time.monotonic() + LONGEST_WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)  # nothing notifies of what a disk holds


def start(spool: Spool, number: int = 0) -> JournalWriter:
    """Open a journal and append its start message."""
    live = spool.open(Header(f"{number:016x}", STARTED_AT_MS, records.VERSION, "0.1.0"))
    live.append(records.encode(START))
    return live


def append(live: JournalWriter, *numbers: int) -> None:
    """Append inbound chunks of these numbers; all are kept, or all dropped."""
    keep = live.append  # the thread may replace it at any moment
    for number in numbers:
        keep(records.encode(chunk(number, b"%03d" % number * 50, timestamp_ms=20 * number)))


def on_disk(live: JournalWriter) -> list[Record]:
    """Return what a crash would leave now."""
    return [record for _, record in Reader([live.path.read_bytes()])] if live.path.exists() else []


def test_header_and_start_are_synced_at_once(opened: Open, disk: Disk) -> None:
    """Before the first interval is over, a power cut leaves a stream that is known by name."""
    live = start(opened(sync_interval_ms=NEVER_MS))
    until(lambda: START in on_disk(live) and disk.synced[-1:] == [live.path.stat().st_size])


def test_later_records_are_written_before_they_are_synced(opened: Open, disk: Disk) -> None:
    """A crash of ours loses less than a power cut."""
    spool = opened(sync_interval_ms=NEVER_MS)
    live = start(spool)
    until(lambda: START in on_disk(live) and disk.synced[-1:] == [live.path.stat().st_size])
    before = len(disk.synced)
    append(live, 1, 2)
    until(lambda: len(on_disk(live)) == 4)
    assert before == len(disk.synced)
    until(lambda: spool.counters.held_bytes > 0)
    spool.close()
    assert live.path.stat().st_size == disk.synced[-1]


def test_an_interval_of_zero_syncs_every_batch(opened: Open, disk: Disk) -> None:
    """What is written is synced in the same round."""
    spool = opened()
    live = start(spool)
    append(live, 1)
    until(lambda: len(on_disk(live)) == 3)
    until(lambda: disk.synced and disk.synced[-1] == live.path.stat().st_size)
    until(lambda: spool.counters.held_bytes == 0 and spool.counters.sync_seconds)
    assert live.path.stat().st_size == spool.counters.written_bytes


def test_an_ended_journal_is_handed_over_when_it_is_safe(opened: Open, disk: Disk) -> None:
    """`on_ended` is called when the disk holds the journal to its end."""
    ended: list[tuple[Path, int]] = []
    live = start(opened(sync_interval_ms=NEVER_MS))
    live.end(END, lambda path: ended.append((path, disk.synced[-1])))
    until(lambda: ended)
    assert [(live.path, live.path.stat().st_size)] == ended
    assert END == on_disk(live)[-1]


def test_many_journals_are_synced_with_one_call(
    opened: Open, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One syncfs for all of them, on a descriptor that lives as long as the spool."""
    calls: list[int] = []
    monkeypatch.setattr(files, "sync_file_system", calls.append)
    spool = opened(sync_interval_ms=NEVER_MS)
    rows = [start(spool, number) for number in range(12)]
    until(lambda: all(START in on_disk(live) for live in rows))
    synced_singly = len(disk.synced)
    for live in rows:
        append(live, 1)
        live.end(END, lambda _: None)
    until(lambda: not any(live.unsynced or not live.finished for live in rows))
    assert len(calls) >= 1
    assert 1 == len(set(calls))
    assert len(disk.synced) - synced_singly < len(rows)


def test_where_one_call_fails_each_file_is_synced(
    opened: Open, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the file whose sync failed is written again."""

    def fail(_: int) -> None:
        raise broken()

    monkeypatch.setattr(files, "sync_file_system", fail)
    monkeypatch.setattr(spool, "MOST_SYNCED_SINGLY", 0)
    running = opened(sync_interval_ms=NEVER_MS)
    rows = [start(running, number) for number in range(3)]
    until(lambda: len(disk.synced) >= 3)
    disk.sync_errors = iter([broken()])
    for live in rows:
        live.end(END, lambda _: None)
    until(lambda: all(live.finished for live in rows))
    notes = [record for live in rows for record in on_disk(live) if type(record).__name__[0] == "N"]
    assert 1 == len(notes)
    assert {"EIO": 1} == running.counters.errors


def test_one_journals_failure_stops_no_other(opened: Open, tmp_path: Path) -> None:
    """A file that cannot be created keeps its stream in memory, and the rest goes on."""
    spool = opened()
    (spool.folder / layout.journal_name(f"{1:016x}")).mkdir()
    with capture_logs() as logs:
        stuck, fine = start(spool, 1), start(spool, 2)
        append(fine, 1)
        until(lambda: len(on_disk(fine)) == 3 and spool.counters.errors["EEXIST"] and logs)
        assert stuck.held_bytes
        stuck.path.rmdir()
        until(lambda: START in on_disk(stuck))
    failures = [line for line in logs if line["event"] == "journal_write_failed"]
    assert 1 <= len(failures) <= 2
    assert spool.counters.errors["EEXIST"] >= 1


def test_a_mistake_of_ours_does_not_end_the_thread(opened: Open) -> None:
    """The callback for a finished journal may raise; later journals are written all the same."""
    spool = opened()

    def fail(_: Path) -> None:
        raise RuntimeError("a mistake")

    with capture_logs() as logs:
        start(spool, 1).end(END, fail)
        until(lambda: any(line["event"] == "journal_round_failed" for line in logs))
    live = start(spool, 2)
    append(live, 1)
    until(lambda: len(on_disk(live)) == 3)


def test_a_full_disk_is_bridged_and_then_the_rest_is_one_row(
    opened: Open, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What memory may hold is written when there is space again; of the rest, the bounds are."""
    spool_ = opened()
    live = start(spool_)
    until(lambda: spool_.counters.held_bytes == 0 and on_disk(live))
    disk.room = 5
    append(live, 1, 2, 3)
    until(lambda: spool_.counters.errors["ENOSPC"])
    monkeypatch.setattr(spool, "MOST_HELD_SECONDS", 0.0)
    until(lambda: live.append != live._queue.append)
    append(live, 4, 5, 6)
    disk.room = None
    until(lambda: any(isinstance(record, DroppedRecord) for record in on_disk(live)))
    row = DroppedRecord(GapKind.DISK, Track.INBOUND, 3, 4, 6, 80, 120)
    assert row == on_disk(live)[-1]
    assert [1, 2, 3] == [getattr(record, "chunk", None) for record in on_disk(live)[2:-1]]


def test_memory_is_bounded_for_all_streams_together(
    opened: Open, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many bytes end the bridging before its time is over, but only of what fails."""
    spool_ = opened()
    live = start(spool_)
    append(live, *range(100))
    until(lambda: spool_.counters.held_bytes == 0 and len(on_disk(live)) == 102)
    disk.room = 0
    monkeypatch.setattr(spool, "MOST_HELD_BYTES", 1000)
    append(live, *range(100, 200))
    until(lambda: live.append != live._queue.append)
    append(live, 200)
    disk.room = None
    until(lambda: isinstance(on_disk(live)[-1], DroppedRecord))
    assert 203 == len(on_disk(live))


def test_a_write_that_hangs_does_not_fill_memory(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the time that may be bridged, chunks are counted instead of kept."""
    monkeypatch.setattr(spool, "MOST_HELD_SECONDS", 0.0)
    monkeypatch.setattr(spool, "_GUARD_INTERVAL_SECONDS", 0.01)
    hanging, go_on = threading.Event(), threading.Event()

    def hang(_: JournalWriter) -> int:
        hanging.set()
        assert go_on.wait(LONGEST_WAIT_SECONDS)
        return 0

    monkeypatch.setattr(JournalWriter, "write", hang)
    live = start(opened())
    assert hanging.wait(LONGEST_WAIT_SECONDS)
    until(lambda: live.dropping)
    append(live, 8, 9)
    monkeypatch.undo()
    go_on.set()
    row = DroppedRecord(GapKind.DISK, Track.INBOUND, 2, 8, 9, 160, 180)
    until(lambda: row in on_disk(live))


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Return an event that is set when the first sync hangs, which it does until the test ends."""
    monkeypatch.setattr(spool, "_GUARD_INTERVAL_SECONDS", 0.01)
    hangs, go_on = threading.Event(), threading.Event()
    files = JournalWriter.sync

    def hang(journal: JournalWriter) -> None:
        hangs.set()
        assert go_on.wait(LONGEST_WAIT_SECONDS)
        files(journal)

    monkeypatch.setattr(JournalWriter, "sync", hang)
    yield hangs
    go_on.set()


def test_writing_goes_on_while_a_sync_hangs(opened: Open, hanging: threading.Event) -> None:
    """What a killed receiver leaves is no older than a batch, however slow the disk is."""
    spool_ = opened()
    live = start(spool_)
    assert hanging.wait(LONGEST_WAIT_SECONDS)
    append(live, 1, 2)
    until(lambda: len(on_disk(live)) == 4)
    late = start(spool_, 2)
    until(lambda: START in on_disk(late))
    assert live.held_bytes
    assert late.held_bytes


def test_journals_count_until_the_disk_holds_their_end(
    opened: Open, hanging: threading.Event
) -> None:
    """Streams that end while the disk hangs still take a file and memory."""
    spool_ = opened()
    for number in range(3):
        start(spool_, number).end(END, lambda _: None)
    assert hanging.wait(LONGEST_WAIT_SECONDS)
    assert 3 == len(spool_)


def test_memory_is_bounded_while_a_sync_hangs(
    opened: Open, hanging: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many bytes end the bridging, also of journals that the thread has not yet seen."""
    monkeypatch.setattr(spool, "MOST_HELD_BYTES", 10_000)
    spool_ = opened()
    live = start(spool_)
    assert hanging.wait(LONGEST_WAIT_SECONDS)
    late = start(spool_, 2)
    append(late, *range(100))
    until(lambda: late.dropping and live.dropping)


BOUNDS = pytest.mark.parametrize(
    ("bound", "most"), [("MOST_HELD_BYTES", 17_500), ("MOST_HELD_BYTES_EACH", 10_000)]
)


@BOUNDS
def test_a_flood_takes_no_other_streams_audio(
    opened: Open,
    hanging: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
    bound: str,
    most: int,
) -> None:
    """Who holds most drops first; the others go on, although the disk hangs."""
    monkeypatch.setattr(spool, bound, most)
    spool_ = opened()
    start(spool_)
    assert hanging.wait(LONGEST_WAIT_SECONDS)
    flood, call = start(spool_, 2), start(spool_, 3)
    append(call, 1)
    append(flood, *range(100))
    until(lambda: flood.dropping)
    assert not call.dropping


@BOUNDS
def test_a_flood_on_a_slow_disk_takes_no_other_streams_audio(
    opened: Open, disk: Disk, monkeypatch: pytest.MonkeyPatch, bound: str, most: int
) -> None:
    """In the writer's own round, too; and when the disk has caught up the flood is kept again."""
    monkeypatch.setattr(spool, bound, most)
    spool_ = opened(sync_interval_ms=NEVER_MS)
    flood, call = start(spool_, 2), start(spool_, 3)
    until(lambda: spool_.counters.held_bytes == 0 and on_disk(flood) and on_disk(call))
    with capture_logs() as lines:
        append(call, 1)
        append(flood, *range(100))
        until(lambda: flood.dropping)
        append(flood, 100)
        append(call, 2)
        until(lambda: len(on_disk(call)) == 4)
        assert not call.dropping
        spool_.close()
    assert not flood.dropping
    logged = [(line["event"], line["journal"]) for line in lines if "journal" in line]
    assert [("dropping_chunks", flood.path.name), ("chunks_dropped", flood.path.name)] == logged
    row = DroppedRecord(GapKind.DISK, Track.INBOUND, 1, 100, 100, 2000, 2000)
    assert row in on_disk(flood)
    assert not any(isinstance(record, DroppedRecord) for record in on_disk(call))


def test_many_who_hold_the_same_drop_only_until_the_rest_has_room(
    opened: Open, hanging: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody stands out, some drop, so that the others need not; not all at once."""
    monkeypatch.setattr(spool, "MOST_HELD_BYTES", 18_000)
    spool_ = opened()
    start(spool_)
    assert hanging.wait(LONGEST_WAIT_SECONDS)
    rows = [start(spool_, number) for number in range(1, 11)]
    for live in rows:
        append(live, *range(10))
    until(lambda: spool_.counters.held_bytes > 18_000)
    spool_._drop_heaviest(spool_._measure())  # the guard may be in the midst of it
    assert 2 <= sum(live.dropping for live in rows) <= 5


def test_counters_are_fresh_while_a_sync_hangs(opened: Open, hanging: threading.Event) -> None:
    """The guard measures what memory holds, and since when, while the writer cannot."""
    spool_ = opened()
    live = start(spool_)
    assert hanging.wait(LONGEST_WAIT_SECONDS)
    before = spool_.counters.held_bytes
    append(live, *range(100))
    until(lambda: spool_.counters.held_bytes > before + 100)
    until(lambda: spool_.counters.held_seconds > 0.05)


def test_a_disk_that_is_too_slow_does_not_fill_memory(
    opened: Open, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where no call fails the bound holds, and what is dropped is one row."""
    monkeypatch.setattr(spool, "MOST_HELD_BYTES", 1000)
    spool_ = opened(sync_interval_ms=NEVER_MS)
    live = start(spool_)
    until(lambda: spool_.counters.held_bytes == 0 and on_disk(live))
    append(live, *range(100))
    until(lambda: live.append != live._queue.append)
    append(live, 100, 101)
    spool_.close()
    row = DroppedRecord(GapKind.DISK, Track.INBOUND, 2, 100, 101, 2000, 2020)
    assert row in on_disk(live)


def test_closing_writes_and_syncs_everything(opened: Open, disk: Disk) -> None:
    """Also what was appended a moment before; closing again does nothing."""
    spool = opened(sync_interval_ms=NEVER_MS)
    rows = [start(spool, number) for number in range(3)]
    for live in rows:
        append(live, 1)
    spool.close()
    spool.close()
    assert [3, 3, 3] == [len(on_disk(live)) for live in rows]
    assert sum(live.path.stat().st_size for live in rows) == spool.counters.written_bytes


def test_the_end_waits_for_a_full_disk_only_so_long(
    opened: Open, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is then lost is logged."""
    monkeypatch.setattr(spool, "LONGEST_CLOSE_SECONDS", 0.1)
    disk.room = 0
    spool_ = opened()
    live = start(spool_)
    with capture_logs() as logs:
        spool_.close()
    lost = [line for line in logs if line["event"] == "audio_lost"]
    assert [live.path.name] == [line["journal"] for line in lost]
    assert lost[0]["bytes"] > 0


def test_the_end_waits_only_as_long_as_it_is_given(opened: Open, disk: Disk) -> None:
    """A shutdown has one deadline, and most of it may be used up by then."""
    disk.room = 0
    spool_ = opened()
    start(spool_)
    with capture_logs() as logs:
        spool_.close(0.1)
        spool_.close(LONGEST_WAIT_SECONDS)
    assert 1 == len([line for line in logs if line["event"] == "audio_lost"])


def test_the_end_does_not_wait_for_a_disk_that_hangs(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process can end, and logs what it could not save; the spool stays locked until then."""
    monkeypatch.setattr(spool, "LONGEST_CLOSE_SECONDS", 0.0)
    monkeypatch.setattr(spool, "_LAST_ROUND_SECONDS", 0.05)
    go_on = threading.Event()
    monkeypatch.setattr(JournalWriter, "sync", lambda _: go_on.wait(LONGEST_WAIT_SECONDS) and None)
    spool_ = opened()
    live = start(spool_)
    until(lambda: on_disk(live))
    with capture_logs() as logs:
        spool_.close()
    assert ["the disk hangs"] == [line["reason"] for line in logs if line["event"] == "audio_lost"]
    with pytest.raises(ConfigurationError, match="in use"):
        opened()
    monkeypatch.undo()
    go_on.set()
    live.close()  # as the end of the process does


def test_a_spool_has_one_owner(opened: Open) -> None:
    """A second receiver is refused until the first has gone."""
    first = opened()
    with pytest.raises(ConfigurationError, match="in use by another receiver"):
        opened()
    first.close()
    opened()


def test_a_pause_of_the_process_is_no_time() -> None:
    """However long it was stopped: a second and a bit passed, for whoever looks first."""
    seconds = [100.0]
    clock = RunningClock(lambda: seconds[0])
    for _ in range(10):
        seconds[0] += 1
        assert clock.now() == pytest.approx(seconds[0] - 100)
        clock.tick()
    seconds[0] += 3600
    assert clock.now() < 12
    clock.tick()
    assert clock.now() < 12
    seconds[0] += 1
    assert 12 < clock.now() < 13


def test_a_disk_that_takes_one_journal_not_is_stalled_until_it_does(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As without an inode: other journals are written, and there are free bytes."""
    monkeypatch.setattr(spool, "STALLED_SECONDS", 0.3)
    spool_ = opened()
    blocked = spool_.folder / layout.journal_name(f"{1:016x}")
    blocked.mkdir()
    fine = start(spool_, 2)
    until(lambda: START in on_disk(fine))
    assert not spool_.counters.stalled
    with capture_logs() as logs:
        stuck = start(spool_, 1)
        until(lambda: spool_.counters.stalled)
        blocked.rmdir()
        until(lambda: not spool_.counters.stalled)
    assert START in on_disk(stuck)
    events = [line["event"] for line in logs]
    assert 1 == events.count("disk_stalled") == events.count("disk_writes_again")


def test_a_write_that_hangs_stalls_the_disk(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing has failed yet: the guard sees it while the writer cannot."""
    monkeypatch.setattr(spool, "STALLED_SECONDS", 0.3)
    monkeypatch.setattr(spool, "_GUARD_INTERVAL_SECONDS", 0.01)
    go_on = threading.Event()
    monkeypatch.setattr(JournalWriter, "write", lambda _: int(not go_on.wait(LONGEST_WAIT_SECONDS)))
    spool_ = opened()
    start(spool_)
    until(lambda: spool_.counters.stalled)
    go_on.set()
    monkeypatch.undo()
    until(lambda: not spool_.counters.stalled)


@pytest.mark.parametrize(
    ("limit", "value"), [("LONGEST_SYNC_SECONDS", 0.0), ("_STALLED_BYTES", 0.0)]
)
def test_what_memory_holds_stalls_the_disk(
    opened: Open,
    hanging: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
    value: float,
) -> None:
    """Too old or too much, while a sync hangs and every write succeeds."""
    monkeypatch.setattr(spool, limit, value)
    spool_ = opened()
    append(start(spool_), 1)
    assert hanging.wait(LONGEST_WAIT_SECONDS)
    until(lambda: spool_.counters.stalled)
