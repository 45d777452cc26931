"""The simulated provider as a whole: real client, real HTTP, real WebSocket with TLS."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from starter.client import StreamClient
from starter.config import Credentials
from starter.errors import (
    AudioError,
    InvalidRequestError,
    NotFoundError,
    RefusedError,
    RejectedError,
    StarterError,
    UnreachableError,
)
from starter.models import Codec, StreamRequest, Target, Track
from starter.retry import RetryPolicy
from starter.simulator.calls import Result
from starter.simulator.http_server import serve
from starter.simulator.live_stream import LiveStream, SimulatedCalls, stream_error
from starter.simulator.options import SimulateOptions
from starter.simulator.player import CallReport
from starter.simulator.provider import Provider
from starter.simulator.provider_rules import Account, HttpRequest
from starter.simulator.stream_info import ByteOrder
from tests.bounds import at_most
from tests.starter.conftest import API_TOKEN, CALL_SID, PROJECT_ID
from tests.starter.receivers import ReceiverDouble
from tests.starter.web_hooks import web_hook

pytestmark = pytest.mark.integration

OTHER_CALL = "76ac3c36-0000-4000-8000-00000000000f"
TOKEN = "bearer-token-of-the-tests"

WriteWav = Callable[..., Path]


@pytest.fixture
def options(write_wav: WriteWav, ca_file: Path) -> SimulateOptions:
    """A tenth of a second on both tracks, at full speed."""
    return SimulateOptions(
        inbound=write_wav("in.wav", seconds=0.1),
        outbound=write_wav("out.wav", seconds=0.06),
        demo=False,
        param={},
        dtmf=(),
        codec=Codec.PCMU,
        byte_order=ByteOrder.LITTLE,
        resample=False,
        packet_ms=20,
        first_timestamp=0,
        provider_shape="signalwire",
        speed=0.0,
        seed=0,
        loss=0.0,
        jitter=0.0,
        reorder=0.0,
        duplicate=0.0,
        no_stop=False,
        abort=False,
        call_sid=None,
        calls=1,
        ca_file=str(ca_file),
        insecure=False,
    )


class RunningProvider:
    """A running simulated provider, a client for it, and the results of its streams."""

    def __init__(self, provider: Provider, port: int, results: asyncio.Queue[Result]) -> None:
        self.provider = provider
        self.base_url = f"http://127.0.0.1:{port}"
        self.client = self.client_with(API_TOKEN)
        self._results = results

    def client_with(self, api_token: str) -> StreamClient:
        """A client that tries once."""
        credentials = Credentials(PROJECT_ID, self.base_url, api_token)
        return StreamClient(credentials, retry=RetryPolicy(attempts=1))

    async def sent(self) -> CallReport:
        """What the next stream to end has sent."""
        result = await asyncio.wait_for(self._results.get(), at_most(10))
        assert isinstance(result, CallReport)
        return result

    async def failure(self) -> StarterError:
        """Why the next stream to end has failed."""
        result = await asyncio.wait_for(self._results.get(), at_most(10))
        assert isinstance(result, StarterError)
        return result


@asynccontextmanager
async def running_provider(
    options: SimulateOptions, **settings: Any
) -> AsyncIterator[RunningProvider]:
    """A simulated provider that serves while the context is open."""
    results: asyncio.Queue[Result] = asyncio.Queue()
    calls = SimulatedCalls(options, **settings)
    provider = Provider(Account(PROJECT_ID, API_TOKEN), calls, on_end=results.put_nowait)
    async with serve(0, provider.answer) as port:
        running = RunningProvider(provider, port, results)
        async with running.client:
            yield running
    await provider.close()


def http_request(path: str, form: dict[str, str]) -> HttpRequest:
    """A request about the call's streams, as it reaches the provider."""
    basic = "Basic " + b64encode(f"{PROJECT_ID}:{API_TOKEN}".encode()).decode()
    path = f"/api/laml/2010-04-01/Accounts/{PROJECT_ID}/Calls/{CALL_SID}/Streams{path}"
    form_type = "application/x-www-form-urlencoded"
    return HttpRequest("POST", path, basic, form_type, urlencode(form).encode())


def endless(options: SimulateOptions) -> SimulateOptions:
    """So slow that only a stop ends it."""
    return replace(options, speed=0.001)


async def test_an_order_is_answered_and_dialled(
    options: SimulateOptions, secure_receiver: ReceiverDouble
) -> None:
    """The stream brings account, call, token and parameters of the order."""
    request = StreamRequest(
        url=f"{secure_receiver.url}/audio", bearer_token=TOKEN, parameters={"größe": "1"}
    )
    async with running_provider(options) as running:
        handle = await running.client.start(CALL_SID, request)
        report = await running.sent()
    received = secure_receiver.next_stream()
    start = received.messages[1]["start"]

    assert ("queued", CALL_SID, PROJECT_ID) == (handle.status, handle.call_sid, handle.account_sid)
    assert (handle.name or "").startswith("tapreel-")
    assert handle.date_updated is not None
    assert ("/audio", f"Bearer {TOKEN}") == (received.path, received.authorization)
    assert (handle.sid, PROJECT_ID, CALL_SID, {"größe": "1"}) == (
        start["streamSid"],
        start["accountSid"],
        start["callSid"],
        start["customParameters"],
    )
    assert ["connected", "start", "media", "stop"] == received.events
    assert (5, 3) == (report.count("inbound")["sent"], report.count("outbound")["sent"])


@pytest.mark.parametrize(
    ("track", "tracks"),
    [(Track.INBOUND, ["inbound"]), (Track.OUTBOUND, ["outbound"])],
)
async def test_only_the_ordered_track_is_played(
    options: SimulateOptions, secure_receiver: ReceiverDouble, track: Track, tracks: list[str]
) -> None:
    """`start` names it, and nothing of the other is sent."""
    async with running_provider(options) as running:
        await running.client.start(CALL_SID, StreamRequest(url=secure_receiver.url, track=track))
        await running.sent()
    received = secure_receiver.next_stream()

    assert tracks == received.messages[1]["start"]["tracks"]
    assert set(tracks) == {m["media"]["track"] for m in received.messages if "media" in m}


@pytest.mark.parametrize("by_name", [True, False])
async def test_a_stream_is_stopped_by_sid_or_name(
    options: SimulateOptions, secure_receiver: ReceiverDouble, by_name: bool
) -> None:
    """The receiver gets a stop and a close, and the answer says stopped."""
    request = StreamRequest(url=secure_receiver.url, name="my stream/1")
    async with running_provider(endless(options)) as running:
        started = await running.client.start(CALL_SID, request)
        stopped = await running.client.stop(CALL_SID, "my stream/1" if by_name else started.sid)
        await running.sent()
        again = await running.client.stop(CALL_SID, started.sid)

    assert (started.sid, "stopped") == (stopped.sid, stopped.status)
    assert (started.sid, "stopped") == (again.sid, again.status)
    assert "stop" == secure_receiver.next_stream().events[-1]


async def test_a_stream_stopped_before_it_was_dialled_still_introduces_itself(
    options: SimulateOptions, secure_receiver: ReceiverDouble
) -> None:
    """A stop that overtakes the dialling is not forgotten."""
    identity = endless(options).identity()
    request = StreamRequest(url=secure_receiver.url)
    stream = LiveStream(request, identity, Target.CALL, SimulatedCalls(endless(options)))
    stream.stop()
    await stream.run()

    assert ["connected", "start", "stop"] == secure_receiver.next_stream().events


async def test_one_of_several_streams_is_stopped(
    options: SimulateOptions, secure_receiver: ReceiverDouble
) -> None:
    """The others of the call go on."""
    request = StreamRequest(url=secure_receiver.url)
    async with running_provider(endless(options)) as running:
        first = await running.client.start(CALL_SID, request)
        second = await running.client.start(CALL_SID, request)
        await running.client.stop(CALL_SID, first.sid)
        await running.sent()
        received = secure_receiver.next_stream()
        await running.client.stop(CALL_SID, second.sid)

    assert first.sid == received.messages[1]["start"]["streamSid"]


async def test_a_name_is_unique_among_the_live_streams_of_a_call(
    options: SimulateOptions, secure_receiver: ReceiverDouble
) -> None:
    """Another call may use it, and so may the same one when the first has ended."""
    request = StreamRequest(url=secure_receiver.url, name="mine")
    async with running_provider(endless(options)) as running:
        first = await running.client.start(CALL_SID, request)
        with pytest.raises(RejectedError, match="Duplicated stream name"):
            await running.client.start(CALL_SID, request)
        await running.client.start(OTHER_CALL, request)
        await running.client.stop(CALL_SID, "mine")
        await running.sent()
        second = await running.client.start(CALL_SID, request)
        stopped = await running.client.stop(CALL_SID, "mine")

    assert first.sid != second.sid
    assert second.sid == stopped.sid


async def test_a_name_is_free_once_its_stream_was_stopped(
    options: SimulateOptions, secure_receiver: ReceiverDouble
) -> None:
    """The answer says stopped, so the next start need not wait for the real end."""
    ended: list[Result] = []
    account = Account(PROJECT_ID, API_TOKEN)
    provider = Provider(account, SimulatedCalls(endless(options)), on_end=ended.append)
    form = {"Url": secure_receiver.url, "Name": "mine"}
    stop = http_request("/mine", {"Status": "stopped"})
    answers = [
        provider.answer(one) for one in (http_request("", form), stop, http_request("", form), stop)
    ]
    await provider.close()

    assert [200] * 4 == [answer.status for answer in answers]
    assert answers[0].body["sid"] == answers[1].body["sid"]
    assert answers[2].body["sid"] == answers[3].body["sid"] != answers[0].body["sid"]
    assert 2 == len(ended)


async def test_conferences_choose_their_codec(
    options: SimulateOptions, secure_receiver: ReceiverDouble
) -> None:
    """The audio is encoded as ordered, and the answer may have no name."""
    request = StreamRequest(url=secure_receiver.url, codec=Codec.L16, real_time=True)
    async with running_provider(options) as running:
        handle = await running.client.start_conference(CALL_SID, request)
        await running.sent()
        with pytest.raises(NotFoundError):
            await running.client.stop(CALL_SID, handle.sid)
        await running.client.stop_conference(CALL_SID, handle.sid)
    start = secure_receiver.next_stream().messages[1]["start"]

    assert (CALL_SID, None) == (handle.conference_sid, handle.call_sid)
    assert "audio/x-L16" == start["mediaFormat"]["encoding"]


@pytest.mark.parametrize("suffix", [".json", ""])
async def test_the_uri_of_an_answer_stops_its_stream(options: SimulateOptions, suffix: str) -> None:
    """It ends in `.json`, as the provider's does, and is understood without that, too."""
    async with running_provider(endless(options)) as running:
        form = {"Url": "wss://127.0.0.1:9", "Name": "mine"}
        uri = running.provider.answer(http_request("", form)).body["uri"]
        request = http_request("", {"Status": "stopped"})
        stopped = running.provider.answer(replace(request, path=uri.removesuffix(".json") + suffix))
        await running.failure()
    assert (200, "stopped") == (stopped.status, stopped.body["status"])


async def test_a_name_may_end_as_an_uri_does(options: SimulateOptions) -> None:
    """The stream of that very name is stopped, not the one whose name it begins with."""
    async with running_provider(endless(options)) as running:
        answers = [
            running.provider.answer(http_request("", {"Url": "wss://127.0.0.1:9", "Name": name}))
            for name in ("mine.json", "mine")
        ]
        request = http_request("/mine.json", {"Status": "stopped"})
        stopped = running.provider.answer(request)
        for _ in answers:
            await running.failure()
    assert answers[0].body["sid"] == stopped.body["sid"]


async def test_wrong_credentials_are_refused(options: SimulateOptions) -> None:
    """Basic auth is checked on every request."""
    async with running_provider(options) as running, running.client_with("wrong") as stranger:
        with pytest.raises(RefusedError, match="Authentication failed"):
            await stranger.stop(CALL_SID, "mine")


async def test_unknown_streams_and_calls_are_not_found(options: SimulateOptions) -> None:
    """A stream that was never started, and a call that is not the live one."""
    async with running_provider(replace(options, call_sid=CALL_SID)) as running:
        with pytest.raises(NotFoundError, match="No such stream"):
            await running.client.stop(CALL_SID, "mine")
        with pytest.raises(NotFoundError, match="No such call"):
            await running.client.start(OTHER_CALL, StreamRequest(url="wss://127.0.0.1"))


async def test_events_are_reported(
    options: SimulateOptions, secure_receiver: ReceiverDouble
) -> None:
    """Started and stopped, with the documented fields, signed."""
    async with web_hook() as hook, running_provider(options, signing_key="12345") as running:
        request = StreamRequest(
            url=secure_receiver.url, name="mine", status_callback=f"{hook.url}/events"
        )
        handle = await running.client.start(CALL_SID, request)
        await running.sent()
    forms = [form for _, _, _, form in hook.seen]

    assert ["stream-started", "stream-stopped"] == [form["StreamEvent"] for form in forms]
    assert {
        "AccountSid": PROJECT_ID,
        "CallSid": CALL_SID,
        "StreamSid": handle.sid,
        "StreamName": "mine",
        "StreamTrack": "both_tracks",
        "StreamEvent": "stream-started",
        "Timestamp": forms[0]["Timestamp"],
        "Unique-ID": forms[0]["Unique-ID"],
    } == forms[0]
    assert all("X-SignalWire-Signature" in headers for _, _, headers, _ in hook.seen)


@pytest.mark.parametrize(
    ("url", "codec", "error"),
    [
        ("/audio", None, "invalid_url"),
        ("wss://127.0.0.1:{port}/", None, "connection_refused"),
        ("wss://127.0.0.1:{port}/", Codec.L16_16000, "codec_error"),
    ],
)
async def test_failures_are_reported(
    options: SimulateOptions,
    unused_port: Callable[[], int],
    url: str,
    codec: Codec | None,
    error: str,
) -> None:
    """A stream that did not start has its reason, in the provider's words."""
    async with web_hook() as hook, running_provider(options) as running:
        request = StreamRequest(
            url=url.format(port=unused_port()), codec=codec, status_callback=hook.url
        )
        await running.client.start_conference(CALL_SID, request)
        await running.failure()
    form = hook.seen[0][3]

    assert ("stream-error", error) == (form["StreamEvent"], form["StreamError"])
    assert CALL_SID == form["ConferenceSid"]


async def test_a_failing_web_hook_does_not_end_the_stream(
    options: SimulateOptions,
    secure_receiver: ReceiverDouble,
    unused_port: Callable[[], int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is logged; the https one, too."""
    async with running_provider(options) as running:
        for scheme in ("http", "https"):
            hook = f"{scheme}://127.0.0.1:{unused_port()}/"
            request = StreamRequest(url=secure_receiver.url, status_callback=hook)
            await running.client.start(CALL_SID, request)
            assert 5 == (await running.sent()).count("inbound")["sent"]

    assert 4 == caplog.text.count("the status callback failed")


async def test_a_ca_file_that_has_gone_is_reported(
    options: SimulateOptions, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the stream nor its web hook can be trusted then; each is one line of log."""
    path = tmp_path / "gone.pem"
    async with running_provider(replace(options, ca_file=str(path))) as running:
        request = StreamRequest(url="wss://127.0.0.1:9/", status_callback="https://127.0.0.1:9/")
        await running.client.start(CALL_SID, request)
        failure = await running.failure()

    assert f"{path} cannot be read: No such file or directory" == str(failure)
    assert str(failure) in [record.getMessage() for record in caplog.records]


async def test_closing_ends_the_streams_in_good_order(
    options: SimulateOptions, secure_receiver: ReceiverDouble
) -> None:
    """Every receiver of a stream gets a stop."""
    async with running_provider(endless(options)) as running:
        await running.client.start(CALL_SID, StreamRequest(url=secure_receiver.url))

    assert "stop" == secure_receiver.next_stream().events[-1]


@pytest.mark.parametrize(
    ("error", "opened", "word"),
    [
        (AudioError("x"), False, "codec_error"),
        (InvalidRequestError("x"), False, "invalid_url"),
        (UnreachableError("x"), True, "general_error"),
        (UnreachableError("x"), False, "connection_refused_timeout_or_ssl_error"),
        (RefusedError("x", status=401), False, "connection_refused_timeout_or_ssl_error"),
    ],
)
def test_failures_have_the_providers_words(error: StarterError, opened: bool, word: str) -> None:
    """The closed set of the status callbacks."""
    assert word == stream_error(error, opened=opened)
