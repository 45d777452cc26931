"""The rules of the provider's REST API for streams, as its OpenAPI description has them. Pure.

Requests come in as values; a StreamRequest comes out, or a Refusal is raised.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from hmac import compare_digest
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from starter.errors import InvalidRequestError
from starter.models import CallbackMethod, Codec, StreamRequest, Target, Track, member
from starter.validation import check_parameters

_PATH = re.compile(
    r"/api/laml/2010-04-01/Accounts/([^/]+)/(Calls|Conferences)/([^/]+)/Streams(?:/([^/]+))?"
)
_PARAMETER = re.compile(r"Parameter([1-9][0-9]?)\.(Name|Value)")
_FORM_TYPE: Final = "application/x-www-form-urlencoded"
_MORE_INFO: Final = "https://signalwire.com/docs/compatibility-api/reference/errors"
_MOST_FIELDS: Final = 250  # 99 parameters are 198 fields
_COMMON = {"Url", "Name", "Track", "StatusCallback", "StatusCallbackMethod"} | {
    "AuthorizationBearerToken"
}
_FIELDS: Final[Mapping[Target, frozenset[str]]] = {
    Target.CALL: frozenset(_COMMON),
    Target.CONFERENCE: frozenset(_COMMON | {"StreamCodec", "StreamRealTime"}),
}
_TRUTHS: Final[Mapping[str, bool]] = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Account:
    """The one project of the simulated provider, and its API token."""

    project_id: str
    api_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """The parts of an HTTP request that are used; header values are None when absent."""

    method: str
    path: str
    authorization: str | None = field(repr=False)
    content_type: str | None
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class HttpReply:
    """A status and a JSON object."""

    status: int
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Address:
    """What a path names: a call or conference, and a stream of it when one is to be stopped."""

    target: Target
    sid: str
    stream: str | None


class Refusal(Exception):
    """The request is answered with an error; `bare` gives it the form of a list of texts."""

    def __init__(self, status: int, code: int, message: str, *, bare: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.bare = bare

    def reply(self) -> HttpReply:
        """The error in the provider's form."""
        if self.bare:
            return HttpReply(self.status, {"errors": [self.message]})
        fields = {"code": self.code, "message": self.message}
        fields |= {"more_info": _MORE_INFO, "status": self.status}
        return HttpReply(self.status, fields)


def check_caller(request: HttpRequest, account: Account) -> None:
    """Basic auth with project id and API token. Raises Refusal (401)."""
    pair = f"{account.project_id}:{account.api_token}".encode()
    expected = b"Basic " + b64encode(pair)
    given = (request.authorization or "").encode("utf-8", "replace")
    if not compare_digest(given, expected):
        raise Refusal(401, 20003, "Authentication failed")


def read_address(request: HttpRequest, account: Account) -> Address:
    """What the path names. Raises Refusal (404, 405)."""
    match = _PATH.fullmatch(request.path)
    if not match or unquote(match[1]) != account.project_id:
        raise Refusal(404, 20404, "The requested resource was not found")
    if request.method != "POST":
        raise Refusal(405, 20004, "Streams can be neither listed nor fetched")
    target = Target(match[2])
    try:
        sid = target.check_sid(unquote(match[3]))
    except InvalidRequestError as error:
        raise Refusal(404, 20404, f"No such {target.word}") from error
    return Address(target, sid, unquote(match[4]) if match[4] else None)


def read_form(request: HttpRequest, target: Target) -> dict[str, str]:
    """The form's fields. Raises Refusal (400, 422)."""
    content_type = (request.content_type or "").partition(";")[0].strip().lower()
    if content_type != _FORM_TYPE:
        raise Refusal(400, 20001, f"The body must be {_FORM_TYPE}")
    try:
        pairs = parse_qsl(
            request.body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(request.body),
            errors="strict",
            max_num_fields=_MOST_FIELDS,
        )
    except ValueError as error:
        raise Refusal(400, 20001, "The body is no form") from error
    form = dict(pairs)
    if len(form) != len(pairs):
        raise invalid(target, "A field is given twice")
    return form


def read_stream_request(form: Mapping[str, str], target: Target) -> StreamRequest:
    """The stream that a form asks for. Raises Refusal (422)."""
    unknown = sorted(set(form) - _FIELDS[target])
    unknown = [name for name in unknown if not _PARAMETER.fullmatch(name)]
    if unknown:
        raise invalid(target, f"Unknown field {unknown[0]}")
    if "Url" not in form:
        raise invalid(target, "Url is required")
    codec, real_time = form.get("StreamCodec"), form.get("StreamRealTime")
    if real_time is not None and real_time not in _TRUTHS:
        raise invalid(target, "StreamRealTime must be true or false")
    try:
        return StreamRequest(
            url=form["Url"],
            name=form.get("Name"),
            track=member(Track, form.get("Track", Track.BOTH), "Track"),
            parameters=_parameters(form),
            status_callback=form.get("StatusCallback"),
            status_callback_method=member(
                CallbackMethod,
                form.get("StatusCallbackMethod", CallbackMethod.POST),
                "StatusCallbackMethod",
            ),
            bearer_token=form.get("AuthorizationBearerToken") or None,
            codec=None if codec is None else member(Codec, codec, "StreamCodec"),
            real_time=None if real_time is None else _TRUTHS[real_time],
        )
    except InvalidRequestError as error:
        raise invalid(target, str(error)) from error


def check_stop(form: Mapping[str, str], target: Target) -> None:
    """The one thing that can be done to a stream: `Status=stopped`. Raises Refusal (422)."""
    if form != {"Status": "stopped"}:
        raise invalid(target, "Status must be stopped, and nothing else can be given")


def _parameters(form: Mapping[str, str]) -> dict[str, str]:
    numbers = sorted({int(match[1]) for name in form if (match := _PARAMETER.fullmatch(name))})
    pairs = []
    for number in numbers:
        name, value = form.get(f"Parameter{number}.Name"), form.get(f"Parameter{number}.Value")
        if name is None:
            raise InvalidRequestError(f"Parameter{number} has a Value but no Name")
        pairs.append((name, value or ""))
    return check_parameters(pairs)


def invalid(target: Target, message: str) -> Refusal:
    """A broken rule; conferences report it as a list of texts."""
    return Refusal(422, 20422, message, bare=target is Target.CONFERENCE)
