"""The catalogue as its users have it: the console, commands, and whoever follows.

    catalogue = Catalogue(url, recordings)
    page = catalogue.page(parse([("param.queue", "sales")], now), scope={})

- Called in any thread; every call may wait for the database or the disk, so no event loop
  makes one.
- A scope (parameters by name, as in `receiver user add --param`) is part of every read: what is
  out of scope does not exist. An empty one is everything.
- Reads serve what the rows are; `catch_up` and `Follower` make them follow the files.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

import structlog

from receiver.catalogue import schema, search, upkeep
from receiver.catalogue.database import open_database
from receiver.catalogue.query import Query
from receiver.catalogue.rows import DELETED, Row
from receiver.catalogue.search import Facets, Page
from receiver.catalogue.upkeep import Changes, Differences, Progress, Status
from receiver.errors import CatalogueError
from receiver.rate_limit import LogThrottle
from receiver.recording import store

POLL_SECONDS: Final = 0.5
CLOSE_SECONDS: Final = 2.0
"""For a follower to end what it does; what is cut off is done again by whoever is next."""
_BACK_OFF_SECONDS: Final = (1.0, 2.0, 5.0, 15.0, 30.0)
_LOG_SECONDS: Final = 60.0

log = structlog.get_logger("receiver.catalogue")


class Catalogue:
    """An index of the recordings below a folder.

    Args:
        url: The database's; `None` is a file beside the recordings. It is made if it is missing.
        recordings: The recordings folder.

    Raises:
        CatalogueError: the database is away, locked for long, or is none; also every method.
        ConfigurationError: the URL or the folder cannot be used, or it is of a later version.
    """

    def __init__(self, url: str | None, recordings: Path) -> None:
        self.recordings = recordings
        self.database = open_database(url, recordings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database; idempotent."""
        self.database.close()

    def page(self, query: Query, scope: Mapping[str, str]) -> Page:
        """Return some rows of a search, and where the next ones begin.

        What was deleted is found by its tombstone, which has no parameters: for who is limited by
        some, there is nothing.

        Raises:
            BadWord: there are too many to be sorted as they should be.
            OSError: tombstones cannot be read.
        """
        if query.value("state") == DELETED:
            found = () if scope else store.tombstones(self.recordings, newest_first=True)
            return search.deleted(found, query)
        with self.database.reading() as connection:
            return search.page(connection, query, scope)

    def facets(self, query: Query, scope: Mapping[str, str], now: datetime | None = None) -> Facets:
        """Return what the recordings of a search have in common, by default of the last week."""
        with self.database.reading() as connection:
            return search.facets(connection, query, scope, now or datetime.now(UTC))

    def get(self, recording_id: str, scope: Mapping[str, str]) -> Row:
        """Return the row of one recording, by its id or the beginning of it.

        Raises:
            NotFoundError: there is none within the scope, or more than one.
        """
        with self.database.reading() as connection:
            return search.get(connection, recording_id, scope)

    def call(self, call_sid: str, scope: Mapping[str, str]) -> list[Row]:
        """Return all recordings of a call, the oldest first."""
        with self.database.reading() as connection:
            return search.call(connection, call_sid, scope)

    def touch(self, recording_id: str) -> None:
        """Read the folder of one recording again, because something in it was changed."""
        upkeep.touch(self.database, self.recordings, recording_id)

    def catch_up(self) -> Changes:
        """Read what was published, changed and deleted since the last time."""
        return upkeep.catch_up(self.database, self.recordings)

    def reconcile(self, progress: Progress = lambda _: None) -> Changes:
        """Compare all folders with the rows, and mend these."""
        return upkeep.reconcile(self.database, self.recordings, progress)

    def rebuild(self, progress: Progress = lambda _: None) -> Changes:
        """Make all rows again; accounts and whatever else is in the database stay."""
        return upkeep.rebuild(self.database, self.recordings, progress)

    def check(self, progress: Progress = lambda _: None) -> Differences:
        """Compare every row with what its folder gives, and change nothing."""
        return upkeep.check(self.database, self.recordings, progress)

    def status(self) -> Status:
        """Return where it is, how many rows it has, and how far it is behind."""
        return upkeep.status(self.database, self.recordings, schema.HEAD)

    def is_reconciled(self) -> bool:
        """Whether all folders were compared with the rows within the last hour."""
        return upkeep.is_reconciled(self.database)


class _Closed(Exception):
    """The follower was closed in the midst of its work; whoever is next goes on with it."""


class Follower:
    """A thread that lets a catalogue follow: at the start, once an hour, and whatever is logged.

    A database that is locked, full or away is tried again, behind ever longer waits; the log says
    so once in a while, and again when it is over.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._closing = threading.Event()
        self._failures = 0
        self._throttle = LogThrottle(_LOG_SECONDS)
        self._thread = threading.Thread(target=self._run, name="catalogue", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def close(self, seconds: float = CLOSE_SECONDS) -> bool:
        """End between two transactions; return whether it has ended by then. Idempotent.

        A disk or database that hangs may hold it for ever: whoever ends need not wait for that.
        """
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                self._follow()
                self._recovered()
                self._closing.wait(POLL_SECONDS)
            except _Closed:
                return
            except (CatalogueError, OSError) as error:
                self._failed(str(error))
            except Exception:  # a mistake of ours: recordings are found by reconciling, later
                log.exception("catalogue_failed")
                self._failed("unexpected")

    def _follow(self) -> None:
        if not self._catalogue.is_reconciled():
            changes = self._catalogue.reconcile(self._between_batches)
            if changes.total or changes.unreadable:
                log.info(
                    "catalogue_reconciled",
                    added=changes.added,
                    changed=changes.changed,
                    removed=changes.removed,
                    unreadable=changes.unreadable,
                )
            if changes.kept:
                log.error(
                    "recordings_gone",
                    rows=changes.kept,
                    advice="is their disk mounted? If they are to go, receiver catalogue rebuild",
                )
        self._catalogue.catch_up()

    def _between_batches(self, _: int) -> None:
        """What is published while all folders are compared does not wait for the end of it."""
        if self._closing.is_set():
            raise _Closed
        self._catalogue.catch_up()

    def _failed(self, error: str) -> None:
        delay = _BACK_OFF_SECONDS[min(self._failures, len(_BACK_OFF_SECONDS) - 1)]
        self._failures += 1
        if times := self._throttle.count(error, time.monotonic()):
            log.error("catalogue_unavailable", error=error, times=times, retry_seconds=delay)
        self._closing.wait(delay)

    def _recovered(self) -> None:
        if self._failures:
            log.info("catalogue_available", failures=self._failures)
            self._failures = 0
