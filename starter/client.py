"""Client of the provider's REST API for streams. The only module that sends requests to it."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from base64 import b64encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote, quote_plus
from uuid import uuid4

import httpx

from starter import validation
from starter.config import Credentials
from starter.errors import (
    AnswerError,
    ApiError,
    OutcomeUnknownError,
    StarterError,
    UnreachableError,
    error_class,
)
from starter.models import MASK, StreamHandle, StreamRequest, Target
from starter.responses import parse_error, parse_handle, parse_retry_after
from starter.retry import RetryPolicy

DEFAULT_TIMEOUT_SECONDS: Final = 15.0
_RETRIED_STATUSES: Final = (429, 503)
_LARGEST_ANSWER_BYTES: Final = 1 << 20
# what httpx raises when nothing of the request can have reached the provider
_NOT_SENT: Final = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
)

_log = logging.getLogger("starter.client")


@dataclass(frozen=True, slots=True)
class _ApiRequest:
    """One request and the words for its errors; of all this only `what` is ever logged."""

    url: str
    form: list[tuple[str, str]] = field(repr=False)  # every field occurs once
    what: str  # "stream X may have started", for a request without an answer
    missing: str  # what a 404 may mean
    name: str
    secrets: tuple[str, ...] = field(repr=False)

    def mask(self, text: str) -> str:
        """The text with every secret masked, plain or as a URL, form or JSON would write it."""
        for secret in self.secrets:
            as_json = json.dumps(secret)[1:-1]
            for spelling in (secret, quote_plus(secret), quote(secret, safe=""), as_json):
                text = text.replace(spelling, MASK)
        return text


class StreamClient:
    """Starts and stops streams on live calls and conferences.

        async with StreamClient(credentials) as client:
            handle = await client.start(call_sid, StreamRequest(url="wss://rec.example.com/audio"))
            await client.stop(call_sid, handle.sid)

    All four requests raise InvalidRequestError before anything is sent, an ApiError for an error
    answer, UnreachableError if no connection could be made, and OutcomeUnknownError if the request
    went out and no answer came. Tried again are connect errors, 429 and 503 only; a name is made
    once per stream, so that every try names the same one.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        retry: RetryPolicy | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._credentials = credentials
        self._retry = retry or RetryPolicy()
        self._sleep = sleep
        self._dice = dice
        self._http = httpx.AsyncClient(
            auth=httpx.BasicAuth(credentials.project_id, credentials.api_token),
            timeout=timeout_seconds,
            follow_redirects=False,  # the credentials are for the provider's own address
            transport=transport,
            trust_env=credentials.base_url.startswith("https:"),  # no proxy to this machine
            headers={"Accept": "application/json"},
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; may be called again."""
        await self._http.aclose()

    async def start(self, call_sid: str, request: StreamRequest) -> StreamHandle:
        """Start a stream on a live call."""
        return await self._start(Target.CALL, call_sid, request)

    async def stop(self, call_sid: str, sid_or_name: str) -> StreamHandle:
        """Stop a call's stream, by its sid or by its name."""
        return await self._stop(Target.CALL, call_sid, sid_or_name)

    async def start_conference(self, conference_sid: str, request: StreamRequest) -> StreamHandle:
        """Start a stream of a conference; only here may the request choose codec and real time."""
        return await self._start(Target.CONFERENCE, conference_sid, request)

    async def stop_conference(self, conference_sid: str, sid_or_name: str) -> StreamHandle:
        """Stop a conference's stream, by its sid or by its name."""
        return await self._stop(Target.CONFERENCE, conference_sid, sid_or_name)

    async def _start(self, target: Target, sid: str, request: StreamRequest) -> StreamHandle:
        target.check_sid(sid)
        request = named(request)
        api_request = _ApiRequest(
            url=self._credentials.streams_url(target, sid),
            form=request.form(target),
            what=f"the stream may have started under the name {request.name}",
            missing=f"the {target.word} may have ended, or belong to another project",
            name=str(request.name),
            secrets=self._secrets(request.bearer_token),
        )
        return await self._run(api_request)

    async def _stop(self, target: Target, sid: str, sid_or_name: str) -> StreamHandle:
        target.check_sid(sid)
        stream = validation.check_name(sid_or_name)
        api_request = _ApiRequest(
            url=self._credentials.streams_url(target, sid, stream),
            form=[("Status", "stopped")],
            what=f"the stream {stream} may have stopped",
            missing=(
                f"the stream may have ended already, as it does with its {target.word},"
                f" or have been started on another {target.word} or by another project"
            ),
            name=stream,
            secrets=self._secrets(None),
        )
        return await self._run(api_request)

    def _secrets(self, bearer_token: str | None) -> tuple[str, ...]:
        account = self._credentials
        basic = b64encode(f"{account.project_id}:{account.api_token}".encode()).decode()
        return tuple(secret for secret in (account.api_token, basic, bearer_token) if secret)

    async def _run(self, request: _ApiRequest) -> StreamHandle:
        attempt = 1
        while True:
            answer = await self._try(request)
            if isinstance(answer, StreamHandle):
                return answer
            failure, retry_after = answer
            wait = self._retry.wait_seconds(attempt, retry_after, self._dice)
            if wait is None:
                raise failure
            _log.warning("%s; trying again in %.1f s", failure, wait)
            await self._sleep(wait)
            attempt += 1

    async def _try(self, request: _ApiRequest) -> StreamHandle | tuple[StarterError, float | None]:
        """One request: the stream, or an error after which to try again; others are raised."""
        try:
            response, body = await self._post(request)
        except _NOT_SENT as error:
            failure = UnreachableError(f"no connection to the provider: {_reason(error)}")
            failure.__cause__ = error
            return failure, None
        except httpx.RequestError as error:
            raise OutcomeUnknownError(
                f"no answer from the provider ({_reason(error)}): {request.what}", name=request.name
            ) from error
        if response.is_success:
            return _handle(body, request)
        refusal = _refusal(response.status_code, body, request)
        if response.status_code not in _RETRIED_STATUSES:
            raise refusal
        return refusal, parse_retry_after(response.headers.get("Retry-After"), datetime.now(UTC))

    async def _post(self, request: _ApiRequest) -> tuple[httpx.Response, bytes]:
        """Send the form; read at most 1 MiB of the answer."""
        body = bytearray()
        async with self._http.stream("POST", request.url, data=dict(request.form)) as response:
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > _LARGEST_ANSWER_BYTES:
                    break
        return response, bytes(body[:_LARGEST_ANSWER_BYTES])


def named(request: StreamRequest) -> StreamRequest:
    """The same request with a name of its own, if it had none."""
    if request.name is not None:
        return request
    return replace(request, name=f"tapreel-{uuid4().hex}")


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _handle(body: bytes, request: _ApiRequest) -> StreamHandle:
    try:
        return parse_handle(body)
    except AnswerError as error:
        raise AnswerError(f"{error}: {request.what}") from error


def _refusal(status: int, body: bytes, request: _ApiRequest) -> ApiError:
    """The exception for an error answer, with every secret masked that the answer repeats."""
    answer = parse_error(body, request.mask)
    message = answer.message
    if status == 404:
        message = f"{message}: {request.missing}"
    if status >= 500 and status not in _RETRIED_STATUSES:
        # the provider may have done it before it failed
        message = f"{message}: {request.what}"
    return error_class(status)(
        message,
        status=status,
        code=answer.code,
        more_info=answer.more_info,
    )
