"""The opening handshake: a request is parsed and judged once, by the websockets library.

The library's core does no input or output. What it decides is a valid upgrade, `Handshake`
keeps, together with the response it gives; whether the upgrade is wanted, the policy decides in
between.
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
_OTHER_METHOD: Final = re.compile(rb"(?!GET )[A-Z]{3,10} ")
"""How a request begins that is not served; the library would drop a POST with a body."""


class InvalidRequestError(Exception):
    """What was received is no request that a policy could decide about.

    `reason` is one of `UpgradePolicy.count_refused`; `response` is empty where it is not HTTP.
    """

    def __init__(self, reason: str, response: bytes) -> None:
        super().__init__(reason)
        self.reason = reason
        self.response = response


class Handshake:
    """A valid GET request, and the bytes of every response that it may get."""

    def __init__(self, protocol: ServerProtocol, request: Request, remote_address: str) -> None:
        self._protocol = protocol
        self._response = protocol.accept(request)
        path, _, query = request.path.partition("?")
        self.request = UpgradeRequest(
            method=request.method,
            path=path,
            query=query,
            authorization=tuple(request.headers.get_all("Authorization")),
            remote_address=remote_address,
            is_upgrade=self._response.status_code == http.HTTPStatus.SWITCHING_PROTOCOLS,
        )

    def response(self) -> bytes:
        """Return the response to an admitted request: 101, or 4xx where it is no upgrade.

        A refusal of the library's repeats parts of the request, which may be a secret. Only
        its headers stay that say what ought to have been sent.
        """
        if self.request.is_upgrade:
            return _serialize(self._response)
        status = http.HTTPStatus(self._response.status_code)
        plain = self._protocol.reject(status, f"{status.phrase}\n")
        for name in ("Upgrade", "Sec-WebSocket-Version"):
            if name in self._response.headers:
                plain.headers[name] = self._response.headers[name]
        return _serialize(plain)

    def refusal(self, answer: HttpAnswer) -> bytes:
        """Return the policy's answer; its headers replace the library's."""
        response = self._protocol.reject(http.HTTPStatus(answer.status), answer.body)
        for name, value in answer.headers:
            response.headers.pop(name, None)
            response.headers[name] = value
        return _serialize(response)

    def failure(self) -> bytes:
        """Return the response where the policy raised an error."""
        status = http.HTTPStatus.INTERNAL_SERVER_ERROR
        return _serialize(self._protocol.reject(status, "internal error\n"))


def read_request(head: bytes, remote_address: str) -> Handshake:
    """Parse a request up to its empty line.

    Raises:
        InvalidRequestError: it is not HTTP, or its method is not GET.
    """
    protocol = ServerProtocol()
    if _OTHER_METHOD.match(head):
        response = protocol.reject(http.HTTPStatus.METHOD_NOT_ALLOWED, "")  # as HEAD demands
        response.headers["Allow"] = "GET"
        raise InvalidRequestError("bad_method", _serialize(response))
    protocol.receive_data(head)
    request = next(iter(protocol.events_received()), None)
    if not isinstance(request, Request):
        raise InvalidRequestError("bad_request", b"".join(protocol.data_to_send()))
    return Handshake(protocol, request, remote_address)


def _serialize(response: Response) -> bytes:
    response.headers["Server"] = SERVER
    return response.serialize()


def allow_long_lines(limits: Limits) -> None:
    """Raise the library's limit of a header line to that of a whole request.

    It answers a header line over 8 KiB with 431 before the policy is asked, but a bearer token
    of any length deserves the same 401; the whole request is bounded instead.
    """
    http11.MAX_LINE_LENGTH = max(http11.MAX_LINE_LENGTH, limits.max_handshake_bytes)


def address_of(name: object) -> str:
    """Return the address in a socket's name, or nothing where it has none."""
    return str(name[0]) if isinstance(name, tuple) and name else ""


def cut_reason(reason: str) -> str:
    """Return what fits of `reason` into a close message, without half a character at its end."""
    return reason.encode("utf-8", "replace")[:LONGEST_REASON_BYTES].decode("utf-8", "ignore")


def why_not_listening(error: OSError | UnicodeError) -> str:
    """Return why an address cannot be listened on, in a few words."""
    if not isinstance(error, OSError):
        return "no host name"
    number = error.errno or 0  # below zero: the resolver's own
    return os.strerror(number).lower() if number > 0 else str(error.strerror).lower()
