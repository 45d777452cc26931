"""The opening handshake: a request is parsed and judged once, by the websockets library.

The library's core does no input or output. What it decides is a valid upgrade, `Handshake`
keeps, together with the response it gives; whether the upgrade is wanted, the policy decides in
between.
"""

from __future__ import annotations

import http
import ipaddress
import os
import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

from websockets import http11
from websockets.http11 import Request
from websockets.server import ServerProtocol

from receiver.transports.interface import HttpAnswer, Limits, UpgradeRequest

SERVER: Final = "tapreel"
LONGEST_REASON_BYTES: Final = 123
"""A close message has 125 bytes, two of them for the code (RFC 6455, section 5.5)."""
_MOST_HEADERS: Final = 128
_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE: Final = re.compile(rb"(%s) [\x21-\x7e]+ HTTP/([0-9]\.[0-9])" % _TOKEN)
_HEADER: Final = re.compile(rb"(%s):[\t\x20-\x7e\x80-\xff]*" % _TOKEN)
_TLS_HANDSHAKE: Final = 0x16  # the first byte of a TLS record that begins one
_NO_BODY: Final = re.compile(rb"(?i)content-length:[ \t]*0*[ \t]*")
_WITH_PORT: Final = re.compile(r"\[(.+)\](?::\d+)?|([\d.]+):\d+")
Networks = Iterable[IPv4Network | IPv6Network]
_UPGRADE: Final = (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"))


class InvalidRequestError(Exception):
    """What was received is no request that a policy could decide about.

    `reason` is one of `UpgradePolicy.count_refused`. `detail` says in words of ours what is
    wrong: what was received may hold a secret.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        reason: str = "bad_request",
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.response = _answer(HttpAnswer(status, f"{detail}\n", headers))


class Handshake:
    """A valid request, and the bytes of every response that it may get."""

    def __init__(
        self, protocol: ServerProtocol, request: Request, remote_address: str, proxies: Networks
    ) -> None:
        self._without_body = request.method == "HEAD"
        method, request.method = request.method, "GET"  # the library accepts nothing else
        self._response = protocol.accept(request)
        path, _, query = request.path.partition("?")
        self.request = UpgradeRequest(
            method=method,
            path=path,
            query=query,
            authorization=tuple(request.headers.get_all("Authorization")),
            remote_address=caller_address(
                remote_address, request.headers.get_all("X-Forwarded-For"), proxies
            ),
            no_upgrade=_no_upgrade(request, self._response.status_code, method),
        )

    def response(self) -> bytes:
        """Return the response that upgrades."""
        self._response.headers["Server"] = SERVER
        return self._response.serialize()

    def refusal(self, answer: HttpAnswer) -> bytes:
        """Return an answer in place of the upgrade."""
        return _answer(answer, without_body=self._without_body)

    def failure(self) -> bytes:
        """Return the response where the policy raised an error."""
        return self.refusal(HttpAnswer(500, "internal error\n"))


def _no_upgrade(request: Request, status: int, method: str) -> HttpAnswer | None:
    """Return what is wrong with a request as an upgrade, given the library's status for it.

    The library's own text repeats parts of the request, which may be a secret.
    """
    if status == http.HTTPStatus.SWITCHING_PROTOCOLS:
        text = "a WebSocket is opened by GET\n"
        return None if method == "GET" else HttpAnswer(405, text, (("Allow", "GET"),))
    if status == http.HTTPStatus.HTTP_VERSION_NOT_SUPPORTED:
        text = f"{request.protocol} opens no WebSocket: is a proxy in front without HTTP/1.1?"
        return HttpAnswer(status, f"{text}\n")
    if status == http.HTTPStatus.UPGRADE_REQUIRED:
        text = "a WebSocket upgrade is expected, and the upgrade headers "
        connection = ",".join(request.headers.get_all("Connection")).lower()
        if "Upgrade" in request.headers and "upgrade" in connection:
            return HttpAnswer(status, f"{text}ask for something else\n", _UPGRADE)
        text += "are missing: is a proxy in front without them?\n"
        return HttpAnswer(status, text, _UPGRADE)
    text = "Sec-WebSocket-Key or -Version (which is 13), or another header, is missing or wrong\n"
    return HttpAnswer(400, text, _UPGRADE[1:])


def read_request(head: bytes, remote_address: str, proxies: Networks = ()) -> Handshake:
    """Parse a request up to its empty line.

    `proxies` are those that are trusted to say who calls.

    Raises:
        InvalidRequestError: it is not HTTP, or its method is neither GET nor HEAD.
    """
    _check(head)
    protocol = ServerProtocol()
    protocol.receive_data(head)
    request = next(iter(protocol.events_received()), None)
    if not isinstance(request, Request):
        raise InvalidRequestError(400, "the request is no valid HTTP")
    return Handshake(protocol, request, remote_address, proxies)


def too_large(limits: Limits) -> InvalidRequestError:
    """Return the refusal of a request that is longer than allowed."""
    text = f"the request is longer than {limits.max_handshake_bytes} bytes"
    return InvalidRequestError(431, text, reason="too_large")


def too_slow(limits: Limits) -> InvalidRequestError:
    """Return the refusal of a request that is not whole when its time is up."""
    text = f"no empty line ended the request within {limits.handshake_timeout_seconds:g} s"
    return InvalidRequestError(408, text, reason="timeout")


def _check(head: bytes) -> None:
    """Refuse what the library would drop without a word, or answer in words of the request.

    Raises:
        InvalidRequestError: the text says what is wrong.
    """
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    _check_first_line(first)
    if len(lines) > _MOST_HEADERS:
        raise InvalidRequestError(431, f"there are more than {_MOST_HEADERS} header lines")
    for line in lines:
        _check_header(line)


def _check_first_line(line: bytes) -> None:
    match = _REQUEST_LINE.fullmatch(line)
    if line.startswith(b"PROXY ") or not line:  # the second version starts with empty lines
        text = "the PROXY protocol is not spoken here: have the proxy send X-Forwarded-For"
        raise InvalidRequestError(400, text if line else f"an empty line came first; {text}")
    if match is None:
        raise InvalidRequestError(400, "the first line is no request line of HTTP")
    version = match[2].decode()
    if version not in ("1.0", "1.1"):
        raise InvalidRequestError(505, f"HTTP/{version} is not spoken here: use HTTP/1.1")
    if match[1] not in (b"GET", b"HEAD"):
        allow = (("Allow", "GET, HEAD"),)
        text = "only GET and HEAD are served"
        raise InvalidRequestError(405, text, reason="bad_method", headers=allow)


def _check_header(line: bytes) -> None:
    match = _HEADER.fullmatch(line)
    if line[:1] in (b" ", b"\t"):
        raise InvalidRequestError(400, "a header line is folded: each must be whole")
    if b"\0" in line:
        raise InvalidRequestError(400, "a header line holds a NUL")
    if b":" not in line:
        raise InvalidRequestError(400, "a header line has no colon")
    if match is None:
        raise InvalidRequestError(400, "a header line has a character that none may have")
    name = match[1].lower()
    if name == b"transfer-encoding" or (name == b"content-length" and not _NO_BODY.fullmatch(line)):
        raise InvalidRequestError(413, "a request has a body, and none is accepted")


def check_beginning(received: bytearray, searched: int) -> None:
    """Refuse the beginning of a request that can become none, before its time is up.

    Args:
        received: what came so far, without an empty line.
        searched: how much of it was checked before.

    Raises:
        InvalidRequestError: it is no HTTP.
    """
    if received[0] == _TLS_HANDSHAKE:
        raise InvalidRequestError(400, "TLS came to a port that speaks plain HTTP")
    if not 0x20 < received[0] < 0x7F and received[0] not in b"\r\n":
        raise InvalidRequestError(400, "what came is no HTTP")
    end = received.find(b"\n")
    if end >= searched:  # what speaks another protocol may wait for an answer to its first line
        _check_first_line(bytes(received[:end]).removesuffix(b"\r"))
    if received.find(b"\n\n", max(0, searched - 1)) >= 0:
        raise InvalidRequestError(400, "each line must end with CR LF, and these end with LF")


def _answer(answer: HttpAnswer, *, without_body: bool = False) -> bytes:
    """Return an answer's bytes; its headers replace the library's."""
    response = ServerProtocol().reject(http.HTTPStatus(answer.status), answer.body)
    for name, value in (*answer.headers, ("Server", SERVER)):
        response.headers.pop(name, None)
        response.headers[name] = value
    if without_body:  # of HEAD; the headers are those of GET
        response.body = b""
    return response.serialize()


def allow_long_lines(limits: Limits) -> None:
    """Raise the library's limit of a header line to that of a whole request.

    It answers a header line over 8 KiB with 431 before the policy is asked, but a bearer token
    of any length deserves the same 401; the whole request is bounded instead.
    """
    http11.MAX_LINE_LENGTH = max(http11.MAX_LINE_LENGTH, limits.max_handshake_bytes)


def caller_address(address: str, forwarded: Sequence[str], proxies: Networks) -> str:
    """Return who calls: the other end, or whom it and other trusted proxies name.

    Each proxy appends the address of its own other end to X-Forwarded-For, and whoever calls may
    have sent anything to begin with. So the addresses are read from the right, as long as they
    are those of trusted proxies; the first other one is the caller's.

        proxies 10.0.0.0/8, other end 10.0.0.1, X-Forwarded-For: 1.1.1.1, 192.0.2.7, 10.0.0.9
        the caller is 192.0.2.7; 1.1.1.1 is what it says itself

    Args:
        address: the other end's.
        forwarded: every value of X-Forwarded-For.
        proxies: the networks of trusted proxies.
    """
    names = [name for value in forwarded for name in value.split(",")]
    while names and is_in(address, proxies):
        named = _parsed_address(names.pop())
        if named is None:
            break
        address = str(named)
    return address


def is_in(address: str, networks: Networks) -> bool:
    """Return whether an address is in one of these networks."""
    parsed = _parsed_address(address)
    return parsed is not None and any(parsed in network for network in networks)


def _parsed_address(text: str) -> IPv4Address | IPv6Address | None:
    """Return an address, perhaps written with a port; `None` where it is none."""
    text = text.strip(' \t"')
    with_port = _WITH_PORT.fullmatch(text)
    try:
        parsed = ipaddress.ip_address((with_port[1] or with_port[2]) if with_port else text)
    except ValueError:
        return None
    return (parsed.ipv4_mapped or parsed) if isinstance(parsed, IPv6Address) else parsed


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
