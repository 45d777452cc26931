"""What was asked for, and whether it came; on either database."""

from __future__ import annotations

import msgspec
import pytest

from receiver.catalogue.database import Database
from receiver.errors import NotFoundError
from receiver.notifications import events
from receiver.notifications import expectations as module
from receiver.notifications.callbacks import StreamCallback
from receiver.notifications.expectations import (
    ACCEPTED,
    ASKED,
    CONNECTED,
    FAILED,
    MISSING,
    RECORDED,
    REFUSED,
    Expectation,
    Expectations,
)
from receiver.notifications.outbox import Outbox
from receiver.notifications.webhooks import WebhookEndpoint

EVERYTHING = WebhookEndpoint("all", events.TYPES)


@pytest.fixture
def made(database: Database, monkeypatch: pytest.MonkeyPatch) -> Expectations:
    """Return expectations whose time is that of `Time.ms`."""
    Time.ms = 1_800_000_000_000
    monkeypatch.setattr(module, "now_ms", lambda: Time.ms)
    return Expectations(database, 30)


class Time:
    """The time, as a test sets it."""

    ms = 0


def came(
    database: Database, state: str, *, stream: str = "", call: str = "", name: str = ""
) -> str | None:
    """Report a stream; return the expectation that it was joined to."""
    with database.writing() as connection:
        return module.came(
            connection,
            state,
            stream_sid=stream,
            call_sid=call,
            name=name,
            recording_id="00" * 8 if state != FAILED else "",
            reason="codec_error" if state == FAILED else "",
        )


def state(made: Expectations, expectation: Expectation) -> str:
    """Return the state of an expectation now."""
    return made.get(expectation.id, {}).state


def test_a_stream_that_comes_as_it_should(made: Expectations, database: Database) -> None:
    """Asked, accepted, connected, recorded."""
    one = made.add("c1", name="n1", parameters={"queue": "sales"})
    assert (ASKED, 1) == (one.state, made.open_count())
    assert ACCEPTED == made.answer(one.id, ACCEPTED, stream_sid="s1").state
    assert one.id == came(database, CONNECTED, stream="s1", call="c1")
    assert (CONNECTED, 0) == (state(made, one), made.open_count())
    assert one.id == came(database, RECORDED, stream="s1", call="c1")
    found = made.get(one.id, {})
    assert (RECORDED, "00" * 8, "") == (found.state, found.recording_id, found.reason)
    Time.ms += 60_000
    assert [] == made.sweep([EVERYTHING])
    assert one.id == came(database, CONNECTED, stream="s1", call="c1")
    assert RECORDED == state(made, one)


def test_a_stream_may_be_faster_than_the_answer(made: Expectations, database: Database) -> None:
    """It is joined by its call, and the answer takes nothing back."""
    one = made.add("c1")
    assert one.id == came(database, CONNECTED, stream="s1", call="c1")
    assert CONNECTED == made.answer(one.id, ACCEPTED, stream_sid="s1").state
    assert one.id == came(database, RECORDED, stream="s1", call="c1")
    assert RECORDED == state(made, one)


def test_several_streams_of_a_call_are_told_apart(made: Expectations, database: Database) -> None:
    """By sid, then by name, then the oldest that waits."""
    one, two, three = (made.add("c1", name=f"n{number}") for number in (1, 2, 3))
    made.answer(three.id, ACCEPTED, stream_sid="s3")
    assert three.id == came(database, CONNECTED, stream="s3", call="c1")
    assert two.id == came(database, CONNECTED, stream="s2", call="c1", name="n2")
    assert one.id == came(database, CONNECTED, stream="s1", call="c1")
    assert None is came(database, CONNECTED, stream="s4", call="c1")
    assert None is came(database, CONNECTED, stream="s5", call="c2", name="n1")


def test_another_part_of_a_recorded_stream_is_joined_to_nothing_else(
    made: Expectations, database: Database
) -> None:
    """Another stream of the call is still waited for."""
    one = made.add("c1")
    Time.ms += 1
    two = made.add("c1")
    for each in (CONNECTED, RECORDED, CONNECTED, RECORDED):
        assert one.id == came(database, each, stream="s1", call="c1")
    assert ASKED == state(made, two)


@pytest.mark.parametrize("is_answered", [False, True])
def test_what_does_not_come_is_missing(
    made: Expectations, database: Database, is_answered: bool
) -> None:
    """Once; with what is known of why; and it may come late."""
    one = made.add("c1", name="n1", parameters={"queue": "sales"})
    Time.ms += 20_000
    if is_answered:
        made.answer(one.id, ACCEPTED, stream_sid="s1")
    Time.ms += 10_000
    assert [] == made.sweep([EVERYTHING])
    Time.ms += 21_000
    (missing,) = made.sweep([EVERYTHING])
    assert [] == made.sweep([EVERYTHING])
    assert (MISSING, 1) == (state(made, one), made.missing_total())
    reason = "the provider accepted it" if is_answered else "nobody said"
    assert missing.reason.startswith(reason)
    (delivery,) = Outbox(database).page()
    data = msgspec.json.decode(delivery.body)["data"]
    assert ("stream.missing", "c1", missing.reason) == (
        delivery.type,
        data["call_sid"],
        data["reason"],
    )
    assert {"queue": "sales"} == data["parameters"]
    assert one.id == came(database, CONNECTED, stream="s1", call="c1")
    assert CONNECTED == state(made, one)


@pytest.mark.parametrize("answer", [REFUSED, FAILED])
def test_what_the_provider_refuses_is_not_missing(made: Expectations, answer: str) -> None:
    """The reason is the provider's."""
    one = made.add("c1")
    made.answer(one.id, answer, reason="  the call\nhas ended ")
    Time.ms += 60_000
    assert [] == made.sweep([EVERYTHING])
    found = made.get(one.id, {})
    assert (answer, "the call has ended") == (found.state, found.reason)


def test_an_answer_that_comes_late_changes_the_reason_alone(made: Expectations) -> None:
    """What is missing was told; a refusal explains it."""
    one, two = made.add("c1"), made.add("c2")
    Time.ms += 31_000
    assert 2 == len(made.sweep([]))
    late = made.answer(one.id, ACCEPTED, stream_sid="s1")
    assert (MISSING, "s1") == (late.state, late.stream_sid)
    assert late.reason.startswith("the provider accepted it")
    assert REFUSED == made.answer(two.id, REFUSED, reason="no such call").state
    with pytest.raises(NotFoundError, match="no expectation 'exp_x'"):
        made.answer("exp_x", ACCEPTED)


def test_what_is_being_recorded_did_not_fail(made: Expectations, database: Database) -> None:
    """Whatever the provider reports; what never came, did."""
    one, two = made.add("c1"), made.add("c2")
    came(database, CONNECTED, stream="s1", call="c1")
    came(database, FAILED, stream="s1", call="c1")
    came(database, FAILED, stream="s2", call="c2")
    assert (CONNECTED, FAILED) == (state(made, one), state(made, two))
    assert "codec_error" == made.get(two.id, {}).reason


def test_what_a_provider_reports_is_advice(made: Expectations, database: Database) -> None:
    """In any order, twice, late: a stream that is called started is still waited for."""
    started = StreamCallback("stream-started", "c1", "s1", "n1", "")
    stopped = StreamCallback("stream-stopped", "c1", "s1", "n1", "")
    failed = StreamCallback("stream-error", "c1", "s1", "n1", "codec_error")
    one = made.add("c1", name="n1")
    for callback in (stopped, started, started):
        assert one.id == made.report(callback)
    assert (ACCEPTED, "s1", 1) == (
        state(made, one),
        made.get(one.id, {}).stream_sid,
        made.open_count(),
    )
    assert one.id == made.report(failed)
    assert one.id == made.report(started)
    assert (FAILED, "codec_error") == (state(made, one), made.get(one.id, {}).reason)
    assert one.id == came(database, RECORDED, stream="s1", call="c1")
    assert one.id == made.report(failed)
    assert RECORDED == state(made, one)
    assert None is made.report(StreamCallback("stream-started", "c9", "s9", "n9", ""))


def test_a_limit_by_parameters_counts(made: Expectations) -> None:
    """What is beyond it does not exist."""
    sales = made.add("c1", parameters={"queue": "sales"})
    other = made.add("c2", parameters={"queue": "support"})
    assert [sales.id] == [each.id for each in made.page(scope={"queue": "sales"})]
    assert 2 == len(made.page([ASKED])) == len(made.page())
    assert [] == made.page([MISSING]) == made.page(since_ms=Time.ms + 1)
    with pytest.raises(NotFoundError):
        made.get(other.id, {"queue": "sales"})


def test_old_ones_are_removed(made: Expectations) -> None:
    """Of what happened a month ago nobody asks here."""
    made.add("c1\0", name="\0")
    Time.ms += module.KEPT_MS - 1
    made.tidy()
    assert 1 == len(made.page())
    Time.ms += 2
    made.tidy()
    assert [] == made.page()
