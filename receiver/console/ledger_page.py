"""The ledger as a page, and who has heard a recording."""

from __future__ import annotations

import itertools
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, get_args
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from receiver.console.context import Console, console_of, who_asks
from receiver.console.problems import Problem
from receiver.console.routes import Endpoint, csv_text, page
from receiver.console.views import length_text
from receiver.console.who import Role, Who
from receiver.errors import NotFoundError, UnreadableError
from receiver.lifecycle.ledger import Act, Entry, EntryFilter
from receiver.media import json_text, visible

ENTRIES: Final = 100
"""On one page."""
_AT_ONCE: Final = 1000
"""Read for the table, which has all."""
HEARERS: Final = 20
_MOST_ENTRIES: Final = 5000
"""Of one recording, the newest, so many are read for who has heard it."""
_SPANS: Final = 3
_NEARLY_ALL: Final = 0.97
_JOINED_SECONDS: Final = 1.0
_HEARINGS: Final = frozenset(
    {"heard", "fetched", "downloaded", "exported", "listening_live", "listened_live"}
)
ACTS: Final = tuple(word for group in get_args(Act) for word in get_args(group) or (group,))
_PLACE: Final = re.compile(r"[0-9a-f]{64}")
_COLUMNS: Final = ("n", "at", "who", "what", "recording", "details", "via", "prev")


async def _ledger(request: Request) -> dict[str, Any]:
    console, who = console_of(request), who_asks(request)
    asked, wanted, behind = _asked(request)
    found, head = await console.threads.run(_read, console, who, wanted, behind)
    words = [(name, value) for name, value in asked.items() if value]
    next_words = []
    if len(found) > ENTRIES:
        next_words = [*words, ("before", place_of(who, found[ENTRIES - 1]))]
    return {
        "entries": [_view(entry) for entry in found[:ENTRIES]],
        "wanted": asked,
        "whats": [{"value": word, "text": _text(word)} for word in sorted(ACTS)],
        "chain": {"tone": "good", "text": _chain(head, who)},
        "next_url": f"/ledger?{urlencode(next_words)}" if next_words else None,
        "csv_url": f"/ledger.csv?{urlencode(words)}" if words else "/ledger.csv",
        "json_url": f"/ledger.json?{urlencode(words)}" if words else "/ledger.json",
    }


def _asked(request: Request) -> tuple[dict[str, str], EntryFilter, str]:
    """Return the words of a request's address, and what they mean; see `entries_for`.

    Raises:
        Problem: 400.
    """
    number, behind = before(request)
    asked = {name: request.query_params.get(name, "").strip() for name in ("who", "what")}
    asked["recording"] = request.query_params.get("recording", "").strip().lower()
    wanted = EntryFilter(
        recording=asked["recording"],
        who=asked["who"],
        what=frozenset({asked["what"]} - {""}),
        before=number,
    )
    return asked, wanted, behind


def place_of(who: Who, entry: Entry) -> str:
    """Return the word `before` of the page behind an entry.

    It is the entry's number, or, for who is limited, the hash that it names: the number would
    tell how much was done that does not exist for him.
    """
    return entry.prev if who.scope else str(entry.n)


def before(request: Request) -> tuple[int | None, str]:
    """Return what `before` is in a request: a number, or the hash that an entry names, or nothing.

    Raises:
        Problem: 400, it is not what the page before gave.
    """
    text = request.query_params.get("before", "")
    if not text:
        return None, ""
    if _PLACE.fullmatch(text):
        return None, text
    if who_asks(request).scope or not (text.isascii() and text.isdigit() and len(text) < 16):
        raise Problem(400, "The word `before` must be what the page before gave.")
    return int(text), ""


def _read(console: Console, who: Who, wanted: EntryFilter, behind: str) -> tuple[list[Entry], str]:
    try:
        entries = entries_for(console, who, wanted, behind)
        return list(itertools.islice(entries, ENTRIES + 1)), str(console.ledger.head())
    except UnreadableError as error:
        raise Problem(503, f"The ledger cannot be read: {error}.") from error


def entries_for(
    console: Console, who: Who, wanted: EntryFilter, behind: str = ""
) -> Iterator[Entry]:
    """Return the entries that are wanted and may be seen, the newest first. Waits for the disk.

    Args:
        console: the console.
        who: who asks; to who is limited no entry has its number.
        wanted: which are wanted.
        behind: where there is one, only what stands behind the entry that names this hash.
    """
    entries = console.ledger.read(wanted)
    if behind:
        entries = itertools.dropwhile(lambda entry: entry.prev != behind, entries)
        next(entries, None)
    return _in_scope(console, who, entries) if who.scope else entries


def _in_scope(console: Console, who: Who, entries: Iterable[Entry]) -> Iterator[Entry]:
    """Yield the entries about recordings that somebody may see, without their numbers."""
    known: dict[str, bool] = {}
    for entry in entries:
        if entry.recording and entry.recording not in known:
            known[entry.recording] = _exists(console, who, entry.recording)
        if known.get(entry.recording):
            yield msgspec.structs.replace(entry, n=0)


def _exists(console: Console, who: Who, recording_id: str) -> bool:
    try:
        return console.catalogue.get(recording_id, who.scope).id == recording_id
    except NotFoundError:
        return False


def _chain(head: str, who: Who) -> str:
    if head.startswith("0:"):
        return "Nothing was entered yet."
    if who.scope:
        return "Each entry names the hash of the one before it. You see those of your recordings."
    return (
        f"Each entry names the hash of the one before it. The last is {head}: keep that elsewhere,"
        " and receiver ledger verify --head says whether anything before it was changed."
    )


def _view(entry: Entry) -> dict[str, Any]:
    return {
        "n": entry.n,
        "at": entry.at,
        "who": visible(entry.who),
        "what": entry.what,
        "text": _text(entry.what),
        "recording": entry.recording,
        "details": details_text(entry.details),
        "via": visible(entry.via),
        "prev": entry.prev,
    }


def _text(what: str) -> str:
    return visible(what.replace("_", " "))


def details_text(details: Mapping[str, Any]) -> str:
    """Return what else an entry says, in words; a span of time first."""
    left = dict(details)
    parts = []
    from_s, to_s = left.get("from_s"), left.get("to_s")
    if isinstance(from_s, int | float) and isinstance(to_s, int | float):
        del left["from_s"], left["to_s"]
        parts.append(f"{length_text(from_s * 1000)} to {length_text(to_s * 1000)}")
    for name, value in left.items():
        if value not in (None, "", {}):
            text = value if isinstance(value, str) else json_text(value)
            parts.append(f"{visible(name)} {visible(text)}")
    return ", ".join(parts)


async def _ledger_csv(request: Request) -> Response:
    """Send all entries that are wanted, some at a time, so that memory holds few."""
    console, who = console_of(request), who_asks(request)
    _, wanted, behind = _asked(request)
    entries = entries_for(console, who, wanted, behind)

    def some() -> list[Entry]:
        return list(itertools.islice(entries, _AT_ONCE))

    first = await console.threads.run(some)

    async def parts() -> AsyncIterator[str]:
        yield csv_text([_COLUMNS])
        found = first
        while found:
            views = map(_view, found)
            yield csv_text([view[name] for name in _COLUMNS] for view in views)
            found = await console.threads.run(some)

    headers = {"Content-Disposition": 'attachment; filename="ledger.csv"'}
    return StreamingResponse(parts(), headers=headers, media_type="text/csv")


def read_heard(console: Console, recording_id: str, duration_ms: float) -> list[dict[str, str]]:
    """Return who has heard a recording, the last first. Waits for the disk.

    Raises:
        Problem: 503, the ledger cannot be read.
    """
    wanted = EntryFilter(recording=recording_id, what=_HEARINGS)
    try:
        entries = list(itertools.islice(console.ledger.read(wanted), _MOST_ENTRIES))
    except UnreadableError as error:
        raise Problem(503, f"The ledger cannot be read: {error}.") from error
    return heard_by(entries, duration_ms / 1000)


def heard_by(entries: Iterable[Entry], seconds: float) -> list[dict[str, str]]:
    """Return for each person when it was last, and what was heard in all.

    Args:
        entries: of one recording, the newest first.
        seconds: how long it is.
    """
    by_name: dict[str, list[Entry]] = {}
    for entry in entries:
        by_name.setdefault(entry.who, []).append(entry)
    return [
        {"who": visible(name), "at": found[0].at, "text": _what_of(found, seconds)}
        for name, found in itertools.islice(by_name.items(), HEARERS)
    ]


def _what_of(entries: Sequence[Entry], seconds: float) -> str:
    spans = _joined(
        (entry.details["from_s"], entry.details["to_s"])
        for entry in entries
        if entry.what == "heard"
        and isinstance(entry.details.get("from_s"), int | float)
        and isinstance(entry.details.get("to_s"), int | float)
    )
    words = []
    if spans and sum(stop - start for start, stop in spans) >= _NEARLY_ALL * seconds:
        words.append("whole")
    else:
        words += [
            f"{length_text(start * 1000)} to {length_text(stop * 1000)}"
            for start, stop in spans[:_SPANS]
        ]
        words += [f"{len(spans) - _SPANS} more parts"] * (len(spans) > _SPANS)
    acts = {entry.what for entry in entries}
    words += ["live"] * bool(acts & {"listening_live", "listened_live"})
    words += ["downloaded"] * bool(acts & {"downloaded", "exported"})
    if not words and "fetched" in acts:  # a player need not report what it played
        words.append("loaded")
    return ", ".join(words)


def _joined(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return spans in their order, those joined that touch, or nearly do."""
    found: list[tuple[float, float]] = []
    for start, stop in sorted(spans):
        if found and start <= found[-1][1] + _JOINED_SECONDS:
            found[-1] = (found[-1][0], max(found[-1][1], stop))
        else:
            found.append((start, stop))
    return found


ENDPOINTS: Final = (
    Endpoint(path="/ledger.csv", handler=_ledger_csv, role=Role.ADMIN),
    *page("/ledger", "ledger.html", Role.ADMIN, _ledger),
)
