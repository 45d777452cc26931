"""The outbox: events that others are told of, and what became of each delivery; in the database.

    add      an event, and a delivery of it to each who wants it, in the transaction of whatever led
             to it; the same event twice is one
    claim    some deliveries that are due, for whoever sends them: they are due again after a lease,
             so that one who is killed in the midst of it costs nothing but time
    settle   what came of an attempt: delivered, to be tried again, or dead

So each delivery is made at least once. Called in threads: everything here waits for the database.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from receiver.catalogue.database import Database
from receiver.catalogue.schema import deliveries, outbox_events
from receiver.errors import NotFoundError
from receiver.media import timestamp
from receiver.notifications.events import OutboxEvent
from receiver.notifications.http_client import PostAnswer
from receiver.notifications.webhooks import WebhookEndpoint

WAITING: Final = "waiting"
DELIVERED: Final = "delivered"
DEAD: Final = "dead"
STATES: Final = (WAITING, DELIVERED, DEAD)
LEASE_MS: Final = 30_000
"""Longer than an attempt may take; what was claimed by a process that died is due again then."""
GIVE_UP_MS: Final = 3 * 86_400_000
"""So long after it began to wait, a delivery is dead."""
FIRST_DELAY_MS, LONGEST_DELAY_MS, GROWTH = 5_000, 6 * 3_600_000, 3
KEPT_MS: Final = 30 * 86_400_000
"""Events are kept for so long, and longer where a delivery of them still waits."""
PAGE: Final = 100
LONGEST_PROBLEM: Final = 500
_LOCK_KEY: Final = 0x7461_7074
"""Of PostgreSQL's advisory lock: one process at a time adds."""
_GONE: Final = 410
"""The status of an end that wants no more of it."""


class Delivery(msgspec.Struct, frozen=True):
    """One event for one endpoint; times are milliseconds since 1970.

    `status` is what HTTP answered last, or the exit code of a command.
    """

    n: int
    event: str
    type: str
    recording_id: str
    call_sid: str
    endpoint: str
    state: str
    attempts: int
    due_ms: int
    since_ms: int
    attempted_ms: int | None
    status: int | None
    problem: str
    body: str


class DeliveryReport(msgspec.Struct, frozen=True):
    """A delivery as commands, pages and the API show it; times are RFC 3339 in UTC.

    `due` is when it is tried next, `attempted` when it was the last time.
    """

    number: int
    event: str
    type: str
    recording_id: str
    call_sid: str
    webhook: str
    state: str
    attempts: int
    since: str
    due: str | None
    attempted: str | None
    status: int | None
    problem: str

    @classmethod
    def of(cls, delivery: Delivery) -> DeliveryReport:
        """Return what is shown of a delivery: all but its body."""
        return cls(
            delivery.n,
            delivery.event,
            delivery.type,
            delivery.recording_id,
            delivery.call_sid,
            delivery.endpoint,
            delivery.state,
            delivery.attempts,
            timestamp(delivery.since_ms),
            timestamp(delivery.due_ms) if delivery.state == WAITING else None,
            None if delivery.attempted_ms is None else timestamp(delivery.attempted_ms),
            delivery.status,
            delivery.problem,
        )


class Totals(msgspec.Struct, frozen=True):
    """How many deliveries of an endpoint are in each state."""

    waiting: int = 0
    delivered: int = 0
    dead: int = 0


_FIELDS: Final = (
    *(deliveries.c[name] for name in ("n", "event", "endpoint", "state", "attempts", "due_ms")),
    *(deliveries.c[name] for name in ("since_ms", "attempted_ms", "status", "problem")),
    *(outbox_events.c[name] for name in ("type", "recording_id", "call_sid", "body")),
)
_SELECT: Final = sa.select(*_FIELDS).join(outbox_events, outbox_events.c.id == deliveries.c.event)


def now_ms() -> int:
    """Return the time, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def add(
    connection: Connection, found: Iterable[OutboxEvent], endpoints: Collection[WebhookEndpoint]
) -> int:
    """Put events into the outbox, in the transaction of `connection`; return how many were new.

    An event that nobody wants is not kept, and neither is one that is there already.
    """
    if connection.dialect.name == "postgresql":  # SQLite lets one in at a time by itself
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK_KEY)))
    added = 0
    for event in found:
        wanting = [endpoint.name for endpoint in endpoints if endpoint.wants(event)]
        if wanting and not _is_there(connection, event.id):
            _insert(connection, event, wanting)
            added += 1
    return added


def _is_there(connection: Connection, event_id: str) -> bool:
    selected = sa.select(outbox_events.c.id).where(outbox_events.c.id == event_id)
    return connection.execute(selected).first() is not None


def _insert(connection: Connection, event: OutboxEvent, wanting: Sequence[str]) -> None:
    moment = now_ms()
    body = event.body().decode("utf-8", "replace")
    values = {
        "id": event.id,
        "type": event.type,
        "recording_id": event.recording_id,
        "call_sid": _without_nul(event.call_sid),
        "body": body,
        "created_ms": moment,
    }
    connection.execute(sa.insert(outbox_events).values(values))
    rows = [{"event": event.id, "endpoint": name, **_fresh(moment)} for name in wanting]
    connection.execute(sa.insert(deliveries), rows)


def _fresh(moment: int) -> dict[str, Any]:
    """Return the columns of a delivery that was never tried."""
    return {
        "state": WAITING,
        "attempts": 0,
        "due_ms": moment,
        "since_ms": moment,
        "attempted_ms": None,
        "status": None,
        "problem": "",
    }


class Outbox:
    """The outbox of one database.

    Every method raises CatalogueError where the database cannot be used.
    """

    def __init__(
        self,
        database: Database,
        *,
        clock_ms: Callable[[], int] = now_ms,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self.database = database
        self._clock_ms = clock_ms
        self._dice = dice

    def claim(self, endpoint: str, most: int) -> list[Delivery]:
        """Return up to `most` deliveries of an endpoint that are due, the oldest first.

        They are nobody else's for `LEASE_MS`.
        """
        moment = self._clock_ms()
        due = (
            _SELECT.where(
                deliveries.c.state == WAITING,
                deliveries.c.endpoint == endpoint,
                deliveries.c.due_ms <= moment,
            )
            .order_by(deliveries.c.due_ms, deliveries.c.n)
            .limit(most)
        )
        with self.database.reading() as connection:  # mostly there is nothing, and nothing to write
            found = connection.execute(due).all()
        return [_delivery(row) for row in found if self._lease(row.n, row.due_ms, moment)]

    def _lease(self, number: int, due_ms: int, moment: int) -> bool:
        """Whether a delivery is ours: another process may have been faster."""
        changed = (
            sa.update(deliveries)
            .where(
                deliveries.c.n == number,
                deliveries.c.due_ms == due_ms,
                deliveries.c.state == WAITING,
            )
            .values(due_ms=moment + LEASE_MS)
        )
        with self.database.writing() as connection:
            return bool(connection.execute(changed).rowcount)

    def settle(self, delivery: Delivery, answer: PostAnswer) -> str:
        """Keep what came of an attempt; return the state that the delivery is in now.

        What another process settled meanwhile, or somebody sent again, stays as it is if that is
        more: something that was delivered is not tried again for an attempt that failed.
        """
        moment, attempts = self._clock_ms(), delivery.attempts + 1
        due_ms = moment + self._delay_ms(attempts, answer.retry_after_seconds)
        state = WAITING
        if answer.is_success:
            state = DELIVERED
        elif answer.status == _GONE or due_ms - delivery.since_ms > GIVE_UP_MS:
            state = DEAD
        changed = sa.update(deliveries).where(deliveries.c.n == delivery.n)
        if state != DELIVERED:
            changed = changed.where(deliveries.c.state == WAITING)
        values = {
            "state": state,
            "attempts": attempts,
            "attempted_ms": moment,
            "due_ms": due_ms if state == WAITING else moment,
            "status": answer.status,
            "problem": _without_nul(answer.problem[:LONGEST_PROBLEM]),
        }
        with self.database.writing() as connection:
            connection.execute(changed.values(values))
        return state

    def _delay_ms(self, attempts: int, asked_seconds: float) -> int:
        """Return how long to wait before the next attempt: longer each time, and never the same."""
        grown = min(LONGEST_DELAY_MS, FIRST_DELAY_MS * GROWTH ** min(attempts - 1, 20))
        jittered = grown * (0.5 + self._dice())
        return int(max(jittered, min(asked_seconds * 1000, LONGEST_DELAY_MS)))

    def page(
        self,
        *,
        states: Collection[str] = STATES,
        endpoint: str = "",
        recording: str = "",
        before: int | None = None,
        limit: int = PAGE,
    ) -> list[Delivery]:
        """Return some deliveries, the newest first; those before the number `before`."""
        selected = _SELECT.where(deliveries.c.state.in_(list(states)))
        if endpoint:
            selected = selected.where(deliveries.c.endpoint == _without_nul(endpoint))
        if recording:
            selected = selected.where(outbox_events.c.recording_id == _without_nul(recording))
        if before is not None:
            selected = selected.where(deliveries.c.n < before)
        with self.database.reading() as connection:
            rows = connection.execute(selected.order_by(deliveries.c.n.desc()).limit(limit)).all()
        return [_delivery(row) for row in rows]

    def totals(self) -> dict[str, Totals]:
        """Return by endpoint how many deliveries are in which state."""
        count = sa.func.count()
        selected = sa.select(deliveries.c.endpoint, deliveries.c.state, count).group_by(
            deliveries.c.endpoint, deliveries.c.state
        )
        found: dict[str, dict[str, int]] = {}
        with self.database.reading() as connection:
            for endpoint, state, number in connection.execute(selected):
                found.setdefault(endpoint, {})[state] = number
        return {endpoint: Totals(**counts) for endpoint, counts in found.items()}

    def resend(self, number: int) -> Delivery:
        """Schedule one delivery again, whatever became of it, from now on for the whole time.

        Raises:
            NotFoundError: there is none of this number.
        """
        chosen = deliveries.c.n == number
        with self.database.writing() as connection:
            connection.execute(
                sa.update(deliveries).where(chosen).values(**_again(self._clock_ms()))
            )
            row = connection.execute(_SELECT.where(chosen)).first()
        if row is None:
            raise NotFoundError(f"there is no delivery {number}")
        return _delivery(row)

    def resend_dead(self, endpoint: str = "") -> int:
        """Schedule all dead deliveries again, of one endpoint or of all; return how many."""
        changed = sa.update(deliveries).where(deliveries.c.state == DEAD)
        if endpoint:
            changed = changed.where(deliveries.c.endpoint == endpoint)
        with self.database.writing() as connection:
            return connection.execute(changed.values(**_again(self._clock_ms()))).rowcount

    def tidy(self, endpoints: Collection[str]) -> int:
        """Remove old events; what waits for nobody who is configured is dead in time.

        Returns:
            How many deliveries are dead now because their endpoint is configured no more.
        """
        moment = self._clock_ms()
        left = sa.update(deliveries).where(
            deliveries.c.state == WAITING,
            deliveries.c.endpoint.not_in(list(endpoints)),
            deliveries.c.since_ms < moment - GIVE_UP_MS,
        )
        waiting = sa.select(deliveries.c.event).where(deliveries.c.state == WAITING)
        old = sa.delete(outbox_events).where(
            outbox_events.c.created_ms < moment - KEPT_MS, outbox_events.c.id.not_in(waiting)
        )
        problem = "no webhook of this name is configured any more"
        with self.database.writing() as connection:
            dead = connection.execute(left.values(state=DEAD, problem=problem)).rowcount
            connection.execute(old)
        return dead


def _without_nul(text: str) -> str:
    """Return a text as PostgreSQL has it, which knows no NUL."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def _again(moment: int) -> dict[str, Any]:
    return {"state": WAITING, "due_ms": moment, "since_ms": moment, "attempts": 0}


def _delivery(row: sa.Row[Any]) -> Delivery:
    return Delivery(**row._mapping)
