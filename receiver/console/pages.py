"""The pages about recordings: the list, one recording, one call; and help.

What a page shows is one dict, which is its JSON twin, too; `views` makes it. Whatever waits for
the catalogue or a disk runs in `console.threads`.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import PurePath
from typing import Any, Final
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from receiver.catalogue.query import MOST_ROWS, Query
from receiver.catalogue.rows import Row
from receiver.catalogue.search import Facet, Facets, Page
from receiver.console import ledger_page, views
from receiver.console.changes import SAID, said_of
from receiver.console.context import Console, console_of, who_asks
from receiver.console.problems import Problem, not_found
from receiver.console.routes import Endpoint, csv_text, page
from receiver.console.who import Role, Who
from receiver.errors import BadWord, UnreadableError
from receiver.lifecycle import retention
from receiver.lifecycle.expiry import facts_of
from receiver.recording import annotations as notes
from receiver.recording import store
from receiver.recording.verdict import code_text, duration, is_loss

_AGES: Final = (("24h", "last 24 hours"), ("7d", "last 7 days"), ("30d", "last 30 days"))
_WORDS: Final = (
    ("q=WORDS", "words, or their beginnings, in parameters, labels and notes"),
    ("from=, to=", "a date, an RFC 3339 time, or an age such as 24h or 7d"),
    ("param.NAME=VALUE", "a parameter; * at the end stands for any rest"),
    ("call=, stream=", "an id of the provider"),
    ("label=NAME", "a label"),
    ("complete=yes|no", "whether a listener misses nothing"),
    ("finding=CODE", "something that was found, such as audio_lost"),
    ("held=yes|no", "whether it is held"),
    ("min_duration=, max_duration=", "seconds, or such as 5m"),
    ("track=inbound|outbound", "recordings that have this track"),
    ("sort=", "newest, oldest, longest or shortest"),
    ("limit=", f"how many rows, {MOST_ROWS} at the most"),
)


def may(who: Who) -> dict[str, bool]:
    """Return what the buttons of a page depend on."""
    erases = who.role.includes(Role.ADMIN)
    return {"hear": who.hears, "manage": who.manages, "erase": erases}


def query_of(request: Request) -> Query:
    """Return the query of a request's address, without what is for the page itself.

    Raises:
        Problem: 400, a word cannot be used.
    """
    given = [(n, value) for n, value in request.query_params.multi_items() if n not in SAID]
    try:
        return who_asks(request).search(given, datetime.now(UTC))
    except BadWord as error:
        raise Problem(400, f"The search cannot be used: {error}.") from None


async def _recordings(request: Request) -> dict[str, Any]:
    console, who, query = console_of(request), who_asks(request), query_of(request)

    def read() -> tuple[Page, Facets]:
        found = console.catalogue.page(query, who.scope)
        return found, console.catalogue.facets(query, who.scope)

    try:
        found, facets = await console.threads.run(read)
    except BadWord as error:  # only now it is known how many would have to be sorted
        raise Problem(400, f"The search cannot be used: {error}.") from None
    words = query.canonical()
    is_first = query.after is None
    return {
        "rows": [views.row_view(row) for row in found.rows],
        "total": {"count": found.total, "is_exact": found.total_is_exact},
        "total_text": _total_text(found),
        "period_text": _period_text(query),
        "facets": _facets(query, facets),
        "filters": [_filter(query, name, value) for name, value in query.words],
        "between": _between(query),
        "sorts": _sorts(query),
        "search": {
            "text": query.value("q") or "",
            "kept": [{"name": n, "value": v} for n, v in words if n != "q"],
        },
        "here": views.search_url(words),
        "first_url": None if is_first else views.search_url(words),
        "next_url": found.next_after and views.search_url([*words, ("after", found.next_after)]),
        "csv_url": views.search_url(words, ".csv"),
        "json_url": views.search_url(words, ".json"),
        "empty_text": _empty_text(query),
        "may": may(who),
        "said": said_of(request),
    }


def _total_text(found: Page) -> str:
    if not found.total_is_exact:
        return f"More than {found.total:,} recordings"
    return "1 recording" if found.total == 1 else f"{found.total:,} recordings"


def _period_text(query: Query) -> str:
    since, until = query.value("from"), query.value("to")
    named = dict(_AGES).get(since or "")
    if named and not until:
        return named
    parts = [f"from {since}"] * bool(since) + [f"to {until}"] * bool(until)
    order = {"newest": "newest first", "oldest": "oldest first"}.get(
        query.sort, f"{query.sort} first"
    )
    return " ".join(parts) or order


def _empty_text(query: Query) -> str:
    if query.since_ms is not None or query.until_ms is not None:
        return "Perhaps it was at another time."
    return "Fewer or shorter words find more."


def _without(query: Query, name: str, value: str | None = None) -> list[tuple[str, str]]:
    """Return the words of a query without one of them, or without all of a name."""
    return [w for w in query.canonical() if w[0] != name or (value is not None and w[1] != value)]


def _filter(query: Query, name: str, value: str) -> dict[str, str]:
    shown = name.removeprefix("param.")
    text = code_text(value) if name == "finding" else value
    if name == "from" and value in dict(_AGES):
        shown, text = "time", dict(_AGES)[value]
    return {"name": shown, "value": text, "url": views.search_url(_without(query, name, value))}


def _sorts(query: Query) -> dict[str, dict[str, str]]:
    """Return for each column that sorts: where its heading leads, and how it is sorted now."""
    found = {}
    for column, down, up in (("time", "newest", "oldest"), ("length", "longest", "shortest")):
        target = up if query.sort == down else down
        kept = [word for word in query.canonical() if word[0] != "sort"]
        words = kept if target == "newest" else [*kept, ("sort", target)]
        now = {down: "descending", up: "ascending"}.get(query.sort, "none")
        found[column] = {"url": views.search_url(words), "now": now, "next": target}
    return found


def _facets(query: Query, found: Facets) -> list[dict[str, Any]]:
    """Return the filters at the side: those that would narrow this search, with how far."""
    complete = {"yes": "complete", "no": "something missing"}
    losses = [each for each in found.findings if is_loss(each.value)]
    sections = [
        {"title": "When", "values": [_age(query, age, text) for age, text in _AGES]},
        _facet(query, "Verdict", found.complete, complete),
        _facet(query, "What is missing", losses, {f.value: code_text(f.value) for f in losses}),
        *(_facet(query, name, values) for name, values in found.parameters.items()),
        _facet(query, "Label", found.labels),
    ]
    return [section for section in sections if section["values"]]


def _age(query: Query, age: str, text: str) -> dict[str, Any]:
    is_chosen = query.value("from") == age
    words = [each for each in _without(query, "from") if each[0] != "to"]
    target = words if is_chosen else [*words, ("from", age)]
    return {"text": text, "count": None, "is_chosen": is_chosen, "url": views.search_url(target)}


def _facet(
    query: Query, title: str, values: Iterable[Facet], names: dict[str, str] | None = None
) -> dict[str, Any]:
    shown = [
        {
            "text": (names or {}).get(each.value, each.value),
            "count": each.count,
            "is_chosen": (each.word, each.value) in query.words,
            "url": _toggled(query, each),
        }
        for each in values
    ]
    return {"title": title, "values": shown}


def _toggled(query: Query, facet: Facet) -> str:
    """Return the address with a filter put in the place of its like, or taken out."""
    if (facet.word, facet.value) in query.words:
        return views.search_url(_without(query, facet.word, facet.value))
    kept = query.canonical() if facet.word == "label" else _without(query, facet.word)
    return views.search_url([*kept, (facet.word, facet.value)])


def _between(query: Query) -> dict[str, Any]:
    times = {"from": query.since_ms, "to": query.until_ms}
    asked = [query.value(name) for name in times]
    is_open = any(value is not None and value not in dict(_AGES) for value in asked)
    kept = [(n, v) for n, v in query.canonical() if n not in times]
    fields = {f"{name}_value": _minute(ms) if is_open else "" for name, ms in times.items()}
    return {"open": is_open, "kept": [{"name": n, "value": v} for n, v in kept], **fields}


def _minute(ms: int | None) -> str:
    """Return a time as a field of it has it, in UTC."""
    if ms is None:
        return ""
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%dT%H:%M}"


async def _recordings_csv(request: Request) -> Response:
    """Send all recordings of a search, page by page, so that memory holds one.

    The ledger has it before the first byte.
    """
    console, who = console_of(request), who_asks(request)
    query = replace(query_of(request), limit=MOST_ROWS)
    found = await console.threads.run(console.catalogue.page, query, who.scope)
    rows = [views.row_view(row) for row in found.rows]
    names = list(dict.fromkeys(name for row in rows for name in row["parameters"]))
    await console.enter(
        who, "exported", file="recordings.csv", search=urlencode(query_of(request).canonical())
    )

    async def parts() -> AsyncIterator[str]:
        yield csv_text(itertools.chain([views.csv_head(names)], views.csv_lines(rows, names)))
        after = found.next_after
        while after:
            words = [*query.canonical(), ("after", after)]
            following = who.search([w for w in words if w[0] != "from"], datetime.now(UTC))
            following = replace(following, since_ms=query.since_ms, until_ms=query.until_ms)
            more = await console.threads.run(console.catalogue.page, following, who.scope)
            yield csv_text(views.csv_lines([views.row_view(row) for row in more.rows], names))
            after = more.next_after

    headers = {"Content-Disposition": 'attachment; filename="recordings.csv"'}
    return StreamingResponse(parts(), headers=headers, media_type="text/csv")


async def _recording(request: Request) -> dict[str, Any]:
    console, who = console_of(request), who_asks(request)

    def read() -> dict[str, Any]:
        row = console.catalogue.get(request.path_params["recording_id"], who.scope)
        folder = console.catalogue.recordings / row.folder
        try:
            document, added = store.read(folder).recording, who.seen(notes.read(folder))
        except UnreadableError as error:
            raise _unreadable(row, error) from None
        heard = None
        if who.manages:
            heard = ledger_page.read_heard(console, row.id, document.duration_ms)
        kept = _kept(console, row)
        return views.recording_view(document, added) | {"heard": heard, "kept": kept}

    found = await console.threads.run(read)
    tracks = [track["track"] for track in found["tracks"]]
    recording_id = found["recording"]["id"]
    if not who.hears:  # a key may be a digit of a card, and is heard
        found["events"] = [event for event in found["events"] if event["look"] != "key"]
    return {
        **found,
        "downloads": views.downloads(tracks, recording_id) if who.hears else [],
        "json_url": f"{found['recording']['url']}.json",
        "may": may(who),
        "said": said_of(request),
    }


def _kept(console: Console, row: Row) -> str:
    """Return until when a recording is kept, and by which rule, in words."""
    rules = retention.rules_of(console.config)
    if not rules:
        return ""
    return retention.kept_text(rules, facts_of(console.config.recordings, PurePath(row.folder)))


def _unreadable(row: Row, error: UnreadableError) -> Problem:
    return Problem(
        503,
        f"The files of the recording {row.id} cannot be read: {error}. `receiver verify {row.id}`"
        " says more; if they were removed by hand, it is gone from the list within the hour.",
    )


async def _call(request: Request) -> dict[str, Any]:
    console, who = console_of(request), who_asks(request)
    call_sid = request.path_params["call_sid"]
    rows = await console.threads.run(console.catalogue.call, call_sid, who.scope)
    if not rows:
        raise not_found()
    parts = [
        {**views.row_view(row), "before": before}
        for row, before in zip(rows, ["", *_betweens(rows)], strict=True)
    ]
    return {
        "call": {
            "call_sid": call_sid,
            "title": parts[0]["title"],
            "started_at": rows[0].started_at,
            "duration_ms": sum(row.duration_ms for row in rows),
            "parts": parts,
        },
        "json_url": f"{views.call_url(call_sid)}.json",
        "may": may(who),
    }


def _betweens(rows: list[Row]) -> Iterator[str]:
    """Yield what lies between each recording of a call and the next one, in words."""
    for earlier, later in itertools.pairwise(rows):
        if later.previous is not None and later.previous.id == earlier.id:
            gap = duration(later.previous.gap_ms)
            yield f"The stream went on {gap} later, by the sender's clock."
            continue
        ended = _time(earlier) + timedelta(milliseconds=earlier.duration_ms)
        apart_ms = (_time(later) - ended).total_seconds() * 1000
        when = (
            f"{duration(-apart_ms)} before that ended"
            if apart_ms < 0
            else f"{duration(apart_ms)} later"
        )
        yield f"Another stream of the call, which began {when}."


def _time(row: Row) -> datetime:
    return datetime.fromisoformat(row.started_at)


async def _help(_: Request) -> dict[str, Any]:
    return {"words": [{"name": name, "meaning": meaning} for name, meaning in _WORDS]}


ENDPOINTS: Final = (
    Endpoint(path="/recordings.csv", handler=_recordings_csv, role=Role.VIEWER),
    *page("/recordings", "recordings.html", Role.VIEWER, _recordings),
    *page("/recordings/{recording_id}", "recording.html", Role.VIEWER, _recording),
    *page("/calls/{call_sid}", "call.html", Role.VIEWER, _call),
    *page("/help", "help.html", Role.VIEWER, _help),
)
