"""Tokens that count no longer: what their bearers are still told, on real sockets."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from receiver.auth.bearer import LEEWAY_SECONDS
from receiver.auth.tap_tokens import Scope, TapTokens, mint
from tests.receiver.tap.test_listener import ADAPTERS, TOKEN, House, a_house, everything, text

KEY = "k" * 32
BOTH = TapTokens([TOKEN], [KEY])
CALL_SID = "76ac3c36-aaaa-4bbb-8ccc-ddddeeeeffff"
GONE = "1008.*the token is no longer valid"


@pytest.fixture(params=ADAPTERS)
async def house(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[House]:
    """Run one house per transport, which takes signed tokens, too."""
    async with a_house(ADAPTERS[request.param], tmp_path / "x.journal") as running:
        running.taps.tokens = BOTH
        yield running


def hear(house: House, rest: str, token: str) -> Any:
    """Return a connection to be opened with a token of one's own."""
    url = f"ws://127.0.0.1:{house.listener.port}/tap/{rest}"
    headers = {"Authorization": f"Bearer {token}"}
    return connect(url, additional_headers=headers, compression=None, proxy=None)


def short_lived() -> str:
    """Return a signed token that is refused one or two seconds from now, its leeway included."""
    born = math.ceil(time.time()) - 300 - LEEWAY_SECONDS + 1  # `mint` takes whole seconds
    return mint(KEY, Scope(), now=born, ttl_seconds=300)


async def is_dismissed(connection: ClientConnection) -> None:
    """Wait for the end of a connection, before anything else is told."""
    with pytest.raises(ConnectionClosed, match=GONE):
        await asyncio.wait_for(connection.recv(), 10)


@pytest.mark.parametrize("rest", [f"{CALL_SID}?wait=60", "all"])
async def test_whoever_waits_goes_when_the_token_expires(house: House, rest: str) -> None:
    """Before a call begins, not with it."""
    async with hear(house, rest, short_lived()) as waiting:
        await is_dismissed(waiting)
    assert not house.taps._tickets.holds


@pytest.mark.parametrize("rest", [f"{CALL_SID}?wait=60", "all"])
async def test_an_expired_token_opens_no_call(
    house: House, rest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the clock has just been set, and nobody has looked at it since."""
    token = mint(KEY, Scope(), now=time.time(), ttl_seconds=300)
    async with hear(house, rest, token) as waiting:
        await (await waiting.ping())
        later = time.time() + 300 + LEEWAY_SECONDS
        with monkeypatch.context() as patched:
            patched.setattr(time, "time", lambda: later)
            house.stream().say(3)
        await is_dismissed(waiting)


async def test_a_call_is_heard_to_its_end(house: House) -> None:
    """Whatever expires meanwhile: the token was good when the call was opened."""
    stream = house.stream()
    async with (
        hear(house, stream.live.call_sid, short_lived()) as listener,
        hear(house, "all", short_lived()) as watcher,
    ):
        await text(listener)
        await text(watcher)
        await is_dismissed(watcher)  # by now it has expired
        stream.say(5)
        stream.end()
        assert 5 * 320 == len((await everything(listener))[0])


@pytest.mark.parametrize("taken", ["static", "key"])
@pytest.mark.parametrize("rest", [CALL_SID, f"{CALL_SID}?since=1", "later?wait=60", "all"])
async def test_who_came_with_a_token_that_is_taken_away_goes(
    house: House, rest: str, taken: str
) -> None:
    """Listeners, too; who came with another token stays."""
    stream = house.stream()
    signed = mint(KEY, Scope(), now=time.time(), ttl_seconds=300)
    going, staying = (TOKEN, signed) if taken == "static" else (signed, TOKEN)
    left = TapTokens([], [KEY]) if taken == "static" else TapTokens([TOKEN])
    async with (
        hear(house, rest, going) as goes,
        hear(house, CALL_SID, staying) as stays,
    ):
        if "wait" in rest:
            await (await goes.ping())
        else:
            await text(goes)
        await text(stays)
        house.taps.tokens = left
        await is_dismissed(goes)
        stream.say(5)
        stream.end()
        assert 5 * 320 == len((await everything(stays))[0])
    while house.taps.listeners:  # noqa: ASYNC110  nothing tells
        await asyncio.sleep(0)
    assert not house.taps._tickets.holds


async def test_tokens_that_are_read_again_unchanged_cost_nobody_a_call(house: House) -> None:
    """A reload for another reason."""
    stream = house.stream()
    async with house.hear(CALL_SID) as listener, house.hear("all") as watcher:
        await text(listener)
        await text(watcher)
        house.taps.tokens = TapTokens([TOKEN, "another-static-token"], [KEY])
        stream.say(5)
        stream.end()
        assert 5 * 320 == len((await everything(listener))[0])
        assert "stopped" == (await text(watcher))["event"]
