"""Upkeep: the rows follow the files, and can always be made again from them.

    catch_up   reads the publication log from the mark of this catalogue on
    reconcile  compares all folders with the rows: what was put there, changed or removed by hand
    rebuild    throws all rows away and reads every folder
    check      compares every row with its folder, and changes nothing

The mark moves in the transaction of the last rows that it led to, so a process that is killed
leaves it where its rows are, or before them. Everything is done again without harm: a folder
gives one row, however often it is read. Several processes may do all of it at once.

Memory holds `BATCH` rows, and while folders are compared the ids of one day.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePath
from typing import Any, Final

import sqlalchemy as sa
import structlog
from sqlalchemy.engine import Connection

from receiver.catalogue import postings, rows, tokens
from receiver.catalogue.database import Database
from receiver.catalogue.schema import marks, recordings
from receiver.catalogue.tokens import Clause
from receiver.disk import layout
from receiver.errors import ConfigurationError, UnreadableError
from receiver.recording import publication_log, store
from receiver.recording.publication_log import LogMark

BATCH: Final = 500
MOST_NAMED: Final = 20
"""Of the problems of one kind, so many are named, and all are counted."""
RECONCILE_SECONDS: Final = 3600
MOST_GONE: Final = 10
MOST_GONE_SHARE: Final = 0.5
"""Rows whose folders are gone are removed, if they are not more than both: hands remove some
recordings, and most of them are gone where their disk is not there."""
_NAME: Final = "catalogue"
_WRITER_KEY: Final = 0x7461_7073
"""Of PostgreSQL's advisory lock: in SQLite, too, one process writes at a time."""

# Built once: building one takes longer than SQLite does to carry it out.
_READ_MARK: Final = sa.select(marks).where(marks.c.name == _NAME)
_MOVE_MARK: Final = (
    sa.update(marks)
    .where(
        marks.c.name == _NAME,
        marks.c.file == sa.bindparam("old_file"),
        marks.c.position == sa.bindparam("old_position"),
    )
    .values(file=sa.bindparam("new_file"), position=sa.bindparam("new_position"))
)
_READ_ROWS: Final = sa.select(recordings).where(
    recordings.c.id.in_(sa.bindparam("ids", expanding=True))
    | recordings.c.n.in_(sa.bindparam("numbers", expanding=True))
)
_INSERT: Final = sa.insert(recordings)

Progress = Callable[[int], None]
"""Called now and then with how many folders were read."""

log = structlog.get_logger("receiver.catalogue")


@dataclass
class Changes:
    """What a run has done: how many rows were added, changed and removed, and what was no use."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    kept: int = 0  # rows without a folder, so many that it is no removal by hand
    unreadable: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Return how many rows are other than before."""
        return self.added + self.changed + self.removed

    def report(self, folder: PurePath | Path, problem: str) -> None:
        """Count a folder that cannot be read, and name the first ones."""
        self.unreadable += 1
        if len(self.problems) < MOST_NAMED:
            self.problems.append(f"{folder}: {problem}")


@dataclass
class Differences:
    """How rows and folders differ: how many of each kind, and the first ones by name."""

    checked: int = 0
    missing: int = 0  # folders without a row
    outdated: int = 0  # rows that are not what their folders give
    left_over: int = 0  # rows without a folder
    unreadable: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether every folder has its row, and every row its folder."""
        return not (self.missing or self.outdated or self.left_over)

    def report(self, kind: str, folder: str | Path | PurePath, problem: str) -> None:
        """Count one, and name the first ones."""
        setattr(self, kind, getattr(self, kind) + 1)
        if len(self.problems) < MOST_NAMED:
            self.problems.append(f"{folder}: {problem}")


@dataclass(frozen=True, slots=True)
class Status:
    """What a catalogue is: where, how many rows, how far behind the publication log."""

    where: str
    schema: str
    recordings: int
    unread_bytes: int
    reconciled_ms: int  # 0: never, or it was interrupted


def status(database: Database, folder: Path, schema: str) -> Status:
    """Return what the catalogue of the recordings in `folder` is."""
    with database.reading() as connection:
        count = connection.execute(sa.select(sa.func.count()).select_from(recordings)).scalar_one()
        found = _mark(connection)
    mark, reconciled_ms = found or (LogMark(), 0)
    unread = publication_log.unread_bytes(folder, mark)
    return Status(database.where, schema, count, unread, reconciled_ms)


def is_reconciled(database: Database) -> bool:
    """Whether all folders were compared with the rows within the last hour."""
    with database.reading() as connection:
        found = _mark(connection)
    return found is not None and _now_ms() - found[1] < RECONCILE_SECONDS * 1000


def catch_up(database: Database, folder: Path) -> Changes:
    """Read what was published, changed and deleted since the last time.

    Raises:
        CatalogueError: the database cannot be used; the mark is where its rows are.
        OSError: the publication log cannot be read.
    """
    changes = Changes()
    with database.reading() as connection:
        found = _mark(connection)
    mark = found[0] if found else LogMark()
    while True:
        entries, behind = publication_log.read(folder, mark)
        if behind == mark:
            return changes
        named = dict.fromkeys(PurePath(entry.folder) for entry in entries)
        *batches, last = list(_batches(named)) or [[]]
        for batch in batches:
            update(database, folder, batch, changes)
        update(database, folder, last, changes, partial(_advance, mark=mark, behind=behind))
        mark = behind


def reconcile(database: Database, folder: Path, progress: Progress = lambda _: None) -> Changes:
    """Compare all folders with the rows, and make or remove what is not as it should be.

    Raises:
        CatalogueError: the database cannot be used; what is done is done.
        ConfigurationError: there is no recordings folder.
    """
    _require(folder)
    changes, end, started_ms = Changes(), publication_log.end(folder), _now_ms()
    seen = 0
    for batch in _batches(_folders(folder, changes)):
        seen += len(batch)
        if stale := _stale(database, folder, batch):
            update(database, folder, stale, changes)
        progress(seen)
    _remove_left_over(database, folder, seen, changes)
    with database.writing(durable=False) as connection:
        _lock(connection)
        found = _mark(connection)
        # Whatever was logged before the comparison began is in it.
        mark = max(found[0], end) if found else end
        _set_mark(connection, mark, started_ms)
    return changes


def rebuild(database: Database, folder: Path, progress: Progress = lambda _: None) -> Changes:
    """Throw all rows away and make them again, the newest first; nothing else is touched.

    What is interrupted is completed by the next `reconcile`.

    Raises:
        CatalogueError: the database cannot be used.
        ConfigurationError: there is no recordings folder.
    """
    _require(folder)
    with database.writing(durable=False) as connection:
        _lock(connection)
        postings.clear(connection)
        connection.execute(sa.delete(recordings))
        _set_mark(connection, LogMark(), 0)
    changes = reconcile(database, folder, progress)
    with database.writing(durable=False) as connection:
        postings.tidy(connection)
    return changes


def touch(database: Database, folder: Path, recording_id: str) -> None:
    """Read the folder of one recording again, because something in it was changed.

    Raises:
        CatalogueError: the database cannot be used; a later `reconcile` finds the change.
    """
    with database.reading() as connection:
        selected = sa.select(recordings.c.folder).where(recordings.c.id == recording_id)
        name = connection.execute(selected).scalar()
    if name is not None:
        update(database, folder, [PurePath(name)], Changes())


def check(database: Database, folder: Path, progress: Progress = lambda _: None) -> Differences:
    """Read every folder, and compare what it gives with its row and with what finds it.

    Raises:
        CatalogueError: the database cannot be used.
        ConfigurationError: there is no recordings folder.
    """
    _require(folder)
    found, unread = Differences(), Changes()
    for batch in _batches(_folders(folder, unread)):
        _compare(database, folder, batch, found)
        found.checked += len(batch)
        progress(found.checked)
    for name in _left_over(database, folder):
        found.report("left_over", name, "it is in the catalogue, and has no folder")
    found.unreadable += unread.unreadable
    found.problems += unread.problems
    return found


def _require(folder: Path) -> None:
    if not folder.is_dir():
        raise ConfigurationError(
            f"there is no folder {folder}: give the recordings with --recordings"
        )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _batches(items: Iterable[PurePath]) -> Iterator[list[PurePath]]:
    left = iter(items)
    while batch := list(itertools.islice(left, BATCH)):
        yield batch


def _folders(folder: Path, changes: Changes) -> Iterator[PurePath]:
    """Yield the folders of all recordings, relative to the recordings folder, newest first."""
    for found in store.folders(folder):
        if isinstance(found, Path):
            yield found.relative_to(folder)
        else:
            changes.report(found.folder.relative_to(folder), found.problem)


def _mark(connection: Connection) -> tuple[LogMark, int] | None:
    found = connection.execute(_READ_MARK).first()
    return None if found is None else (LogMark(found.file, found.position), found.reconciled_ms)


def _set_mark(connection: Connection, mark: LogMark, reconciled_ms: int) -> None:
    connection.execute(sa.delete(marks).where(marks.c.name == _NAME))
    values = {"file": mark.file, "position": mark.position, "reconciled_ms": reconciled_ms}
    connection.execute(sa.insert(marks).values(name=_NAME, **values))


def _advance(connection: Connection, mark: LogMark, behind: LogMark) -> None:
    """Move the mark, unless another process has moved it meanwhile."""
    values = {
        "old_file": mark.file,
        "old_position": mark.position,
        "new_file": behind.file,
        "new_position": behind.position,
    }
    moved = connection.execute(_MOVE_MARK, values).rowcount
    if not moved and _mark(connection) is None:
        _set_mark(connection, behind, 0)


def _lock(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_WRITER_KEY)))


def _stale(database: Database, folder: Path, batch: Sequence[PurePath]) -> list[PurePath]:
    """Return those of some folders that have no row, or one that was made of other files."""
    known = _known(database, batch)
    return [
        name
        for name in batch
        if (row := known.get(str(name))) is None or row.fingerprint != _fingerprint(folder / name)
    ]


def _known(database: Database, batch: Sequence[PurePath]) -> dict[str, sa.Row[Any]]:
    """Return the rows of some folders, by the name of the folder."""
    selected = sa.select(recordings).where(recordings.c.id.in_(_ids(batch)))
    with database.reading() as connection:
        return {row.folder: row for row in connection.execute(selected)}


def _ids(batch: Sequence[PurePath]) -> list[str]:
    return [layout.recording_id_of(name) or "" for name in batch]


def _fingerprint(folder: Path) -> str:
    with contextlib.suppress(OSError):
        return rows.fingerprint(folder)
    return ""


def update(
    database: Database,
    folder: Path,
    batch: Sequence[PurePath],
    changes: Changes,
    finish: Callable[[Connection], None] = lambda _: None,
) -> None:
    """Make the rows of some folders again; those of folders that are gone are removed.

    `finish` is called in the transaction that changes the rows.
    """
    made: dict[str, dict[str, Any]] = {}
    gone: list[str] = []
    for name in batch:
        try:
            columns = rows.read(folder, name)
        except UnreadableError as error:
            if (folder / name).is_dir():
                changes.report(name, str(error))
                log.warning("recording_unreadable", folder=str(name), error=str(error))
            else:
                gone.append(name.as_posix())
        else:
            made[columns["id"]] = columns
    with database.writing(durable=False) as connection:
        _lock(connection)
        apply(connection, made, gone, changes)
        finish(connection)


def apply(
    connection: Connection,
    made: Mapping[str, Mapping[str, Any]],
    gone: Sequence[str],
    changes: Changes,
) -> None:
    """Put rows in, in the place of those of the same recordings; take those of folders out.

    Args:
        connection: In a transaction that writes, locked where that is needed.
        made: The columns of each row, by the recording's id, as `rows.read` gives them.
        gone: The names of folders that are not there any more.
        changes: What was done is counted here.
    """
    ids = {*made, *(layout.recording_id_of(PurePath(name)) or "" for name in gone)}
    wanted = {"ids": list(ids), "numbers": [row["n"] for row in made.values()]}
    there = [dict(row) for row in connection.execute(_READ_ROWS, wanted).mappings()]
    old = [row for row in there if row["id"] in ids]
    same = {row["id"] for row in old if _is_same(row, made.get(row["id"]))}
    # A row of a folder that is gone stays if the recording is in another folder.
    out = [row for row in old if row["id"] in made.keys() - same or row["folder"] in gone]
    _delete(connection, out)
    replaced = {row["id"] for row in out}
    taken = {row["n"] for row in there if row["id"] not in replaced}
    new = _numbered(connection, [row for row in made.values() if row["id"] not in same], taken)
    if new:
        connection.execute(_INSERT, new)
        postings.add(connection, new)
    changes.changed += sum(row["id"] in replaced for row in new)
    changes.added += sum(row["id"] not in replaced for row in new)
    changes.removed += len(replaced - {row["id"] for row in new})


def _is_same(row: Mapping[str, Any], made: Mapping[str, Any] | None) -> bool:
    """Whether a row is what its files give; where it was put does not count."""
    return made is not None and all(row[name] == made[name] for name in made if name != "n")


def _delete(connection: Connection, out: Sequence[Mapping[str, Any]]) -> None:
    if out:
        postings.remove(connection, out)
        numbers = [row["n"] for row in out]
        connection.execute(sa.delete(recordings).where(recordings.c.n.in_(numbers)))


def _numbered(
    connection: Connection, new: Sequence[Mapping[str, Any]], taken: set[int]
) -> list[dict[str, Any]]:
    """Return rows with numbers that no other row has: the next free one where theirs is taken."""
    numbered = []
    for row in new:
        n = row["n"]
        while n in taken or (n != row["n"] and _exists(connection, n)):
            n += 1
        taken.add(n)
        numbered.append({**row, "n": n})
    return numbered


def _exists(connection: Connection, n: int) -> bool:
    selected = sa.select(recordings.c.n).where(recordings.c.n == n)
    return connection.execute(selected).first() is not None


def _remove_left_over(database: Database, folder: Path, seen: int, changes: Changes) -> None:
    """Remove rows without a folder; there are none where rows are as many as folders.

    Where most folders are gone, it is a disk that is not mounted: the rows stay.
    """
    with database.reading() as connection:
        count = connection.execute(sa.select(sa.func.count()).select_from(recordings)).scalar_one()
    if count + changes.unreadable == seen and not changes.unreadable:
        return
    gone = sum(1 for _ in _left_over(database, folder))
    if gone > max(MOST_GONE, MOST_GONE_SHARE * count):
        changes.kept = gone
        return
    for batch in _batches(map(PurePath, _left_over(database, folder))):
        update(database, folder, batch, changes)


def _left_over(database: Database, folder: Path) -> Iterator[str]:
    """Yield the folders of rows that are not there."""
    last = -1
    while True:
        selected = sa.select(recordings.c.n, recordings.c.folder).where(recordings.c.n > last)
        with database.reading() as connection:
            found = connection.execute(selected.order_by(recordings.c.n).limit(BATCH)).all()
        if not found:
            return
        last = found[-1].n
        yield from (row.folder for row in found if not (folder / row.folder).is_dir())


def _compare(
    database: Database, folder: Path, batch: Sequence[PurePath], found: Differences
) -> None:
    known = _known(database, batch)
    postings_of = _found_by_id(database, batch)
    for name in batch:
        row = known.get(name.as_posix())
        try:
            made = rows.read(folder, name)
        except UnreadableError as error:
            found.report("unreadable", name, str(error))
            continue
        if row is None:
            found.report("missing", name, "it is not in the catalogue")
        elif not _is_same(dict(row._mapping), made) or row.n not in postings_of:
            found.report("outdated", name, "the catalogue has something else of it")


def _found_by_id(database: Database, batch: Sequence[PurePath]) -> set[int]:
    """Return the numbers of the rows that a search for some recordings finds."""
    clause = Clause(tuple(tokens.exact("r", found) for found in _ids(batch)))
    with database.reading() as connection:
        selected = sa.select(postings.numbers(connection)).where(
            postings.matching(connection, [clause])
        )
        return set(connection.execute(selected).scalars())
