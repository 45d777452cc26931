"""The application: the rows of all route tables, and what is asked of each request before its own.

In this order: the limit per address (`middleware.Outermost`), the size of the body, who asks, the
role, the limit of that account or token, and for what changes something whether a page of ours
asks for it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from receiver.console import (
    admin_api,
    admin_pages,
    api,
    changes,
    ledger_page,
    live_page,
    pages,
    sign_in,
)
from receiver.console.context import Console, console_of, page_response, takes_gzip
from receiver.console.middleware import Outermost
from receiver.console.problems import (
    Problem,
    not_found,
    problem_response,
    too_many,
    wants_document,
)
from receiver.console.routes import SAFE, Endpoint, SocketEndpoint
from receiver.console.who import Who
from receiver.errors import (
    CatalogueError,
    ConfigurationError,
    LedgerError,
    NotFoundError,
    UnreadableError,
)
from receiver.rate_limit import TokenBuckets

MOST_BODY_BYTES: Final = 262_144
"""Of a request; the longest of ours is a note."""
_FOREVER: Final = "public, max-age=31536000, immutable"
_TRY_AGAIN: Final = "The catalogue's database cannot be used now: try again later."


@dataclass(frozen=True, slots=True)
class Rates:
    """Requests a second in the long run; twice as many at once."""

    of_address: float = 100.0
    of_caller: float = 50.0  # an account or token


def endpoints() -> tuple[Endpoint | SocketEndpoint, ...]:
    """Return every route of the console, in the order in which they are tried."""
    return (
        *sign_in.ENDPOINTS,
        *api.ENDPOINTS,
        *changes.ENDPOINTS,
        *live_page.ENDPOINTS,
        *pages.ENDPOINTS,
        *admin_api.ENDPOINTS,
        *admin_pages.ENDPOINTS,
        *ledger_page.ENDPOINTS,
        Endpoint(path="/static/{version}/{name}", handler=_static, role=None),
        Endpoint(path="/healthz", handler=_healthy, role=None),
    )


def application(console: Console, rates: Rates | None = None) -> ASGIApp:
    """Return the console as an ASGI application."""
    rates = rates or Rates()
    guard = _Guard(console, TokenBuckets(int(2 * rates.of_caller), rates.of_caller))
    app = Starlette(
        routes=_routes(endpoints(), guard),
        exception_handlers={
            Problem: _problem,
            HTTPException: _http_exception,
            NotFoundError: _not_found,
            CatalogueError: _catalogue_error,
            LedgerError: _disk_error,
            UnreadableError: _disk_error,
            ConfigurationError: _disk_error,
        },
        max_body_size=MOST_BODY_BYTES,
    )
    app.state.console = console
    return Outermost(
        app,
        config=console.config,
        is_secure=console.is_secure,
        per_second=rates.of_address,
    )


def _routes(rows: Sequence[Endpoint | SocketEndpoint], guard: _Guard) -> list[BaseRoute]:
    """Return routes; rows of one path are joined, so that a wrong method is a 405."""
    routes: list[BaseRoute] = []
    by_path: dict[str, dict[str, Endpoint]] = {}
    for row in rows:
        if isinstance(row, SocketEndpoint):
            routes.append(WebSocketRoute(row.path, guard.of_socket(row)))
            continue
        if row.path not in by_path:
            methods = by_path[row.path] = {}
            routes.append(_joined(row.path, methods, guard))
        by_path[row.path] |= dict.fromkeys(row.methods, row)
    return routes


def _joined(path: str, rows: Mapping[str, Endpoint], guard: _Guard) -> Route:
    async def answer(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        if method not in rows:
            allowed = ", ".join(sorted({*rows, *(["HEAD"] if "GET" in rows else [])}))
            raise Problem(405, f"Only {allowed} is possible here.", headers={"Allow": allowed})
        return await guard.answer(request, rows[method])

    return Route(path, answer, methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])


class _Guard:
    """Lets through who may ask."""

    def __init__(self, console: Console, callers: TokenBuckets) -> None:
        self._console = console
        self._callers = callers

    async def answer(self, request: Request, row: Endpoint) -> Response:
        """Return the answer of a row's handler, or why it is not asked."""
        try:
            if row.role is not None:
                who = await self._admit(request, row)
                if request.method not in SAFE and who.is_ambient:
                    await self._check_form(request, who)
            elif request.method not in SAFE:
                check_origin(request)
        except _NotSignedIn:
            if wants_document(request) or request.method not in SAFE:
                raise Problem(
                    401,
                    "Sign in, or send an API token: `Authorization: Bearer TOKEN`.",
                    headers={"WWW-Authenticate": "Bearer"},
                ) from None
            return RedirectResponse(sign_in.sign_in_path(request), 303)
        return await row.handler(request)

    def of_socket(self, row: SocketEndpoint) -> Callable[[WebSocket], Awaitable[None]]:
        """Return the handler of a WebSocket, behind the same checks."""

        async def handle(socket: WebSocket) -> None:
            try:
                check_origin(socket)
                await self._admit(socket, row)
            except (Problem, _NotSignedIn) as problem:
                status = problem.status if isinstance(problem, Problem) else 401
                await socket.send_denial_response(Response(status_code=status))
                return
            await row.handler(socket)

        return handle

    async def _admit(self, connection: HTTPConnection, row: Endpoint | SocketEndpoint) -> Who:
        who = connection.state.who = await sign_in.identify(connection)
        if who is None:
            raise _NotSignedIn
        if not self._callers.take(who.key, time.monotonic()):
            raise too_many(1)
        if row.role is not None and not who.role.includes(row.role):
            raise Problem(403, f"This needs the role {row.role}, and you are {who.role}.")
        if isinstance(row, Endpoint) and row.is_unlimited and who.scope:
            raise Problem(403, "This is for accounts that are limited to no parameters.")
        return who

    async def _check_form(self, request: Request, who: Who) -> None:
        check_origin(request)
        given = request.headers.get("x-csrf-token")
        if given is None and request.headers.get("content-type", "").startswith(
            ("application/x-www-form-urlencoded", "multipart/form-data")
        ):
            given = (await sign_in.form_of(request)).get("csrf")
        if not who.is_csrf_token(given or "", self._console.secret):
            raise Problem(403, "This page is out of date: load it again, then try once more.")


class _NotSignedIn(Exception):
    """Nobody is signed in."""


def check_origin(connection: HTTPConnection) -> None:
    """Refuse what the page of another site asks for; a program sends none of these headers.

    Raises:
        Problem: 403, another site asks.
    """
    site = connection.headers.get("sec-fetch-site")
    origin = connection.headers.get("origin")
    public_url = console_of(connection).config.public_url
    own = urlsplit(public_url).netloc if public_url else connection.headers.get("host", "")
    is_ours = origin is None or urlsplit(origin).netloc == own
    if not is_ours or site not in (None, "same-origin", "none"):
        raise Problem(
            403,
            "The request comes from a page of another site. If it is this one, behind a proxy:"
            " start the console with --public-url.",
        )


async def _static(request: Request) -> Response:
    console = console_of(request)
    file = console.static.get(request.path_params["name"])
    if file is None:
        raise not_found()
    is_current = request.path_params["version"] == console.static_version
    headers = {"Cache-Control": _FOREVER if is_current else "no-cache", "Vary": "Accept-Encoding"}
    if file.compressed is not None and takes_gzip(request):
        headers["Content-Encoding"] = "gzip"
        return Response(file.compressed, headers=headers, media_type=file.media_type)
    return Response(file.content, headers=headers, media_type=file.media_type)


async def _healthy(_: Request) -> Response:
    return Response("ok\n", media_type="text/plain")


async def _problem(request: Request, problem: Exception) -> Response:
    assert isinstance(problem, Problem)  # noqa: S101  what it is registered for
    return _answer(request, problem)


async def _not_found(request: Request, _: Exception) -> Response:
    return _answer(request, not_found())


async def _catalogue_error(request: Request, _: Exception) -> Response:
    return _answer(request, Problem(503, _TRY_AGAIN, headers={"Retry-After": "5"}))


async def _disk_error(request: Request, error: Exception) -> Response:
    return _answer(
        request, Problem(503, f"Nothing was done: {error}.", headers={"Retry-After": "5"})
    )


async def _http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  what it is registered for
    if error.status_code == HTTPStatus.NOT_FOUND:
        return _answer(request, not_found())
    return _answer(request, Problem(error.status_code, error.detail, headers=error.headers))


def _answer(request: Request, problem: Problem) -> Response:
    if wants_document(request):
        return problem_response(problem, request.state.request_id)
    context: dict[str, Any] = problem.document(request.state.request_id)
    response = page_response(request, "error.html", {"problem": context}, problem.status)
    response.headers.update(problem.headers)
    return response
