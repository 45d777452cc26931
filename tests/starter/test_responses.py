"""Understanding the provider's answers."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starter.errors import AnswerError
from starter.models import StreamHandle
from starter.responses import ErrorAnswer, parse_date, parse_error, parse_handle, parse_retry_after

SID = "b3877c40-da60-4998-90ad-b792e98472st"  # the provider's own example, which is no UUID
NOW = datetime(2026, 11, 22, 20, 30, tzinfo=UTC)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
fields_of_answers = st.dictionaries(
    st.sampled_from(["sid", "date_updated", "errors", "code", "message", "more_info"]), json_values
)


def test_a_full_answer_becomes_a_handle() -> None:
    """Every documented field has its place, and the date its zone."""
    body = {
        "sid": SID,
        "account_sid": "a",
        "call_sid": "c",
        "name": "my_first_stream",
        "status": "queued",
        "date_updated": "Wed, 19 Sep 2018 21:00:00 +0000",
        "uri": "/api/x.json",
    }

    assert StreamHandle(
        sid=SID,
        account_sid="a",
        call_sid="c",
        name="my_first_stream",
        status="queued",
        date_updated=datetime(2018, 9, 19, 21, tzinfo=UTC),
        uri="/api/x.json",
    ) == parse_handle(json.dumps(body).encode())


def test_an_odd_answer_still_gives_the_sid() -> None:
    """Unknown status, null name and a date that is none do not cost the stream."""
    body = {
        "sid": SID,
        "conference_sid": "f",
        "status": "paused",
        "name": None,
        "date_updated": "?",
    }
    handle = parse_handle(json.dumps(body).encode())

    assert StreamHandle(sid=SID, conference_sid="f", status="paused") == handle


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"\xff", b'{"sid": 5}', b'{"sid": ""}'])
def test_success_without_a_sid_is_an_error(body: bytes) -> None:
    """An answer that names no stream is not a success."""
    with pytest.raises(AnswerError, match="without naming the stream"):
        parse_handle(body)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            {"code": 20404, "message": "no", "more_info": "https://x.example", "status": 404},
            (20404, "no", "https://x.example"),
        ),
        ({"errors": ["first", "second"]}, (None, "first; second", None)),
        (
            {"errors": [{"code": "31922", "message": "no", "more_info": "https://y.example"}]},
            (31922, "no", "https://y.example"),
        ),
        ({"errors": [{"code": 1}, {"message": "second"}]}, (1, "second", None)),
        ({"errors": "text"}, (None, "text", None)),
        ({"code": True, "message": "m", "more_info": None}, (None, "m", None)),
        ({"code": 10**3000, "message": "m"}, (None, "m", None)),
    ],
)
def test_all_forms_of_errors_are_understood(
    body: object, expected: tuple[int | None, str, str | None]
) -> None:
    """Object, list of texts and list of objects all give code, message and more_info."""
    code, message, more_info = expected

    assert ErrorAnswer(message, code, more_info) == parse_error(json.dumps(body).encode())


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "no explanation given"),
        (b"<h1>Not\n found</h1>", "<h1>Not found</h1>"),
        (b"x" * 1000, "x" * 300 + "…"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"[" * 100_000, "[" * 300 + "…"),
        (b'{"errors": []}', '{"errors": []}'),
    ],
)
def test_an_error_that_is_no_json_is_quoted(body: bytes, message: str) -> None:
    """A proxy's page is shown in one short line."""
    assert ErrorAnswer(message) == parse_error(body)


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\x1b", "\x00", "\x9b", "\u2028"])
def test_every_text_of_an_error_is_one_short_line(separator: str) -> None:
    """A message of megabytes is cut, and nothing in it steers a terminal."""
    body = {"message": f"a{separator}b" + "x" * 5_000_000, "more_info": f"c{separator}d"}

    assert ErrorAnswer("a b" + "x" * 297 + "…", None, "c d") == parse_error(
        json.dumps(body).encode()
    )


def test_what_is_masked_is_masked_before_it_is_cut() -> None:
    """No half of a secret is left at the end of a long text, however it was written."""
    body = {"message": "x" * 295 + "secret"}
    text = json.dumps(body).replace("s", r"\u0073").encode()
    answer = parse_error(text, lambda text: text.replace("secret", "***"))

    assert ErrorAnswer("x" * 295 + "***") == answer


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("Tue, 25 Sept 2018 20:00:00 +0000", datetime(2018, 9, 25, 20, tzinfo=UTC)),
        ("25 September 2018 20:00:00 GMT", datetime(2018, 9, 25, 20, tzinfo=UTC)),
        ("Wed, 19 Sep 2018 21:00:00 -0000", datetime(2018, 9, 19, 21, tzinfo=UTC)),
        (
            "Wed, 19 Sep 2018 21:00:00 +0200",
            datetime(2018, 9, 19, 21, tzinfo=timezone(timedelta(hours=2))),
        ),
        ("2018-09-19T21:00:00Z", datetime(2018, 9, 19, 21, tzinfo=UTC)),
        ("2018-09-19 21:00", datetime(2018, 9, 19, 21, tzinfo=UTC)),
        ("soon", None),
        ("", None),
        ("Wed, 99 Sep 2018 21:00:00 +0000", None),
    ],
)
def test_dates_are_read_leniently(text: str, date: datetime | None) -> None:
    """RFC 2822 with long months, ISO 8601, and None for anything else."""
    assert date == parse_date(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("Sun, 22 Nov 2026 20:30:30 GMT", 30.0),
        ("Sun, 22 Nov 2026 20:29:00 GMT", 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str | None, seconds: float | None) -> None:
    """Both forms of the header are understood, and a past date means now."""
    assert seconds == parse_retry_after(text, NOW)


@given(st.binary() | fields_of_answers.map(lambda fields: json.dumps(fields).encode()))
def test_any_body_gives_a_handle_or_a_complaint(body: bytes) -> None:
    """No answer makes the parsers fail in another way."""
    assert parse_error(body).message is not None
    try:
        handle: Any = parse_handle(body)
    except AnswerError:
        return
    assert handle.sid
    assert handle.date_updated is None or handle.date_updated.tzinfo


@given(st.text())
def test_any_text_is_a_moment_or_none(text: str) -> None:
    """No date text makes the parser fail, and no date lacks a zone."""
    date = parse_date(text)
    assert date is None or date.tzinfo is not None
