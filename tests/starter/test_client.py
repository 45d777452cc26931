"""The REST client, against answers made up for each test and against real sockets."""

import asyncio
import json
import logging
import traceback
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

import starter
from starter import (
    AnswerError,
    ApiError,
    Codec,
    Credentials,
    InvalidRequestError,
    NotFoundError,
    OutcomeUnknownError,
    RefusedError,
    RejectedError,
    RetryPolicy,
    StreamClient,
    StreamRequest,
    UnavailableError,
    UnreachableError,
)
from starter.client import named
from tests.starter.conftest import API_TOKEN, CALL_SID, PROJECT_ID
from tests.starter.exchanges import Answer, Exchange

URL = "wss://rec.example.com/audio"
BEARER = 'bearer"token/of+the-tests'
REQUEST = StreamRequest(url=URL, bearer_token=BEARER)
STARTED = httpx.Response(200, json={"sid": "s-1", "call_sid": CALL_SID, "status": "queued"})


async def test_a_start_is_a_form_post_with_basic_auth() -> None:
    """Method, address, credentials and form are those of the provider's description."""
    exchange = Exchange(STARTED)
    async with exchange.client() as client:
        handle = await client.start(CALL_SID, REQUEST)
    request = exchange.requests[0]

    assert "s-1" == handle.sid
    assert "POST" == request.method
    assert (
        f"https://x.example/api/laml/2010-04-01/Accounts/{PROJECT_ID}/Calls/{CALL_SID}/Streams"
        == str(request.url)
    )
    basic = b64encode(f"{PROJECT_ID}:{API_TOKEN}".encode()).decode()
    assert f"Basic {basic}" == request.headers["Authorization"]
    assert "application/x-www-form-urlencoded" == request.headers["Content-Type"]
    assert URL == exchange.forms[0]["Url"]
    assert BEARER == exchange.forms[0]["AuthorizationBearerToken"]
    assert exchange.forms[0]["Name"].startswith("tapreel-")


async def test_a_stop_names_the_stream_in_the_path() -> None:
    """A name is one escaped segment, and the form has what to do."""
    exchange = Exchange(STARTED)
    async with exchange.client() as client:
        await client.stop(CALL_SID, "my stream/1")

    assert exchange.requests[0].url.raw_path.endswith(b"/Streams/my%20stream%2F1")
    assert {"Status": "stopped"} == exchange.forms[0]


async def test_conferences_have_paths_and_fields_of_their_own() -> None:
    """Only there do codec and real time exist."""
    exchange = Exchange(STARTED, STARTED)
    request = StreamRequest(url=URL, codec=Codec.L16, real_time=True)
    async with exchange.client() as client:
        await client.start_conference(CALL_SID, request)
        await client.stop_conference(CALL_SID, "s-1")

    assert f"/Conferences/{CALL_SID}/Streams" in str(exchange.requests[0].url)
    assert ("L16", "true") == (
        exchange.forms[0]["StreamCodec"],
        exchange.forms[0]["StreamRealTime"],
    )
    assert str(exchange.requests[1].url).endswith(f"/Conferences/{CALL_SID}/Streams/s-1")


@pytest.mark.parametrize(
    "send",
    [
        lambda client: client.start("x", REQUEST),
        lambda client: client.stop("x", "s-1"),
        lambda client: client.stop(CALL_SID, ".."),
        lambda client: client.start_conference("CA" + "0" * 32, REQUEST),
        lambda client: client.start(CALL_SID, StreamRequest(url=URL, codec=Codec.L16)),
    ],
)
async def test_a_bad_value_is_never_sent(send: Callable[[StreamClient], Any]) -> None:
    """What the provider would refuse is not sent."""
    exchange = Exchange()
    async with exchange.client() as client:
        with pytest.raises(InvalidRequestError):
            await send(client)

    assert [] == exchange.requests


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, RejectedError),
        (401, RefusedError),
        (403, RefusedError),
        (404, NotFoundError),
        (422, RejectedError),
        (500, UnavailableError),
        (502, UnavailableError),
    ],
)
async def test_error_answers_are_raised_at_once(status: int, kind: type[ApiError]) -> None:
    """Other errors than 429 and 503 are not tried again."""
    body = {"code": 7, "message": "no", "more_info": "https://m.example", "status": status}
    exchange = Exchange(httpx.Response(status, json=body))
    async with exchange.client() as client:
        with pytest.raises(kind) as caught:
            await client.start(CALL_SID, REQUEST)

    assert (status, 7, "https://m.example") == (
        caught.value.status,
        caught.value.code,
        caught.value.more_info,
    )
    assert 1 == len(exchange.requests)


async def test_a_missing_stream_or_call_is_explained() -> None:
    """The provider says no more than that it is not there; why it may be so is known here."""
    answer = httpx.Response(404, json={"code": 20404, "message": "Not found", "status": 404})
    async with Exchange(answer, answer).client() as client:
        with pytest.raises(NotFoundError, match="Not found: the stream may have ended already"):
            await client.stop(CALL_SID, "mine")
        with pytest.raises(NotFoundError, match="Not found: the call may have ended"):
            await client.start(CALL_SID, REQUEST)


@pytest.mark.parametrize("charset", ["utf-16", "idna", "base64"])
async def test_the_charset_of_an_error_answer_does_not_matter(charset: str) -> None:
    """An odd answer is an error like any other, and passing trouble is still tried again."""
    headers = {"Content-Type": f"application/json; charset={charset}"}
    answers = [httpx.Response(status, content=b"no\xff", headers=headers) for status in (503, 400)]
    exchange = Exchange(*answers)
    async with exchange.client() as client:
        with pytest.raises(RejectedError, match=r"^no\ufffd \(HTTP 400\)$"):
            await client.start(CALL_SID, REQUEST)

    assert [0.5] == exchange.waits


@pytest.mark.parametrize(("status", "kind"), [(400, RejectedError), (200, AnswerError)])
async def test_a_huge_answer_is_not_read_to_its_end(status: int, kind: type[Exception]) -> None:
    """A megabyte is more than any answer has; what follows stays on the wire."""
    sent = 0

    async def huge() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(64):
            sent += 1
            yield b"x" * 2**18

    exchange = Exchange(httpx.Response(status, content=huge()))
    async with exchange.client() as client:
        with pytest.raises(kind):
            await client.start(CALL_SID, REQUEST)

    assert 5 == sent


async def test_a_redirect_is_not_followed() -> None:
    """The credentials stay with the provider's own address."""
    exchange = Exchange(httpx.Response(307, headers={"Location": "https://elsewhere.example/"}))
    async with exchange.client() as client:
        with pytest.raises(RejectedError, match="HTTP 307"):
            await client.start(CALL_SID, REQUEST)

    assert 1 == len(exchange.requests)


@pytest.mark.parametrize(
    "trouble",
    [
        httpx.Response(429),
        httpx.Response(503),
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout(""),
    ],
)
async def test_passing_trouble_is_tried_again_under_the_same_name(trouble: Answer) -> None:
    """Backoff grows, and every try requests the one stream."""
    exchange = Exchange(trouble, trouble, STARTED)
    async with exchange.client() as client:
        handle = await client.start(CALL_SID, REQUEST)

    assert "s-1" == handle.sid
    assert [0.5, 1.0] == exchange.waits
    assert 1 == len({form["Name"] for form in exchange.forms})
    assert 3 == len(exchange.forms)


async def test_every_retry_is_logged_in_one_short_line(caplog: pytest.LogCaptureFixture) -> None:
    """What the provider sends can neither break a log line nor fill the terminal."""
    text = "slow\ndown\x1b[31m" + "x" * 5000
    exchange = Exchange(httpx.Response(503, json={"errors": [text]}), STARTED)
    async with exchange.client() as client:
        await client.start(CALL_SID, REQUEST)

    shown = "slow down [31m" + "x" * 286 + "…"
    assert [f"{shown} (HTTP 503); trying again in 0.5 s"] == [
        record.getMessage() for record in caplog.records if record.name == "starter.client"
    ]


async def test_lasting_trouble_is_raised_in_the_end() -> None:
    """After the last try the error is the one of that try."""
    exchange = Exchange(*[httpx.Response(503, json={"message": "full"})] * 3)
    async with exchange.client(retry=RetryPolicy(attempts=3)) as client:
        with pytest.raises(UnavailableError, match=r"^full \(HTTP 503\)$"):
            await client.start(CALL_SID, REQUEST)

    assert [0.5, 1.0] == exchange.waits


async def test_no_connection_is_raised_with_its_cause() -> None:
    """The HTTP library's error is its cause."""
    exchange = Exchange(httpx.ConnectError("refused"))
    async with exchange.client(retry=RetryPolicy(attempts=1)) as client:
        with pytest.raises(UnreachableError, match="no connection to the provider: refused") as no:
            await client.stop(CALL_SID, "s-1")

    assert isinstance(no.value.__cause__, httpx.ConnectError)


async def test_retry_after_in_seconds_is_honoured() -> None:
    """The provider's wish is the least to wait."""
    exchange = Exchange(httpx.Response(429, headers={"Retry-After": "7"}), STARTED)
    async with exchange.client() as client:
        await client.start(CALL_SID, REQUEST)

    assert [7.0] == exchange.waits


async def test_retry_after_as_a_date_is_honoured() -> None:
    """The other form of the header counts from now."""
    then = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    exchange = Exchange(httpx.Response(503, headers={"Retry-After": then}), STARTED)
    async with exchange.client() as client:
        await client.start(CALL_SID, REQUEST)

    assert 30 < exchange.waits[0] <= 40


async def test_an_endless_retry_after_is_not_waited_for() -> None:
    """An hour is longer than the client waits."""
    exchange = Exchange(httpx.Response(429, headers={"Retry-After": "3600"}))
    async with exchange.client() as client:
        with pytest.raises(UnavailableError):
            await client.start(CALL_SID, REQUEST)

    assert [] == exchange.waits


@pytest.mark.parametrize(
    "trouble", [httpx.ReadTimeout(""), httpx.RemoteProtocolError("gone"), httpx.WriteTimeout("")]
)
async def test_silence_after_sending_is_not_tried_again(trouble: Exception) -> None:
    """The error says that the stream may have started, and under which name."""
    exchange = Exchange(trouble)
    async with exchange.client() as client:
        with pytest.raises(OutcomeUnknownError) as caught:
            await client.start(CALL_SID, REQUEST)
    name = exchange.forms[0]["Name"]

    assert name == caught.value.name
    assert f"the stream may have started under the name {name}" in str(caught.value)
    assert trouble is caught.value.__cause__


async def test_silence_after_a_stop_says_so() -> None:
    """Stopping has an outcome of its own."""
    exchange = Exchange(httpx.ReadTimeout(""))
    async with exchange.client() as client:
        with pytest.raises(OutcomeUnknownError, match="the stream s-1 may have stopped"):
            await client.stop(CALL_SID, "s-1")


async def test_a_failure_after_sending_names_the_stream_too() -> None:
    """What happened behind a gateway's 502 is unknown."""
    exchange = Exchange(httpx.Response(502, text="Bad Gateway"))
    async with exchange.client() as client:
        with pytest.raises(UnavailableError, match="may have started under the name mine"):
            await client.start(CALL_SID, StreamRequest(url=URL, name="mine"))


async def test_an_unreadable_success_names_the_stream() -> None:
    """A stream of unknown sid can still be stopped by name."""
    exchange = Exchange(httpx.Response(200, text="ok"))
    async with exchange.client() as client:
        with pytest.raises(AnswerError, match="may have started under the name mine"):
            await client.start(CALL_SID, StreamRequest(url=URL, name="mine"))


@pytest.mark.parametrize(
    "answer",
    [
        str,
        lambda text: json.dumps({"message": text, "more_info": f"https://x/?{BEARER}"}),
        lambda text: json.dumps({"message": text}).replace("t", r"\u0074"),
        lambda text: json.dumps({"errors": {"Url": [text]}}),
    ],
)
async def test_an_answer_that_repeats_secrets_is_masked(
    answer: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    """API token, Basic credentials and bearer token never get into texts, attributes or logs."""
    basic = b64encode(f"{PROJECT_ID}:{API_TOKEN}".encode()).decode()
    text = f"{API_TOKEN} {BEARER} {'.' * 250} {BEARER} {basic} bearer%22token%2Fof%2Bthe-tests"
    body = answer(text)
    exchange = Exchange(httpx.Response(503, text=body), httpx.Response(422, text=body))
    caplog.set_level(logging.DEBUG)
    async with exchange.client() as client:
        with pytest.raises(RejectedError) as caught:
            await client.start(CALL_SID, REQUEST)
    error = caught.value
    shown = f"{error} {error!r} {vars(error)} {caplog.text} {REQUEST!r}"

    assert not [
        secret for secret in (API_TOKEN[:8], basic[:8], BEARER[:8], BEARER[7:15]) if secret in shown
    ]
    assert "***" in shown


async def test_a_request_in_a_traceback_shows_no_secret() -> None:
    """Tools that print the local variables of a failure get neither tokens nor passwords."""
    exchange = Exchange(httpx.Response(400))
    request = replace(REQUEST, status_callback="https://u:hunter22@h.example/")
    async with exchange.client() as client:
        with pytest.raises(RejectedError) as caught:
            await client.start(CALL_SID, request)
    frames = [frame.f_locals for frame, _ in traceback.walk_tb(caught.value.__traceback__)]
    local = ("request", "api_request")
    shown = [repr(names[name]) for names in frames for name in local if name in names]

    assert any(text.startswith("_ApiRequest(") for text in shown)
    assert not [text for text in shown if API_TOKEN in text or BEARER in text or "hunt" in text]


def test_a_name_is_made_once() -> None:
    """A request with a name keeps it, one without gets a unique one."""
    assert "mine" == named(StreamRequest(url=URL, name="mine")).name
    assert named(REQUEST).name != named(REQUEST).name


def test_the_client_is_imported_when_asked_for() -> None:
    """The package has its client and nothing that does not exist."""
    assert StreamClient is starter.StreamClient
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = starter.nothing


@asynccontextmanager
async def silent_provider() -> AsyncIterator[str]:
    """A real server that accepts requests and never answers."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.read(4096):
                pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.integration
async def test_a_real_time_out_is_an_unknown_outcome() -> None:
    """Over a real socket, too, silence after sending is distinguished from no connection."""
    async with silent_provider() as base_url:
        credentials = Credentials(PROJECT_ID, base_url, API_TOKEN)
        async with StreamClient(credentials, timeout_seconds=0.1) as client:
            with pytest.raises(OutcomeUnknownError, match="ReadTimeout"):
                await client.start(CALL_SID, REQUEST)


@pytest.mark.integration
async def test_a_real_refusal_of_the_connection_is_tried_again() -> None:
    """No server any more: the client tries as often as its policy says."""
    async with silent_provider() as base_url:
        pass
    waits: list[float] = []

    async def wait(seconds: float) -> None:
        waits.append(seconds)

    credentials = Credentials(PROJECT_ID, base_url, API_TOKEN)
    async with StreamClient(credentials, retry=RetryPolicy(attempts=3), sleep=wait) as client:
        with pytest.raises(UnreachableError):
            await client.start(CALL_SID, REQUEST)

    assert 2 == len(waits)
