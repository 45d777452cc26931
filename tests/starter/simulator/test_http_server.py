"""The simulated provider's HTTP server over real sockets."""

import asyncio
import json

import pytest

from starter.errors import ConfigError
from starter.simulator.http_server import serve
from starter.simulator.provider_rules import HttpReply, HttpRequest

pytestmark = pytest.mark.integration


async def exchange(port: int, text: bytes) -> tuple[int, dict[str, object]]:
    """Send bytes, read one answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    body = await reader.readexactly(length)
    writer.close()
    await writer.wait_closed()
    return int(head.split()[1]), json.loads(body)


async def test_requests_and_replies_pass_as_values() -> None:
    """Method, path, headers and body come in; status and JSON go out."""
    seen: list[HttpRequest] = []

    def answer(request: HttpRequest) -> HttpReply:
        seen.append(request)
        return HttpReply(201, {"größe": 1})

    async with serve(0, answer) as port:
        head = b"POST /a%20b?x=1 HTTP/1.1\r\nHost: x\r\nAuthorization: Basic abc\r\n"
        head += b"Content-Type: text/plain\r\nContent-Length: 5\r\n\r\n"
        assert (201, {"größe": 1}) == await exchange(port, head + b"hello")
        await exchange(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")

    assert [
        HttpRequest("POST", "/a%20b", "Basic abc", "text/plain", b"hello"),
        HttpRequest("GET", "/", None, None, b""),
    ] == seen


@pytest.mark.parametrize(
    ("length", "status"),
    [
        (b"", 411),
        (b"Transfer-Encoding: chunked\r\n", 411),
        (b"Content-Length: -1\r\n", 411),
        (b"Content-Length: x\r\n", 411),
        (b"Content-Length: 1048577\r\n", 413),
    ],
)
async def test_bodies_need_a_fair_length(length: bytes, status: int) -> None:
    """What cannot be read safely is refused before anything is answered."""

    def answer(request: HttpRequest) -> HttpReply:
        raise AssertionError

    async with serve(0, answer) as port:
        code, body = await exchange(port, b"POST / HTTP/1.1\r\nHost: x\r\n" + length + b"\r\n")

    assert (status, status) == (code, body["status"])


async def test_half_a_body_is_not_answered() -> None:
    """A form that was cut off could request something else."""

    def answer(request: HttpRequest) -> HttpReply:
        raise AssertionError

    async with serve(0, answer) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhel")
        writer.write_eof()
        status = await reader.readline()
        writer.close()
        await writer.wait_closed()

    assert b"HTTP/1.1 400 Bad Request\r\n" == status


async def test_a_broken_exchange_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever goes wrong with one request, there is no traceback and the server goes on."""

    def answer(request: HttpRequest) -> HttpReply:
        raise ValueError(request.path)

    async with serve(0, answer) as port:
        for path in (b"/one", b"/two"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"" == await reader.read()
            writer.close()
            await writer.wait_closed()

    assert ["ValueError('/one')", "ValueError('/two')"] == [
        record.getMessage().removeprefix("an HTTP exchange broke: ") for record in caplog.records
    ]


async def test_a_taken_port_is_a_configuration_error() -> None:
    """One line names the address that cannot be used."""

    def answer(request: HttpRequest) -> HttpReply:
        raise AssertionError

    async with serve(0, answer) as port:
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}"):
            async with serve(port, answer):
                raise AssertionError
