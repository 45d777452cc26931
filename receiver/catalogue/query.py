"""The words of a search, the same on the command line, in URLs and in the API. Pure.

from, to                  RFC 3339, a date, or an age such as 24h; a date in `to` is included
call, stream              an id
param.NAME=VALUE          `*` at the end stands for any rest, `\\*` for a star
label, finding, track     may come several times; all must agree
complete, held            yes or no
min_duration, max_duration   seconds, or with a unit: 90, 90s, 5m, 1h
state                     live, present, archived, deleted or missing
q                         words, or beginnings of words, in parameters, labels and, for who may
                          read them, notes
sort                      newest (the default), oldest, longest or shortest
after, limit              the next page: what the page before gave; how many rows, at most 500
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from receiver.catalogue import tokens
from receiver.catalogue.tokens import Clause
from receiver.errors import BadWord
from receiver.recording.store import parse_since

PARAMETER: Final = "param."
LIMIT: Final = 50
MOST_ROWS: Final = 500
LONGEST_VALUE: Final = 1000
STATES: Final = ("live", "present", "archived", "deleted", "missing")
SORTS: Final = ("newest", "oldest", "longest", "shortest")
_PAGING: Final = ("sort", "after", "limit")
_REPEATABLE: Final = frozenset({"label", "finding", "track"})
_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(s|m|h|)")
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600}
_CURSOR: Final = re.compile(r"([0-9]{1,18})(?:_([0-9]{1,15}(?:\.[0-9]{1,12})?))?")


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a page ended: the row's number, and its duration where that is the order."""

    n: int
    duration_ms: float | None = None

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Return what `str` has made a text of.

        Raises:
            BadWord: it has not.
        """
        match = _CURSOR.fullmatch(text)
        if match is None:
            raise BadWord("after", "it must be what the page before gave")
        return cls(int(match[1]), float(match[2]) if match[2] else None)

    def __str__(self) -> str:
        return f"{self.n}" if self.duration_ms is None else f"{self.n}_{self.duration_ms!r}"


@dataclass(frozen=True, slots=True)
class Query:
    """What to search for; `words` are the filters, each once, in one order, as they were given.

    Times are milliseconds since 1970; `since_ms` is included and `until_ms` is not.
    """

    words: tuple[tuple[str, str], ...] = ()
    since_ms: int | None = None
    until_ms: int | None = None
    least_ms: float | None = None
    most_ms: float | None = None
    clauses: tuple[Clause, ...] = ()
    sort: str = "newest"
    after: Cursor | None = None
    limit: int = LIMIT

    def canonical(self) -> list[tuple[str, str]]:
        """Return all words but the page: what a link to another page or facet begins with."""
        sort = [] if self.sort == "newest" else [("sort", self.sort)]
        limit = [] if self.limit == LIMIT else [("limit", str(self.limit))]
        return [*self.words, *sort, *limit]

    def value(self, word: str) -> str | None:
        """Return the value of a filter, the first of several."""
        return next((value for name, value in self.words if name == word), None)


@dataclass
class _Reading:
    """What was read of a query so far."""

    asked_at: datetime
    in_notes: bool
    query: Query = field(default_factory=Query)
    clauses: list[Clause] = field(default_factory=list)


def parse(pairs: Iterable[tuple[str, str]], now: datetime, *, in_notes: bool = False) -> Query:
    """Return the query that words mean; what has no value is as if it were not there.

    Args:
        pairs: words and values, as in the query of a URL.
        now: what ages count back from.
        in_notes: whether `q` finds by the words of notes, too: for who may read these.

    Raises:
        BadWord: a word is unknown, comes twice, or its value cannot be used.
    """
    reading = _Reading(now, in_notes)
    given: dict[tuple[str, str], None] = {}
    for word, value in pairs:
        if value.strip():
            given[word, value if word.startswith(PARAMETER) else value.strip()] = None
    _refuse_repeated(given)
    for word, value in given:
        if len(value) > LONGEST_VALUE:
            raise BadWord(word[:100], f"it has more than {LONGEST_VALUE} characters")
        _reader(word)(reading, word, value)
    query = reading.query
    if query.least_ms is not None or query.most_ms is not None:
        reading.clauses.append(tokens.durations(query.least_ms, query.most_ms))
    words = sorted((word, value) for word, value in given if word not in _PAGING)
    return replace(query, words=tuple(words), clauses=tuple(dict.fromkeys(reading.clauses)))


def _refuse_repeated(given: Iterable[tuple[str, str]]) -> None:
    seen = set[str]()
    for word, _ in given:
        if word in seen and word not in _REPEATABLE:
            raise BadWord(word[:100], "it is given twice, with two values")
        seen.add(word)


_Reader = Callable[[_Reading, str, str], None]


def _reader(word: str) -> _Reader:
    if word.startswith(PARAMETER) and len(word) > len(PARAMETER):
        return _parameter
    if word not in _READERS:
        close = difflib.get_close_matches(word, [*_READERS, "param.NAME"], 1)
        advice = f"did you mean {close[0]}?" if close else f"there are {', '.join(WORDS)}"
        raise BadWord(word[:100], f"there is no such word; {advice}")
    return _READERS[word]


def _parameter(reading: _Reading, word: str, value: str) -> None:
    name = word.removeprefix(PARAMETER)
    if value.endswith("\\*"):
        clause = Clause((tokens.parameter(name, value[:-2] + "*"),))
    elif value.endswith("*"):
        clause = tokens.parameter_prefix(name, value[:-1])
    else:
        clause = Clause((tokens.parameter(name, value),))
    reading.clauses.append(clause)


def _time(reading: _Reading, word: str, value: str) -> None:
    try:
        moment = parse_since(value, reading.asked_at)
        if word == "to" and len(value) <= len("2026-12-01") and not value[-1:].isalpha():
            moment += timedelta(days=1)  # a date, which is meant as a whole
        ms = max(0, math.ceil(moment.timestamp() * 1000))
    except (ValueError, OverflowError):
        raise BadWord(word, "it must be a date, an RFC 3339 time, or an age such as 24h") from None
    if word == "from":
        reading.query = replace(reading.query, since_ms=ms)
    else:
        reading.query = replace(reading.query, until_ms=ms)


def _duration(reading: _Reading, word: str, value: str) -> None:
    match = _DURATION.fullmatch(value)
    if match is None:
        raise BadWord(word, "it must be seconds, or a number with s, m or h behind it")
    ms = float(match[1]) * _SECONDS[match[2]] * 1000
    if word == "min_duration":
        reading.query = replace(reading.query, least_ms=ms)
    else:
        reading.query = replace(reading.query, most_ms=ms)


def _exact(kind: str) -> _Reader:
    def read(reading: _Reading, _: str, value: str) -> None:
        reading.clauses.append(Clause((tokens.exact(kind, value),)))

    return read


def _choice(kind: str, values: tuple[str, ...]) -> _Reader:
    def read(reading: _Reading, word: str, value: str) -> None:
        if value not in values:
            raise BadWord(word, f"it must be {', '.join(values[:-1])} or {values[-1]}")
        reading.clauses.append(Clause((tokens.exact(kind, value),)))

    return read


def _words(reading: _Reading, word: str, value: str) -> None:
    clauses = list(tokens.search(value, in_notes=reading.in_notes))
    if not clauses:
        raise BadWord(word, "there is no letter or digit in it to look for")
    reading.clauses += clauses


def _sort(reading: _Reading, word: str, value: str) -> None:
    if value not in SORTS:
        raise BadWord(word, f"it must be {', '.join(SORTS[:-1])} or {SORTS[-1]}")
    reading.query = replace(reading.query, sort=value)


def _after(reading: _Reading, _: str, value: str) -> None:
    reading.query = replace(reading.query, after=Cursor.parse(value))


def _limit(reading: _Reading, word: str, value: str) -> None:
    if not value.isascii() or not value.isdigit() or not 1 <= int(value[:9]) <= MOST_ROWS:
        raise BadWord(word, f"it must be a number from 1 to {MOST_ROWS}")
    reading.query = replace(reading.query, limit=int(value))


_READERS: Final[dict[str, _Reader]] = {
    "from": _time,
    "to": _time,
    "call": _exact("i"),
    "stream": _exact("k"),
    "label": _exact("l"),
    "finding": _exact("f"),
    "track": _choice("t", ("inbound", "outbound")),
    "complete": _choice("c", ("yes", "no")),
    "held": _choice("h", ("yes", "no")),
    "min_duration": _duration,
    "max_duration": _duration,
    "state": _choice("s", STATES),
    "q": _words,
    "sort": _sort,
    "after": _after,
    "limit": _limit,
}
WORDS: Final = (*_READERS, "param.NAME")
"""All words, as they are named to people."""


def limited(query: Query, scope: Mapping[str, str]) -> Query:
    """Return a query that finds only what has these parameters."""
    clauses = [Clause((tokens.parameter(name, value),)) for name, value in scope.items()]
    return replace(query, clauses=(*query.clauses, *clauses))
