"""One POST to an address that somebody else runs: bounded in time and bytes, and never inside.

    resolve   the name's addresses; those that are private, loopback or link-local are left out
    connect   to one of the addresses that were checked, not to the name again
    send      the request
    read      the status, and as much of the answer as may be; no redirect is followed

Whoever answers may be slow, never answer, answer without end, or break off: the time that all of
it may take is one bound, and so are the bytes. A name that resolves to another address by the
time of the connection gains nothing, since the connection goes to the address that was checked.
Proxies named by the environment are not used: they would connect to whatever a name is by then.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Final
from urllib.parse import SplitResult, urlsplit

import h11

from receiver import __version__

ATTEMPT_SECONDS: Final = 15.0
"""For one attempt, from the name to the end of the answer."""
MOST_HEAD_BYTES: Final = 16_384
MOST_ANSWER_BYTES: Final = 65_536
"""Of an answer, so much is read; what its status says counts."""
LONGEST_PROBLEM: Final = 300
_READ_BYTES: Final = 16_384
_OK: Final = range(200, 300)
_REDIRECTS: Final = range(300, 400)
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_NAT64_LOCAL: Final = ipaddress.ip_network("64:ff9b:1::/48")
_COMPATIBLE: Final = ipaddress.ip_network("::/96")
_FIRST_32_BITS: Final = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class PostAnswer:
    """What came of a POST: the status, if there was one; and the problem, where it was no success.

    `retry_after_seconds` is for how long the other end wants to be left alone.
    """

    status: int | None = None
    problem: str = ""
    retry_after_seconds: float = 0.0

    @property
    def is_success(self) -> bool:
        """Whether the other end has it."""
        return not self.problem


def is_public(address: str) -> bool:
    """Whether an address is one of the Internet: none of this machine, this network, or a group.

    An IPv4 address that is written in IPv6 counts as what it is: mapped (`::ffff:0:0/96`),
    compatible (`::/96`), 6to4 (`2002::/16`), Teredo, or NAT64 (`64:ff9b::/96`).
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, IPv6Address):
        inner = _embedded(found)
        if inner is not None:
            return is_public(str(inner))
        if found in _NAT64_LOCAL or found.is_site_local:
            return False
    return found.is_global and not found.is_multicast and not found.is_reserved


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that an IPv6 address leads to, if it does."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64 or address in _COMPATIBLE:
        return IPv4Address(int(address) & _FIRST_32_BITS)
    return None


async def post(
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    allow_private: bool = False,
    trust: ssl.SSLContext | None = None,
    seconds: float = ATTEMPT_SECONDS,
) -> PostAnswer:
    """Send `body` to a URL, and return what came of it; whatever goes wrong is in the answer.

    Args:
        url: https, or http.
        headers: Beside those that HTTP needs.
        body: JSON.
        allow_private: Whether it may be sent to an address of this machine or network.
        trust: The authorities for https; by default the system's.
        seconds: For all of it.
    """
    try:
        async with asyncio.timeout(seconds):
            return await _post(urlsplit(url), headers, body, allow_private, trust)
    except TimeoutError:
        return PostAnswer(problem=f"it did not answer within {seconds:g} s")
    except ssl.SSLCertVerificationError as error:
        return PostAnswer(problem=f"its certificate is not trusted: {error.verify_message}")
    except h11.RemoteProtocolError as error:
        return PostAnswer(problem=_cut(f"its answer is no HTTP, or broke off: {error}"))
    except (OSError, ValueError) as error:  # ValueError: a name that is none
        return PostAnswer(problem=_cut(f"no connection: {str(error) or type(error).__name__}"))


async def _post(
    url: SplitResult,
    headers: Mapping[str, str],
    body: bytes,
    allow_private: bool,
    trust: ssl.SSLContext | None,
) -> PostAnswer:
    is_secure = url.scheme == "https"
    host, port = url.hostname or "", url.port or (443 if is_secure else 80)
    addresses = await _resolved(host, port)
    allowed = [each for each in addresses if allow_private or is_public(each)]
    if not allowed:
        return PostAnswer(
            problem=f"{host} has no public address ({', '.join(addresses[:3])}):"
            " allow_private = true allows it"
        )
    context = (trust or ssl.create_default_context()) if is_secure else None
    reader, writer = await _connected(allowed, port, context, host)
    try:
        return await _exchanged(reader, writer, _request(url, headers, body), body)
    finally:
        writer.transport.abort()  # nothing more is wanted, and it may never close


async def _resolved(host: str, port: int) -> list[str]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


async def _connected(
    addresses: list[str], port: int, context: ssl.SSLContext | None, host: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a connection to the first address that takes one."""
    problem: OSError = OSError("the name has no address")
    for address in addresses:
        try:
            return await asyncio.open_connection(
                address,
                port,
                ssl=context,
                server_hostname=host if context else None,
                limit=_READ_BYTES,
            )
        except ssl.SSLError:
            raise
        except OSError as error:
            problem = error
    raise problem


def _request(url: SplitResult, headers: Mapping[str, str], body: bytes) -> h11.Request:
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    given = [
        ("Host", url.netloc),
        ("User-Agent", f"tapreel/{__version__}"),
        ("Content-Type", "application/json"),
        ("Content-Length", f"{len(body)}"),
        ("Accept", "*/*"),
        ("Connection", "close"),
        *headers.items(),
    ]
    return h11.Request(method="POST", target=target.encode(), headers=given)


async def _exchanged(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    request: h11.Request,
    body: bytes,
) -> PostAnswer:
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MOST_HEAD_BYTES)
    # An end that refuses early closes while we still write: what it has answered counts.
    with contextlib.suppress(ConnectionError):
        for part in (request, h11.Data(data=body), h11.EndOfMessage()):
            writer.write(http.send(part) or b"")
        await writer.drain()
    answer, read = None, 0
    while read <= MOST_ANSWER_BYTES:
        event = http.next_event()
        if isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
            break
        if isinstance(event, h11.Response):
            answer = event
        if event is h11.NEED_DATA:
            block = await reader.read(_READ_BYTES)
            read += len(block)
            http.receive_data(block)
    return PostAnswer(problem="its answer does not begin") if answer is None else _judged(answer)


def _judged(answer: h11.Response) -> PostAnswer:
    status = answer.status_code
    if status in _OK:
        return PostAnswer(status)
    problem = f"it answered {status}"
    if status in _REDIRECTS:
        problem += ", and redirects are not followed: give the URL that it leads to"
    asked = dict(answer.headers).get(b"retry-after", b"")
    return PostAnswer(status, problem, _seconds(asked.decode("latin-1")))


def _seconds(text: str) -> float:
    """Return the seconds that a `Retry-After` asks for; of one that is none, 0."""
    if text.isascii() and text.isdigit():
        return float(text[:9])
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    return 0.0


def _cut(text: str) -> str:
    return " ".join(text.split())[:LONGEST_PROBLEM]
