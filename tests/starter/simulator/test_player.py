"""Playing calls into a real WebSocket server."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from websockets.http11 import Request
from websockets.server import ServerProtocol

from starter.errors import (
    ApiError,
    ConfigError,
    NotFoundError,
    RefusedError,
    RejectedError,
    UnavailableError,
    UnreachableError,
)
from starter.models import Codec
from starter.simulator.dialects import SignalWireDialect
from starter.simulator.player import Ending, Line, Player, tls_context
from starter.simulator.script import Faults, Plan
from starter.simulator.stream_info import MEDIA_FORMATS, Identity, TrackAudio
from tests.starter.receivers import ReceiverDouble

pytestmark = pytest.mark.integration

IDENTITY = Identity("the-account", "the-call", "the-stream")
PLAN = Plan(
    dialect=SignalWireDialect(IDENTITY),
    media_format=MEDIA_FORMATS[Codec.PCMU],
    tracks=(TrackAudio("inbound", bytes(1600)), TrackAudio("outbound", bytes(800))),
)
ENDLESS = replace(PLAN, tracks=(TrackAudio("inbound", bytes(8000 * 3600)),))


def player(url: str, plan: Plan = PLAN, *, speed: float = 0.0, **line: Any) -> Player:
    """A player at full speed by default."""
    return Player(IDENTITY, plan, Line(url=url, speed=speed, **line))


async def test_a_call_is_played_from_connected_to_stop(receiver: ReceiverDouble) -> None:
    """All messages arrive in order, then the WebSocket is closed in good order."""
    report = await player(f"{receiver.url}/audio").play()
    received = receiver.next_stream()

    assert ["connected", "start", "media", "stop"] == received.events
    assert "17" == received.messages[-1]["sequenceNumber"]
    assert (10, 5) == (len(received.media("inbound")), len(received.media("outbound")))
    assert (10, 5) == (report.count("inbound")["sent"], report.count("outbound")["sent"])
    assert 1000 == received.close_code
    assert not report.answers


async def test_the_token_is_sent_with_the_upgrade(receiver: ReceiverDouble) -> None:
    """As a bearer token; without one there is no such header."""
    await Player(IDENTITY, PLAN, Line(url=receiver.url, speed=0), bearer_token="abc").play()
    await player(receiver.url).play()

    # Each call has a thread in the receiver: the second may end first.
    assert {"Bearer abc", None} == {receiver.next_stream().authorization for _ in range(2)}


async def test_the_report_counts_what_befell_the_chunks(receiver: ReceiverDouble) -> None:
    """Sent and lost add up to the audio; what arrives is sent and doubled."""
    audio = (TrackAudio("inbound", bytes(160 * 400)),)
    faults = Faults(loss=0.2, duplicate=0.1, reorder=0.1)
    report = await player(receiver.url, replace(PLAN, tracks=audio, faults=faults)).play()
    counts = report.count("inbound")

    assert 400 == counts["sent"] + counts["lost"]
    assert min(counts.values()) > 0
    assert counts["sent"] + counts["duplicated"] == len(receiver.next_stream().media("inbound"))


async def test_speed_sets_the_pace(receiver: ReceiverDouble) -> None:
    """0.1 s of audio at half the speed lasts 0.2 s, and not less."""
    audio = (TrackAudio("inbound", bytes(800)),)
    loop = asyncio.get_running_loop()
    started_at = loop.time()
    await player(receiver.url, replace(PLAN, tracks=audio), speed=0.5).play()

    assert 0.2 <= loop.time() - started_at < 5


async def test_a_call_can_be_stopped_early(receiver: ReceiverDouble) -> None:
    """Stopping sends the stop with the next number, and closes."""
    endless = player(receiver.url, ENDLESS, speed=1.0)
    playing = asyncio.create_task(endless.play())
    await asyncio.to_thread(receiver.media_arrived.wait, 10)
    endless.stop()
    endless.stop()
    report = await playing
    received = receiver.next_stream()

    assert ["connected", "start", "media", "stop"] == received.events
    assert str(2 + report.count("inbound")["sent"]) == received.messages[-1]["sequenceNumber"]


async def test_a_call_stopped_before_it_began_still_introduces_itself(
    receiver: ReceiverDouble,
) -> None:
    """`connected`, start, stop."""
    stopped = player(receiver.url, ENDLESS, speed=1.0)
    stopped.stop()
    await stopped.play()

    assert ["connected", "start", "stop"] == receiver.next_stream().events


async def test_a_call_may_end_without_stop(receiver: ReceiverDouble) -> None:
    """The close comes all the same."""
    await player(receiver.url, replace(PLAN, with_stop=False)).play()
    received = receiver.next_stream()

    assert ["connected", "start", "media"] == received.events
    assert 1000 == received.close_code


async def test_a_call_may_end_with_a_reset(receiver: ReceiverDouble) -> None:
    """Everything arrives, then the line is dead: neither stop nor close."""
    await player(receiver.url, ending=Ending.RESET).play()
    received = receiver.next_stream()

    assert ["connected", "start", "media"] == received.events
    assert 15 == len(received.media("inbound") + received.media("outbound"))
    assert 1006 == received.close_code


async def test_tls_with_the_right_authority(secure_receiver: ReceiverDouble, ca_file: Path) -> None:
    """The receiver's certificate is checked against the file."""
    context = tls_context(str(ca_file), insecure=False)
    await player(secure_receiver.url, ssl_context=context).play()

    assert "stop" == secure_receiver.next_stream().events[-1]


async def test_tls_unchecked(secure_receiver: ReceiverDouble) -> None:
    """Without the check any certificate is accepted."""
    await player(secure_receiver.url, ssl_context=tls_context(None, insecure=True)).play()

    assert "stop" == secure_receiver.next_stream().events[-1]


async def test_an_unknown_authority_is_not_trusted(secure_receiver: ReceiverDouble) -> None:
    """The error names the certificate."""
    context = tls_context(None, insecure=False)
    with pytest.raises(UnreachableError, match=r"certificate of wss://.* is not trusted") as caught:
        await player(secure_receiver.url, ssl_context=context).play()
    assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)


def test_a_useless_ca_file_is_refused(tmp_path: Path) -> None:
    """A file without a certificate is a configuration error."""
    path = tmp_path / "ca.pem"
    path.write_text("nothing")
    with pytest.raises(ConfigError, match="no usable certificate"):
        tls_context(str(path), insecure=False)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, RefusedError),
        (403, RefusedError),
        (404, NotFoundError),
        (307, RejectedError),
        (503, UnavailableError),
    ],
)
async def test_a_refused_upgrade_has_its_class(
    receiver: ReceiverDouble, status: int, kind: type[ApiError]
) -> None:
    """The receiver's HTTP status decides; redirects are not followed."""
    with pytest.raises(kind, match=f"the receiver refused the stream: .* \\(HTTP {status}\\)"):
        await player(f"{receiver.url}/refuse/{status}").play()


async def test_a_policy_close_is_a_refusal(receiver: ReceiverDouble) -> None:
    """1008 is how a receiver refuses a stream that it has accepted."""
    with pytest.raises(RefusedError, match="closed the stream: 1008 as asked"):
        await player(f"{receiver.url}/close/1008", ENDLESS, speed=1.0).play()


async def test_another_close_is_a_broken_line(receiver: ReceiverDouble) -> None:
    """The receiver going away in the middle of a call is not the caller's end of it."""
    with pytest.raises(UnreachableError, match="closed the stream: 1001"):
        await player(f"{receiver.url}/close/1001", ENDLESS, speed=1.0).play()


async def test_answers_are_counted(receiver: ReceiverDouble) -> None:
    """A one-way stream should bring nothing back, so it is worth telling."""
    report = await player(f"{receiver.url}/talk", speed=1.0).play()

    assert 1 == report.answers["messages"]


async def test_no_debug_log_holds_the_token(
    receiver: ReceiverDouble, caplog: pytest.LogCaptureFixture
) -> None:
    """The WebSocket library's own would print every header, by whatever name it is turned on."""
    for name in ("", "websockets.client", "starter.simulator.wire"):
        caplog.set_level(logging.DEBUG, name)
    await Player(IDENTITY, PLAN, Line(url=receiver.url, speed=0), bearer_token="s3cret").play()

    assert "s3cret" == (receiver.next_stream().authorization or "").removeprefix("Bearer ")
    sent = [r.getMessage() for r in caplog.records if r.name != "websockets.server"]
    assert not [line for line in sent if "s3cret" in line]


@asynccontextmanager
async def other_server(answer: bytes) -> AsyncIterator[str]:
    """A server that answers with something else than HTTP and hangs up."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("answer", [b"", b"220 mail.example ESMTP\r\n"])
async def test_a_server_that_is_no_receiver(answer: bytes) -> None:
    """Anything that is not HTTP is one line of error."""
    async with other_server(answer) as url:
        with pytest.raises(UnreachableError, match=f"no stream to {url}"):
            await player(url).play()


async def test_a_port_without_a_server() -> None:
    """A refused connection has its reason in the text."""
    async with other_server(b"") as url:
        pass
    with pytest.raises(UnreachableError, match="Connect call failed"):
        await player(url).play()


@asynccontextmanager
async def accepting_server(final_bytes: bytes, *, received: bytes) -> AsyncIterator[str]:
    """A server that accepts the stream, reads up to `received`, and sends its final bytes."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        protocol = ServerProtocol()
        protocol.receive_data(await reader.readuntil(b"\r\n\r\n"))
        request = protocol.events_received()[0]
        assert isinstance(request, Request)
        protocol.send_response(protocol.accept(request))
        writer.writelines(protocol.data_to_send())
        await reader.readuntil(received)
        writer.write(final_bytes)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_connection_that_breaks() -> None:
    """A connection that just ends is distinguished from a close."""
    text_message = b"\x81"
    async with accepting_server(b"", received=text_message) as url:
        with pytest.raises(UnreachableError, match="the receiver broke the connection"):
            await player(url, ENDLESS, speed=1.0).play()


async def test_a_refusal_after_everything_was_sent_counts_too() -> None:
    """A short call may be over, and its close on the way, before its refusal arrives."""
    close_from_client, close_1008 = b"\x88\x82", b"\x88\x02\x03\xf0"
    async with accepting_server(close_1008, received=close_from_client) as url:
        with pytest.raises(RefusedError, match="the receiver closed the stream: 1008"):
            await player(url, replace(PLAN, tracks=())).play()
