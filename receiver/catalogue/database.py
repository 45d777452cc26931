"""The catalogue's database: opened, brought to this version's schema, read and written.

SQLite by default, in a folder of ours beside the recordings; PostgreSQL by its URL. The same
statements serve both.

- Called in any thread or process; whatever is here may wait for a disk or a network, so no event
  loop calls it.
- Several processes may have the same database open: in SQLite readers do not wait for a writer
  (WAL), and writers wait for each other for `BUSY_SECONDS`.
- Every error of the database is a `CatalogueError`: it is away, locked, full or damaged. What
  breaks a rule of the schema stays an `IntegrityError` of SQLAlchemy's, for who can answer it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from receiver.catalogue import schema
from receiver.disk import layout
from receiver.disk.files import FILE_MODE
from receiver.disk.folders import folder_within
from receiver.errors import CatalogueError, ConfigurationError

FOLDER: Final = layout.CATALOGUE
FILE: Final = layout.CATALOGUE_SQLITE
BUSY_SECONDS: Final = 5
CONNECT_SECONDS: Final = 5
STATEMENT_SECONDS: Final = 60
"""After this time PostgreSQL gives a statement up; the longest of ours is one page of a search."""
_CACHE_KIB: Final = 65_536
_CHECKPOINT_PAGES: Final = 4000
"""16 MiB of what was written; the commit that reaches it takes longer than others."""
_LOCK_KEY: Final = 0x7461_7072
"""Of PostgreSQL's advisory lock: one process at a time brings the schema up to date."""
_WRITES: Final = "writes"
"""Execution option of a connection that writes: how SQLite is to sync it."""


class Database:
    """An open database of this version's schema."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.is_sqlite = engine.dialect.name == "sqlite"

    @property
    def where(self) -> str:
        """Return its URL, without a password."""
        return self.engine.url.render_as_string(hide_password=True)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """Yield a connection that sees one state of the database.

        Raises:
            CatalogueError: the database cannot be read.
        """
        with _translated(), self.engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self, *, durable: bool = True) -> Iterator[Connection]:
        """Yield a connection in a transaction: all of it is there afterwards, or nothing.

        Args:
            durable: whether it must outlive a power cut, as accounts must. What can be made
                again of files need not, which spares SQLite a sync; it stays whole nevertheless.

        Raises:
            CatalogueError: the database cannot be written.
        """
        options = {_WRITES: "FULL" if durable else "NORMAL"}
        with (
            _translated(),
            self.engine.connect().execution_options(**options) as connection,
            connection.begin(),
        ):
            yield connection

    def close(self) -> None:
        """Close all connections; idempotent."""
        self.engine.dispose()


def open_database(url: str | None, recordings: Path) -> Database:
    """Open the database at `url`, by default the one beside `recordings`; make it if it is missing.

    Raises:
        CatalogueError: it is away, locked for long, or is no database.
        ConfigurationError: the URL is none of ours, the folder cannot be used, or the database
            was made by a later version.
    """
    try:
        return _opened(_url(url) if url else _file_of_ours(recordings))
    except OSError as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(f"cannot use {recordings / FOLDER}: {error.strerror}") from error


def _opened(url: URL) -> Database:
    engine = _engine(url)
    database = Database(engine)
    try:
        with database.reading() as connection:
            is_current = _is_current(connection)
        if not is_current:
            _migrate(database)
    except BaseException:
        database.close()
        raise
    return database


def _url(text: str) -> URL:
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ConfigurationError(_USAGE) from None
    match url.get_backend_name():
        case "sqlite" if url.database and url.database != ":memory:":
            return url.set(drivername="sqlite")
        case "postgresql" | "postgres":
            if importlib.util.find_spec("psycopg") is None:
                raise ConfigurationError(
                    "PostgreSQL needs an extra: pip install 'tapreel[postgres]'"
                )
            return url.set(drivername="postgresql+psycopg")
    raise ConfigurationError(_USAGE)


_USAGE: Final = (
    "--database-url must be postgresql://USER@HOST/NAME or sqlite:////PATH;"
    " without it, the catalogue is a file beside the recordings"
)


def _file_of_ours(recordings: Path) -> URL:
    """Return the URL of a file that only we can read, made empty where it is missing."""
    with folder_within(recordings, PurePath(FOLDER)) as folder:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(FILE, flags, FILE_MODE, dir_fd=folder))
    return URL.create("sqlite", database=str((recordings / FOLDER / FILE).absolute()))


def _engine(url: URL) -> Engine:
    if url.drivername == "sqlite":
        engine = sa.create_engine(url, connect_args={"timeout": BUSY_SECONDS})
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
        return engine
    arguments = {
        "connect_timeout": CONNECT_SECONDS,
        "application_name": "tapreel",
        "options": f"-c statement_timeout={STATEMENT_SECONDS * 1000}",
        **dict(url.query),
    }
    return sa.create_engine(url.set(query={}), connect_args=arguments, pool_pre_ping=True)


def _prepare_sqlite(connection: Any, _: object) -> None:
    """Set up a new connection; transactions begin where we say so, not where Python guesses."""
    connection.isolation_level = None
    for pragma in (
        "journal_mode = WAL",
        "foreign_keys = ON",
        f"wal_autocheckpoint = {_CHECKPOINT_PAGES}",
        f"cache_size = -{_CACHE_KIB}",
        "temp_store = MEMORY",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # One who reads first and then writes could find that another has written meanwhile.
    synchronous = connection.get_execution_options().get(_WRITES)
    if synchronous:
        connection.exec_driver_sql(f"PRAGMA synchronous = {synchronous}")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if synchronous else "BEGIN")


def _is_current(connection: Connection) -> bool:
    """Whether the schema is this version's; if not, it is older.

    Raises:
        ConfigurationError: it is newer.
    """
    if not sa.inspect(connection).has_table("alembic_version"):
        return False
    found = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    if found is not None and found > schema.HEAD:
        raise ConfigurationError(
            f"this catalogue was made by a later version of tapreel (schema {found}, ours is"
            f" {schema.HEAD}): use that version"
        )
    return bool(found == schema.HEAD)


def _migrate(database: Database) -> None:
    from alembic import command  # only here: it takes longer to import than most commands run
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "receiver.catalogue:migrations")
    with database.writing() as connection:
        if not database.is_sqlite:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK_KEY)))
        if not _is_current(connection):  # another process may have been faster
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except IntegrityError:
        raise
    except (DBAPIError, PoolTimeout) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        text = (str(cause).splitlines() or [""])[0]
        raise CatalogueError(f"the catalogue's database cannot be used: {text}") from error
