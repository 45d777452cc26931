"""Retention carried out: by the catalogue, and again by the files, in simulated time."""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from receiver.catalogue.catalogue import Catalogue
from receiver.config.settings import Config, RetentionRule
from receiver.disk import layout
from receiver.errors import ConfigurationError, RemovalError
from receiver.lifecycle import expiry
from receiver.lifecycle.acts import Acts
from receiver.lifecycle.expiry import Retention, RetentionThread
from receiver.lifecycle.ledger import Ledger
from receiver.recording import store
from tests.bounds import at_most
from tests.receiver.helpers import recordings_builder as builder

DAY = 86_400_000
START = 1_700_000_000_000
COUNT = int(os.environ.get("TAPREEL_RETENTION_COUNT", "60"))
SALES = RetentionRule(match=("param.queue=sales",), keep="30d")
REST = RetentionRule(keep="90d")


class Store:
    """A folder of recordings, its catalogue, and a clock that the tests set."""

    def __init__(self, recordings: Path, **settings: Any) -> None:
        recordings.mkdir()
        self.recordings = recordings
        settings.setdefault("retention", (SALES, REST))
        settings.setdefault("retention_max_share", 100)
        self.config = Config(recordings=recordings, spool=recordings / ".spool", **settings)
        self.catalogue = Catalogue(None, recordings)
        self.now_ms = START
        self.retention = Retention(self.config, self.catalogue, now_ms=lambda: self.now_ms)

    def put(self, number: int, *, day: float = 0, queue: str = "sales", **fields: Any) -> Path:
        """Put a recording of a day of the simulated time; return its folder."""
        at = round(START + day * DAY)
        folder = builder.put(
            self.recordings,
            f"{number:016x}",
            started_at_ms=at,
            parameters={"queue": queue},
            **fields,
        )
        os.utime(folder / layout.RECORDING_JSON, (at / 1000, at / 1000))
        return folder

    def at(self, day: float) -> None:
        """Set the clock."""
        self.now_ms = round(START + day * DAY)

    def planned(self) -> list[tuple[int, str]]:
        """Return what would be deleted, with the rules."""
        self.catalogue.reconcile()
        plan = self.retention.plan()
        return [(int(each.facts.id, 16), each.rule) for each in plan.expired]

    def left(self) -> set[int]:
        """Return what is there."""
        found = (path for path in store.folders(self.recordings) if isinstance(path, Path))
        return {int(layout.recording_id_of(path) or "", 16) for path in found}


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Store]]:
    """Return what makes a store."""
    made: list[Store] = []

    def store_of(**settings: Any) -> Store:
        made.append(Store(tmp_path / f"recordings{len(made)}", **settings))
        return made[-1]

    yield store_of
    for each in made:
        each.catalogue.close()


def test_each_rule_deletes_what_is_its_own(make: Callable[..., Store]) -> None:
    """When its time is over, with a tombstone and an entry that name the rule."""
    found = make()
    found.put(1)
    found.put(2, queue="support")
    found.put(3, day=10)
    found.at(29.9)
    assert [] == found.planned()
    found.at(31)
    assert [(1, "param.queue=sales: 30d")] == found.planned()
    outcome = found.retention.run()
    assert (1, 0, 0) == (outcome.deleted, outcome.kept, outcome.failed)
    assert {2, 3} == found.left()
    (tombstone,) = store.tombstones(found.recordings)
    assert ("param.queue=sales: 30d", "retention") == (tombstone.rule, tombstone.via)
    (entry,) = Ledger(found.recordings).read()
    assert ("deleted", "param.queue=sales: 30d") == (entry.what, entry.details["rule"])
    found.at(91)
    assert [(2, "all: 90d"), (3, "param.queue=sales: 30d")] == found.planned()
    assert 2 == found.retention.run().deleted
    assert set() == found.left()
    assert 0 == found.retention.run().deleted


def test_what_is_held_or_in_use_stays(make: Callable[..., Store]) -> None:
    """Also what is held between the plan and the act, and what an old catalogue knows wrong."""
    found = make()
    folders = [found.put(number) for number in range(1, 5)]
    bob = Acts(found.recordings, who="bob", via="console")
    bob.hold(folders[0], "case 1")
    for what in ("fetched", "downloaded"):
        Ledger(found.recordings).append(what, who="bob", via="api", recording=f"{2:016x}")
    found.at(100)
    assert {3, 4} == {number for number, _ in found.planned()}
    assert [2] == [int(each.facts.id, 16) for each in found.retention.plan().in_use]
    found.catalogue.catch_up()
    late = found.retention.plan()
    (folders[2] / layout.ANNOTATIONS_JSON).write_text(
        '{"hold": {"reason": "x", "by": "bob", "at": "2026-01-01T00:00:00Z"}}'
    )
    assert {3, 4} == {int(each.facts.id, 16) for each in late.expired}
    outcome = found.retention.run()
    assert (1, 1) == (outcome.deleted, outcome.kept)
    assert {1, 2, 3} == found.left()


def test_a_document_that_was_written_lately_is_not_old(make: Callable[..., Store]) -> None:
    """Whatever it says of itself: a copy, or a sender whose clock was wrong."""
    found = make()
    folder = found.put(1)
    found.at(100)
    os.utime(folder / layout.RECORDING_JSON, (found.now_ms / 1000 - 3600,) * 2)
    assert [] == found.planned()
    os.utime(folder / layout.RECORDING_JSON, (START / 1000, START / 1000))
    assert [1] == [number for number, _ in found.planned()]


def test_a_clock_that_jumps_deletes_nothing(make: Callable[..., Store]) -> None:
    """More than the share that may go at once: one error says how many, and what to do."""
    found = make(retention_max_share=10)
    for number in range(20):
        found.put(number, day=number)
    found.at(31.5)
    found.catalogue.reconcile()
    assert 2 == found.retention.run().deleted
    found.at(4000)
    with pytest.raises(RemovalError, match="18 of 18 recordings would be deleted at once"):
        found.retention.run()
    assert 18 == len(found.left())
    assert 18 == found.retention.run(max_share=100).deleted


def test_space_is_made_of_the_oldest_that_nothing_protects(make: Callable[..., Store]) -> None:
    """By size, or by what must be free; where rules protect all, it is said how much is wanting."""
    keep = RetentionRule(match=("param.queue=keep",), keep="forever")
    (size,) = {path.stat().st_blocks * 512 for path in make().put(1).iterdir()}
    found = make(retention=(keep,), retention_max_bytes=3 * size)
    for number in range(1, 6):  # of a block each
        found.put(number, day=number, queue="keep" if number == 2 else "sales")
    found.at(5.5)
    assert [(1, "space: retention_max_bytes"), (3, "space: retention_max_bytes")] == found.planned()
    assert 2 == found.retention.run().deleted
    assert {2, 4, 5} == found.left()
    full = make(retention=(), retention_min_free=2**60)
    for number in range(1, 4):
        full.put(number, day=number)
    full.at(3.5)
    assert [1, 2] == [number for number, _ in full.planned()]
    assert full.retention.plan().wanting > 2**59
    nothing = make(retention=())
    assert not nothing.retention.is_asked_for
    assert [] == nothing.planned()


def test_a_folder_that_is_gone_or_damaged_holds_nothing_up(make: Callable[..., Store]) -> None:
    """It is counted, and the others are deleted."""
    found = make()
    folders = [found.put(number) for number in range(1, 4)]
    found.at(100)
    found.catalogue.reconcile()
    shutil.rmtree(folders[0])
    (folders[1] / layout.RECORDING_JSON).write_text("{")
    os.utime(folders[1] / layout.RECORDING_JSON, (START / 1000, START / 1000))
    outcome = found.retention.run()
    assert (1, 2) == (outcome.deleted, outcome.kept + outcome.failed)


def test_rules_that_cannot_be_used_stop_the_start(make: Callable[..., Store]) -> None:
    """Nobody should believe in a rule that matches nothing."""
    with pytest.raises(ConfigurationError, match="retention 1: match: 'quue'"):
        make(retention=(RetentionRule(match=("quue=1",), keep="30d"),))


def test_it_runs_by_itself_and_once_an_hour(make: Callable[..., Store]) -> None:
    """However many consoles there are; and what a crash left is finished."""
    found = make()
    for number in (1, 2):
        found.put(number)
    found.at(100)
    found.catalogue.reconcile()
    thread = RetentionThread(found.config, found.retention)
    thread.start()
    try:
        deadline = time.monotonic() + at_most(20)
        while found.left() and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        thread.close()
    assert set() == found.left()
    found.put(3)
    found.catalogue.reconcile()
    other = RetentionThread(found.config, found.retention)
    assert 0 < other._work() <= expiry.EVERY_SECONDS
    assert {3} == found.left()
    os.utime(found.recordings / ".tombstones" / "retention", (time.time() - 3601,) * 2)
    assert expiry.EVERY_SECONDS == other._work()
    assert set() == found.left()


def test_it_ends_between_two_recordings(make: Callable[..., Store]) -> None:
    """When the console ends."""
    found = make()
    found.put(1)
    found.at(100)
    found.catalogue.reconcile()
    stop = threading.Event()
    stop.set()
    assert 0 == found.retention.run(stop=stop).deleted
    assert {1} == found.left()


def test_a_year_of_rules(make: Callable[..., Store]) -> None:
    """Every week exactly those are there that the rules, holds and ages leave; 10,000 by request.

    `TAPREEL_RETENTION_COUNT=10000` is how many.
    """
    found, source = make(), random.Random(1)
    queues = ["sales", "support"]
    started = [source.uniform(0, 365) for _ in range(COUNT)]
    queue_of = [source.choice(queues) for _ in range(COUNT)]
    held = {number for number in range(COUNT) if source.random() < 0.02}
    bob = Acts(found.recordings, who="bob", via="console")
    for number in range(COUNT):
        folder = found.put(number, day=started[number], queue=queue_of[number])
        if number in held:
            bob.hold(folder, "case 1")
    found.catalogue.reconcile()
    alive = set(range(COUNT))
    for week in range(1, 66):
        day = 7 * week
        found.at(day)
        found.retention.run()
        alive = {
            number
            for number in alive
            if number in held or day - started[number] < (30 if queue_of[number] == "sales" else 90)
        }
        assert alive == found.left(), week
    assert held == found.left()
