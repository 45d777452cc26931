"""Signing in and out, and who a request is from.

A request is from whoever its bearer token belongs to, else its session cookie, else the user that
a trusted proxy names in a header. What is bad is refused and never passed over: a request with a
bad token is nobody's, whatever its cookie says.

Wrong passwords and codes are slowed down; see `SignInThrottle`.
"""

from __future__ import annotations

import functools
import time
from typing import Final
from urllib.parse import urlencode, urlsplit

import structlog
from starlette.requests import HTTPConnection, Request
from starlette.responses import RedirectResponse, Response

from receiver.config import is_loopback
from receiver.console.accounts import SESSION_MS, User
from receiver.console.context import Console, console_of, page_response, who_asks
from receiver.console.oidc import CALLBACK, PATH, PENDING_SECONDS
from receiver.console.problems import Problem, not_found, too_many
from receiver.console.routes import Endpoint
from receiver.console.who import LONGEST_NAME, Role, Who
from receiver.errors import NotFoundError
from receiver.lifecycle.ledger import Act
from receiver.transports.handshake import is_in

MOST_FIELDS: Final = 600
"""Of a form; the list of recordings has one for each row that is selected."""
_WRONG: Final = "Name or password is wrong."
_STALE: Final = (
    "This sign-in link was used already, or is older than 15 minutes: ask for a new one."
)

log = structlog.get_logger("receiver.console")


async def identify(connection: HTTPConnection) -> Who | None:
    """Return who a request is from; `None` is somebody who has shown nothing.

    Raises:
        Problem: 401, a bearer token is none of ours; 403, the proxy's user has no account.
    """
    console = console_of(connection)
    given = connection.headers.getlist("authorization")
    if given:
        return await _bearer(console, given)
    secret = connection.cookies.get(cookie_name(console))
    if secret:
        who = await console.threads.run(console.sessions.who, secret)
        if who is not None:
            return who
    return await _proxy_user(console, connection)


async def _bearer(console: Console, given: list[str]) -> Who:
    scheme, _, token = given[0].partition(" ")
    who = None
    if len(given) == 1 and scheme.lower() == "bearer":
        who = await console.threads.run(console.tokens.who, token.strip())
    if who is None:
        raise Problem(
            401,
            "This is no valid API token: `receiver user token` makes one.",
            headers={"WWW-Authenticate": 'Bearer error="invalid_token"'},
        )
    return who


async def _proxy_user(console: Console, connection: HTTPConnection) -> Who | None:
    header = console.config.console_user_header
    named = connection.headers.getlist(header) if header else []
    if not named or not _is_proxy(console, connection.state.peer):
        return None
    if len(named) != 1:
        raise Problem(
            403, f"The proxy must send one {header}, and removes what comes from outside."
        )
    try:
        user = await console.threads.run(console.accounts.user, named[0])
    except NotFoundError:
        text = "You are signed in, but have no account here: ask an admin to add one."
        raise Problem(403, text) from None
    return Who(user.name, user.role, "proxy", f"proxy {user.name}", user.scope)


def _is_proxy(console: Console, peer: str) -> bool:
    """Return whether a connection comes from a proxy that may name users."""
    if console.config.trusted_proxy:
        return is_in(peer, console.proxies)
    return is_loopback(peer)


def cookie_name(console: Console) -> str:
    """Return the session cookie's name: `__Host-` binds it to this host, by https only."""
    return "__Host-tapreel" if console.is_secure else "tapreel"


def with_session(console: Console, response: Response, secret: str) -> Response:
    """Return a response that sets the session cookie."""
    response.set_cookie(
        cookie_name(console),
        secret,
        max_age=SESSION_MS // 1000,
        secure=console.is_secure,
        httponly=True,
        samesite="strict",
    )
    return response


def without_session(console: Console, response: Response) -> Response:
    """Return a response that removes the session cookie."""
    response.delete_cookie(
        cookie_name(console), secure=console.is_secure, httponly=True, samesite="strict"
    )
    return response


def own_path(text: str) -> str:
    """Return where to go after signing in: a path of ours, `/` in place of anything else."""
    parts = urlsplit(text)
    is_ours = text.startswith("/") and not text.startswith(("//", "/\\"))
    is_ours = is_ours and not parts.netloc and text.isprintable() and "\\" not in text
    return text if is_ours else "/"


def sign_in_path(request: Request) -> str:
    """Return the path of the sign-in page that leads back to where the request wanted to go."""
    wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return "/login" if wanted == "/" else f"/login?{urlencode({'next': wanted})}"


async def start_session(request: Request, user: User, method: str) -> str:
    """Return the secret of a new session, which is in the ledger before anybody has the secret.

    The session is made first: where the database takes none, nobody is said to have signed in.

    Raises:
        CatalogueError: the database takes none, so nothing is entered.
        LedgerError: it cannot be entered, so the session is closed, and nobody is signed in.
    """
    console = console_of(request)
    agent = request.headers.get("user-agent", "")
    secret = await console.threads.run(
        console.sessions.open, user.name, address=request.state.address, agent=agent
    )
    try:
        await _enter(request, "signed_in", user.name, method=method)
    except Exception:
        if who := await console.threads.run(console.sessions.who, secret):
            await console.threads.run(console.sessions.close, who.key)
        raise
    log.info("signed_in", user=user.name, address=request.state.address, method=method)
    return secret


async def _enter(request: Request, act: Act, who: str, **details: str) -> None:
    console, address = console_of(request), request.state.address
    entry = functools.partial(console.ledger.append, act, who=who, via="console")
    await console.threads.run(entry, address=address, **details)


async def _login_page(request: Request) -> Response:
    if await identify(request) is not None:
        return RedirectResponse(own_path(request.query_params.get("next", "/")), 303)
    return _login(request, next_path=request.query_params.get("next", "/"))


def _login(request: Request, *, next_path: str, error: str = "", status: int = 200) -> Response:
    provider = console_of(request).provider is not None
    context = {"next": own_path(next_path), "error": error, "provider": provider}
    return page_response(request, "login.html", context, status)


async def _login_by_password(request: Request) -> Response:
    form = await form_of(request)
    name, password = form.get("name", ""), form.get("password", "")
    throttle, address = console_of(request).throttle, request.state.address
    if not throttle.take(name, address, time.monotonic()):
        raise too_many(30)
    console = console_of(request)
    user = await console.threads.run(console.accounts.check_password, name, password)
    return await _signed_in(request, user, name, "password", _WRONG)


async def _login_by_code(request: Request) -> Response:
    form = await form_of(request)
    console, address = console_of(request), request.state.address
    if not console.throttle.take("", address, time.monotonic()):
        raise too_many(30)
    user = await console.threads.run(console.accounts.use_link, form.get("code", ""))
    return await _signed_in(request, user, "", "link", _STALE)


async def _signed_in(
    request: Request, user: User | None, name: str, method: str, problem: str
) -> Response:
    console, form = console_of(request), await form_of(request)
    next_path = form.get("next", "/")
    if user is None:
        await _enter(request, "sign_in_failed", name[:LONGEST_NAME], method=method)
        log.warning("sign_in_failed", user=name, address=request.state.address, method=method)
        return _login(request, next_path=next_path, error=problem, status=401)
    console.throttle.give_back(name, request.state.address)
    secret = await start_session(request, user, method)
    return with_session(console, RedirectResponse(own_path(next_path), 303), secret)


async def _to_provider(request: Request) -> Response:
    console = console_of(request)
    if console.provider is None:
        raise not_found()
    next_path = own_path(request.query_params.get("next", "/"))
    url, state = await console.provider.start(_callback_url(request), next_path)
    response = RedirectResponse(url, 303)
    # Lax: the browser comes back from another site, and Strict cookies stay behind.
    response.set_cookie(
        _state_cookie(console),
        state,
        max_age=int(PENDING_SECONDS),
        secure=console.is_secure,
        httponly=True,
        samesite="lax",
    )
    return response


async def _from_provider(request: Request) -> Response:
    console = console_of(request)
    if console.provider is None:
        raise not_found()
    state = request.cookies.get(_state_cookie(console), "")
    subject, name, next_path = await console.provider.finish(
        request.query_params, state, _callback_url(request)
    )
    issuer = str(console.config.oidc_issuer)
    user = await console.threads.run(console.accounts.of_subject, issuer, subject, name)
    if user is None:
        await _enter(request, "sign_in_failed", name[:LONGEST_NAME], method="oidc")
        raise Problem(403, f"There is no account {name[:LONGEST_NAME]!r} here: ask an admin.")
    secret = await start_session(request, user, "oidc")
    # A redirect would still come from the other site, and the new cookie would not be sent.
    response = page_response(request, "signed_in.html", {"next": next_path})
    response.delete_cookie(_state_cookie(console), secure=console.is_secure, httponly=True)
    return with_session(console, response, secret)


def _state_cookie(console: Console) -> str:
    return f"{cookie_name(console)}-oidc"


def _callback_url(request: Request) -> str:
    console = console_of(request)
    scheme = "https" if console.is_secure else "http"
    own = console.config.public_url or f"{scheme}://{request.headers.get('host', '')}"
    return f"{own}{CALLBACK}"


async def _logout(request: Request) -> Response:
    console, who = console_of(request), who_asks(request)
    if who.via == "session":
        await console.threads.run(console.sessions.close, who.key)
    await _enter(request, "signed_out", who.name)
    return without_session(console, RedirectResponse("/login", 303))


async def _logout_everywhere(request: Request) -> Response:
    console, who = console_of(request), who_asks(request)
    count = await console.threads.run(console.sessions.close_all, who.name)
    await _enter(request, "signed_out", who.name, sessions=str(count))
    return without_session(console, RedirectResponse("/login", 303))


async def form_of(request: Request) -> dict[str, str]:
    """Return the fields of a form; files have no place in any of ours.

    Raises:
        Problem: 400, it is none, or too large a one.
    """
    form = await request.form(max_files=0, max_fields=MOST_FIELDS)
    return {name: value for name, value in form.items() if isinstance(value, str)}


ENDPOINTS: Final = (
    Endpoint(path="/login", handler=_login_page, role=None),
    Endpoint(path="/login", handler=_login_by_password, role=None, methods=("POST",)),
    Endpoint(path="/login/code", handler=_login_by_code, role=None, methods=("POST",)),
    Endpoint(path=PATH, handler=_to_provider, role=None),
    Endpoint(path=CALLBACK, handler=_from_provider, role=None),
    Endpoint(path="/logout", handler=_logout, role=Role.VIEWER, methods=("POST",)),
    Endpoint(
        path="/logout/everywhere", handler=_logout_everywhere, role=Role.VIEWER, methods=("POST",)
    ),
)
