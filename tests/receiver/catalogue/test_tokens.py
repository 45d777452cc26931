"""Tokens: what is found by what, and that no tokenizer of a database takes them apart."""

from __future__ import annotations

import re
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.catalogue import tokens
from receiver.catalogue.tokens import Clause

SID = "76ac3c36-aaaa-4bbb-8ccc-ddddeeeeffff"


def recording(**fields: object) -> list[str]:
    """Return the tokens of a recording with these fields."""
    known: dict[str, object] = {
        "recording_id": "00112233aabbccdd",
        "call_sid": SID,
        "stream_sid": "a-stream",
        "state": "present",
        "duration_ms": 1000.0,
        "complete": True,
        "held": False,
        "tracks": ["inbound"],
        "findings": [],
        "labels": [],
        "parameters": {},
    }
    return tokens.of_recording(**{**known, **fields})  # type: ignore[arg-type]


def finds(clauses: list[Clause], indexed: list[str]) -> bool:
    """Whether a recording with these tokens meets all clauses, as the databases decide."""
    known = set(tokens.with_edges(indexed))
    return all(
        any(token.startswith(clause.tokens) for token in known)
        if clause.is_prefix
        else any(token in known for token in clause.tokens)
        for clause in clauses
    )


def finds_words(searched: str, text: str) -> bool:
    """Whether a search for words finds a value with this text; a note with it only if it may."""
    named, noted = recording(parameters={"n": text}), recording(notes=[text])
    everywhere, elsewhere = (list(tokens.search(searched, in_notes=may)) for may in (True, False))
    assert not finds(elsewhere, noted)
    found = finds(everywhere, noted)
    assert (found, found) == (finds(everywhere, named), finds(elsewhere, named))
    return found


@pytest.mark.parametrize(
    ("searched", "text"),
    [
        ("refund", "Asked for a refund."),
        ("REF asked", "Asked for a refund"),
        ("refunds", "two refunds, please"),
        ("cancella", "the cancellation"),
        ("jorg mull", "Jörg Müller"),
        ("\uff2aORG", "Jörg"),  # a wide J
        ("HAUPTSTRASSE", "Hauptstraße 5"),
        ("555-0199", "call +1 (555) 0199"),
        ("ёл", "Ёлка"),
        ("κοσμ", "Κόσμος"),
        ("서울", "서울에서"),
        ("京", "東京都から来ました"),
        ("東京都", "東京都から来ました"),
        ("東京 来ました", "東京都から来ました"),
        ("iphone修理", "iPhone修理の件"),
        ("สวัสดี", "สวัสดีครับ"),
        ("हिन", "हिन्दी"),
    ],
)
def test_words_are_found_by_their_beginnings(searched: str, text: str) -> None:
    """Whatever the case, the accents, the width, the script."""
    assert finds_words(searched, text)


@pytest.mark.parametrize(
    ("searched", "text"),
    [
        ("efund", "refund"),
        ("refund asap", "refund"),
        ("cancellations", "the cancellation"),
        ("京東", "東京都"),
        ("東都", "東京都"),
        ("カ", "ガラス"),
    ],
)
def test_other_words_are_not_found(searched: str, text: str) -> None:
    """Not from the middle of a word, and all words must be there."""
    assert not finds_words(searched, text)


def test_what_has_no_word_searches_for_nothing() -> None:
    """So it can be refused."""
    assert [] == list(tokens.search(" -- !? ", in_notes=True))


@pytest.mark.parametrize(
    "searched", [SID, SID.upper(), "00112233aabbccdd", "a" * 32, "CA" + "0" * 32]
)
def test_an_id_that_was_pasted_is_found_as_a_whole(searched: str) -> None:
    """It is of a call, a stream or a recording, or stands in a note."""
    indexed = recording(recording_id=searched, call_sid=searched)
    noted = recording(recording_id="x", call_sid="y", notes=[f"as in {searched}"])
    for in_notes in (True, False):
        clauses = list(tokens.search(searched, in_notes=in_notes))
        assert finds(clauses, indexed)
        assert in_notes == finds(clauses, noted)
        assert not finds(clauses, recording(recording_id="x", call_sid="y"))


VALUES = st.text(max_size=100)


@given(st.text(min_size=1, max_size=10), VALUES, VALUES)
def test_a_value_is_found_by_itself_alone(name: str, value: str, other: str) -> None:
    """Values are compared as they are, case and all."""
    indexed = recording(parameters={name: value})
    assert finds([Clause((tokens.parameter(name, value),))], indexed)
    if other != value:
        assert not finds([Clause((tokens.parameter(name, other),))], indexed)
    assert not finds([Clause((tokens.parameter(name + "x", value),))], indexed)


@given(st.text(alphabet=st.characters(max_codepoint=0x2FFF), max_size=60), st.integers(0, 60))
def test_a_value_is_found_by_every_beginning(value: str, length: int) -> None:
    """Of any length, also of none."""
    indexed = recording(parameters={"n": value})
    assert finds([tokens.parameter_prefix("n", value[:length])], indexed)
    assert not finds([tokens.parameter_prefix("n", value[:length] + "\u3000")], indexed)


def test_long_values_differ_by_their_ends() -> None:
    """A token is short, and says nevertheless which value it is."""
    one, other = tokens.parameter("n", "x" * 500 + "1"), tokens.parameter("n", "x" * 500 + "2")
    assert one != other
    assert len(one) < 120
    assert finds([tokens.parameter_prefix("n", "x" * 200)], recording(parameters={"n": "x" * 500}))


@given(st.text(max_size=80), st.text(max_size=30))
def test_no_tokenizer_takes_tokens_apart(value: str, name: str) -> None:
    """FTS5 finds in what it was given exactly these tokens; quotes would end a token elsewhere."""
    indexed = tokens.with_edges(recording(parameters={name: value}, labels=[value], notes=[value]))
    assert not [token for token in indexed if re.search("[^a-z0-9\x80-\U0010ffff]", token)]
    database = sqlite3.connect(":memory:")
    database.execute(
        "CREATE VIRTUAL TABLE p USING fts5(tokens, content='', columnsize=0, detail=none,"
        " tokenize='ascii')"
    )
    database.execute("CREATE VIRTUAL TABLE v USING fts5vocab(p, 'row')")
    database.execute("INSERT INTO p (rowid, tokens) VALUES (1, ?)", (" ".join(indexed),))
    assert sorted(indexed) == sorted(row[0] for row in database.execute("SELECT term FROM v"))
    database.close()


@pytest.mark.parametrize(
    ("least_ms", "most_ms", "expected"),
    [
        (None, None, [0, 500, 1000, 60_000, 86_400_000, 10**12]),
        (60_000, None, [60_000, 86_400_000, 10**12]),
        (None, 500, [0, 500]),
        (999, 1000, [1000]),
        (5000, 1000, []),
    ],
)
def test_durations_are_found_by_their_magnitude(
    least_ms: float | None, most_ms: float | None, expected: list[float]
) -> None:
    """Never too few; those of the same magnitude that are too many are left out elsewhere."""
    clause = tokens.durations(least_ms, most_ms)
    for duration in (0, 500, 1000, 60_000, 86_400_000, 10**12):
        if duration in expected:
            assert finds([clause], recording(duration_ms=float(duration)))
    if not expected:
        assert not finds([clause], recording(duration_ms=2000.0))


def test_a_recording_has_so_many_words_and_no_more() -> None:
    """A note of a million words costs what one of five thousand does."""
    found = recording(notes=[" ".join(map(str, range(tokens.MOST_WORDS * 2)))])
    assert tokens.MOST_WORDS + 20 > len(found)


def test_all_that_can_be_asked_for_is_a_token() -> None:
    """One by one."""
    indexed = recording(
        findings=["audio_lost"], labels=["To Check"], held=True, complete=False,
        parameters={"queue": "sales", "n": 5, "list": [1, "a"], "none": None},
    )  # fmt: skip
    for kind, value in (
        *(("i", SID), ("k", "a-stream"), ("f", "audio_lost"), ("l", "To Check"), ("t", "inbound")),
        *(("c", "no"), ("h", "yes"), ("s", "present"), ("r", "00112233aabbccdd")),
    ):
        assert finds([Clause((tokens.exact(kind, value),))], indexed), (kind, value)
        assert not finds([Clause((tokens.exact(kind, value + "x"),))], indexed)
    for name, value in (("queue", "sales"), ("n", "5"), ("list", '[1, "a"]'), ("none", "null")):
        assert finds([Clause((tokens.parameter(name, value),))], indexed), name
        assert finds([tokens.parameter_prefix(name, "")], indexed)
