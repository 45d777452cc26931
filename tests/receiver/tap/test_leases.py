"""Leases: what is still sent after a token has expired or was removed, on real sockets."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from receiver.auth.bearer import LEEWAY_SECONDS
from receiver.auth.tap_tokens import Scope, TapTokens, mint
from tests.bounds import at_most
from tests.receiver.helpers.serving import TOKEN, TapServer, read_all, read_text, serving_taps

pytestmark = pytest.mark.integration

KEY = "k" * 32
BOTH = TapTokens([TOKEN], [KEY])
CALL_SID = "76ac3c36-aaaa-4bbb-8ccc-ddddeeeeffff"
GONE = "1008.*the token is no longer valid"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[TapServer]:
    """Serve taps that accept signed tokens, too."""
    async with serving_taps(tmp_path / "x.journal") as running:
        running.taps.tokens = BOTH
        yield running


def short_lived() -> str:
    """Return a signed token that is refused one or two seconds from now, its leeway included."""
    born = math.ceil(time.time()) - 300 - LEEWAY_SECONDS + 1  # `mint` works with whole seconds
    return mint(KEY, Scope(), now=born, ttl_seconds=300)


async def is_dismissed(connection: ClientConnection) -> None:
    """Wait for the end of a connection, with no message before it."""
    with pytest.raises(ConnectionClosed, match=GONE):
        await asyncio.wait_for(connection.recv(), at_most(10))


@pytest.mark.parametrize("rest", [f"{CALL_SID}?wait=60", "all"])
async def test_a_waiting_connection_is_closed_when_the_token_expires(
    server: TapServer, rest: str
) -> None:
    """Before a call starts, not with it."""
    async with server.connect(rest, token=short_lived()) as waiting:
        await is_dismissed(waiting)
    assert not server.taps.leases.open


@pytest.mark.parametrize("rest", [f"{CALL_SID}?wait=60", "all"])
async def test_an_expired_token_opens_no_call(
    server: TapServer, rest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the clock has just been set, and no timer has run since."""
    token = mint(KEY, Scope(), now=time.time(), ttl_seconds=300)
    async with server.connect(rest, token=token) as waiting:
        await (await waiting.ping())
        later = time.time() + 300 + LEEWAY_SECONDS
        with monkeypatch.context() as patched:
            patched.setattr(time, "time", lambda: later)
            server.open_stream().publish(3)
        await is_dismissed(waiting)


async def test_a_call_is_sent_to_its_end(server: TapServer) -> None:
    """Whatever expires meanwhile: the token was good when the call was opened."""
    stream = server.open_stream()
    async with (
        server.connect(stream.live.call_sid, token=short_lived()) as listener,
        server.connect("all", token=short_lived()) as watcher,
    ):
        await read_text(listener)
        await read_text(watcher)
        await is_dismissed(watcher)  # by now it has expired
        stream.publish(5)
        stream.end()
        assert 5 * 320 == len((await read_all(listener))[0])


@pytest.mark.parametrize("removed", ["static", "key"])
@pytest.mark.parametrize("rest", [CALL_SID, f"{CALL_SID}?since=1", "later?wait=60", "all"])
async def test_connections_of_a_removed_token_are_closed(
    server: TapServer, rest: str, removed: str
) -> None:
    """Also those of listeners; those of other tokens stay open."""
    stream = server.open_stream()
    signed = mint(KEY, Scope(), now=time.time(), ttl_seconds=300)
    going, staying = (TOKEN, signed) if removed == "static" else (signed, TOKEN)
    left = TapTokens([], [KEY]) if removed == "static" else TapTokens([TOKEN])
    async with (
        server.connect(rest, token=going) as goes,
        server.connect(CALL_SID, token=staying) as stays,
    ):
        if "wait" in rest:
            await (await goes.ping())
        else:
            await read_text(goes)
        await read_text(stays)
        server.taps.tokens = left
        await is_dismissed(goes)
        stream.publish(5)
        stream.end()
        assert 5 * 320 == len((await read_all(stays))[0])
    while server.taps.listeners:  # noqa: ASYNC110  no event to wait for
        await asyncio.sleep(0)
    assert not server.taps.leases.open


async def test_tokens_that_are_read_again_unchanged_close_nothing(server: TapServer) -> None:
    """A reload for another reason."""
    stream = server.open_stream()
    async with server.connect(CALL_SID) as listener, server.connect("all") as watcher:
        await read_text(listener)
        await read_text(watcher)
        server.taps.tokens = TapTokens([TOKEN, "another-static-token"], [KEY])
        stream.publish(5)
        stream.end()
        assert 5 * 320 == len((await read_all(listener))[0])
        assert "stopped" == (await read_text(watcher))["event"]
