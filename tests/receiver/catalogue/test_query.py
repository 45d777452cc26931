"""The words of a search: what they mean, what they are in one order, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlencode

import pytest

from receiver.catalogue import tokens
from receiver.catalogue.query import WORDS, Cursor, Query, limited, parse
from receiver.catalogue.tokens import Clause
from receiver.errors import BadRequest, BadWord

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
DAY_MS = 86_400_000
DECEMBER_MS = 1_796_083_200_000


def read(**words: str) -> Query:
    """Return a query; `since` is `from`, which is a word of Python's."""
    named = {"from" if word == "since" else word.replace("__", "."): v for word, v in words.items()}
    return parse(named.items(), NOW)


def test_no_words_find_everything() -> None:
    """The newest first, a page at a time."""
    query = parse([], NOW)
    assert Query() == query
    assert [] == query.canonical()
    assert ("newest", 50) == (query.sort, query.limit)


@pytest.mark.parametrize(
    ("word", "value", "ms"),
    [
        ("since", "2026-12-01", DECEMBER_MS),
        ("since", "2026-12-01T00:00:00Z", DECEMBER_MS),
        ("since", "2026-12-01T01:00:00.5+01:00", DECEMBER_MS + 500),
        ("since", "12h", DECEMBER_MS),
        ("to", "2026-11-30", DECEMBER_MS),
        ("to", "2026-12-01T00:00", DECEMBER_MS),
        ("to", "1d", DECEMBER_MS - DAY_MS // 2),
        ("since", "1960-01-01", 0),
    ],
)
def test_times(word: str, value: str, ms: int) -> None:
    """A date in `to` is meant as a whole, because people say "from Monday to Friday"."""
    query = read(**{word: value})
    assert ms == (query.since_ms if word == "since" else query.until_ms)


@pytest.mark.parametrize(
    ("value", "ms"),
    [("90", 90_000), ("1.5", 1500), ("90s", 90_000), ("5m", 300_000), ("2h", 7.2e6)],
)
def test_durations(value: str, ms: float) -> None:
    """Seconds, or with a unit."""
    query = read(min_duration=value, max_duration=value)
    assert (ms, ms) == (query.least_ms, query.most_ms)


def test_parameters_may_end_in_a_star() -> None:
    """A star alone is any value, and one behind a backslash is a star."""
    assert (Clause((tokens.parameter("a.b", "x"),)),) == read(param__a__b="x").clauses
    assert (tokens.parameter_prefix("q", "sal"),) == read(param__q="sal*").clauses
    assert (Clause((tokens.parameter_name("q"),)),) == read(param__q="*").clauses
    assert (Clause((tokens.parameter("q", "5*"),)),) == read(param__q="5\\*").clauses


def test_what_is_said_twice_is_one() -> None:
    """Labels may differ, and then both must be there; anything else cannot have two values."""
    pairs = [("label", "a"), ("label", "b"), ("label", "a"), ("call", "x"), ("call", "x")]
    query = parse(pairs, NOW)
    assert (("call", "x"), ("label", "a"), ("label", "b")) == query.words
    assert 3 == len(query.clauses)
    with pytest.raises(BadWord, match="twice"):
        parse([("call", "x"), ("call", "y")], NOW)


def test_what_is_empty_is_not_there() -> None:
    """As a form sends it."""
    assert Query() == read(call="", q=" ", since="")


def test_canonical_words_mean_the_same() -> None:
    """A link to the same search: without the page, and ages stay ages."""
    words = {
        "since": "24h", "param__queue": "sales & service", "label": "x", "q": "東京 jörg",
        "sort": "longest", "limit": "20", "after": "77_5.25", "complete": "no",
    }  # fmt: skip
    query = read(**words)
    again = parse(parse_qsl(urlencode(query.canonical())), NOW)
    assert again.canonical() == query.canonical()
    assert (set(query.clauses), query.since_ms) == (set(again.clauses), again.since_ms)
    assert "longest" == again.sort
    assert again.after is None
    assert ("from", "24h") in again.canonical()
    assert "sales & service" == again.value("param.queue")
    assert again.value("stream") is None


@pytest.mark.parametrize("cursor", [Cursor(5), Cursor(5, 12.125), Cursor(2**53, 1e9 + 0.1)])
def test_a_cursor_comes_back_as_it_was(cursor: Cursor) -> None:
    """To the last digit: it is compared with what the database has."""
    assert cursor == read(after=str(cursor)).after


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("from", "yesterday"), ("to", "13:00"), ("from", "9999-12-31T24:00"),
        ("min_duration", "-1"), ("min_duration", "5d"),
        ("max_duration", "long"), ("complete", "maybe"), ("held", "1"), ("track", "both"),
        ("state", "gone"), ("sort", "random"), ("limit", "0"), ("limit", "501"), ("limit", "٣"),
        ("limit", "9" * 30), ("after", "x"), ("after", "1_x"), ("after", "-5"), ("q", "!!"),
        ("param.", "x"), ("parm.queue", "x"), ("label", "x" * 1001), ("x" * 5000, "y"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_by_its_name(word: str, value: str) -> None:
    """In one line that says what is expected."""
    with pytest.raises(BadWord) as error:
        parse([(word, value)], NOW)
    assert word[:100] == error.value.word
    assert str(error.value).startswith(word[:100])
    assert "\n" not in str(error.value)
    assert isinstance(error.value, BadRequest)


def test_advice_for_words_that_are_none() -> None:
    """What is close, or all there are."""
    with pytest.raises(BadWord, match="did you mean label"):
        read(lable="x")
    with pytest.raises(BadWord, match=r"param\.NAME"):
        read(zzz="x")
    assert "param.NAME" in WORDS


def test_a_scope_narrows_whatever_is_asked() -> None:
    """It is a clause like any other, and no word of the query."""
    query = limited(read(param__queue="sales"), {"queue": "support"})
    assert Clause((tokens.parameter("queue", "support"),)) in query.clauses
    assert (("param.queue", "sales"),) == query.words
