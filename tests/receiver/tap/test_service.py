"""What is answered before anybody may listen."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import pytest
from structlog.testing import capture_logs
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from receiver.auth.tap_tokens import TapTokens
from receiver.tap.listener import Listener
from receiver.transports.interface import UpgradeRequest
from tests.bounds import at_most
from tests.receiver.helpers.serving import (
    HEADERS,
    TOKEN,
    TapServer,
    read_all,
    read_text,
    read_until_closed,
)

pytestmark = pytest.mark.integration


async def test_strangers_get_no_answer_about_bad_queries(server: TapServer) -> None:
    """The token comes first: 401 before any 400."""
    url = f"ws://127.0.0.1:{server.transport.port}/tap/x?" + "&".join(f"a{n}=" for n in range(200))
    for headers, status in ((None, 401), (HEADERS, 400)):
        with pytest.raises(InvalidStatus) as refused:
            await connect(url, additional_headers=headers, proxy=None)
        assert status == refused.value.response.status_code


async def test_who_listened_to_what_is_logged_and_counted(server: TapServer) -> None:
    """By the token's name and never the token: from where, to where, and what was lost."""
    server.taps.tokens = TapTokens(["another-tap-token", TOKEN], names=["", "support"])
    stream = server.open_stream()
    with capture_logs() as lines:
        async with server.connect(f"{stream.live.call_sid}?format=payload") as listener:
            await read_text(listener)
            stream.publish(5)
            stream.end()
            await read_all(listener)
        async with server.connect("x?wait=0.01", token="another-tap-token") as late:
            with pytest.raises(ConnectionClosed, match="4404"):
                await late.recv()
        async with asyncio.timeout(at_most(10)):
            while server.taps.listeners:  # noqa: ASYNC110  no event for the last of them
                await asyncio.sleep(0)
    started, ended = lines
    names = {
        "token_name": "support",
        "call_sid": stream.live.call_sid,
        "recording_id": stream.live.recording_id,
        "track": "inbound",
        "log_level": "info",
    }
    expected = {"event": "listener_started", "format": "payload", "remote_address": "127.0.0.1"}
    assert {**names, **expected, "from_ms": 0} == started
    span = {"from_ms": 0, "to_ms": 100, "lost": 0, "lost_ms": 0}
    assert {**names, **span, "event": "listener_ended"} == ended
    counters = server.taps.counters
    assert [{"support": 1}, {"support": 1}] == [counters.started, counters.ended]
    assert {"support": 100} == counters.listened_ms


async def test_what_a_listener_did_not_read_is_in_its_last_line(strict_server: TapServer) -> None:
    """As many pieces as were counted."""
    stream = strict_server.open_stream()
    with capture_logs() as lines:
        async with strict_server.connect(stream.live.call_sid, max_queue=1) as stuck:
            await read_text(stuck)
            stuck.transport.pause_reading()
            while not any(listener.closed_slow for listener in strict_server.taps.listeners):
                stream.publish(50)
                await asyncio.sleep(0)  # the receiver's turn
            stuck.transport.resume_reading()
            with pytest.raises(ConnectionClosed, match="1013"):
                await read_until_closed(stuck)
        async with asyncio.timeout(at_most(10)):
            while strict_server.taps.listeners:  # noqa: ASYNC110  no event for it
                await asyncio.sleep(0)
    (ended,) = [line for line in lines if line["event"] == "listener_ended"]
    lost = strict_server.taps.counters.dropped["slow_listener"]
    assert (lost, 20 * lost, "token 1") == (ended["lost"], ended["lost_ms"], ended["token_name"])
    assert {"token 1": lost} == strict_server.taps.counters.lost


async def test_watchers_are_logged_by_the_name_of_their_token(server: TapServer) -> None:
    """Both ends of it."""
    with capture_logs() as lines:
        async with server.connect("all"):
            pass
        async with asyncio.timeout(at_most(10)):
            while len(lines) < 2:  # noqa: ASYNC110  no event for it
                await asyncio.sleep(0)
    assert [("watcher_started", "token 1"), ("watcher_ended", "token 1")] == [
        (line["event"], line["token_name"]) for line in lines
    ]


async def test_decoders_are_imported_for_the_first_listener_to_samples(server: TapServer) -> None:
    """In a thread: until then its admission is awaited, and nobody else waits."""
    path, tokens = f"/tap/{server.open_stream().live.call_sid}", tuple(HEADERS.values())

    def admit(query: str) -> object:
        return server.taps.admit(UpgradeRequest("GET", path, query, tokens, "127.0.0.1"))

    assert isinstance(admit("format=messages"), Listener)
    first = admit("")
    assert isinstance(first, Coroutine)
    assert isinstance(await first, Listener)
    assert isinstance(admit(""), Listener)
