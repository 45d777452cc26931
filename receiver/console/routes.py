"""The table of routes: each names the least role that it needs.

Nothing is served that has no row, and a test asks for every row as every role.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from receiver.console.context import json_response, page_response, text_response
from receiver.console.problems import Problem
from receiver.console.who import Role

Handler = Callable[[Request], Awaitable[Response]]
SocketHandler = Callable[[WebSocket], Awaitable[None]]
Context = Callable[[Request], Awaitable[dict[str, Any]]]
Rows = Callable[[dict[str, Any]], Iterable[Sequence[object]]]
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing."""
_LONGEST_NUMBER: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One row: `role` is the least that may ask, and `None` lets everybody in.

    What is `is_unlimited` is for accounts without limits by parameters: it shows or changes what
    is beyond them.
    """

    path: str
    handler: Handler
    role: Role | None
    methods: tuple[str, ...] = ("GET",)
    is_unlimited: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketEndpoint:
    """One row for a WebSocket, which pages of ours open."""

    path: str
    handler: SocketHandler
    role: Role


def page(
    path: str,
    template: str,
    role: Role,
    context: Context,
    *,
    rows: Rows | None = None,
    is_unlimited: bool = False,
) -> tuple[Endpoint, ...]:
    """Return the rows of a page: itself, the same as JSON, and for a list as CSV.

    Args:
        path: Its path; the twins are at the same path with `.json` and `.csv`.
        template: The file in `templates/`.
        role: The least role that sees it.
        context: Returns what the template gets, and the JSON twin is.
        rows: Returns the lines of the CSV, the first with the names of the columns.
        is_unlimited: Whether it is for accounts without limits only.
    """

    async def as_page(request: Request) -> Response:
        return page_response(request, template, await context(request))

    async def as_json(request: Request) -> Response:
        return json_response(request, await context(request))

    async def as_csv(request: Request) -> Response:
        lines = rows(await context(request)) if rows is not None else ()
        return text_response(request, csv_text(lines), "text/csv")

    # The twins first: an id in the path would match their ending, too.
    forms = [(f"{path}.json", as_json), (path, as_page)]
    if rows is not None:
        forms.insert(1, (f"{path}.csv", as_csv))
    return tuple(
        Endpoint(path=at, handler=handler, role=role, is_unlimited=is_unlimited)
        for at, handler in forms
    )


def number_in(request: Request, word: str) -> int | None:
    """Return the number that a word of the address is, or `None` where it is not there.

    Raises:
        Problem: 400, it is no number.
    """
    text = request.query_params.get(word, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < _LONGEST_NUMBER):
        raise Problem(400, f"The word `{word}` must be the number of an entry.")
    return int(text)


def csv_text(lines: Iterable[Sequence[object]]) -> str:
    """Return lines as CSV (RFC 4180); no cell can be taken for a formula."""
    text = io.StringIO()
    csv.writer(text).writerows([_inert(cell) for cell in line] for line in lines)
    return text.getvalue()


def _inert(cell: object) -> object:
    """Return a cell that no spreadsheet executes: OWASP's advice on CSV injection."""
    if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + cell
    return cell
