"""Rows follow files: from the log, by comparing, anew; and all of these give the same rows."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from receiver.catalogue import postings, rows, upkeep
from receiver.catalogue.catalogue import Catalogue
from receiver.catalogue.query import parse
from receiver.catalogue.schema import marks, metadata
from receiver.catalogue.schema import recordings as table
from receiver.catalogue.upkeep import Changes
from receiver.disk import layout
from receiver.errors import CatalogueError, ConfigurationError
from receiver.recording import annotations as notes
from receiver.recording import publication_log
from receiver.recording.publication_log import DELETED
from tests.receiver.helpers import recordings_builder as builder

NOW = datetime(2026, 12, 1, tzinfo=UTC)
DAY_MS = 86_400_000
AT = "2026-12-01T00:00:00Z"


def recording_id(number: int) -> str:
    """Return the id of one of many recordings."""
    return f"{number:08x}deadbeef"


def put(folder: Path, number: int, *, logged: bool = True, **fields: Any) -> Path:
    """Publish a recording, as far as the catalogue looks at it."""
    made = builder.put(
        folder,
        recording_id(number),
        started_at_ms=builder.STARTED_AT_MS + number * DAY_MS // 3,
        parameters={"number": str(number), "queue": "sales"},
        **fields,
    )
    if logged:
        publication_log.append(folder, made)
    return made


@pytest.fixture
def catalogue(url: str | None, recordings: Path) -> Iterator[Catalogue]:
    """Yield an empty catalogue."""
    recordings.mkdir(0o700)
    made = Catalogue(url, recordings)
    yield made
    made.close()


def contents(catalogue: Catalogue) -> list[dict[str, Any]]:
    """Return all rows, with all of their columns."""
    with catalogue.database.reading() as connection:
        selected = sa.select(table).order_by(table.c.n)
        return [dict(row) for row in connection.execute(selected).mappings()]


def ids(catalogue: Catalogue, *words: tuple[str, str]) -> list[str]:
    """Return the ids that a search finds."""
    page = catalogue.page(parse([("limit", "500"), *words], NOW), {})
    return [row.id for row in page.rows]


def label(folder: Path, name: str) -> None:
    """Add a label."""
    notes.change(folder, lambda now: notes.add_label(now, name, by="ana", at=AT))


def written_by_hand(folder: Path, name: str) -> None:
    """Add a label past the code that would log it."""
    (folder / layout.ANNOTATIONS_JSON).write_bytes(
        msgspec.json.encode(notes.Annotations(labels=(notes.Label(name, "ana", AT),)))
    )


def test_what_is_published_is_found(catalogue: Catalogue, recordings: Path) -> None:
    """Each once, however often the log names it."""
    first = put(recordings, 1)
    assert 1 == catalogue.catch_up().added
    publication_log.append(recordings, first)
    put(recordings, 2)
    changes = catalogue.catch_up()
    assert (1, 0, 0) == (changes.added, changes.changed, changes.removed)
    assert [recording_id(2), recording_id(1)] == ids(catalogue)
    assert 0 == catalogue.catch_up().total
    assert 0 == catalogue.status().unread_bytes
    assert catalogue.check().is_whole


def test_what_is_changed_or_deleted_is_too(catalogue: Catalogue, recordings: Path) -> None:
    """The log says which; the folder says how."""
    folders = [put(recordings, number) for number in range(3)]
    catalogue.catch_up()
    label(folders[0], "checked")
    shutil.rmtree(folders[1])
    publication_log.append(recordings, folders[1], DELETED)
    changes = catalogue.catch_up()
    assert (0, 1, 1) == (changes.added, changes.changed, changes.removed)
    assert [recording_id(2), recording_id(0)] == ids(catalogue)
    assert [recording_id(0)] == ids(catalogue, ("label", "checked"))
    assert catalogue.check().is_whole


def test_what_hands_have_done_is_found_by_comparing(catalogue: Catalogue, recordings: Path) -> None:
    """Put there, changed, removed, moved: none of it is in the log."""
    folders = [put(recordings, number) for number in range(4)]
    catalogue.catch_up()
    put(recordings, 9, logged=False)
    builder.change_document(folders[0], call_sid="changed")
    written_by_hand(folders[1], "checked")
    shutil.rmtree(folders[2])
    elsewhere = recordings / "2027/01/01" / folders[3].name
    elsewhere.parent.mkdir(parents=True)
    folders[3].rename(elsewhere)
    found = catalogue.check()
    assert (5 - 1, 2, 2, 2) == (found.checked, found.missing, found.outdated, found.left_over)
    assert not found.is_whole
    changes = catalogue.reconcile()
    assert (1, 3, 1) == (changes.added, changes.changed, changes.removed)
    assert catalogue.check().is_whole
    assert [recording_id(0)] == ids(catalogue, ("call", "changed"))
    assert [recording_id(1)] == ids(catalogue, ("label", "checked"))
    assert "2027/01/01" == str(Path(catalogue.get(recording_id(3), {}).folder).parent)
    assert 0 == catalogue.reconcile().total


def test_rebuilding_gives_what_living_did(catalogue: Catalogue, recordings: Path) -> None:
    """Every column of every row, and labels, notes and holds, which are in files."""
    for number in range(30):
        folder = put(recordings, number, duration_ms=number * 1000.0)
        if number % 3 == 0:
            label(folder, f"label {number % 2}")
        if number % 7 == 0:
            notes.change(folder, lambda now: notes.set_hold(now, "claim", by="ana", at=AT))
        if number % 4 == 0:
            catalogue.catch_up()
        if number % 7 == 0:
            catalogue.touch(recording_id(number))
    shutil.rmtree(folder)
    publication_log.append(recordings, folder, DELETED)
    catalogue.catch_up()
    before = contents(catalogue)
    searches = [
        [("label", "label 0")],
        [("held", "yes")],
        [("q", "clai")],
        [("min_duration", "20")],
    ]
    found = [ids(catalogue, *words) for words in searches]
    told: list[int] = []
    changes = catalogue.rebuild(told.append)
    assert 29 == changes.added == told[-1]
    assert before == contents(catalogue)
    assert found == [ids(catalogue, *words) for words in searches]
    assert catalogue.is_reconciled()


def test_rebuilding_touches_nothing_else(catalogue: Catalogue, recordings: Path) -> None:
    """Accounts are in no file: whatever is no recording stays."""
    with catalogue.database.writing() as connection:
        values = {"name": "another", "file": "x", "position": 7, "reconciled_ms": 0}
        connection.execute(sa.insert(marks).values(**values))
        others = set(metadata.tables) - {"recordings", "vocabulary", "marks"}
        before = {
            name: connection.execute(sa.select(metadata.tables[name])).all() for name in others
        }
    put(recordings, 1)
    catalogue.rebuild()
    with catalogue.database.reading() as connection:
        kept = connection.execute(sa.select(marks.c.position).where(marks.c.name == "another"))
        assert 7 == kept.scalar()
        after = {
            name: connection.execute(sa.select(metadata.tables[name])).all() for name in others
        }
    assert before == after


def test_a_thousand_files_put_there_by_hand_appear(catalogue: Catalogue, recordings: Path) -> None:
    """In parts, and all of them."""
    for number in range(1000):
        put(recordings, number, logged=False)
    assert 1000 == catalogue.rebuild().added
    assert 1000 == catalogue.status().recordings
    assert 500 == len(ids(catalogue))
    assert [recording_id(77)] == ids(catalogue, ("param.number", "77"))


def test_a_disk_that_is_not_mounted_takes_no_row_away(
    catalogue: Catalogue, recordings: Path
) -> None:
    """Most folders are gone at once; hands remove a few, and those of them go."""
    folders = [put(recordings, number) for number in range(30)]
    catalogue.reconcile()
    (year,) = (each for each in recordings.iterdir() if each.name.isdigit())
    year.rename(recordings / "elsewhere")
    changes = catalogue.reconcile()
    assert (30, 0, 30) == (changes.kept, changes.total, catalogue.status().recordings)
    assert catalogue.is_reconciled()
    (recordings / "elsewhere").rename(year)
    changes = catalogue.reconcile()
    assert (0, 0, 30) == (changes.kept, changes.total, catalogue.status().recordings)
    for folder in folders[:12]:
        shutil.rmtree(folder)
    changes = catalogue.reconcile()
    assert (0, 12, 18) == (changes.kept, changes.removed, catalogue.status().recordings)
    year.rename(recordings / "elsewhere")
    assert 18 == catalogue.reconcile().kept
    assert (0, 0) == (catalogue.rebuild().kept, catalogue.status().recordings)


def test_what_cannot_be_read_is_told_and_hides_nothing(
    catalogue: Catalogue, recordings: Path
) -> None:
    """Neither itself, where it was known before, nor others."""
    known, other, strange = (put(recordings, number) for number in range(3))
    catalogue.catch_up()
    (known / layout.RECORDING_JSON).write_text("{}")
    (strange / layout.ANNOTATIONS_JSON).write_text("nonsense")
    put(recordings, 5, started_at="the day before yesterday")
    (put(recordings, 6) / layout.RECORDING_JSON).unlink()
    builder.change_document(put(recordings, 7), id=recording_id(8))
    (recordings / "2026" / "99").symlink_to(recordings)
    changes = catalogue.catch_up()
    assert 3 == changes.unreadable
    changes = catalogue.reconcile()
    assert 5 == changes.unreadable == len(changes.problems)
    assert [recording_id(n) for n in (2, 1, 0)] == ids(catalogue)
    assert catalogue.get(recording_id(2), {}).held  # nobody can say that it is not
    checked = catalogue.check()
    assert checked.is_whole
    assert 5 == checked.unreadable == len(checked.problems)
    assert other.is_dir()


def test_a_folder_is_read_again_when_it_changed_meanwhile(
    catalogue: Catalogue, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read behind the fingerprint may be newer, never older, than what that says."""
    folder, real = put(recordings, 1), rows.fingerprint

    def fingerprint(path: Path) -> str:
        seen = real(path)
        monkeypatch.undo()
        written_by_hand(folder, "meanwhile")
        return seen

    monkeypatch.setattr(rows, "fingerprint", fingerprint)
    catalogue.catch_up()
    assert 1 == catalogue.reconcile().changed
    assert catalogue.check().is_whole


def test_an_index_that_has_lost_something_is_noticed(
    catalogue: Catalogue, recordings: Path
) -> None:
    """A row that no search finds is no row; rebuilding mends it."""
    put(recordings, 1)
    catalogue.catch_up()
    with catalogue.database.writing() as connection:
        postings.clear(connection)
    assert 1 == catalogue.check().outdated
    catalogue.rebuild()
    assert catalogue.check().is_whole


def test_without_recordings_nothing_is_thrown_away(catalogue: Catalogue, recordings: Path) -> None:
    """A disk that is not mounted is no order to forget everything."""
    put(recordings, 1)
    catalogue.catch_up()
    recordings.rename(recordings.with_name("elsewhere"))
    try:
        for act in (catalogue.rebuild, catalogue.reconcile, catalogue.check):
            with pytest.raises(ConfigurationError, match="--recordings"):
                act()
    finally:
        recordings.with_name("elsewhere").rename(recordings)
    assert [recording_id(1)] == ids(catalogue)


class Killed(BaseException):
    """Nothing catches it, as nothing could."""


@pytest.mark.parametrize("act", ["catch_up", "reconcile", "rebuild"])
def test_it_is_whole_after_a_death_at_any_statement(
    catalogue: Catalogue, recordings: Path, act: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not committed is not there, and the next run makes good for it."""
    monkeypatch.setattr(upkeep, "BATCH", 2)
    for number in range(5):
        put(recordings, number, logged=act == "catch_up")
    turn = died = 0
    while died == turn:
        turn += 1
        left = turn

        def dies(*_: Any) -> None:
            nonlocal left, died
            left -= 1
            if left == 0:
                died += 1
                raise Killed

        with catalogue.database.writing() as connection:  # as it was at first
            postings.clear(connection)
            connection.execute(sa.delete(table))
            connection.execute(sa.delete(marks))
        sa.event.listen(catalogue.database.engine, "before_cursor_execute", dies)
        try:
            getattr(catalogue, act)()
        except Killed:
            pass
        finally:
            sa.event.remove(catalogue.database.engine, "before_cursor_execute", dies)
        catalogue.catch_up()
        catalogue.reconcile()
        assert catalogue.check().is_whole, turn
        assert 5 == catalogue.status().recordings
    assert turn > 10


def test_several_may_follow_at_once(
    url: str | None, catalogue: Catalogue, recordings: Path
) -> None:
    """A console, and a command beside it: each recording is there once."""
    barrier, failed = threading.Barrier(3), list[Exception]()

    def follow() -> None:
        with Catalogue(url, recordings) as mine:
            barrier.wait()
            try:
                for _ in range(20):
                    mine.catch_up()
                mine.reconcile()
            except Exception as error:  # it is told below
                failed.append(error)

    threads = [threading.Thread(target=follow) for _ in range(2)]
    for thread in threads:
        thread.start()
    barrier.wait()
    for number in range(40):
        put(recordings, number)
    for thread in threads:
        thread.join()
    assert [] == failed
    catalogue.catch_up()
    assert catalogue.check().is_whole
    assert 40 == catalogue.status().recordings


def test_an_error_leaves_the_mark_where_the_rows_are(
    catalogue: Catalogue, recordings: Path
) -> None:
    """So nothing is passed over, however often it fails."""
    put(recordings, 1)

    def fails(_: Any, __: Any, statement: str, *___: Any) -> None:
        if "INSERT INTO recordings" in statement:
            raise sa.exc.OperationalError("", {}, Exception("the disk is full"))

    sa.event.listen(catalogue.database.engine, "before_cursor_execute", fails)
    with pytest.raises(CatalogueError, match="the disk is full"):
        catalogue.catch_up()
    sa.event.remove(catalogue.database.engine, "before_cursor_execute", fails)
    assert [] == ids(catalogue)
    assert 1 == catalogue.catch_up().added


def test_problems_are_counted_and_the_first_are_named() -> None:
    """A store of a million that cannot be read fits on a screen."""
    changes = Changes()
    for number in range(100):
        changes.report(Path(f"{number}"), "why")
    assert (100, upkeep.MOST_NAMED) == (changes.unreadable, len(changes.problems))
