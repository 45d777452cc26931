"""Searching: pages of rows, how many there are, and what they have in common.

Every answer is bounded, whatever is asked: a page reads its rows and no more, a total is counted
up to `MOST_COUNTED`, facets are counted in the newest `MOST_SAMPLED` that agree. Each of these
follows one sorted list, or the intersection of several.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from receiver.catalogue import postings, rows, tokens
from receiver.catalogue.query import MOST_ROWS, PARAMETER, Cursor, Query, limited
from receiver.catalogue.rows import Row
from receiver.catalogue.schema import recordings
from receiver.catalogue.tokens import Clause
from receiver.errors import BadWord, NotFoundError
from receiver.media import parameter_text, timestamp
from receiver.recording.store import SHORTEST_PREFIX, Tombstone

MOST_COUNTED: Final = 1000
MOST_SAMPLED: Final = 1000
MOST_DELETED: Final = 100_000
"""Tombstones that a search for what was deleted looks at, the newest months first."""
MOST_SORTED: Final = 10_000
"""So many can be sorted by their durations, unless it is all there are."""
FACET_DAYS: Final = 7
_NAMES, _VALUES, _LONGEST = 8, 10, 200
_MOST_DIFFERENT: Final = 0.75
_JSON_FACETS: Final = {"finding": "findings", "label": "labels", "track": "tracks"}
"""By the word of a query: the column, and the field of `Facets`."""
_COLUMNS: Final = [recordings.c[name] for name in Row.__struct_fields__]
_SAMPLED: Final = [
    recordings.c[name] for name in ("complete", "findings", "labels", "tracks", "parameters")
]


class Page(msgspec.Struct, frozen=True):
    """Some rows of a search.

    `next_after` is `after` of the next page, or null at the end. `total` is how many agree on all
    pages, and where `total_is_exact` is false, there are more than that.
    """

    rows: list[Row]
    next_after: str | None
    total: int
    total_is_exact: bool


class Facet(msgspec.Struct, frozen=True):
    """A word and its value, which would narrow a search to `count` recordings."""

    word: str
    value: str
    count: int


class Facets(msgspec.Struct, frozen=True):
    """What the recordings of a search have in common, the most frequent first.

    They are those since `since`, and where `is_all` is false, only the newest `counted` of these.
    `parameters` has the most used names, as `param.NAME`.
    """

    since: str
    counted: int
    is_all: bool
    complete: list[Facet]
    findings: list[Facet]
    labels: list[Facet]
    tracks: list[Facet]
    parameters: dict[str, list[Facet]]


@dataclass(frozen=True, slots=True)
class _Source:
    """Where rows come from, and which: a table or a join, its number, and the conditions."""

    table: sa.FromClause
    number: sa.ColumnElement[int]
    conditions: Sequence[sa.ColumnElement[bool] | sa.TextClause]

    def select(self, *columns: Any) -> sa.Select[Any]:
        return sa.select(*columns).select_from(self.table).where(*self.conditions)


def page(connection: Connection, query: Query, scope: Mapping[str, str]) -> Page:
    """Return the rows of one page.

    Raises:
        BadWord: there are too many to be sorted as they should be, or `after` is of another sort.
    """
    query = limited(query, scope)
    by_duration = query.sort in ("longest", "shortest")
    found = (_page_by_duration if by_duration else _page_by_time)(connection, query)
    return msgspec.structs.replace(found, rows=_naming_only_known(connection, found.rows, scope))


def _page_by_time(connection: Connection, query: Query) -> Page:
    source = _source(connection, query)
    order, beyond = source.number.desc(), None
    if query.sort == "oldest":
        order = source.number.asc()
    if query.after is not None:
        is_oldest = query.sort == "oldest"
        n = query.after.n
        beyond = source.number > n if is_oldest else source.number < n
    selected = source.select(source.number.label("n"))
    if beyond is not None:
        selected = selected.where(beyond)
    found = connection.execute(selected.order_by(order).limit(query.limit + 1)).scalars().all()
    numbers = list(found[: query.limit])
    after = str(Cursor(numbers[-1])) if len(found) > query.limit else None
    return _page(connection, query, numbers, after)


def _page_by_duration(connection: Connection, query: Query) -> Page:
    longest = query.sort == "longest"
    condition = _duration_condition(connection, query)
    duration, n = recordings.c.duration_ms, recordings.c.n
    if query.after is not None:
        if query.after.duration_ms is None:
            raise BadWord("after", "it is of a page that is sorted in another way")
        key, place = sa.tuple_(duration, n), sa.tuple_(query.after.duration_ms, query.after.n)
        condition.append(key < place if longest else key > place)
    order = (duration.desc(), n.desc()) if longest else (duration, n)
    selected = sa.select(n, duration).where(*condition).order_by(*order).limit(query.limit + 1)
    found = connection.execute(selected).all()
    last = found[: query.limit][-1] if len(found) > query.limit else None
    after = None if last is None else str(Cursor(last.n, last.duration_ms))
    return _page(connection, query, [row.n for row in found[: query.limit]], after)


def _duration_condition(
    connection: Connection, query: Query
) -> list[sa.ColumnElement[bool] | sa.TextClause]:
    """Return the conditions on `recordings`, if not too many agree to be sorted.

    Raises:
        BadWord: too many do.
    """
    is_narrowed = query.clauses or query.since_ms is not None or query.until_ms is not None
    if not is_narrowed:
        return []
    source = _source(connection, query)
    if _count(connection, source, MOST_SORTED) > MOST_SORTED:
        raise BadWord(
            "sort",
            f"more than {MOST_SORTED} recordings agree, which is too many to sort by duration:"
            " narrow them down with from, to or other words",
        )
    return [recordings.c.n.in_(source.select(source.number))]


def _page(connection: Connection, query: Query, numbers: list[int], after: str | None) -> Page:
    found = _rows(connection, numbers)
    if after is None and query.after is None:
        return Page(found, None, len(found), True)
    total = _count(connection, _source(connection, query), MOST_COUNTED)
    return Page(found, after, min(total, MOST_COUNTED), total <= MOST_COUNTED)


def _rows(connection: Connection, numbers: Sequence[int]) -> list[Row]:
    """Return the rows of these numbers, in this order."""
    selected = sa.select(recordings.c.n, *_COLUMNS).where(recordings.c.n.in_(numbers))
    by_number = {
        row["n"]: rows.decoded(dict(row)) for row in connection.execute(selected).mappings()
    }
    return [by_number[n] for n in numbers if n in by_number]


def _count(connection: Connection, source: _Source, most: int) -> int:
    """Return how many agree; one more than `most` where they are more."""
    some = source.select(source.number).limit(most + 1).subquery()
    return int(connection.execute(sa.select(sa.func.count()).select_from(some)).scalar_one())


def _source(connection: Connection, query: Query) -> _Source:
    """Return what to read: postings where there are clauses, recordings where there are none."""
    conditions: list[sa.ColumnElement[bool] | sa.TextClause] = []
    number: sa.ColumnElement[int] = recordings.c.n
    table: sa.FromClause = recordings
    if query.clauses:
        number = postings.numbers(connection)
        table = number.table
        conditions.append(postings.matching(connection, query.clauses))
    if query.least_ms is not None or query.most_ms is not None:
        table = table.join(recordings, recordings.c.n == number)
        conditions += [
            *([] if query.least_ms is None else [recordings.c.duration_ms >= query.least_ms]),
            *([] if query.most_ms is None else [recordings.c.duration_ms <= query.most_ms]),
        ]
    if query.since_ms is not None:
        conditions.append(number >= rows.first_number(query.since_ms))
    if query.until_ms is not None:
        conditions.append(number < rows.first_number(query.until_ms))
    return _Source(table, number, conditions)


def facets(connection: Connection, query: Query, scope: Mapping[str, str], now: datetime) -> Facets:
    """Return what the recordings of a search have in common; without `from`, of the last days."""
    query = limited(query, scope)
    if query.since_ms is None:
        since = now - timedelta(days=FACET_DAYS)
        query = replace(query, since_ms=round(since.timestamp() * 1000))
    source = _source(connection, query)
    newest = source.select(source.number).order_by(source.number.desc()).limit(MOST_SAMPLED)
    selected = sa.select(*_SAMPLED).where(recordings.c.n.in_(newest))
    return _counted(connection.execute(selected).all(), query.since_ms or 0)


def _counted(sample: Sequence[sa.Row[Any]], since_ms: int) -> Facets:
    names = [column.name for column in _SAMPLED]
    found = zip(*sample, strict=True) if sample else [()] * len(names)
    columns = dict(zip(names, found, strict=True))
    values: dict[str, Counter[str]] = {
        word: _values(column, Counter(columns[column])) for word, column in _JSON_FACETS.items()
    }
    complete = Counter(map(bool, columns["complete"]))
    values["complete"] = +Counter({"yes": complete[True], "no": complete[False]})
    parameters = _parameters(columns["parameters"])
    telling = {name: found for name, found in parameters.items() if _is_telling(found)}
    used = sorted(telling, key=lambda name: (-telling[name].total(), name))[:_NAMES]
    return Facets(
        since=timestamp(since_ms),
        counted=len(sample),
        is_all=len(sample) < MOST_SAMPLED,
        complete=_facet("complete", values["complete"]),
        **{column: _facet(word, values[word]) for word, column in _JSON_FACETS.items()},
        parameters={name: _facet(f"{PARAMETER}{name}", telling[name]) for name in used},
    )


def _values(column: str, texts: Counter[str]) -> Counter[str]:
    """Return how often each value is in a column of arrays, of which few are different."""
    counted: Counter[str] = Counter()
    for text, count in texts.items():
        for value in rows.decoded_column(column, text):
            counted[value] += count
    return counted


def _parameters(texts: Iterable[str]) -> dict[str, Counter[str]]:
    """Return how often each value of each parameter comes, of columns of objects."""
    values: dict[str, list[str]] = {}
    for text in texts:
        for name, value in rows.decoded_column("parameters", text).items():
            shown = value if isinstance(value, str) else parameter_text(value)
            values.setdefault(name, []).append(shown)
    return {name: Counter(found) for name, found in values.items()}


def _is_telling(values: Counter[str]) -> bool:
    """Whether a parameter tells groups of recordings apart: a number for each of them does not."""
    return len(values) == 1 or len(values) <= _MOST_DIFFERENT * values.total()


def _facet(word: str, values: Counter[str]) -> list[Facet]:
    ordered = sorted(values.items(), key=lambda item: (-item[1], item[0]))
    return [
        Facet(word, value, count) for value, count in ordered[:_VALUES] if len(value) <= _LONGEST
    ]


def get(connection: Connection, recording_id: str, scope: Mapping[str, str]) -> Row:
    """Return the row of the recording with this id, the beginning of it, or its folder's name.

    Raises:
        NotFoundError: there is none within the scope, or more than one; or the id is too short.
    """
    asked = recording_id.rpartition("-")[2].lower()
    if len(asked) < SHORTEST_PREFIX or not asked.isalnum():
        raise NotFoundError(
            f"{recording_id[:100]!r} is no id: give {SHORTEST_PREFIX} of its characters or more"
        )
    selected = sa.select(*_COLUMNS).where(
        recordings.c.id >= asked, recordings.c.id < asked + "\x7f"
    )
    candidates = connection.execute(selected.order_by(recordings.c.id)).mappings()
    # What is out of scope is as if it were not there, also where it begins in the same way.
    found = [row for row in map(rows.decoded, map(dict, candidates)) if row.agrees(scope)]
    if not found:
        raise NotFoundError(f"no recording {recording_id[:100]!r}")
    if len(found) > 1:
        raise NotFoundError(f"{recording_id[:100]!r} is ambiguous: {len(found)} recordings match")
    return _naming_only_known(connection, found, scope)[0]


def _naming_only_known(
    connection: Connection, found: list[Row], scope: Mapping[str, str]
) -> list[Row]:
    """Return rows that do not name a part before them which is out of scope."""
    named = {row.previous.id for row in found if row.previous is not None}
    if not scope or not named:
        return found
    selected = sa.select(*_COLUMNS).where(recordings.c.id.in_(named))
    parts = map(rows.decoded, map(dict, connection.execute(selected).mappings()))
    known = {part.id for part in parts if part.agrees(scope)}
    return [
        row
        if row.previous is None or row.previous.id in known
        else msgspec.structs.replace(row, previous=None)
        for row in found
    ]


def call(connection: Connection, call_sid: str, scope: Mapping[str, str]) -> list[Row]:
    """Return all recordings of a call, the oldest first; none is an empty list."""
    clause = Clause((tokens.exact("i", call_sid),))
    query = Query(clauses=(clause,), sort="oldest", limit=MOST_ROWS)
    return page(connection, query, scope).rows


def deleted(found: Iterable[Tombstone], query: Query) -> Page:
    """Return a page of what was deleted, of which tombstones are left.

    Only the first `MOST_DELETED` are looked at; where these are not all, the total is not exact.
    """
    some = list(itertools.islice(found, MOST_DELETED + 1))
    last = {each.id: each for each in some[:MOST_DELETED] if each.what == rows.DELETED}
    by_cursor = {_cursor(row, query): row for row in map(rows.of_tombstone, last.values())}
    agreeing = [at for at, row in by_cursor.items() if _agrees(at, row, query)]
    ordered = sorted(agreeing, key=_place, reverse=query.sort in ("newest", "longest"))
    behind = [at for at in ordered if query.after is None or _is_behind(at, query)]
    shown = behind[: query.limit]
    following = str(shown[-1]) if len(behind) > len(shown) else None
    is_exact = len(some) <= MOST_DELETED
    return Page([by_cursor[at] for at in shown], following, len(agreeing), is_exact)


def _cursor(row: Row, query: Query) -> Cursor:
    started_ms = 0
    with contextlib.suppress(ValueError):  # of what could not be read, nobody knows when it began
        started_ms = round(datetime.fromisoformat(row.started_at).timestamp() * 1000)
    by_duration = query.sort in ("longest", "shortest")
    return Cursor(rows.row_number(started_ms, row.id), row.duration_ms if by_duration else None)


def _place(at: Cursor) -> tuple[float, int]:
    return at.duration_ms or 0, at.n


def _is_behind(at: Cursor, query: Query) -> bool:
    after = query.after or at
    if query.sort in ("newest", "longest"):
        return _place(at) < _place(after)
    return _place(at) > _place(after)


def tokens_of(row: Row) -> list[str]:
    """Return what a recording is found by."""
    return tokens.of_recording(
        recording_id=row.id,
        call_sid=row.call_sid,
        stream_sid=row.stream_sid,
        state=row.state,
        duration_ms=row.duration_ms,
        complete=row.complete,
        held=row.held,
        tracks=row.tracks,
        findings=row.findings,
        labels=row.labels,
        parameters=row.parameters,
    )


def _agrees(at: Cursor, row: Row, query: Query) -> bool:
    found = tokens_of(row)
    return (
        (query.since_ms is None or at.n >= rows.first_number(query.since_ms))
        and (query.until_ms is None or at.n < rows.first_number(query.until_ms))
        and (query.least_ms is None or row.duration_ms >= query.least_ms)
        and (query.most_ms is None or row.duration_ms <= query.most_ms)
        and all(tokens.agrees(clause, found) for clause in query.clauses)
    )
