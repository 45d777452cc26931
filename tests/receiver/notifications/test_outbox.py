"""The outbox: nothing is lost or made twice without need, on either database."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from receiver.catalogue.database import Database
from receiver.errors import NotFoundError
from receiver.notifications import events, outbox
from receiver.notifications.events import OutboxEvent
from receiver.notifications.http_client import PostAnswer
from receiver.notifications.outbox import DEAD, DELIVERED, WAITING, DeliveryReport, Outbox, Totals
from receiver.notifications.webhooks import WebhookEndpoint

ONE = WebhookEndpoint("one", events.TYPES)
TWO = WebhookEndpoint("two", (events.PUBLISHED,))
GOOD, BAD = PostAnswer(200), PostAnswer(500, "it answered 500")
DAY_MS = 86_400_000


class Clock:
    """A time that a test sets."""

    def __init__(self) -> None:
        self.ms = outbox.now_ms()

    def __call__(self) -> int:
        return self.ms


def an_event(number: int = 1, kind: str = events.PUBLISHED) -> OutboxEvent:
    """Return an event about one of several recordings."""
    recording_id = f"{number:016x}"
    data = {"recording_id": recording_id, "call_sid": f"c{number}"}
    return OutboxEvent(events.event_id(kind, recording_id), kind, "2026-12-01T10:00:00.000Z", data)


def put(database: Database, *found: OutboxEvent, endpoints: tuple[WebhookEndpoint, ...]) -> int:
    """Add events; return how many were new."""
    with database.writing() as connection:
        return outbox.add(connection, found, endpoints)


def opened(database: Database) -> tuple[Outbox, Clock]:
    """Return an outbox without chance, and its clock."""
    clock = Clock()
    return Outbox(database, clock_ms=clock, dice=lambda: 0.5), clock


def test_each_who_wants_it_gets_an_event_once(database: Database) -> None:
    """Also if it is added again; an event that nobody wants is not kept."""
    started = an_event(2, events.STREAM_STARTED)
    assert 2 == put(database, an_event(), started, endpoints=(ONE, TWO))
    assert 0 == put(database, an_event(), started, endpoints=(ONE, TWO))
    assert 0 == put(database, an_event(3, events.FAILED), endpoints=(TWO,))
    made, _ = opened(database)
    assert {"one": Totals(waiting=2), "two": Totals(waiting=1)} == made.totals()
    (delivery,) = made.claim("two", 5)
    assert an_event().body().decode() == delivery.body
    assert ("c1", "recording.published", 0) == (
        delivery.call_sid,
        delivery.type,
        delivery.attempts,
    )


def test_what_was_claimed_is_nobody_elses_until_its_lease_is_over(database: Database) -> None:
    """A process that is killed in the midst of it costs time, and no delivery."""
    put(database, *(an_event(n) for n in range(1, 6)), endpoints=(ONE,))
    made, clock = opened(database)
    first = made.claim("one", 2)
    second = made.claim("one", 9)
    assert [1, 2, 3, 4, 5] == [int(d.recording_id, 16) for d in (*first, *second)]
    assert [] == made.claim("one", 9)
    clock.ms += outbox.LEASE_MS + 1
    assert 5 == len(made.claim("one", 9))


def test_several_processes_share_what_is_due(database: Database) -> None:
    """None of it goes to two of them."""
    put(database, *(an_event(n) for n in range(1, 41)), endpoints=(ONE,))
    made, _ = opened(database)
    with ThreadPoolExecutor(4) as pool:
        claimed = [
            d.n for found in pool.map(lambda _: made.claim("one", 10), range(8)) for d in found
        ]
    rest = [d.n for d in made.claim("one", 40)]
    assert 40 == len(set(claimed + rest)) == len(claimed + rest)


def test_several_processes_add_the_same_event_once(database: Database) -> None:
    """One of them is first, and the others find it there."""
    with ThreadPoolExecutor(4) as pool:
        added = list(pool.map(lambda _: put(database, an_event(), endpoints=(ONE,)), range(4)))
    assert [0, 0, 0, 1] == sorted(added)


def test_what_fails_is_tried_again_behind_longer_waits_until_it_is_dead(database: Database) -> None:
    """For three days; the waits grow up to six hours."""
    put(database, an_event(), endpoints=(ONE,))
    made, clock = opened(database)
    began, waits = clock.ms, []
    while claimed := made.claim("one", 1):
        state = made.settle(claimed[0], BAD)
        if state == DEAD:
            break
        (delivery,) = made.page()
        waits.append(delivery.due_ms - clock.ms)
        clock.ms = delivery.due_ms
    assert [5_000, 15_000, 45_000, 135_000] == waits[:4]
    assert waits == sorted(waits)
    assert outbox.LONGEST_DELAY_MS == max(waits)
    assert 2.5 * DAY_MS < clock.ms - began < 3 * DAY_MS
    (dead,) = made.page(states=[DEAD])
    assert (len(waits) + 1, 500, "it answered 500") == (dead.attempts, dead.status, dead.problem)
    clock.ms += 10 * DAY_MS
    assert [] == made.claim("one", 1)


def test_chance_keeps_many_from_coming_back_at_once(database: Database) -> None:
    """A wait is between half and one and a half times of what it would be."""
    put(database, an_event(1), an_event(2), endpoints=(ONE,))
    clock, dice = Clock(), iter([0.0, 0.999])
    made = Outbox(database, clock_ms=clock, dice=lambda: next(dice))
    for delivery in made.claim("one", 2):
        made.settle(delivery, BAD)
    waits = [delivery.due_ms - clock.ms for delivery in reversed(made.page())]
    assert [2_500, 7_495] == waits


def test_an_end_that_asks_for_it_is_left_alone_for_longer(database: Database) -> None:
    """For six hours at the most."""
    put(database, an_event(1), an_event(2), endpoints=(ONE,))
    made, clock = opened(database)
    for delivery, seconds in zip(made.claim("one", 2), (600.0, 1e9), strict=True):
        made.settle(delivery, PostAnswer(503, "it answered 503", seconds))
    waits = [delivery.due_ms - clock.ms for delivery in reversed(made.page())]
    assert [600_000, outbox.LONGEST_DELAY_MS] == waits


def test_who_says_gone_gets_no_more_of_it(database: Database) -> None:
    """410, as the specification has it."""
    put(database, an_event(), endpoints=(ONE,))
    made, _ = opened(database)
    assert DEAD == made.settle(made.claim("one", 1)[0], PostAnswer(410, "it answered 410"))


def test_an_attempt_that_fails_takes_back_no_delivery(database: Database) -> None:
    """Of two processes that tried the same, one has delivered it."""
    put(database, an_event(), endpoints=(ONE,))
    made, clock = opened(database)
    (one,) = made.claim("one", 1)
    clock.ms += outbox.LEASE_MS + 1
    (two,) = made.claim("one", 1)
    assert DELIVERED == made.settle(two, GOOD)
    made.settle(one, BAD)
    assert {"one": Totals(delivered=1)} == made.totals()


def test_what_was_delivered_or_died_can_be_sent_again(database: Database) -> None:
    """By its number, or all that are dead of one endpoint."""
    put(database, an_event(1), an_event(2), endpoints=(ONE, TWO))
    made, _ = opened(database)
    for name, answer in (("one", GOOD), ("two", PostAnswer(410, "x"))):
        for delivery in made.claim(name, 2):
            made.settle(delivery, answer)
    assert {"one": Totals(delivered=2), "two": Totals(dead=2)} == made.totals()
    again = made.resend(made.page(endpoint="one")[0].n)
    assert (WAITING, 0) == (again.state, again.attempts)
    assert 0 == made.resend_dead("one")
    assert 2 == made.resend_dead("two")
    assert [1, 2] == [len(made.claim(name, 9)) for name in ("one", "two")]
    with pytest.raises(NotFoundError, match="there is no delivery 999"):
        made.resend(999)


def test_a_page_shows_the_newest_first(database: Database) -> None:
    """Of a state, an endpoint, a recording; and what is behind a page is on the next one."""
    put(database, *(an_event(n) for n in range(1, 8)), endpoints=(ONE, TWO))
    made, _ = opened(database)
    first = made.page(endpoint="one", limit=3)
    assert [7, 6, 5] == [int(d.recording_id, 16) for d in first]
    second = made.page(endpoint="one", limit=9, before=first[-1].n)
    assert [4, 3, 2, 1] == [int(d.recording_id, 16) for d in second]
    assert {"one", "two"} == {d.endpoint for d in made.page(recording=f"{3:016x}")}
    assert [] == made.page(states=[DEAD])
    assert [] == made.page(recording="\0", endpoint="\0")
    report = DeliveryReport.of(first[0])
    assert ("one", WAITING, None) == (report.webhook, report.state, report.attempted)
    assert report.since == report.due


def test_old_events_are_forgotten_but_for_those_that_wait(database: Database) -> None:
    """What waits for nobody who is configured is dead after three days."""
    put(database, an_event(1), an_event(2), endpoints=(ONE, TWO))
    made, clock = opened(database)
    made.settle(made.claim("one", 1)[0], GOOD)
    clock.ms += 4 * DAY_MS
    assert 2 == made.tidy(["one"])
    assert {"one": Totals(1, 1), "two": Totals(dead=2)} == made.totals()
    clock.ms += 30 * DAY_MS
    assert 0 == made.tidy(["one"])
    assert {"one": Totals(waiting=1), "two": Totals(dead=1)} == made.totals()
