"""The thread that follows: what is published is found soon, also after whatever went wrong."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from receiver.catalogue import catalogue as module
from receiver.catalogue import database, upkeep
from receiver.catalogue.catalogue import Catalogue, Follower
from receiver.catalogue.query import parse
from receiver.recording import publication_log
from tests.bounds import at_most
from tests.receiver.helpers import recordings_builder as builder
from tests.receiver.helpers.postgres import PostgresServer

WAIT_SECONDS = at_most(20)


def put(recordings: Path, number: int, *, logged: bool = True) -> None:
    """Publish a recording, as far as the catalogue looks at it."""
    made = builder.put(recordings, f"{number:08x}00000000")
    if logged:
        publication_log.append(recordings, made)


def total(catalogue: Catalogue) -> int:
    """Return how many recordings there are."""
    return catalogue.page(parse([], datetime.now(UTC)), {}).total


def wait_for(condition: Callable[[], bool]) -> None:
    """Return when something is so."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)  # there is no event for it


@pytest.fixture
def followed(
    url: str | None, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Catalogue]:
    """Yield a catalogue that a thread follows with, which is quick to try again."""
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(module, "_BACK_OFF_SECONDS", (0.01,))
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    recordings.mkdir(0o700)
    put(recordings, 1, logged=False)
    catalogue = Catalogue(url, recordings)
    follower = Follower(catalogue)
    follower.start()
    yield catalogue
    assert follower.close(WAIT_SECONDS)
    assert follower.close(WAIT_SECONDS)
    catalogue.close()


def test_it_follows_from_the_first_folder_on(followed: Catalogue, recordings: Path) -> None:
    """What was there, what is published, and once an hour what hands have done."""
    wait_for(lambda: total(followed) == 1)
    put(recordings, 2)
    wait_for(lambda: total(followed) == 2)
    put(recordings, 3, logged=False)
    put(recordings, 4)
    wait_for(lambda: total(followed) == 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upkeep, "RECONCILE_SECONDS", 0)
        wait_for(lambda: total(followed) == 4)


def test_what_is_published_does_not_wait_for_the_comparison(
    recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which takes long at a million folders: the log is read in between; and it can be closed."""
    monkeypatch.setattr(upkeep, "BATCH", 1)
    recordings.mkdir(0o700)
    with Catalogue(None, recordings) as catalogue:
        follower = Follower(catalogue)
        for number in range(3):
            put(recordings, number, logged=False)
        seen: list[int] = []

        def progress(count: int) -> None:
            put(recordings, 10 + count)
            follower._between_batches(count)
            seen.append(total(catalogue))

        catalogue.reconcile(progress)
        assert [2, 4, 6] == seen
        follower.close()
        with pytest.raises(module._Closed):
            follower._between_batches(1)


def test_whoever_closes_it_waits_for_no_database(recordings: Path) -> None:
    """One that is locked, or a disk that hangs, holds the thread and nobody else."""
    recordings.mkdir(0o700)
    put(recordings, 1)
    with Catalogue(None, recordings) as catalogue:
        other = sqlite3.connect(recordings / database.FOLDER / database.FILE)
        other.execute("BEGIN IMMEDIATE")
        follower = Follower(catalogue)
        follower.start()
        assert not follower.close(0.05)
        other.close()
        assert follower.close(WAIT_SECONDS)


def test_a_locked_database_is_waited_for(recordings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is logged once, and when it is over; reading goes on all the time."""
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(module, "_BACK_OFF_SECONDS", (0.01,))
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.02)
    recordings.mkdir(0o700)
    put(recordings, 1)
    with Catalogue(None, recordings) as catalogue, capture_logs() as logged:
        catalogue.reconcile()
        other = sqlite3.connect(recordings / database.FOLDER / database.FILE, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        put(recordings, 2)
        follower = Follower(catalogue)
        follower.start()
        wait_for(lambda: follower._failures > 3)
        assert 1 == total(catalogue)
        other.close()
        wait_for(lambda: total(catalogue) == 2)
        wait_for(lambda: not follower._failures)
        follower.close()
    events = [line["event"] for line in logged]
    assert ["catalogue_unavailable", "catalogue_available"] == events
    assert "locked" in logged[0]["error"]


@pytest.mark.needs("postgres", "initdb")
def test_a_server_that_is_away_is_waited_for(
    postgres: PostgresServer, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For as long as it takes; then all of it is there."""
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(module, "_BACK_OFF_SECONDS", (0.05,))
    recordings.mkdir(0o700)
    with Catalogue(postgres.create_database(), recordings) as catalogue:
        follower = Follower(catalogue)
        follower.start()
        wait_for(catalogue.is_reconciled)
        postgres.stop()
        try:
            for number in range(5):
                put(recordings, number)
            wait_for(lambda: follower._failures > 2)
        finally:
            postgres.start()
        wait_for(lambda: total(catalogue) == 5)
        follower.close()
        assert catalogue.check().is_whole


def test_a_mistake_of_ours_does_not_end_it(
    recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged with its traceback, and tried again."""
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(module, "_BACK_OFF_SECONDS", (0.01,))
    recordings.mkdir(0o700)
    with Catalogue(None, recordings) as catalogue, capture_logs() as logged:
        times = 0

        def fails() -> None:
            nonlocal times
            times += 1
            if times < 3:
                raise ZeroDivisionError

        monkeypatch.setattr(catalogue, "catch_up", fails)
        follower = Follower(catalogue)
        follower.start()
        wait_for(lambda: times > 3)
        follower.close()
    assert 2 == [line["event"] for line in logged].count("catalogue_failed")
