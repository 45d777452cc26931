"""`receiver.listen`: typed events, sample clocks, and connections that break."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from receiver.errors import ConfigurationError, DialError
from receiver.listen import Audio, ClockReanchored, Dtmf, Event, Gap, Mark, Started, Stopped, listen
from receiver.transports.client import Backoff
from tests.bounds import at_most
from tests.receiver.helpers.tap_messages import SAMPLES, STOPPED, gap, started

pytestmark = pytest.mark.integration

Script = list[bytes | dict[str, Any] | int | tuple[int, str]]
"""What one connection of a made-up tap sends; a code, or one with its reason, closes it."""


class Tap:
    """A made-up tap: each connection plays the next script; 0 refuses it with that status."""

    def __init__(self, scripts: list[Script]) -> None:
        self.scripts = scripts
        self.paths: list[str] = []
        self.tokens: list[str | None] = []
        self.url = ""

    def process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        """Refuse where the script is a status."""
        self.paths.append(request.path)
        self.tokens.append(request.headers.get("Authorization"))
        first = self.scripts[0][0] if self.scripts else 404
        if isinstance(first, int) and first < 1000:
            if self.scripts:
                self.scripts.pop(0)
            return Response(first, "No", Headers(), b"no such thing\n")
        return None

    async def play(self, connection: ServerConnection) -> None:
        """Send what the script says."""
        for line in self.scripts.pop(0):
            if isinstance(line, int | tuple):
                await connection.close(*(line if isinstance(line, tuple) else (line,)))
                return
            await connection.send(line if isinstance(line, bytes) else json.dumps(line))


@asynccontextmanager
async def a_tap(*scripts: Script) -> AsyncIterator[Tap]:
    """Run a made-up tap."""
    tap = Tap(list(scripts))
    async with serve(tap.play, "127.0.0.1", 0, process_request=tap.process_request) as server:
        tap.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/tap/CA1"
        yield tap


async def events_of(tap: Tap, **options: Any) -> list[Event]:
    """Return all events."""
    return [event async for event in listen(tap.url, token="secret", **options)]


async def test_events_are_typed() -> None:
    """From Started to Stopped; audio as int16 arrays with their place on the clock."""
    script: Script = [
        started(),
        SAMPLES.tobytes(),
        {"event": "dtmf", "digit": "5", "duration_ms": None, "timestamp_ms": 20},
        {"event": "mark", "name": "here", "timestamp_ms": 20},
        {"event": "something new"},
        SAMPLES.tobytes(),
        STOPPED,
    ]
    async with a_tap(script) as tap:
        first, audio, key, mark, more, last = await events_of(tap, since=1, wait=2, rate=8000)
    assert ["Bearer secret"] == tap.tokens
    assert ["/tap/CA1?track=inbound&format=pcm16&rate=8000&since=1&wait=2"] == tap.paths
    assert Started("0011", "CA1", "MZ1", {"A": "b"}, "inbound", 8000, 1, 0) == first
    assert isinstance(audio, Audio)
    assert isinstance(more, Audio)
    assert (8000, "inbound") == (audio.sample_rate, audio.track)
    assert audio.samples.dtype == np.int16
    assert SAMPLES.tolist() == audio.samples.tolist()
    assert [0, 20] == [audio.timestamp_ms, more.timestamp_ms]
    assert (Dtmf("5", None, 20), Mark("here", 20)) == (key, mark)
    assert Stopped("stop", 40) == last


@pytest.mark.parametrize("block", [1, 50, 512])
async def test_blocks_of_samples(block: int) -> None:
    """As many as are asked for, what is missing within a block as zeros; the rest at the end."""
    script: Script = [
        started(),
        SAMPLES.tobytes(),
        {"event": "mark", "name": "here", "timestamp_ms": 20},
        gap("slow_listener"),
        SAMPLES.tobytes(),
        STOPPED,
    ]
    async with a_tap(script) as tap:
        _, *events, last = await events_of(tap, block=block)
    audio = [event for event in events if isinstance(event, Audio)]
    lengths = [len(one.samples) for one in audio]
    assert {block} >= set(lengths[:-1])
    assert block >= lengths[-1]
    found = np.zeros(2000, np.int16)
    for one in audio:
        at = round(one.timestamp_ms * 8)
        found[at : at + len(one.samples)] = one.samples
    wanted = np.concatenate((SAMPLES, np.zeros(320, np.int16), SAMPLES))
    assert np.array_equal(wanted, found[: len(wanted)])
    assert isinstance(last, Stopped)


async def test_events_have_times() -> None:
    """The receiver's, where it says them; audio has that of its first sample."""
    times = {"wall_time": "2026-11-22T20:30:01.000Z", "latency_ms": 7}
    moved = {"event": "clock_reanchored", "track": "inbound", "timestamp_ms": 20, "shift_ms": 6000}
    extra = {"account_sid": "AC1", "tracks": ["inbound"], "media_format": {"encoding": "x"}}
    script: Script = [
        {**started(), **extra, **times},
        SAMPLES.tobytes(),
        SAMPLES.tobytes(),
        {**moved, **times},
        {**STOPPED, **times},
    ]
    async with a_tap(script) as tap:
        first, _, second, anchored, last = await events_of(tap)
    assert isinstance(first, Started)
    assert ("AC1", ("inbound",), "x") == (first.account_sid, first.tracks, first.encoding)
    assert isinstance(second, Audio)
    assert "2026-11-22T20:30:01.020Z" == second.wall_time
    assert ClockReanchored("inbound", 20, 6000, *times.values()) == anchored  # type: ignore[arg-type]  # by their order
    assert Stopped("stop", 40, *times.values()) == last  # type: ignore[arg-type]  # likewise


async def test_stereo_has_two_columns() -> None:
    """Inbound left, outbound right."""
    both = np.stack((SAMPLES, -SAMPLES), 1)
    script: Script = [started(channels=2, track="stereo"), both.tobytes(), STOPPED]
    async with a_tap(script) as tap:
        _, audio, _ = await events_of(tap, track="stereo")
    assert isinstance(audio, Audio)
    assert both.tolist() == audio.samples.tolist()


@pytest.mark.parametrize(("reason", "following"), [("lost", 20), ("slow_listener", 60)])
async def test_gaps_keep_the_clock(reason: str, following: float) -> None:
    """Silence comes in place of lost audio; of what we did not read nothing comes."""
    script: Script = [started(), SAMPLES.tobytes(), gap(reason), SAMPLES.tobytes(), STOPPED]
    async with a_tap(script) as tap:
        events = await events_of(tap)
    assert Gap(reason, "inbound", 20, 40) == events[2]
    assert isinstance(events[3], Audio)
    assert following == events[3].timestamp_ms


@pytest.mark.parametrize("code", [1011, 1013, 1001])
async def test_a_broken_connection_is_opened_again(code: int) -> None:
    """By the recording's id, without the past, and with a gap for what was missed."""
    first: Script = [started(), SAMPLES.tobytes(), code]
    second: Script = [started(500), SAMPLES.tobytes(), STOPPED]
    async with a_tap(first, second) as tap:
        events = await events_of(tap, since=3, wait=1)
    assert Gap("disconnected", "inbound", 20, 480) == events[2]
    assert isinstance(events[3], Audio)
    assert 500 == events[3].timestamp_ms
    assert Stopped("stop", 40) == events[-1]
    assert "/tap/0011?track=inbound&format=pcm16" == tap.paths[1]


async def test_a_stream_that_ended_meanwhile_has_stopped() -> None:
    """For an unknown reason."""
    async with a_tap([started(), SAMPLES.tobytes(), 1011], [404]) as tap:
        events = await events_of(tap)
    assert Stopped("unknown", 20) == events[-1]


async def test_another_stream_of_the_call_is_no_gap() -> None:
    """A connection that never said which stream it was is opened again by the first name."""
    async with a_tap([1011], [started(), STOPPED]) as tap:
        events = await events_of(tap)
    assert [Started, Stopped] == [type(event) for event in events]
    assert "/tap/CA1?track=inbound&format=pcm16" == tap.paths[1]


async def test_a_call_that_has_not_begun_is_waited_for_again() -> None:
    """With its past, too: nothing of it has come."""
    async with a_tap([1001], [started(), STOPPED]) as tap:
        events = await events_of(tap, wait=60, since=5)
    assert [Started, Stopped] == [type(event) for event in events]
    assert ["/tap/CA1?track=inbound&format=pcm16&since=5&wait=60"] * 2 == tap.paths


async def test_a_call_that_never_began_is_an_error() -> None:
    """Not a stream that has stopped."""
    async with a_tap([1001], [404]) as tap:
        with pytest.raises(DialError, match="404"):
            await events_of(tap, wait=60)


async def test_a_stream_that_ends_as_we_return_has_stopped() -> None:
    """The socket may be open already when it does."""
    async with a_tap([started(), SAMPLES.tobytes(), 1011], [4404]) as tap:
        events = await events_of(tap)
    assert Stopped("unknown", 20) == events[-1]


def test_lines_that_break_at_once_are_dialled_ever_more_slowly() -> None:
    """Only one that has held for a while begins anew; all waits are random."""
    backoff = Backoff(first_seconds=1, longest_seconds=8)
    for longest in (1, 2, 4, 8, 8):
        backoff.record_held(7.9)
        assert longest / 2 <= backoff.next_seconds() <= longest
    backoff.record_held(8)
    assert 1 >= backoff.next_seconds()


@pytest.mark.parametrize(
    ("script", "exit_code", "reason"),
    [
        ([401], 4, "refused with 401: no such thing"),
        ([404], 5, "refused with 404"),
        ([400], 6, "refused with 400"),
        ([503], 7, "refused with 503"),
        ([4404], 5, "no such stream"),
        ([(4422, "nobody can listen")], 6, "nobody can listen"),
    ],
)
async def test_refusals_say_why(script: Script, exit_code: int, reason: str) -> None:
    """As errors with the exit code of a command."""
    async with a_tap(script) as tap:
        with pytest.raises(DialError, match=reason) as refused:
            await events_of(tap)
    assert exit_code == refused.value.exit_code


async def test_a_token_that_died_ends_the_attempts() -> None:
    """Trying again cannot help."""
    async with a_tap([started(), 1011], [401]) as tap:
        with pytest.raises(DialError, match="401"):
            await events_of(tap)


async def test_dialling_again_has_an_end() -> None:
    """A receiver that does not come back is an error, after a while."""
    async with a_tap([started(), 1011], [503], [503], [503], [503], [503]) as tap:
        with pytest.raises(DialError, match="503"):
            await events_of(tap, patience_seconds=0)


async def test_nobody_there() -> None:
    """No connection, and authorities that are none."""
    with pytest.raises(DialError, match="no connection"):
        await anext(listen("ws://127.0.0.1:9/tap/x"))
    with pytest.raises(ConfigurationError, match="no usable certificate"):
        await anext(listen("wss://127.0.0.1:9/tap/x", trust=__file__))


async def test_leaving_early_closes_the_connection() -> None:
    """A program that breaks out of its loop leaves no socket behind."""
    closed = asyncio.Event()

    async def wait(connection: ServerConnection) -> None:
        await connection.send(json.dumps(started()))
        await connection.wait_closed()
        closed.set()

    async with serve(wait, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/tap/x"
        events = listen(url)
        assert isinstance(await anext(events), Started)
        close: Callable[[], Any] = events.aclose  # type: ignore[attr-defined]  # a generator
        await close()
        await asyncio.wait_for(closed.wait(), at_most(10))


async def test_a_slow_program_does_not_fill_our_buffers() -> None:
    """So the receiver's queue fills, drops what is old and says so, instead of us being late."""
    taken, is_full = 0, asyncio.Event()

    async def fill(connection: ServerConnection) -> None:
        nonlocal taken
        tcp = connection.transport.get_extra_info("socket")
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        await connection.send(json.dumps(started()))
        with suppress(TimeoutError):
            while True:
                async with asyncio.timeout(0.5):
                    await connection.send(SAMPLES.tobytes())
                taken += len(SAMPLES.tobytes())
        is_full.set()
        await connection.wait_closed()

    async with serve(fill, "127.0.0.1", 0, write_limit=0, compression=None) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/tap/x"
        events = listen(url)
        assert isinstance(await anext(events), Started)
        await asyncio.wait_for(is_full.wait(), at_most(10))
        close: Callable[[], Any] = events.aclose  # type: ignore[attr-defined]  # a generator
        await close()
    assert taken < 64_000  # four seconds


def test_listening_loads_nothing_that_is_for_the_server() -> None:
    """Of all packages, those that its page names; numpy only once there are samples."""
    code = (
        "import sys; before = set(sys.modules); import receiver.listen;"
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    optional = {"python_socks", "typing_extensions"}  # websockets and msgspec use them if present
    assert {"msgspec", "receiver", "websockets"} == (
        {*printed.split()} - sys.stdlib_module_names - optional
    )
