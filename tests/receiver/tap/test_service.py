"""What is answered before anybody may listen."""

from __future__ import annotations

import asyncio
import dataclasses
import fcntl
import time
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from receiver.auth.bearer import digest
from receiver.auth.tap_tokens import Scope, TapTokens, mint
from receiver.lifecycle.ledger import Entry, Ledger
from receiver.media import Encoding, EndReason
from receiver.tap.hub import StreamEnded
from receiver.tap.listener import Listener
from receiver.transports.interface import UpgradeRequest
from tests.bounds import at_most
from tests.receiver.helpers.serving import (
    CHUNK,
    HEADERS,
    TOKEN,
    TapServer,
    read_all,
    read_text,
    read_until_closed,
    serving_taps,
)
from tests.receiver.helpers.taps import live_stream

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


async def test_a_stream_that_cannot_be_decoded_is_refused_at_once(server: TapServer) -> None:
    """Whoever waits for it is told why, and so is who comes later, until it ends."""
    live = live_stream(Encoding.PCMU, 8000)
    async with server.connect("all") as watcher, server.connect("other?wait=60") as other:
        async with server.connect(f"{live.call_sid}?wait=60") as waiting:
            while len(server.taps.listeners) < 2:  # noqa: ASYNC110  no event for it
                await asyncio.sleep(0)
            tap = server.hub.refuse(live, "unsupported encoding 'audio/x'")
            with pytest.raises(ConnectionClosed) as closed:
                await waiting.recv()
        assert closed.value.rcvd is not None
        said = "nobody can listen: unsupported encoding 'audio/x'"
        assert (4422, said) == (closed.value.rcvd.code, closed.value.rcvd.reason)
        for query in ("", "?wait=60"):
            with pytest.raises(InvalidStatus, match="422") as refused:
                await server.connect(live.call_sid + query)
            assert b"unsupported encoding 'audio/x'\n" in (refused.value.response.body or b"")
        tap.publish(StreamEnded(EndReason.STOP, 0))
        with pytest.raises(InvalidStatus, match="404"):
            await server.connect(live.call_sid)
        assert 1 == len(server.taps.listeners), "another call is still waited for"
        stream = server.open_stream()
        news = await read_text(watcher)
        assert ("started", stream.live.call_sid) == (news["event"], news["call_sid"])
        await other.close()


async def test_a_stream_outside_of_a_token_is_refused_as_if_it_were_none(
    server: TapServer,
) -> None:
    """Nobody finds out that there is something which may not be heard."""
    key, live = "k" * 32, live_stream(Encoding.PCMU, 8000)
    server.taps.tokens = TapTokens([], [key])
    server.hub.refuse(live, "unsupported")
    token = mint(key, Scope(call_sid="another"), now=time.time(), ttl_seconds=300)
    with pytest.raises(InvalidStatus, match="404"):
        await server.connect(live.call_sid, token=token)


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


@pytest.fixture
async def entering(tmp_path: Path) -> AsyncIterator[TapServer]:
    """Serve taps that have a ledger, to a token with a name."""
    async with serving_taps(tmp_path / "x.journal", recordings=tmp_path) as running:
        running.taps.tokens = TapTokens([TOKEN], names=["support"])
        yield running


async def entered(server: TapServer, folder: Path, count: int) -> list[Entry]:
    """Return the entries of the ledger, the oldest first, once there are so many."""
    async with asyncio.timeout(at_most(10)):
        while len(found := list(Ledger(folder).read())) < count:  # noqa: ASYNC110  no event for it
            await asyncio.sleep(0)  # the thread's turn
    assert {("support", "tap")} == {(entry.who, entry.via) for entry in found}
    return found[::-1]


async def test_who_listened_to_what_is_in_the_ledger(entering: TapServer, tmp_path: Path) -> None:
    """By the token's name: before the first byte that it may listen, and at the end to what."""
    stream = entering.open_stream()
    live = stream.live
    async with entering.connect(f"{live.call_sid}?format=payload") as listener:
        (admitted,) = Ledger(tmp_path).read()
        await read_text(listener)
        stream.publish(5)
        stream.end()
        await read_all(listener)
    started, ended = await entered(entering, tmp_path, 2)
    assert admitted == started
    names = {"call": live.call_sid, "track": "inbound"}
    assert ("listening_live", live.recording_id) == (started.what, started.recording)
    assert {**names, "format": "payload", "address": "127.0.0.1"} == started.details
    assert ("listened_live", live.recording_id) == (ended.what, ended.recording)
    assert {**names, "from_s": 0, "to_s": 0.1} == ended.details


async def test_whom_the_console_has_entered_is_not_entered_again(
    entering: TapServer, tmp_path: Path
) -> None:
    """It has people by their names, and listens with a token of its own."""
    own, taps = "console-" * 4, entering.taps
    taps.tokens = TapTokens([TOKEN, own], names=["support", "console"])
    taps.options = dataclasses.replace(taps.options, entered_elsewhere=digest(own))
    stream = entering.open_stream()
    for token in (own, TOKEN):
        async with entering.connect(stream.live.call_sid, token=token) as listener:
            await read_text(listener)
            stream.publish(5)
    stream.end()
    entries = await entered(entering, tmp_path, 2)
    assert ["listening_live", "listened_live"] == [entry.what for entry in entries]


async def test_who_waits_for_a_call_is_entered_before_it_comes(
    entering: TapServer, tmp_path: Path
) -> None:
    """With what was asked for, and again with what it was, once it is there."""
    async with entering.connect("76ac3c36-aaaa-4bbb-8ccc-ddddeeeeffff?wait=60") as listener:
        (waiting,) = Ledger(tmp_path).read()
        stream = entering.open_stream()
        await read_text(listener)
        stream.end()
        await read_all(listener)
    entries = await entered(entering, tmp_path, 3)
    assert waiting == entries[0]
    assert stream.live.call_sid == waiting.details["asked"]
    assert ["", *[stream.live.recording_id] * 2] == [entry.recording for entry in entries]
    assert ["listening_live"] * 2 + ["listened_live"] == [entry.what for entry in entries]


async def test_who_cannot_be_entered_may_not_listen(entering: TapServer, tmp_path: Path) -> None:
    """The answer says why, the log and the counter say so, and the list of calls is still given."""
    stream = entering.open_stream()
    (tmp_path / ".ledger").mkdir(0o700)
    (tmp_path / ".ledger" / "head").mkdir()
    with capture_logs() as lines, pytest.raises(InvalidStatus) as refused:
        await entering.connect(stream.live.call_sid)
    assert 503 == refused.value.response.status_code
    assert b"ledger" in (refused.value.response.body or b"")
    assert {"ledger": 1} == entering.taps.counters.refused
    failed, logged = lines
    assert "ledger_failed" == failed["event"]
    assert "nothing was done" in failed["reason"]
    assert ("listener_refused", "ledger") == (logged["event"], logged["reason"])
    assert not entering.hub.has_subscribers


async def test_nobody_else_waits_for_a_ledger_that_hangs(
    entering: TapServer, tmp_path: Path
) -> None:
    """Neither the event loop, nor who listens already; who waits for it is admitted behind it."""
    stream = entering.open_stream()
    async with entering.connect(f"{stream.live.call_sid}?format=payload") as first:
        await read_text(first)
        with (tmp_path / ".ledger" / "head").open("rb") as head:
            fcntl.flock(head, fcntl.LOCK_EX)
            waiting = asyncio.ensure_future(read_first(entering, stream.live.call_sid))
            for _ in range(20):
                stream.publish(1)
                assert len(CHUNK) == len(await first.recv(decode=False))
            assert not waiting.done()
            fcntl.flock(head, fcntl.LOCK_UN)
        assert "started" == (await asyncio.wait_for(waiting, at_most(10)))["event"]


async def read_first(server: TapServer, name: str) -> dict[str, Any]:
    """Listen, and return the first text."""
    async with server.connect(name) as listener:
        return await read_text(listener)
