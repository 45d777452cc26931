"""The set of sessions whose sockets are open, and what is done with all of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from receiver.counters import Counters, LiveCounts
from receiver.ingest import recorder
from receiver.ingest.live_recording import EarlyMessages, LiveRecording, new_header
from receiver.ingest.recorder import Parts as StreamParts
from receiver.ingest.recorder import PartStore, Recorder
from receiver.journal.records import EndRecord, Header, PartEnd, PreviousPart
from receiver.journal.spool import Spool
from receiver.lifecycle.pauses import Pause
from receiver.media import EndReason, PauseEnd, Track
from receiver.recording.store import REMEMBERED_SECONDS
from receiver.tap.local_hub import LocalHub
from tests.bounds import at_most
from tests.receiver.helpers import journals
from tests.receiver.helpers.taps import ManualScheduler


@dataclass(eq=False)
class Stream:
    """A session that remembers why it was closed."""

    recording_id: str | None = None
    may_still_record: bool = False
    chunks: int = 0
    call_sid: str = ""
    recording: None = None
    unanswered: float = 0.0
    passed: list[float] = field(default_factory=list)
    closings: list[tuple[EndReason, int]] = field(default_factory=list)

    def unanswered_seconds(self, passed: float) -> float:
        self.passed.append(passed)
        return self.unanswered

    def close(self, reason: EndReason, *, code: int, text: str) -> None:
        assert text
        self.closings.append((reason, code))

    def pause(self, pause: Pause) -> None:
        """Do nothing: there is no recording."""

    def resume(self, call_sid: str, end: PauseEnd) -> None:
        """Do nothing: there is no recording."""


class Parts:
    """A recorder, the counts it reported, the journals that ended, and its clock."""

    def __init__(self, folder: Path) -> None:
        self.counts: list[int] = []
        self.ended: list[Path] = []
        self.now = 1000.0
        self.spool = Spool(folder)
        self.recorder = Recorder(
            self.spool,
            LocalHub(ManualScheduler()),
            Counters(),
            journal_ended=self.ended.append,
            changed=self.counts.append,
            now=lambda: self.now,
        )


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    """Return a recorder with a real spool."""
    made = Parts(tmp_path / "spool")
    yield made
    made.spool.close()


def test_every_change_of_the_number_of_sessions_is_reported(parts: Parts) -> None:
    """By the new number; a session that is removed twice is no longer there."""
    one, two = Stream(), Stream()
    parts.recorder.session_opened(one)
    parts.recorder.session_opened(two)
    parts.recorder.session_closed(one)
    assert ([1, 2, 1], {two}) == (parts.counts, parts.recorder.sessions)


def test_only_open_recordings_are_live(parts: Parts) -> None:
    """A session between two recordings counts for nothing; a new one may yet record."""
    parts.recorder.session_opened(Stream())
    assert (LiveCounts(0, 0), False) == (parts.recorder.live(), parts.recorder.may_still_record)
    parts.recorder.session_opened(Stream("a", may_still_record=True, chunks=3))
    parts.recorder.session_opened(Stream("b", may_still_record=True, chunks=4))
    assert (LiveCounts(2, 7), True) == (parts.recorder.live(), parts.recorder.may_still_record)


def test_sessions_without_a_sign_of_life_are_ended(parts: Parts) -> None:
    """Those that have not answered for so long, and no others, however silent they are."""
    dead, silent = Stream(unanswered=10.0), Stream(unanswered=9.9)
    parts.recorder.session_opened(dead)
    parts.recorder.session_opened(silent)
    parts.recorder.end_unanswered(10)
    assert ([(EndReason.IDLE, 1000)], []) == (dead.closings, silent.closings)


def test_time_in_which_the_process_was_stopped_does_not_count(parts: Parts) -> None:
    """Two seconds of it may, since the next check comes before the sockets are read."""
    stream = Stream()
    parts.recorder.session_opened(stream)
    for now in (1001.0, 1002.5, 1200.0):
        parts.now = now
        parts.recorder.end_unanswered(10)
    assert [1.0, 1.5, 2.0] == stream.passed


def test_where_a_stream_ended_is_remembered_for_an_hour(parts: Parts) -> None:
    """Of so many streams, and once: the next part is where the one behind it goes on."""
    memory = StreamParts(lambda: parts.now)
    first, second = live(parts), live(parts)
    assert memory.start(("s", "c"), first) is None
    memory.end(("s", "c"), first, first.as_part((), EndReason.CLOSED))
    found = memory.start(("s", "c"), second)
    assert found is not None
    assert (first.header.recording_id, EndReason.CLOSED) == (found.id, found.reason)
    memory.end(("s", "c"), second, second.as_part((), EndReason.CLOSED))
    parts.now += REMEMBERED_SECONDS + 1
    assert memory.start(("s", "c"), live(parts)) is None


def test_a_part_that_is_still_open_is_known_and_ends_behind_the_next(parts: Parts) -> None:
    """Nobody has noticed yet that its socket is dead; its end is not that of the stream."""
    memory = StreamParts(lambda: parts.now)
    first, second = live(parts), live(parts)
    memory.start(("s", "c"), first)
    found = memory.start(("s", "c"), second)
    assert (first.header.recording_id, None) == (found and found.id, found and found.reason)
    memory.end(("s", "c"), first, first.as_part((), EndReason.IDLE))
    memory.end(("s", "c"), second, second.as_part((), EndReason.STOP))
    last = memory.start(("s", "c"), live(parts))
    assert second.header.recording_id == (last and last.id)


def test_only_so_many_streams_are_remembered(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest are forgotten first."""
    monkeypatch.setattr(recorder, "MOST_REMEMBERED", 10)
    memory = StreamParts(lambda: parts.now)
    for at in range(20):
        made = live(parts)
        memory.start((str(at), ""), made)
        memory.end((str(at), ""), made, made.as_part((), EndReason.STOP))
    known = [at for at in range(20) if memory.start((str(at), ""), live(parts)) is not None]
    assert list(range(10, 20)) == known


def live(parts: Parts) -> LiveRecording:
    """Return an open recording in which nothing has come."""
    header = new_header(parts.recorder.utc_ms())
    journal = parts.recorder.open_journal(header)
    return LiveRecording(header, journal, lambda: parts.now, EarlyMessages(), tuple)


def test_after_the_end_of_all_a_new_session_ends_at_once(parts: Parts) -> None:
    """It was admitted before."""
    before, after = Stream(), Stream()
    parts.recorder.session_opened(before)
    parts.recorder.end_all()
    parts.recorder.session_closed(before)
    parts.recorder.session_opened(after)
    assert [(EndReason.SHUTDOWN, 1001)] == before.closings == after.closings


def test_a_journal_is_handed_on_when_the_disk_holds_all_of_it(parts: Parts) -> None:
    """By its path, once."""
    journal = parts.recorder.open_journal(Header("0" * 16, parts.recorder.utc_ms(), 1, "0"))
    journal.end(EndRecord(0, EndReason.STOP, ""), parts.recorder.journal_ended)
    parts.spool.close()
    assert [journal.path] == parts.ended
    assert journal.path.exists()


# Where streams of other processes stood.

KEY = ("s", "c")


def part(name: str, at_ms: int) -> PreviousPart:
    """Return where a stream stood."""
    ends = {Track.INBOUND: PartEnd(5, 80, 100)}
    return PreviousPart(name * 16, "s", at_ms, ends, 6, EndReason.CLOSED)


async def found_by(store: PartStore, name: str) -> PreviousPart | None:
    """Return which part a new recording finds, if any."""
    found: asyncio.Queue[PreviousPart] = asyncio.Queue()
    store.start(KEY, name * 16, found.put_nowait)
    with contextlib.suppress(TimeoutError):
        return await asyncio.wait_for(found.get(), at_most(2))
    return None


async def test_another_process_finds_where_a_stream_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest part of this stream that is not the recording itself."""
    monkeypatch.setattr(recorder, "_WRITTEN_SECONDS", 0.0)
    here, there = (PartStore(tmp_path / "parts", tmp_path / name) for name in ("1", "2"))
    here.end(KEY, part("a", 1000))
    here.end(KEY, part("b", 3000))
    here.end(KEY, part("c", 2000))
    here.end(("another", "c"), part("d", 4000))
    here.close()
    await asyncio.to_thread(here._thread.shutdown)
    assert part("b", 3000) == await found_by(there, "e")
    there.close()


async def test_a_part_that_is_open_elsewhere_stands_where_its_journal_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came for it after the new one had begun does not count."""
    monkeypatch.setattr(recorder, "_WRITTEN_SECONDS", 0.0)
    here, there = (PartStore(tmp_path / "parts", tmp_path / name) for name in ("1", "2"))
    (tmp_path / "1").mkdir()
    name = journals.HEADER.recording_id
    since_ms = round(time.time() * 1000) - journals.HEADER.started_at_ms
    rows = journals.records(
        [
            *(journals.chunk(n, bytes(160), timestamp_ms=20 * n, arrival_ms=n) for n in range(9)),
            journals.chunk(9, bytes(160), timestamp_ms=180, arrival_ms=since_ms + 3_600_000),
        ]
    )
    journals.write(tmp_path / "1" / f"{name}.journal", rows)
    here.start(KEY, name, print)
    here.close()
    await asyncio.to_thread(here._thread.shutdown)
    found = await found_by(there, "e")
    assert found is not None
    assert (name, PartEnd(8, 160, 180)) == (found.id, found.tracks[Track.INBOUND])
    (tmp_path / "1" / f"{name}.journal").unlink()
    assert await found_by(there, "f") is None
    there.close()


async def test_what_a_receiver_knew_its_successor_loads(tmp_path: Path) -> None:
    """Also of what was open when it was killed; what is old or torn is forgotten."""
    spool, folder = tmp_path / "spool", tmp_path / "spool" / "parts"
    spool.mkdir(0o700)
    before = PartStore(folder, spool)
    before.end(KEY, part("a", 1000))
    before.end(("old", "c"), part("b", 1000))
    before.close()
    await asyncio.to_thread(before._thread.shutdown)
    (old,) = folder.glob(f"*.{'b' * 16}")
    os.utime(old, (1, 1))
    (folder / f"x.{'e' * 16}").write_text("{torn")
    rows = journals.records([journals.chunk(n, bytes(160), timestamp_ms=20 * n) for n in range(9)])
    journals.write(spool / f"{journals.HEADER.recording_id}.journal", rows)
    (spool / f"{'c' * 16}.journal").write_bytes(b"no journal")
    loaded = PartStore(folder, spool).load()
    assert (KEY, part("a", 1000)) == loaded[0]
    ((_, crashed),) = loaded[1:]
    assert (journals.HEADER.recording_id, None) == (crashed.id, crashed.reason)
    assert PartEnd(8, 160, 180) == crashed.tracks[Track.INBOUND]
    assert not old.exists()


async def test_a_folder_that_takes_nothing_costs_the_link_and_nothing_else(tmp_path: Path) -> None:
    """It is logged."""
    store = PartStore(tmp_path / "parts", tmp_path)
    (tmp_path / "parts").rmdir()
    with capture_logs() as lines:
        store.end(KEY, part("a", 1000))
        store.close()
        await asyncio.to_thread(store._thread.shutdown)
    assert ["parts_not_remembered"] == [line["event"] for line in lines]
