"""Opening the catalogue's database, on SQLite and on PostgreSQL; what is refused, and how."""

from __future__ import annotations

import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from receiver.catalogue import database as module
from receiver.catalogue.database import FILE, FOLDER, Database, open_database
from receiver.catalogue.schema import HEAD, marks
from receiver.errors import CatalogueError, ConfigurationError
from tests.receiver.helpers.postgres import PostgresServer

needs_postgres = pytest.mark.needs("postgres", "initdb")


def version_of(database: Database) -> str:
    """Return the schema's version."""
    with database.reading() as connection:
        return str(connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar())


def names_in(database: Database) -> list[str]:
    """Return the names of all marks."""
    with database.reading() as connection:
        return list(connection.execute(sa.select(marks.c.name)).scalars())


def test_it_is_made_where_it_is_missing(url: str | None, recordings: Path) -> None:
    """And found again as it was."""
    for _ in range(2):
        database = open_database(url, recordings)
        assert HEAD == version_of(database)
        database.close()


def test_all_of_a_transaction_is_written_or_nothing(url: str | None, recordings: Path) -> None:
    """Rows and mark change together."""
    database = open_database(url, recordings)
    mark = {"file": "", "position": 0, "reconciled_ms": 0}
    with database.writing() as connection:
        connection.execute(sa.insert(marks).values(name="kept", **mark))
    twice = [{"name": "lost", **mark}, {"name": "kept", **mark}]
    with pytest.raises(IntegrityError), database.writing() as connection:
        connection.execute(sa.insert(marks), twice)
    assert ["kept"] == names_in(database)
    database.close()


def test_several_processes_may_make_it_at_once(url: str | None, recordings: Path) -> None:
    """One of them does, and the others find it made."""
    with ThreadPoolExecutor(4) as pool:
        opened = list(pool.map(lambda _: open_database(url, recordings), range(4)))
    assert {HEAD} == {version_of(database) for database in opened}
    for database in opened:
        database.close()


def test_the_default_is_a_file_that_only_we_can_read(recordings: Path) -> None:
    """So are those that SQLite puts beside it."""
    database = open_database(None, recordings)
    folder = recordings / FOLDER
    assert 0o700 == stat.S_IMODE(folder.stat().st_mode)
    assert {0o600} == {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    database.close()


def test_one_of_a_later_version_is_left_alone(url: str | None, recordings: Path) -> None:
    """An older program must not write what it does not understand."""
    database = open_database(url, recordings)
    with database.writing() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    with pytest.raises(ConfigurationError, match="later version"):
        open_database(url, recordings)


@pytest.mark.parametrize(
    "url", ["mysql://somewhere/x", "nonsense", "sqlite://", "sqlite:///:memory:", "http://[::1"]
)
def test_other_urls_are_refused(url: str, recordings: Path) -> None:
    """With what to write instead, and never with the URL: it may hold a password."""
    with pytest.raises(ConfigurationError, match="postgresql://USER@HOST/NAME"):
        open_database(url, recordings)


def test_a_file_elsewhere_can_be_named(tmp_path: Path) -> None:
    """By the URL that SQLAlchemy has for it."""
    database = open_database(f"sqlite:///{tmp_path}/my.db", tmp_path / "recordings")
    assert HEAD == version_of(database)
    assert str(tmp_path) in database.where
    database.close()


def test_a_file_that_is_no_database_is_an_error(recordings: Path) -> None:
    """In one line."""
    (recordings / FOLDER).mkdir(0o700, parents=True)
    (recordings / FOLDER / FILE).write_bytes(b"not a database at all" * 100)
    with pytest.raises(CatalogueError, match="file is not a database"):
        open_database(None, recordings)


def test_a_folder_that_cannot_be_used_is_an_error(recordings: Path, tmp_path: Path) -> None:
    """Nothing is written through a link."""
    recordings.mkdir()
    (recordings / FOLDER).symlink_to(tmp_path)
    with pytest.raises(ConfigurationError, match="symbolic link"):
        open_database(None, recordings)
    (recordings / FOLDER).unlink()
    (recordings / FOLDER / FILE).mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="cannot use"):
        open_database(None, recordings)


def test_a_locked_database_is_an_error(recordings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while; and it is no error any more as soon as the lock is gone."""
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.05)
    database = open_database(None, recordings)
    other = sqlite3.connect(recordings / FOLDER / FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(CatalogueError, match="locked"), database.writing():
        pass
    assert [] == names_in(database)  # reading goes on
    other.close()
    with database.writing():
        pass
    database.close()


@needs_postgres
def test_a_server_that_is_away_is_an_error(postgres: PostgresServer, recordings: Path) -> None:
    """Without a password in its text; and the next use finds it again."""
    database = open_database(postgres.create_database(), recordings)
    assert [] == names_in(database)
    postgres.stop()
    try:
        with pytest.raises(CatalogueError, match="cannot be used"):
            names_in(database)
        with pytest.raises(CatalogueError) as error:
            open_database(postgres.url("x").replace("tapreel@", "tapreel:secret@"), recordings)
        assert "secret" not in str(error.value)
    finally:
        postgres.start()
    assert [] == names_in(database)
    database.close()
