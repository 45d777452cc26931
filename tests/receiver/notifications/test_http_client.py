"""One POST: to whom it goes, and that nobody who answers can make it take longer or hold more."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from email.utils import formatdate
from typing import Any

import pytest
import trustme

from receiver.notifications import http_client
from receiver.notifications.http_client import PostAnswer, is_public
from tests.bounds import at_most
from tests.receiver.helpers import hooks
from tests.receiver.helpers.hooks import hook, raw, status

pytestmark = pytest.mark.integration
BODY = b'{"type":"webhook.test"}'


async def posted(url: str, **options: Any) -> PostAnswer:
    """Return what comes of a POST that may go to this machine."""
    return await http_client.post(url, {"X-Mine": "1"}, BODY, allow_private=True, **options)


@pytest.mark.parametrize(
    ("expected", "address"),
    [
        *((True, each) for each in ("93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946")),
        *((False, each) for each in ("127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3")),  # noqa: S104
        *((False, each) for each in ("172.16.0.1", "192.168.1.1", "169.254.169.254")),
        *((False, each) for each in ("100.64.0.1", "224.0.0.1", "239.1.1.1", "255.255.255.255")),
        *((False, each) for each in ("192.0.2.1", "198.18.0.1", "240.0.0.1")),
        *((False, each) for each in ("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1")),
        *((False, each) for each in ("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1")),
        *((False, each) for each in ("64:ff9b::7f00:1", "64:ff9b:1::1", "2002:7f00:1::")),
        *((False, each) for each in ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1")),
        *((True, each) for each in ("::ffff:93.184.216.34", "64:ff9b::5db8:d822")),
        (False, "nonsense"),
    ],
)
def test_which_addresses_are_of_the_internet(expected: bool, address: str) -> None:
    """An IPv4 address inside of an IPv6 one counts as what it is."""
    assert expected is is_public(address)


async def test_what_is_sent() -> None:
    """Body, headers and path arrive as they are."""
    async with hook() as made:
        answer = await posted(f"{made.url}hook?a=b")
    assert PostAnswer(204) == answer
    assert answer.is_success
    assert [BODY] == made.bodies
    assert "1" == made.headers[0]["x-mine"]
    assert "application/json" == made.headers[0]["content-type"]
    assert made.headers[0]["user-agent"].startswith("tapreel/")


@pytest.mark.parametrize(
    ("answer", "code", "problem"),
    [
        (status(200), 200, ""),
        (status(299), 299, ""),
        (status(404), 404, "it answered 404"),
        (status(500), 500, "it answered 500"),
        (status(302, "Location: http://127.0.0.1:1/"), 302, "redirects are not followed"),
        (raw(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n"), 204, ""),
        (raw(b""), None, "broke off"),
        (raw(b"SSH-2.0-OpenSSH_9\r\n"), None, "no HTTP"),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nonly"), None, "broke off"),
        (raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"), None, "broke off"),
        (raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 40_000), None, "no HTTP"),
        (raw(b"HTTP/1.1 100 C\r\n\r\n" * 10_000), None, "does not begin"),
        (raw(b"HTTP/1.1 200 OK\r\n\r\nno length"), 200, ""),
        (raw(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n"), None, "no HTTP"),
    ],
)
async def test_what_counts_as_received(
    answer: hooks.Answer, code: int | None, problem: str
) -> None:
    """A status of success at the head of a whole answer, and nothing else."""
    async with hook(answer) as made:
        found = await posted(made.url, seconds=at_most(10))
        assert (code, not problem) == (found.status, found.is_success), found
        assert problem in found.problem
        assert 1 == len(made.bodies)


@pytest.mark.parametrize("answer", [hooks.silence, hooks.dripping])
async def test_an_end_that_takes_its_time_is_left(answer: hooks.Answer) -> None:
    """Also one that sends a byte now and then."""
    began = time.monotonic()
    async with hook(answer) as made:
        found = await posted(made.url, seconds=0.5)
    assert "it did not answer within 0.5 s" == found.problem
    assert time.monotonic() - began < at_most(5)


async def test_an_answer_without_end_is_not_read_to_its_end() -> None:
    """Its status counts."""
    async with hook(hooks.endless) as made:
        assert PostAnswer(200) == await posted(made.url, seconds=at_most(10))


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [("120", 120, 120), (None, 50, 61), ("soon", 0, 0), ("-5", 0, 0), ("9" * 30, 1, 1e9)],
)
async def test_how_long_it_wants_to_be_left_alone(
    text: str | None, least: float, most: float
) -> None:
    """In seconds, or as a date."""
    asked = formatdate(time.time() + 60, usegmt=True) if text is None else text
    async with hook(status(503, f"Retry-After: {asked}")) as made:
        found = await posted(made.url)
    assert least - at_most(5) * (text is None) <= found.retry_after_seconds <= most


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433"]
)
async def test_nothing_is_sent_to_this_machine_unless_it_is_allowed(host: str) -> None:
    """However its address is written."""
    async with hook() as made:
        port = made.url.split(":")[-1].strip("/")
        url = f"http://{host}:{port}/"
        found = await http_client.post(url, {}, BODY, seconds=at_most(10))
    assert not found.is_success
    assert [] == made.bodies
    assert "no public address" in found.problem or "no connection" in found.problem


async def test_a_name_that_changes_its_address_gains_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The connection goes to the address that was checked, and the name is asked once."""
    asked = []

    async def getaddrinfo(*arguments: Any, **_: Any) -> list[Any]:
        asked.append(arguments[0])
        address = "192.0.2.1" if len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, arguments[1]))]

    async with hook() as made:
        port = made.url.split(":")[-1].strip("/")
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
        monkeypatch.setattr(http_client, "is_public", lambda address: address == "192.0.2.1")
        found = await http_client.post(f"http://rebind.test:{port}/", {}, BODY, seconds=0.5)
    assert not found.is_success
    assert [] == made.bodies
    assert "rebind.test" == asked[0]
    assert "127.0.0.1" not in asked


async def test_of_several_addresses_the_private_ones_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name may have both."""

    async def getaddrinfo(_: str, port: int, **__: Any) -> list[Any]:
        addresses = ("10.0.0.1", "127.0.0.1", "169.254.169.254")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in addresses]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    found = await http_client.post("https://both.test/", {}, BODY, seconds=at_most(5))
    assert "both.test has no public address (10.0.0.1, 127.0.0.1, 169.254.169.254)" in found.problem


async def test_a_certificate_must_be_trusted_and_of_that_name() -> None:
    """As in any browser."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    bodies = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bodies.append(await reader.readuntil(BODY))
        await hooks.status(200)(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    try:
        good = await posted(f"https://localhost:{port}/", trust=trust)
        untrusted = await posted(f"https://localhost:{port}/")
        misnamed = await posted(f"https://127.0.0.1:{port}/", trust=trust)
    finally:
        server.close()
        await server.wait_closed()
    assert good.is_success, good
    assert 1 == len(bodies)
    for refused in (untrusted, misnamed):
        assert "certificate is not trusted" in refused.problem


async def test_an_end_that_is_not_there_is_a_problem() -> None:
    """No error gets out."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    for url in (f"http://127.0.0.1:{port}/", "http://nowhere.invalid/"):
        found = await posted(url, seconds=at_most(10))
        assert "no connection" in found.problem, found
