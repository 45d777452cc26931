"""What the adapters share: how a request is read, refused and answered.

The parsing is the websockets library's, whose core does no input or output. It decides what a
valid upgrade is for every adapter, so that all of them give the same answers.
"""

from __future__ import annotations

import http
import os
import re
from typing import Final

from websockets import http11
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from receiver.transports.interface import HttpAnswer, Limits, UpgradeRequest

SERVER: Final = "tapreel"
LONGEST_REASON_BYTES: Final = 123
"""A close message has 125 bytes, two of them for the code (RFC 6455, section 5.5)."""
OTHER_METHOD: Final = re.compile(rb"(?!GET )[A-Z]{3,10} ")
"""How a request begins that is none of ours; the library would drop a POST with a body."""


def allow_long_lines(limits: Limits) -> None:
    """Let header lines be as long as a whole request may be.

    The library answers a header line over 8 KiB with 431 before anybody is asked, but a bearer
    token of any length deserves the same 401; the whole request is bounded instead.
    """
    http11.MAX_LINE_LENGTH = max(http11.MAX_LINE_LENGTH, limits.max_handshake_bytes)


def upgrade_request(request: Request, remote_address: str) -> UpgradeRequest:
    """Return a GET request as a gate takes it."""
    path, _, query = request.path.partition("?")
    return UpgradeRequest(
        method=request.method,
        path=path,
        query=query,
        authorization=tuple(request.headers.get_all("Authorization")),
        remote_address=remote_address,
        is_upgrade=_is_upgrade(request),
    )


def _is_upgrade(request: Request) -> bool:
    """Ask the library beforehand whether it would upgrade."""
    response = ServerProtocol().accept(request)
    return response.status_code == http.HTTPStatus.SWITCHING_PROTOCOLS


def without_details(protocol: ServerProtocol, response: Response) -> Response:
    """Return a refusal of the library's that repeats nothing of the request: who knows what it is.

    Headers stay that say what the other end ought to have sent.
    """
    status = http.HTTPStatus(response.status_code)
    plain = protocol.reject(status, f"{status.phrase}\n")
    for name in ("Upgrade", "Sec-WebSocket-Version"):
        if name in response.headers:
            plain.headers[name] = response.headers[name]
    plain.headers["Server"] = SERVER
    return plain


def refusal(protocol: ServerProtocol, answer: HttpAnswer) -> Response:
    """Return a gate's answer as the library sends it; its headers replace the library's."""
    response = protocol.reject(http.HTTPStatus(answer.status), answer.body)
    for name, value in answer.headers:
        response.headers.pop(name, None)
        response.headers[name] = value
    return response


def method_refusal(protocol: ServerProtocol) -> Response:
    """Return the answer to anything but GET; it has no body, as HEAD demands."""
    response = protocol.reject(http.HTTPStatus.METHOD_NOT_ALLOWED, "")
    response.headers["Allow"] = "GET"
    return response


def address_of(name: object) -> str:
    """Return the address in a socket's name, or nothing where it has none."""
    return str(name[0]) if isinstance(name, tuple) and name else ""


def cut_reason(reason: str) -> str:
    """Return what fits of `reason`, without half a character at its end."""
    return reason.encode("utf-8", "replace")[:LONGEST_REASON_BYTES].decode("utf-8", "ignore")


def why_not_listening(error: OSError | UnicodeError) -> str:
    """Return why an address cannot be listened on, in a few words."""
    if not isinstance(error, OSError):
        return "no host name"
    number = error.errno or 0  # below zero: the resolver's own
    return os.strerror(number).lower() if number > 0 else str(error.strerror).lower()
