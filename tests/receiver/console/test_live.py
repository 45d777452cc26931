"""What is known of live calls: from the taps of a receiver, for as long as somebody looks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from receiver.config.settings import Config
from receiver.console.live import (
    BARS,
    NOTHING_MS,
    SILENT_MS,
    LiveCall,
    LiveCalls,
    TapAddress,
    tap_addresses,
)
from receiver.errors import ConfigurationError
from tests.bounds import at_most
from tests.receiver.helpers.secret_files import secret
from tests.receiver.helpers.serving import TOKEN, TapServer, serving_taps

TAP = TapAddress("ws://127.0.0.1:1", TOKEN, lambda: None)


def call(**about: Any) -> LiveCall:
    """Return a call of two tracks of which nothing was measured yet."""
    return LiveCall(TAP, {"tracks": ["inbound", "outbound"], "parameters": {}, **about})


def levels(ms: int, **measured: Any) -> dict[str, Any]:
    """Return what a receiver says of a call: both speak, unless something else is given."""
    return {"ms": ms, "inbound": -20.0, "outbound": -20.0, "lost_ms": 0, "listeners": 0, **measured}


def test_what_matters_is_said_in_words() -> None:
    """Nothing at all first, then what was lost, then who is silent."""
    found = call()
    found.feed(levels(1000))
    assert ("nothing missing", "") == found.matter({})
    found.feed(levels(1000 + SILENT_MS, inbound=-70.0))
    assert ("caller silent for 0:10", "") == found.matter({})
    found.feed(levels(2000 + 2 * SILENT_MS, inbound=-70.0, outbound=-60.0))
    assert ("both silent for 0:11", "") == found.matter({})
    found.feed(levels(32_000, inbound=-70.0, lost_ms=1200))
    assert ("1.2 s lost at 0:32", "bad") == found.matter({})
    found.feed(levels(33_000, inbound=None, outbound=None, lost_ms=1200))
    assert ("1.2 s lost at 0:32", "bad") == found.matter({})
    found.feed(levels(33_000 + NOTHING_MS, inbound=None, outbound=None, lost_ms=1200))
    assert ("nothing has come for 0:04", "bad") == found.matter({})


def test_what_nobody_can_know_is_not_said() -> None:
    """Where nothing is numbered; and when it was, for what was lost before somebody looked."""
    found = call(continues=True)
    found.feed(levels(1000, lost_ms=None))
    assert ("another part of this call", "") == found.matter({})
    assert ("", "") == found.matter({"queue": "sales"})  # the other part may be nothing of theirs
    plain = call()
    plain.feed(levels(1000, lost_ms=None))
    assert ("", "") == plain.matter({})
    late = call()
    late.feed(levels(600_000, lost_ms=40, inbound=None))
    assert ("40 ms lost", "bad") == late.matter({})


def test_a_track_that_there_is_not_is_not_silent() -> None:
    """Only what was asked for is listened for."""
    found = call(tracks=["outbound"])
    found.feed(levels(1000, inbound=None))
    found.feed(levels(60_000, inbound=None))
    assert ("nothing missing", "") == found.matter({})
    assert ["outbound"] == found.tracks
    assert ["inbound", "outbound"] == call(tracks=[]).tracks


def test_the_latest_levels_are_kept() -> None:
    """As many as are drawn."""
    found = call()
    for number in range(2 * BARS):
        found.feed(levels(250 * number, inbound=-float(number)))
    assert [-float(n) for n in range(BARS, 2 * BARS)] == list(found.levels["inbound"])


def test_somebody_with_limits_sees_what_has_these_parameters() -> None:
    """All of them; a number counts as its text."""
    found = call(parameters={"queue": "sales", "case": 4711})
    assert found.permits({})
    assert found.permits({"queue": "sales", "case": "4711"})
    assert not found.permits({"queue": "support"})
    assert not found.permits({"queue": "sales", "other": ""})


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[TapServer]:
    """Serve the taps of a hub."""
    async with serving_taps(tmp_path / "x.journal") as running:
        yield running


def known_by(*servers: TapServer, token: str = TOKEN) -> LiveCalls:
    """Return the calls of these receivers."""
    urls = [f"ws://127.0.0.1:{server.transport.port}" for server in servers]
    return LiveCalls(TapAddress(url, token, lambda: None) for url in urls)


async def until(live: LiveCalls, condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(at_most(20)):
        while not condition():
            await live.change()


@pytest.mark.integration
async def test_one_subscription_serves_everybody(server: TapServer) -> None:
    """It knows at once what is live; it lingers behind the last who looks, and then ends."""
    stream = server.open_stream(A="b")
    live = known_by(server)
    assert not live.is_open
    async with live.watched(), live.watched():
        assert [stream.live.recording_id] == list(live.visible_to({"A": "b"}))
        assert {} == live.visible_to({"A": "c"})
        assert 1 == server.taps.counters.watchers
        stream.end()
        await until(live, lambda: not live.calls)
    assert live.is_open
    async with live.watched():
        pass
    live.close()
    assert not live.is_open
    async with asyncio.timeout(at_most(20)):
        while server.taps.watchers:  # noqa: ASYNC110  there is no event
            await asyncio.sleep(0)


@pytest.mark.integration
async def test_calls_of_all_receivers_are_shown(tmp_path: Path, server: TapServer) -> None:
    """And those of one that does not answer are not: it is said, and tried again."""
    async with serving_taps(tmp_path / "y.journal") as other:
        server.open_stream(A="1")
        live = known_by(server, other)
        async with live.watched():
            assert {} == live.problems
            assert 1 == len(live.calls)
            port = other.transport.port
            await other.transport.close()
            await until(live, lambda: bool(live.problems))
            assert [f"ws://127.0.0.1:{port}"] == list(live.problems)
            assert 1 == len(live.calls)
        live.close()


@pytest.mark.integration
async def test_a_token_that_is_refused_is_a_problem(server: TapServer) -> None:
    """In the receiver's words; no page waits long for it."""
    live = known_by(server, token="a-token-of-somebody-else")
    async with live.watched():
        (problem,) = live.problems.values()
        assert "401" in problem
    live.close()


@pytest.mark.integration
async def test_who_listens_by_this_console_is_known() -> None:
    """For as long as they do, each as often as they have it open."""
    live = LiveCalls(())
    with live.listener("id", "leo"), live.listener("id", "leo"), live.listener("id", "ann"):
        assert {"leo": 2, "ann": 1} == dict(live.listening["id"])
    assert {} == live.listening


def test_a_receiver_gives_its_console_what_it_needs(tmp_path: Path) -> None:
    """And others are told by settings, with a token of their own."""
    own = Config(no_tls=True, console_token=TOKEN, console_taps=("ws://127.0.0.1:1",))
    (found,) = tap_addresses(own)
    assert ("ws://127.0.0.1:1", TOKEN, None) == (found.url, found.token, found.trust())
    assert TOKEN not in repr(found)
    tokens = secret(tmp_path / "taps", "one: a-tap-token-0123456789\n")
    other = Config(no_tls=True, tap_url=("wss://b:8443/",), tap_token_file=tokens)
    (found,) = tap_addresses(other)
    assert ("wss://b:8443", "a-tap-token-0123456789") == (found.url, found.token)
    assert found.trust() is not None
    assert () == tap_addresses(Config(no_tls=True))
    with pytest.raises(ConfigurationError, match="no tap token"):
        tap_addresses(Config(no_tls=True, tap_url=("wss://b:8443",)))
