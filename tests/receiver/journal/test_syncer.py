"""The syncer: rounds of syncs in a thread of its own, and which of them failed."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from receiver.disk import files
from receiver.journal.spool import MOST_SYNCED_SINGLY, Synced, Syncer
from receiver.journal.writer import JournalWriter
from tests.bounds import at_most
from tests.receiver.helpers.disks import Disk, broken
from tests.receiver.helpers.journals import HEADER

LONGEST_WAIT_SECONDS = at_most(10.0)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """Return the disk that the journals of this test are written to."""
    return Disk(monkeypatch)


class Rounds:
    """A syncer, and the event that its thread sets after each round."""

    def __init__(self, file_system: int) -> None:
        self.over = threading.Event()
        self.syncer = Syncer(file_system, on_done=self.over.set)

    def run(self, journals: list[JournalWriter]) -> Synced:
        """Run one round, and return its outcome."""
        self.over.clear()
        self.syncer.start(journals)
        assert self.syncer.busy
        assert self.over.wait(LONGEST_WAIT_SECONDS)
        synced = self.syncer.collect()
        assert synced is not None
        assert not self.syncer.busy
        assert self.syncer.collect() is None
        return synced


@pytest.fixture
def rounds(tmp_path: Path) -> Iterator[Rounds]:
    """Return what runs rounds of syncs on the disk of `tmp_path`."""
    file_system = os.open(tmp_path, os.O_RDONLY)
    rounds = Rounds(file_system)
    yield rounds
    rounds.syncer.close()
    os.close(file_system)


@pytest.fixture
def journals(tmp_path: Path, disk: Disk) -> Iterator[list[JournalWriter]]:
    """Return so many written journals that one call syncs them all."""
    found = [
        JournalWriter(tmp_path / f"{n}.journal", HEADER) for n in range(MOST_SYNCED_SINGLY + 1)
    ]
    for journal in found:
        journal.write()
    yield found
    for journal in found:
        journal.close()


def test_few_journals_are_synced_singly(
    rounds: Rounds, journals: list[JournalWriter], disk: Disk
) -> None:
    """Each has its own call, and the outcome says how long all of them took."""
    synced = rounds.run(journals[1:])
    assert (journals[1:], []) == (synced.journals, synced.failed)
    assert synced.seconds > 0
    assert MOST_SYNCED_SINGLY == len(disk.synced)


def test_many_journals_are_synced_at_once(
    rounds: Rounds, journals: list[JournalWriter], disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only one of which a sync has failed before still fails, since the one call proves nothing."""
    calls: list[int] = []
    monkeypatch.setattr(files, "sync_file_system", calls.append)
    error = broken()
    journals[0].distrust(error)
    synced = rounds.run(journals)
    assert [(journals[0], error)] == synced.failed
    assert (1, []) == (len(calls), disk.synced)


def test_where_all_at_once_fails_each_is_synced(
    rounds: Rounds, journals: list[JournalWriter], disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is known which of them failed."""

    def fail(_: int) -> None:
        raise broken()

    monkeypatch.setattr(files, "sync_file_system", fail)
    disk.sync_errors = iter([None, broken()])
    synced = rounds.run(journals)
    assert [journals[1]] == [journal for journal, _ in synced.failed]
    assert MOST_SYNCED_SINGLY == len(disk.synced)


def test_a_mistake_of_ours_fails_the_round_and_not_the_thread(
    rounds: Rounds, journals: list[JournalWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not known to be synced counts as failed; the next round works."""

    def fail(_: JournalWriter) -> None:
        raise RuntimeError("a mistake")

    with monkeypatch.context() as patch, capture_logs() as logs:
        patch.setattr(JournalWriter, "sync", fail)
        synced = rounds.run(journals[:2])
    assert journals[:2] == [journal for journal, _ in synced.failed]
    assert ["journal_sync_broken"] == [line["event"] for line in logs]
    assert [] == rounds.run(journals[:2]).failed
