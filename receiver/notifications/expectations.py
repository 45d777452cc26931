"""Expectations: streams that somebody has asked a provider for, and whether they came.

    asked ──> accepted ──> connected ──> recorded
      └───────────┴──> missing      nothing came in time; it may come late, and is connected then
      └──> refused, failed          what the provider answered, or reported

Whoever starts streams (`starter start --expect-url`) says so before it asks the provider, and what
the provider answered after it. A stream that comes is joined to the expectation with its stream
sid, else its name, else to the oldest of its call that still waits. Called in threads.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from receiver.catalogue.database import Database
from receiver.catalogue.schema import announced, expectations
from receiver.errors import NotFoundError
from receiver.media import parameter_text, timestamp
from receiver.notifications import events, outbox
from receiver.notifications.callbacks import ERROR, STARTED, StreamCallback
from receiver.notifications.events import OutboxEvent
from receiver.notifications.outbox import now_ms
from receiver.notifications.webhooks import WebhookEndpoint

ASKED: Final = "asked"
ACCEPTED: Final = "accepted"
CONNECTED: Final = "connected"
RECORDED: Final = "recorded"
MISSING: Final = "missing"
REFUSED: Final = "refused"
FAILED: Final = "failed"
STATES: Final = (ASKED, ACCEPTED, CONNECTED, RECORDED, MISSING, REFUSED, FAILED)
OPEN: Final = (ASKED, ACCEPTED)
"""States in which a stream is waited for."""
NOT_COME: Final = (MISSING, REFUSED, FAILED)
_BY_CALL: Final = (ASKED, ACCEPTED, MISSING)
KEPT_MS: Final = 30 * 86_400_000
MOST_ROWS: Final = 500
LONGEST_REASON: Final = 500
_ID_BYTES: Final = 8
_NEVER_ANSWERED: Final = "nobody said what the provider answered, and no stream came"
_NEVER_CAME: Final = "the provider accepted it, and no stream came"
_COUNTER: Final = "streams_missing"


class Expectation(msgspec.Struct, frozen=True):
    """A stream that was asked for; times are milliseconds since 1970.

    `recording_id` is there once a stream came; `reason` says why none did, as far as it is known.
    """

    id: str
    call_sid: str
    name: str
    token_id: str
    stream_sid: str
    parameters: dict[str, Any]
    state: str
    reason: str
    asked_ms: int
    due_ms: int
    changed_ms: int
    recording_id: str

    def permits(self, scope: Mapping[str, str]) -> bool:
        """Return whether it exists for somebody who is limited to these parameters."""
        given = self.parameters
        return all(k in given and parameter_text(given[k]) == v for k, v in scope.items())


class ExpectationReport(msgspec.Struct, frozen=True):
    """An expectation as commands, pages and the API show it; times are RFC 3339 in UTC."""

    id: str
    call_sid: str
    name: str
    stream_sid: str
    parameters: dict[str, Any]
    state: str
    reason: str
    asked_at: str
    changed_at: str
    recording_id: str

    @classmethod
    def of(cls, expectation: Expectation) -> ExpectationReport:
        """Return what is shown of an expectation."""
        return cls(
            expectation.id,
            expectation.call_sid,
            expectation.name,
            expectation.stream_sid,
            expectation.parameters,
            expectation.state,
            expectation.reason,
            timestamp(expectation.asked_ms),
            timestamp(expectation.changed_ms),
            expectation.recording_id,
        )


class Expectations:
    """The expectations of one database.

    Every method raises CatalogueError where the database cannot be used.

    Args:
        database: The catalogue's.
        within_seconds: When these are over, a stream that did not come is missing.
    """

    def __init__(self, database: Database, within_seconds: float) -> None:
        self._database = database
        self._within_ms = round(within_seconds * 1000)

    def add(
        self,
        call_sid: str,
        *,
        name: str = "",
        token_id: str = "",
        parameters: Mapping[str, Any] | None = None,
    ) -> Expectation:
        """Expect a stream of a call from now on; return what was kept."""
        moment = now_ms()
        values = {
            "id": f"exp_{secrets.token_hex(_ID_BYTES)}",
            "call_sid": _text(call_sid),
            "name": _text(name),
            "token_id": _text(token_id),
            "stream_sid": "",
            "parameters": _text(msgspec.json.encode(dict(parameters or {})).decode()),
            "state": ASKED,
            "reason": "",
            "asked_ms": moment,
            "due_ms": moment + self._within_ms,
            "changed_ms": moment,
            "recording_id": "",
        }
        with self._database.writing() as connection:
            connection.execute(sa.insert(expectations).values(values))
        return _expectation(values)

    def answer(
        self, expectation_id: str, state: str, *, stream_sid: str = "", reason: str = ""
    ) -> Expectation:
        """Keep what the provider answered: accepted, refused or failed; return what is kept.

        A stream that came before the answer stays where it is. One that is missing by now stays
        so, since its time is over, but for the reason.

        Raises:
            NotFoundError: there is no such expectation.
        """
        with self._database.writing() as connection:
            found = _get(connection, expectation_id)
            if found is None:
                raise NotFoundError(f"there is no expectation {expectation_id[:40]!r}")
            values: dict[str, Any] = {"stream_sid": _text(stream_sid) or found.stream_sid}
            if found.state in OPEN or (found.state == MISSING and state != ACCEPTED):
                values |= {"state": state, "reason": _reason(reason)}
                values["due_ms"] = now_ms() + self._within_ms
            elif found.state == MISSING:
                values["reason"] = _NEVER_CAME
            _change(connection, found.id, values)
            changed = _get(connection, found.id)
        assert changed is not None  # noqa: S101  it was there a line ago, in this transaction
        return changed

    def report(self, callback: StreamCallback) -> str | None:
        """Keep what a provider reports of a stream; return the id of its expectation, if any.

        It is advice: a stream that a provider calls started is still waited for, and one that is
        received did not fail. So repeats, and reports that come late or in another order, change
        nothing.
        """
        names = (callback.stream_sid, callback.call_sid, callback.name)
        with self._database.writing() as connection:
            if callback.event == ERROR:
                return came(
                    connection,
                    FAILED,
                    stream_sid=callback.stream_sid,
                    call_sid=callback.call_sid,
                    name=callback.name,
                    reason=callback.error or "the provider reports an error, and not which",
                )
            found = _of_stream(connection, *map(_text, names))
            if found is None:
                return None
            values: dict[str, Any] = {"stream_sid": found.stream_sid or _text(callback.stream_sid)}
            if callback.event == STARTED and found.state == ASKED:
                values |= {"state": ACCEPTED, "due_ms": now_ms() + self._within_ms}
            _change(connection, found.id, values)
            return found.id

    def open_count(self) -> int:
        """Return how many streams are waited for."""
        count = sa.select(sa.func.count()).where(expectations.c.state.in_(OPEN))
        with self._database.reading() as connection:
            return int(connection.execute(count).scalar_one())

    def sweep(self, endpoints: Collection[WebhookEndpoint]) -> list[Expectation]:
        """Call missing what did not come in time; return each once, and tell whoever wants it."""
        moment = now_ms()
        overdue = (expectations.c.state.in_(OPEN), expectations.c.due_ms < moment)
        selected = sa.select(expectations).where(*overdue).limit(MOST_ROWS)
        with self._database.reading() as connection:
            if connection.execute(selected).first() is None:
                return []
        with self._database.writing() as connection:
            found = [_expectation(row._mapping) for row in connection.execute(selected)]
            missing = [each for each in map(_as_missing, found) if _is_ours(connection, each)]
            _count(connection, len(missing))
            outbox.add(connection, [_missing_event(each) for each in missing], endpoints)
        return missing

    def page(
        self,
        states: Sequence[str] = STATES,
        *,
        scope: Mapping[str, str] | None = None,
        since_ms: int = 0,
        limit: int = 100,
    ) -> list[Expectation]:
        """Return the newest expectations in these states that exist within a scope."""
        selected = (
            sa.select(expectations)
            .where(expectations.c.state.in_(list(states)), expectations.c.asked_ms >= since_ms)
            .order_by(expectations.c.asked_ms.desc(), expectations.c.id)
            .limit(MOST_ROWS)
        )
        with self._database.reading() as connection:
            found = [_expectation(row._mapping) for row in connection.execute(selected)]
        return [each for each in found if each.permits(scope or {})][:limit]

    def get(self, expectation_id: str, scope: Mapping[str, str]) -> Expectation:
        """Return one expectation.

        Raises:
            NotFoundError: there is none of this id within the scope.
        """
        with self._database.reading() as connection:
            found = _get(connection, expectation_id)
        if found is None or not found.permits(scope):
            raise NotFoundError(f"there is no expectation {expectation_id[:40]!r}")
        return found

    def missing_total(self) -> int:
        """Return how many streams were missing, ever."""
        selected = sa.select(announced.c.value).where(announced.c.about == _COUNTER)
        with self._database.reading() as connection:
            return int(connection.execute(selected).scalar() or 0)

    def tidy(self) -> None:
        """Remove what is old."""
        old = sa.delete(expectations).where(expectations.c.changed_ms < now_ms() - KEPT_MS)
        with self._database.writing() as connection:
            connection.execute(old)


def join(connection: Connection, found: Iterable[OutboxEvent]) -> None:
    """Join streams that began, and recordings that were published, to what was expected."""
    states = {events.STREAM_STARTED: CONNECTED, events.PUBLISHED: RECORDED}
    for event in found:
        if event.type in states:
            stream_sid = str(event.data.get("stream_sid") or "")
            came(
                connection,
                states[event.type],
                stream_sid=stream_sid,
                call_sid=event.call_sid,
                recording_id=event.recording_id,
            )


def came(
    connection: Connection,
    state: str,
    *,
    stream_sid: str,
    call_sid: str,
    name: str = "",
    recording_id: str = "",
    reason: str = "",
) -> str | None:
    """Move the expectation of a stream on; return its id, or `None` where nobody expected it.

    Args:
        connection: In a transaction that writes.
        state: `CONNECTED`, `RECORDED` or `FAILED`; what is recorded stays so.
        stream_sid: The provider's id of the stream.
        call_sid: The provider's id of the call.
        name: What the stream was called when it was asked for, where that is known.
        recording_id: The recording, where that is known.
        reason: Why it failed.
    """
    found = _of_stream(connection, _text(stream_sid), _text(call_sid), _text(name))
    if found is None or found.state == RECORDED:
        return None if found is None else found.id
    values = {
        "state": state,
        "stream_sid": _text(stream_sid) or found.stream_sid,
        "recording_id": found.recording_id or recording_id,
        "reason": _reason(reason),
    }
    has_come = found.state == CONNECTED or bool(found.recording_id)
    if state == FAILED and has_come:  # it is being recorded, whatever the provider says
        values["state"] = found.state
    _change(connection, found.id, values)
    return found.id


def _of_stream(
    connection: Connection, stream_sid: str, call_sid: str, name: str
) -> Expectation | None:
    """Return the expectation of a stream: by its sid, its name, or the oldest of its call."""
    c = expectations.c
    ways: list[tuple[sa.ColumnElement[bool], ...]] = []
    if stream_sid:
        ways.append((c.stream_sid == stream_sid,))
    if name:
        ways.append((c.name == name, c.call_sid == call_sid))
    if call_sid:
        ways.append((c.state.in_(_BY_CALL), c.call_sid == call_sid, c.stream_sid == ""))
    for way in ways:
        selected = sa.select(expectations).where(*way).order_by(c.asked_ms, c.id).limit(1)
        row = connection.execute(selected).first()
        if row is not None:
            return _expectation(row._mapping)
    return None


def _as_missing(found: Expectation) -> Expectation:
    reason = _NEVER_CAME if found.state == ACCEPTED else _NEVER_ANSWERED
    return msgspec.structs.replace(found, state=MISSING, reason=reason, changed_ms=now_ms())


def _is_ours(connection: Connection, missing: Expectation) -> bool:
    """Whether we are the one who called it missing: another process may have been faster."""
    c = expectations.c
    changed = sa.update(expectations).where(c.id == missing.id, c.state.in_(OPEN))
    values = {name: getattr(missing, name) for name in ("state", "reason", "changed_ms")}
    return bool(connection.execute(changed.values(values)).rowcount)


def _missing_event(expectation: Expectation) -> OutboxEvent:
    stream = {
        "expectation": expectation.id,
        "call_sid": expectation.call_sid,
        "stream_sid": expectation.stream_sid,
        "name": expectation.name,
        "parameters": expectation.parameters,
        "asked_at": timestamp(expectation.asked_ms),
    }
    at = timestamp(expectation.changed_ms)
    return events.of_stream(events.STREAM_MISSING, stream, at, reason=expectation.reason)


def _count(connection: Connection, number: int) -> None:
    chosen = announced.c.about == _COUNTER
    known = connection.execute(sa.select(announced.c.value).where(chosen)).scalar()
    connection.execute(sa.delete(announced).where(chosen))
    total = str(int(known or 0) + number)
    connection.execute(sa.insert(announced).values(about=_COUNTER, value=total))


def _get(connection: Connection, expectation_id: str) -> Expectation | None:
    chosen = expectations.c.id == _text(expectation_id)
    row = connection.execute(sa.select(expectations).where(chosen)).first()
    return None if row is None else _expectation(row._mapping)


def _change(connection: Connection, expectation_id: str, values: Mapping[str, Any]) -> None:
    chosen = expectations.c.id == expectation_id
    changed = {**values, "changed_ms": now_ms()}
    connection.execute(sa.update(expectations).where(chosen).values(changed))


def _expectation(columns: Mapping[Any, Any]) -> Expectation:
    values = {name: columns[name] for name in Expectation.__struct_fields__}
    return Expectation(**{**values, "parameters": msgspec.json.decode(values["parameters"])})


def _reason(text: str) -> str:
    return _text(" ".join(text.split())[:LONGEST_REASON])


def _text(text: str) -> str:
    """Return a text as PostgreSQL has it, which knows no NUL."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")
