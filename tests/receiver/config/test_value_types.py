"""Which values settings accept, as values of a file and as text of the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from receiver.config import (
    NETWORKS,
    PAIR,
    PATH,
    SIZE,
    SWITCH,
    TEXT,
    TEXTS,
    ValueType,
    choice,
    integer,
    seconds,
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
