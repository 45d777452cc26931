"""The API's part for admins: the ledger, accounts, API tokens. Its rows are joined to `api`'s."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlencode

import msgspec
import structlog
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from receiver.catalogue.query import MOST_ROWS
from receiver.console.accounts import LONGEST_PASSWORD, SHORTEST_PASSWORD, ApiToken, User
from receiver.console.context import Console, console_of, json_response, who_asks
from receiver.console.ledger_page import before, entries_for, place_of
from receiver.console.openapi import Operation, query_word
from receiver.console.problems import Problem, not_found
from receiver.console.routes import Endpoint, number_in
from receiver.console.who import LONGEST_NAME, Role
from receiver.errors import ConfigurationError
from receiver.lifecycle.ledger import Act, Entry, EntryFilter
from receiver.media import timestamp
from receiver.notifications import callbacks, expectations, outbox
from receiver.notifications.expectations import Expectation, ExpectationReport
from receiver.notifications.outbox import DeliveryReport
from receiver.notifications.webhooks import callback_secrets

log = structlog.get_logger("receiver.console")

Name = Annotated[str, Meta(min_length=1, max_length=LONGEST_NAME)]
Parameters = dict[
    Annotated[str, Meta(min_length=1, max_length=200)], Annotated[str, Meta(max_length=1000)]
]


class LedgerPage(msgspec.Struct, frozen=True):
    """Entries of the ledger, the newest first; `next` is the path of the page behind it.

    To who is limited the number `n` of each entry is 0.
    """

    entries: list[Entry]
    next: str | None


class Token(msgspec.Struct, frozen=True):
    """An API token as it is listed."""

    id: str
    role: Role
    parameters: dict[str, str]
    label: str
    created_at: str
    expires_at: str | None
    used_at: str | None


class Account(msgspec.Struct, frozen=True):
    """An account, and its API tokens."""

    name: str
    role: Role
    parameters: dict[str, str]
    has_password: bool
    created_at: str
    tokens: list[Token]


class NewAccount(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An account to be made; without a password a link, a proxy or OpenID Connect opens it."""

    name: Name
    role: Role
    parameters: Parameters = {}  # msgspec copies it
    password: (
        Annotated[str, Meta(min_length=SHORTEST_PASSWORD, max_length=LONGEST_PASSWORD)] | None
    ) = None


class AccountChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be changed of an account; a new password signs it out everywhere."""

    role: Role | None = None
    parameters: Parameters | None = None
    password: (
        Annotated[str, Meta(min_length=SHORTEST_PASSWORD, max_length=LONGEST_PASSWORD)] | None
    ) = None


class NewToken(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A token to be made; role and parameters limit the account's further."""

    label: Annotated[str, Meta(max_length=200)] = ""
    role: Role | None = None
    parameters: Parameters = {}  # msgspec copies it
    days: Annotated[float, Meta(ge=1, le=3650)] | None = None


class MadeToken(msgspec.Struct, frozen=True):
    """A new token: `token` is shown this once, and stored as a hash."""

    id: str
    token: str


async def _ledger(request: Request) -> Response:
    return await ledger_page(request, request.query_params.get("recording", ""))


async def ledger_page(request: Request, recording: str) -> Response:
    """Return a page of the ledger, of one recording where its id is given."""
    console, words = console_of(request), request.query_params
    who, limit = who_asks(request), _limit(request)
    number, behind = before(request)
    what = frozenset(filter(None, words.get("what", "").split(",")))
    wanted = EntryFilter(recording, words.get("who", ""), what, words.get("since", ""), number)
    entries = await console.threads.run(
        lambda: list(islice(entries_for(console, who, wanted, behind), limit))
    )
    following = None
    if len(entries) == limit:
        kept = [(k, v) for k, v in words.multi_items() if k != "before"]
        following = (
            f"{request.url.path}?{urlencode([*kept, ('before', place_of(who, entries[-1]))])}"
        )
    return json_response(request, LedgerPage(entries, following))


def _limit(request: Request) -> int:
    text = request.query_params.get("limit", "") or "100"
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MOST_ROWS):
        raise Problem(400, f"limit must be a number from 1 to {MOST_ROWS}.")
    return int(text)


async def _accounts(request: Request) -> Response:
    console = console_of(request)

    def read() -> list[Account]:
        tokens = console.tokens.all()
        return [_account(user, tokens) for user in console.accounts.all()]

    return json_response(request, await console.threads.run(read))


def _account(user: User, tokens: list[ApiToken]) -> Account:
    mine = [_token(token) for token in tokens if token.user == user.name]
    return Account(
        *(user.name, user.role, dict(user.scope), user.has_password),
        *(timestamp(user.created_ms), mine),
    )


def _token(token: ApiToken) -> Token:
    expires, used = (
        None if ms is None else timestamp(ms) for ms in (token.expires_ms, token.used_ms)
    )
    return Token(
        *(token.id, token.role, dict(token.scope), token.label),
        *(timestamp(token.created_ms), expires, used),
    )


async def _changing(
    request: Request, act: Act, change: Callable[[Console], Any], **about: Any
) -> Any:
    """Return what a change of accounts returns, which is in the ledger first."""
    console = console_of(request)
    await console.enter(who_asks(request), act, **about)
    try:
        return await console.threads.run(change, console)
    except ConfigurationError as error:
        raise Problem(409, f"{error}.") from None


async def _add_account(request: Request, body: NewAccount) -> Response:
    def add(console: Console) -> User:
        return console.accounts.add(body.name, body.role, body.parameters, password=body.password)

    about = {"user": body.name, "role": body.role, "parameters": body.parameters}
    user = await _changing(request, "user_added", add, **about)
    return json_response(request, _account(user, []), 201)


async def _change_account(request: Request, body: AccountChange) -> Response:
    name = await _known_account(request)

    def change(console: Console) -> Account:
        user = console.accounts.change(
            name, role=body.role, scope=body.parameters, password=body.password
        )
        return _account(user, console.tokens.all(user.name))

    about: dict[str, Any] = {"user": name, "password": body.password is not None}
    about |= {"role": body.role, "parameters": body.parameters}
    return json_response(request, await _changing(request, "user_changed", change, **about))


async def _remove_account(request: Request) -> Response:
    name = await _known_account(request)
    await _changing(request, "user_removed", lambda c: c.accounts.remove(name), user=name)
    return Response(status_code=204)


async def _sign_out(request: Request) -> Response:
    name = await _known_account(request)
    await _changing(request, "signed_out", lambda c: c.sessions.close_all(name), user=name)
    return Response(status_code=204)


async def _add_token(request: Request, body: NewToken) -> Response:
    name = await _known_account(request)
    now_ms = datetime.now(UTC).timestamp() * 1000
    expires_ms = None if body.days is None else round(now_ms + body.days * 86_400_000)

    def make(console: Console) -> tuple[str, ApiToken]:
        return console.tokens.make(
            name,
            role=body.role,
            scope=body.parameters,
            label=body.label,
            expires_ms=expires_ms,
        )

    secret, made = await _changing(request, "token_made", make, user=name, label=body.label)
    return json_response(request, MadeToken(made.id, secret), 201)


async def _revoke_token(request: Request) -> Response:
    token_id = request.path_params["token_id"]
    await _changing(request, "token_revoked", lambda c: c.tokens.revoke(token_id), token=token_id)
    return Response(status_code=204)


class Deliveries(msgspec.Struct, frozen=True):
    """Deliveries of events to webhooks, the newest first; `next` is the path of the next page."""

    deliveries: list[DeliveryReport]
    next: str | None


async def _deliveries(request: Request) -> Response:
    console, words = console_of(request), request.query_params
    limit = _limit(request)
    state = words.get("state", "")
    if state and state not in outbox.STATES:
        raise Problem(400, f"state must be one of {', '.join(outbox.STATES)}.")
    found = await console.threads.run(
        console.notifier.outbox.page,
        states=[state] if state else outbox.STATES,
        endpoint=words.get("webhook", ""),
        recording=words.get("recording", ""),
        before=number_in(request, "before"),
        limit=limit + 1,
    )
    following = None
    if len(found) > limit:
        given = {name: words[name] for name in _DELIVERY_FILTERS if words.get(name)}
        rest = urlencode({**given, "before": found[limit - 1].n, "limit": limit})
        following = f"{request.url.path}?{rest}"
    shown = [DeliveryReport.of(each) for each in found[:limit]]
    return json_response(request, Deliveries(shown, following))


async def _resend(request: Request) -> Response:
    console, text = console_of(request), request.path_params["delivery"]
    if not (text.isascii() and text.isdigit() and len(text) < _LONGEST_NUMBER):
        raise not_found()
    delivery = await console.threads.run(console.notifier.outbox.resend, int(text))
    console.notifier.wake()
    return json_response(request, DeliveryReport.of(delivery), 202)


_DELIVERY_FILTERS: Final = ("state", "webhook", "recording")
_LONGEST_NUMBER: Final = 16


class NewExpectation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A stream that a provider is about to be asked for."""

    call_sid: Annotated[str, Meta(min_length=1, max_length=200)]
    name: Annotated[str, Meta(max_length=200)] = ""
    token_id: Annotated[str, Meta(max_length=200)] = ""
    parameters: Parameters = {}  # msgspec copies it


class ExpectationAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the provider answered: it accepted with the sid of a stream, or said why not."""

    state: Literal["accepted", "refused", "failed"]
    stream_sid: Annotated[str, Meta(max_length=200)] = ""
    reason: Annotated[str, Meta(max_length=2000)] = ""


async def _expect(request: Request, body: NewExpectation) -> Response:
    console, who = console_of(request), who_asks(request)
    if any(body.parameters.get(name) != value for name, value in who.scope.items()):
        raise Problem(403, "You are limited to parameters that this stream has not.")
    made = await console.threads.run(
        console.notifier.expectations.add,
        body.call_sid,
        name=body.name,
        token_id=body.token_id,
        parameters=body.parameters,
    )
    return json_response(request, ExpectationReport.of(made), 201)


async def _answer(request: Request, body: ExpectationAnswer) -> Response:
    console, who = console_of(request), who_asks(request)
    expectation_id, kept = request.path_params["expectation"], console.notifier.expectations

    def answer() -> Expectation:
        kept.get(expectation_id, who.scope)
        return kept.answer(
            expectation_id, body.state, stream_sid=body.stream_sid, reason=body.reason
        )

    return json_response(request, ExpectationReport.of(await console.threads.run(answer)))


async def _expectations(request: Request) -> Response:
    console, state = console_of(request), request.query_params.get("state", "")
    if state and state not in expectations.STATES:
        raise Problem(400, f"state must be one of {', '.join(expectations.STATES)}.")
    found = await console.threads.run(
        console.notifier.expectations.page,
        [state] if state else expectations.STATES,
        scope=who_asks(request).scope,
        limit=_limit(request),
    )
    return json_response(request, [ExpectationReport.of(each) for each in found])


async def _callback(request: Request) -> Response:
    """Keep what a provider reports of a stream; whoever is no provider of ours is refused."""
    console, words = console_of(request), request.path_params
    if words["provider"] not in callbacks.PROVIDERS:
        raise not_found()
    body, content_type = await request.body(), request.headers.get("content-type", "")
    known = await console.threads.run(callback_secrets, console.config)
    given = words.get("secret")
    if given is not None:
        is_ours = known.has_path(given)
    else:
        is_ours = callbacks.is_signed(
            [request.headers.get(name, "") for name in callbacks.SIGNATURE_HEADERS],
            known.keys,
            public_url=console.config.public_url or "",
            target=_target(request),
            content_type=content_type,
            body=body,
        )
    if not is_ours:
        raise Problem(403, "This is not signed by a provider of ours.")
    try:
        callback = callbacks.callback_of(callbacks.fields_of(content_type, body))
    except ValueError as error:
        raise Problem(400, f"The callback cannot be used: {error}.") from None
    await console.threads.run(console.notifier.expectations.report, callback)
    ids = {"call_sid": callback.call_sid, "stream_sid": callback.stream_sid}
    write = log.warning if callback.error else log.info
    write("stream_reported", report=callback.event, error=callback.error, **ids)
    return Response(status_code=204)


def _target(request: Request) -> str:
    """Return path and query as they stood in the request: they were signed like that."""
    path = (request.scope.get("raw_path") or request.url.path.encode()).decode("latin-1")
    return f"{path}?{request.url.query}" if request.url.query else path


async def _known_account(request: Request) -> str:
    console, name = console_of(request), request.path_params["account"]
    user: User = await console.threads.run(console.accounts.user, name)
    return user.name


LEDGER_WORDS: Final = (
    query_word("who", "the account"),
    query_word("what", "words for what was done, with commas between"),
    query_word("since", "RFC 3339 in UTC"),
    query_word(
        "before",
        "as in `next` of the page before",
        type="string",
        pattern="^([0-9]{1,15}|[0-9a-f]{64})?$",
    ),
    query_word("limit", "how many", type="integer", minimum=1, maximum=MOST_ROWS),
)
OPERATIONS: Final = (
    Operation(
        method="GET",
        path="/ledger",
        summary="What was done, the newest first",
        handler=_ledger,
        role=Role.ADMIN,
        is_unlimited=True,
        result=LedgerPage,
        query=(query_word("recording", "the id of one"), *LEDGER_WORDS),
    ),
    Operation(
        method="GET",
        path="/deliveries",
        summary="What webhooks are told, and what came of it",
        handler=_deliveries,
        role=Role.MANAGER,
        is_unlimited=True,
        result=Deliveries,
        query=(
            query_word("state", "only these", enum=[*outbox.STATES, ""]),
            query_word("webhook", "the name of one"),
            query_word("recording", "the id of one"),
            query_word("before", "a number", type="integer", minimum=0, maximum=10**15 - 1),
            query_word("limit", "how many", type="integer", minimum=1, maximum=MOST_ROWS),
        ),
    ),
    Operation(
        method="GET",
        path="/expectations",
        summary="Streams that were asked for, and whether they came; the newest first",
        handler=_expectations,
        role=Role.VIEWER,
        result=list[ExpectationReport],
        query=(
            query_word("state", "only these", enum=[*expectations.STATES, ""]),
            query_word("limit", "how many", type="integer", minimum=1, maximum=MOST_ROWS),
        ),
    ),
    Operation(
        method="POST",
        path="/expectations",
        summary="Expect a stream, before the provider is asked for it",
        handler=_expect,
        role=Role.MANAGER,
        body=NewExpectation,
        result=ExpectationReport,
        status=201,
    ),
    Operation(
        method="PATCH",
        path="/expectations/{expectation}",
        summary="Say what the provider answered",
        handler=_answer,
        role=Role.MANAGER,
        body=ExpectationAnswer,
        result=ExpectationReport,
        errors=(404,),
    ),
    Operation(
        method="POST",
        path="/deliveries/{delivery}/resend",
        summary="Let a delivery be made again",
        handler=_resend,
        role=Role.MANAGER,
        is_unlimited=True,
        result=DeliveryReport,
        status=202,
        errors=(404,),
    ),
    *(
        Operation(
            method=method,
            path=path,
            summary=summary,
            handler=handler,
            role=Role.ADMIN,
            is_unlimited=True,
            body=body,
            result=result,
            status=status,
            errors=errors,
        )
        for method, path, summary, handler, body, result, status, errors in (
            ("GET", "/users", "All accounts", _accounts, None, list[Account], 200, ()),
            ("POST", "/users", "Add one", _add_account, NewAccount, Account, 201, (409,)),
            (
                *("PATCH", "/users/{account}", "Change one", _change_account),
                *(AccountChange, Account, 200, (404, 409)),
            ),
            (
                *("DELETE", "/users/{account}", "Remove one", _remove_account),
                *(None, None, 204, (404, 409)),
            ),
            (
                *("POST", "/users/{account}/sign_out", "Sign it out everywhere", _sign_out),
                *(None, None, 204, (404,)),
            ),
            (
                *("POST", "/users/{account}/tokens", "Make an API token", _add_token),
                *(NewToken, MadeToken, 201, (404, 409)),
            ),
            (
                *("DELETE", "/tokens/{token_id}", "Revoke an API token", _revoke_token),
                *(None, None, 204, (404,)),
            ),
        )
    ),
)
"""Every operation for admins."""
ENDPOINTS: Final = tuple(
    Endpoint(path=path, handler=_callback, role=None, methods=("POST",))
    for path in ("/callbacks/{provider}", "/callbacks/{provider}/{secret}")
)
"""What providers call, which is not a part of the API: they have no token of it."""
