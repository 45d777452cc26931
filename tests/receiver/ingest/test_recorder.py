"""The set of sessions whose sockets are open, and what is done with all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from receiver.counters import Counters, LiveCounts
from receiver.ingest import recorder
from receiver.ingest.live_recording import EarlyMessages, LiveRecording, new_header
from receiver.ingest.recorder import Parts as StreamParts
from receiver.ingest.recorder import Recorder
from receiver.journal.records import EndRecord, Header
from receiver.journal.spool import Spool
from receiver.media import EndReason
from receiver.tap.local_hub import LocalHub
from tests.receiver.helpers.taps import ManualScheduler


@dataclass(eq=False)
class Stream:
    """A session that remembers why it was closed."""

    recording_id: str | None = None
    may_still_record: bool = False
    chunks: int = 0
    unanswered: float = 0.0
    passed: list[float] = field(default_factory=list)
    closings: list[tuple[EndReason, int]] = field(default_factory=list)

    def unanswered_seconds(self, passed: float) -> float:
        self.passed.append(passed)
        return self.unanswered

    def close(self, reason: EndReason, *, code: int, text: str) -> None:
        assert text
        self.closings.append((reason, code))


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
    parts.now += recorder.REMEMBERED_SECONDS + 1
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
