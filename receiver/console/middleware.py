"""The outermost layer of the console: ids, headers, a limit per address, errors that nobody caught.

Plain ASGI: it costs little, and sees what the framework answers by itself, too.
"""

from __future__ import annotations

import ipaddress
import secrets
import time
from typing import Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from receiver.config.settings import Config
from receiver.console.problems import Problem, problem_response, too_many
from receiver.rate_limit import LogThrottle, TokenBuckets
from receiver.transports.handshake import caller_address

CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        *(f"{kind}-src 'self'" for kind in ("script", "style", "img", "font", "connect", "media")),
        "worker-src 'self'",
        "manifest-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
SECURITY_HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    # With "no-referrer" a browser sends the Origin of a form as "null", and none would be ours.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
STRICT_TRANSPORT: Final = "max-age=31536000"

log = structlog.get_logger("receiver.console")


class Outermost:
    """Wraps the whole application; `config` says who is believed about addresses."""

    def __init__(self, app: ASGIApp, *, config: Config, is_secure: bool, per_second: float) -> None:
        self._app = app
        self._proxies = tuple(map(ipaddress.ip_network, config.trusted_proxy))
        # Behind a proxy that is not trusted all addresses are the proxy's.
        self._knows_callers = bool(self._proxies) or not config.behind_proxy
        self._headers = dict(SECURITY_HEADERS)
        if is_secure and not config.self_signed:
            self._headers["Strict-Transport-Security"] = STRICT_TRANSPORT
        self._addresses = TokenBuckets(int(2 * per_second), per_second)
        self._throttle = LogThrottle()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or open one WebSocket."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["request_id"] = request_id = secrets.token_hex(8)
        state["peer"] = peer = scope["client"][0] if scope.get("client") else ""
        forwarded = Headers(scope=scope).getlist("x-forwarded-for")
        state["address"] = caller_address(peer, forwarded, self._proxies)
        answer = _Answer(send, self._headers, request_id)
        if self._knows_callers and not self._addresses.take(state["address"], time.monotonic()):
            await self._refuse(too_many(1), scope, receive, answer, request_id)
            return
        try:
            await self._app(scope, receive, answer)
        except Exception as error:
            self._log(error, scope, request_id)
            if answer.started:
                raise _Aborted from None
            problem = Problem(500, "This is a mistake of ours; the log has it under this id.")
            await self._refuse(problem, scope, receive, answer, request_id)

    async def _refuse(
        self, problem: Problem, scope: Scope, receive: Receive, answer: _Answer, request_id: str
    ) -> None:
        if scope["type"] == "http":
            await problem_response(problem, request_id)(scope, receive, answer)
        else:
            await answer({"type": "websocket.close", "code": 1013})

    def _log(self, error: Exception, scope: Scope, request_id: str) -> None:
        if times := self._throttle.count(type(error).__name__, time.monotonic()):
            log.error(
                "request_failed",
                request_id=request_id,
                path=scope["path"],
                error=repr(error),
                times=times,
                exc_info=error,
            )


class _Aborted(Exception):
    """An answer broke off: the server closes the connection, so that nobody takes it for whole."""


class _Answer:
    """Adds the headers that every answer has; `started` says whether one has begun."""

    def __init__(self, send: Send, headers: dict[str, str], request_id: str) -> None:
        self._send = send
        self._headers = headers
        self._request_id = request_id
        self.started = False

    async def __call__(self, message: Message) -> None:
        """Send one message of the answer."""
        if message["type"] in ("http.response.start", "websocket.accept", "websocket.close"):
            self.started = True
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in self._headers.items():
                headers[name] = value
            headers["X-Request-Id"] = self._request_id
            headers.setdefault("Cache-Control", "no-store")
        await self._send(message)
