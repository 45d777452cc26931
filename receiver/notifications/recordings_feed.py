"""From the publication log to the outbox: what was published, changed, deleted, or failed.

The mark in the log is this module's own, and moves in the transaction of the events that it led
to. So no event is lost, whoever is killed when, and those that are made twice have the same id.

- Where there is no mark yet, it is put behind all that is there: nobody wants to be told of
  years of recordings when the first webhook is configured.
- A publication also tells that its stream began and ended, if nobody has told so before.
- A line that something changed says not what: the hold and the document are compared with what
  was announced of them.
- What failed is a journal in the quarantine of the spool.

Called in a thread: everything here waits for a disk or the database.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any, Final

import msgspec
import sqlalchemy as sa
import structlog
from sqlalchemy.engine import Connection

from receiver.catalogue import rows
from receiver.catalogue.database import Database
from receiver.catalogue.rows import Row
from receiver.catalogue.schema import announced, deliveries, marks, outbox_events, recordings
from receiver.disk import layout
from receiver.disk.files import open_regular
from receiver.errors import UnreadableError
from receiver.notifications import events, expectations, outbox
from receiver.notifications.events import OutboxEvent
from receiver.notifications.webhooks import WebhookEndpoint
from receiver.recording import annotations as notes
from receiver.recording import publication_log, store
from receiver.recording.annotations import Annotations
from receiver.recording.document import Recording
from receiver.recording.publication_log import LogEntry, LogMark

BATCH: Final = 100
_NAME: Final = "notifications"
_LONGEST_REASON: Final = 1000
_STREAM_FIELDS: Final = ("recording_id", "call_sid", "stream_sid", "account_sid", "provider")

log = structlog.get_logger("receiver.notifications")
Links = Callable[[str], dict[str, str]]
"""Returns where the recording of an id can be found, by name."""


@dataclass(frozen=True, slots=True)
class _Read:
    """What the disk has of a line of the log: nothing but the line where the folder is gone."""

    entry: LogEntry
    row: Row | None = None
    document: Recording | None = None
    hold: str | None = None  # as JSON; None where nobody can say, empty where there is none


class RecordingsFeed:
    """Follows one recordings folder.

    Args:
        database: Where the outbox is.
        folder: The recordings folder.
        spool: The spool, whose quarantine has what failed.
        links: Says where recordings can be found.
    """

    def __init__(self, database: Database, folder: Path, spool: Path, links: Links) -> None:
        self._database = database
        self._folder = folder
        self._spool = spool
        self._links = links
        self._quarantined: frozenset[Path] | None = None  # as of the last look

    def catch_up(self, endpoints: Collection[WebhookEndpoint]) -> int:
        """Put into the outbox what happened since the last time; return how many events.

        Raises:
            CatalogueError: the database cannot be used; the mark is where its events are.
            OSError: the log cannot be read.
        """
        mark = self._mark()
        if mark is None:
            return self._begin()
        added = self._failures(endpoints)
        while True:
            entries, behind = publication_log.read(self._folder, mark)
            if behind == mark:
                return added
            for start in range(0, max(1, len(entries)), BATCH):
                moves_to = behind if start + BATCH >= len(entries) else None
                added += self._put(entries[start : start + BATCH], endpoints, moves_to)
            mark = behind

    def _begin(self) -> int:
        """Put the mark behind all that is there."""
        end = publication_log.end(self._folder)
        failed = self._journals()
        with self._database.writing() as connection:
            for journal in failed:
                _announce(connection, f"journal {journal.name}", "")
            _move(connection, end)
        self._quarantined = failed
        return 0

    def _mark(self) -> LogMark | None:
        selected = sa.select(marks).where(marks.c.name == _NAME)
        with self._database.reading() as connection:
            found = connection.execute(selected).first()
        return None if found is None else LogMark(found.file, found.position)

    def _put(
        self,
        batch: Sequence[LogEntry],
        endpoints: Collection[WebhookEndpoint],
        moves_to: LogMark | None,
    ) -> int:
        found = [self._read(entry) for entry in batch]
        added = 0
        with self._database.writing() as connection:
            for each in found:
                told = list(self._events(connection, each))
                expectations.join(connection, told)
                added += outbox.add(connection, told, endpoints)
            if moves_to is not None:
                _move(connection, moves_to)
        return added

    def _read(self, entry: LogEntry) -> _Read:
        folder = self._folder / entry.folder
        try:
            kept = store.read(folder)
            added = _annotations(folder)
            row = rows.decoded(rows.columns(kept, added, PurePath(entry.folder)))
        except UnreadableError as error:
            if folder.is_dir():
                log.warning("recording_unreadable", folder=entry.folder, error=str(error))
            return _Read(entry)
        hold = None if added is None else _json(added.hold) if added.hold else ""
        return _Read(entry, row, kept.recording, hold)

    def _events(self, connection: Connection, read: _Read) -> Iterator[OutboxEvent]:
        """Yield what one line of the log means."""
        match read.entry.what:
            case publication_log.PUBLISHED:
                yield from self._published(read)
            case publication_log.CHANGED if read.row is not None and read.document is not None:
                yield from self._changed(connection, read, read.row, read.document)
            case publication_log.DELETED:
                yield _deleted(connection, read.entry)

    def _published(self, read: _Read) -> Iterator[OutboxEvent]:
        entry, row, document = read.entry, read.row, read.document
        if row is None or document is None:  # it was deleted meanwhile, or is damaged
            yield events.of_unknown(events.PUBLISHED, entry.id, entry.at)
            return
        about = {"recording_id": row.id, **msgspec.structs.asdict(row)}
        stream = {name: about[name] for name in (*_STREAM_FIELDS, "parameters", "started_at")}
        yield events.of_stream(events.STREAM_STARTED, stream, row.started_at)
        reason = document.end_reason.value
        yield events.of_stream(events.STREAM_ENDED, stream, document.ended_at, reason=reason)
        yield events.of_recording(events.PUBLISHED, row, entry.at, self._links(row.id))

    def _changed(
        self, connection: Connection, read: _Read, row: Row, document: Recording
    ) -> Iterator[OutboxEvent]:
        known = _announced(connection, f"hold {row.id}") or ""
        if read.hold is not None and read.hold != known:
            _announce(connection, f"hold {row.id}", read.hold)
            hold = msgspec.json.decode(read.hold) if read.hold else None
            about = f"{read.entry.at} {read.hold}"
            yield self._of(events.HOLD_CHANGED, row, read.entry.at, about, hold=hold)
        erased = _json(document.erased) if document.erased else ""
        if erased != (_announced(connection, f"erased {row.id}") or ""):
            _announce(connection, f"erased {row.id}", erased)
            spans = msgspec.json.decode(erased or "[]")
            yield self._of(events.ERASED, row, read.entry.at, erased, erased=spans)

    def _of(self, kind: str, row: Row, at: str, about: str, **more: Any) -> OutboxEvent:
        return events.of_recording(kind, row, at, self._links(row.id), about=about, **more)

    def _journals(self) -> frozenset[Path]:
        pattern = f"{layout.QUARANTINE}/*{layout.JOURNAL_SUFFIX}"
        workers = self._spool.glob(f"{layout.WORKER}*/{pattern}")
        return frozenset((*self._spool.glob(pattern), *workers))

    def _failures(self, endpoints: Collection[WebhookEndpoint]) -> int:
        """Put into the outbox which journals were set aside since the last time."""
        found = self._journals()
        if found == self._quarantined:
            return 0
        added = 0
        with self._database.writing() as connection:
            for journal in sorted(found - (self._quarantined or frozenset())):
                if _announced(connection, f"journal {journal.name}") is None:
                    _announce(connection, f"journal {journal.name}", "")
                    added += outbox.add(connection, [_failed(journal)], endpoints)
        self._quarantined = found
        return added


def _annotations(folder: Path) -> Annotations | None:
    try:
        return notes.read(folder)
    except UnreadableError:
        return None


def _failed(journal: Path) -> OutboxEvent:
    reason, at = "", datetime.now(UTC)
    with contextlib.suppress(OSError):
        at = datetime.fromtimestamp(journal.stat().st_mtime, UTC)
        with open_regular(journal.with_suffix(".txt")) as file:
            reason = file.read(_LONGEST_REASON).decode("utf-8", "replace").strip()
    recording_id = journal.stem[:16]
    return OutboxEvent(
        events.event_id(events.FAILED, journal.name),
        events.FAILED,
        store.rfc3339(at),
        {"recording_id": recording_id, "journal": journal.name, "reason": reason},
    )


def _deleted(connection: Connection, entry: LogEntry) -> OutboxEvent:
    """Return that a recording was deleted; what was told of it before is forgotten."""
    stream: dict[str, Any] = {"recording_id": entry.id}
    columns = connection.execute(sa.select(recordings).where(recordings.c.id == entry.id)).first()
    known = outbox_events.c.recording_id == entry.id
    if columns is not None:
        row = rows.decoded(dict(columns._mapping))
        told = events.of_recording(events.DELETED, row, entry.at, {})
    else:
        selected = sa.select(outbox_events.c.body).where(known)
        bodies = connection.execute(selected.order_by(outbox_events.c.created_ms.desc())).first()
        data = msgspec.json.decode(bodies.body)["data"] if bodies else stream
        told = events.of_stream(events.DELETED, data, entry.at)
    waiting = sa.select(deliveries.c.event).where(deliveries.c.state == outbox.WAITING)
    connection.execute(sa.delete(outbox_events).where(known, outbox_events.c.id.not_in(waiting)))
    names = ("recording_id", "call_sid", "stream_sid", "started_at")
    kept = {name: told.data[name] for name in names if name in told.data}
    tokens = told.tokens if len(kept) > 1 else ()
    return OutboxEvent(events.event_id(events.DELETED, entry.id), told.type, told.at, kept, tokens)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _announced(connection: Connection, about: str) -> str | None:
    selected = sa.select(announced.c.value).where(announced.c.about == about)
    return connection.execute(selected).scalar()


def _announce(connection: Connection, about: str, value: str) -> None:
    connection.execute(sa.delete(announced).where(announced.c.about == about))
    connection.execute(sa.insert(announced).values(about=about, value=value))


def _move(connection: Connection, mark: LogMark) -> None:
    connection.execute(sa.delete(marks).where(marks.c.name == _NAME))
    values = {"file": mark.file, "position": mark.position, "reconciled_ms": 0}
    connection.execute(sa.insert(marks).values(name=_NAME, **values))
