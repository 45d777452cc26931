"""Which values settings accept, as values of a file and as text of the environment."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest

from receiver.config import (
    NETWORKS,
    PAIR,
    PATH,
    SIZE,
    SWITCH,
    TEXT,
    TEXT_OR_TEXTS,
    TEXTS,
    WEB_URL,
    UnfitTable,
    ValueType,
    choice,
    integer,
    seconds,
    tables,
)
from receiver.media import ByteOrder

WORDS = choice([order.value for order in ByteOrder], ByteOrder)


@pytest.mark.parametrize(
    ("kind", "value", "accepted"),
    [
        (integer(1, 9), 1, 1),
        (integer(1, 9), 9, 9),
        (seconds(0.5, 9), 0.5, 0.5),
        (seconds(0.5, 9), 9, 9),
        (WORDS, "big", ByteOrder.BIG),
        (TEXT_OR_TEXTS, "a b", ("a b",)),
        (TEXT_OR_TEXTS, ["a", "b"], ("a", "b")),
        (WEB_URL, "https://example.com:8/hook?a=b", "https://example.com:8/hook?a=b"),
        (SIZE, 0, 0),
        (SIZE, "7", 7),
        (SIZE, " 3k ", 3 * 2**10),
        (SIZE, "3M", 3 * 2**20),
        (SIZE, "3G", 3 * 2**30),
        (SIZE, "3t", 3 * 2**40),
        (SWITCH, False, False),
        (TEXT, " a b ", "a b"),
        (TEXTS, ["a ", "b"], ("a", "b")),
        (TEXTS, [], ()),
        (NETWORKS, ["127.0.0.1", "10.1.2.3/8"], ("127.0.0.1/32", "10.0.0.0/8")),
        (NETWORKS, [" 2001:db8::/32 "], ("2001:db8::/32",)),
        (NETWORKS, ["::ffff:127.0.0.1", "::ffff:10.1.2.3/104"], ("127.0.0.1/32", "10.0.0.0/8")),
        (NETWORKS, ["::ffff:0:0/96", "::/0"], ("0.0.0.0/0", "::/0")),
        (PATH, "a/b", Path("a/b")),
        (PATH, Path("a"), Path("a")),
        (PATH, "~", Path.home()),
        (PAIR, ["a", "b"], (Path("a"), Path("b"))),
        (PAIR, {"cert": "a", "key": "b"}, (Path("a"), Path("b"))),
    ],
)
def test_values_that_are_accepted(kind: ValueType, value: object, accepted: object) -> None:
    """They come back as the settings hold them, of exactly that type."""
    assert (accepted, type(accepted)) == (kind.accept(value), type(kind.accept(value)))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        *((integer(1, 9), value) for value in (0, 10, 1.0, True, "1", None)),
        *((seconds(0.5, 9), value) for value in (0.4, 9.1, True, "1", float("nan"))),
        *((WORDS, value) for value in ("Big", "", None, 1)),
        *((SIZE, value) for value in (-1, 1.5, True, "1.5M", "M", "-1", "1MB", "9" * 16, None)),
        *((SWITCH, value) for value in (0, 1, "true", None)),
        *((TEXT, value) for value in ("", " ", "a\nb", "\x1b[1m", 1, None)),
        *((TEXTS, value) for value in ("a", ["a", ""], None)),
        *((TEXT_OR_TEXTS, value) for value in ("", ["a", ""], None, 1)),
        *((WEB_URL, u) for u in ("ftp://a", "https://", "https://a:b@c/", "https://a/#b", "a/b")),
        *((NETWORKS, value) for value in ("10.0.0.0/8", ["proxy"], ["10.0.0.0/33"], [""])),
        *((PATH, value) for value in ("", "a\0b", 1, None)),
        *((PAIR, value) for value in ("ab", ["a"], ["a", "b", "c"], {"cert": "a"}, ["a", ""])),
    ],
)
def test_values_that_are_not_accepted(kind: ValueType, value: object) -> None:
    """They are one kind of error, whatever they are."""
    with pytest.raises(ValueError):  # noqa: PT011  the caller adds the text
        kind.accept(value)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (integer(1, 9), "7", 7),
        (seconds(0, 9), "1.5", 1.5),
        (WORDS, "big", "big"),
        (SWITCH, " Yes ", True),
        (SWITCH, "on", True),
        (SWITCH, "0", False),
        (SWITCH, "OFF", False),
        (TEXTS, " a  b ", ["a", "b"]),
        (PAIR, "a,b c", ["a", "b c"]),
        (PAIR, "a b", ["a", "b"]),
    ],
)
def test_text_of_the_environment_becomes_a_value(kind: ValueType, text: str, value: object) -> None:
    """Of the type that a file would have."""
    assert value == kind.parse(text)


@pytest.mark.parametrize(
    ("kind", "text"), [(integer(1, 9), "1.0"), (seconds(0, 9), "soon"), (SWITCH, "maybe")]
)
def test_text_that_is_no_value_is_refused(kind: ValueType, text: str) -> None:
    """By the same kind of error as a wrong value."""
    with pytest.raises(ValueError):  # noqa: PT011  the caller adds the text
        kind.parse(text)


def test_each_type_has_words_for_what_it_expects() -> None:
    """In words that follow "must be"."""
    assert "a whole number from 1 to 9" == integer(1, 9).expected
    assert "a number of seconds from 0.5 to 9" == seconds(0.5, 9).expected
    assert "little or big or auto" == WORDS.expected


@dataclass(frozen=True)
class Rule:
    """A table of a file, as a setting may have some."""

    match: Annotated[tuple[str, ...], TEXT_OR_TEXTS, "what it is about"]
    days: Annotated[int, integer(1, 9), "for how long"] = 3


def test_tables_become_what_they_are_of() -> None:
    """A key without a value has its default."""
    given = [{"match": "a=b"}, {"match": ["a", "b"], "days": 9}, {"match": "c", "days": None}]
    rules = tables(Rule).accept(given)
    assert (Rule(("a=b",)), Rule(("a", "b"), 9), Rule(("c",))) == rules


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ([{"match": "a", "day": 1}], "number 1: unknown key 'day': did you mean days?"),
        ([{"match": "a"}, {"xyz": 1}], "number 2: unknown key 'xyz': there are match, days"),
        ([{"days": 1}], "number 1 needs match"),
        ([{"match": "a", "days": 10}], "number 1: days must be a whole number from 1 to 9"),
        ([{"match": 7}], "number 1: match must be a text, or a list of texts"),
        (["a"], "number 1 is no table"),
    ],
)
def test_a_table_that_is_no_use_is_named(given: object, text: str) -> None:
    """By its number; its values are not shown."""
    with pytest.raises(UnfitTable, match=f"^{re.escape(text)}$"):
        tables(Rule).accept(given)
