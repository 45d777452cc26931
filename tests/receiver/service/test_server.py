"""A running server, in this process: when its event loop may rest, and for how long."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from websockets.asyncio.client import ClientConnection, connect

from receiver.config.settings import Config
from receiver.service.read_coalescing import (
    BRISK_INTERVAL_SECONDS,
    FEWEST_STREAMS,
    INTERVAL_SECONDS,
)
from receiver.service.server import Server
from receiver.transports.listener import SocketListener
from tests.end_to_end import sender

TOKEN = "a-token-for-tests-only"


@contextlib.asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[tuple[Server, SocketListener]]:
    """Run a server until the block ends."""
    places = {"recordings": folder / "out", "spool": folder / "out" / "spool"}
    server = Server(Config(port=0, no_tls=True, tokens=TOKEN, **places))  # type: ignore[arg-type]
    listening = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(server.run(listening=listening.set_result))
    try:
        await asyncio.wait([task, listening], return_when=asyncio.FIRST_COMPLETED)
        yield server, await listening
    finally:
        server.stop()
        await task


async def call(url: str, number: int) -> ClientConnection:
    """Begin a stream."""
    socket = await connect(
        url, additional_headers={"Authorization": f"Bearer {TOKEN}"}, compression=None
    )
    await socket.send(sender.start(stream_sid=f"stream-{number}"))
    return socket


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop go round until something is so."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  what is awaited are rounds
            await asyncio.sleep(0)


async def test_a_loop_with_many_streams_rests_briefly_where_somebody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listener, a connection that has yet to be admitted, and the end shorten its rests."""
    rests: list[float] = []
    sleep = time.sleep

    def rest(seconds: float) -> None:
        rests.append(seconds)
        sleep(seconds)

    def brisk() -> bool:
        return len(rests) > 20 and max(rests[-20:]) <= BRISK_INTERVAL_SECONDS

    def long() -> bool:
        return bool(rests) and BRISK_INTERVAL_SECONDS < rests[-1] <= INTERVAL_SECONDS

    monkeypatch.setattr("receiver.service.read_coalescing.time.sleep", rest)
    async with serving(tmp_path) as (server, listener), contextlib.AsyncExitStack() as stack:
        url = f"ws://127.0.0.1:{listener.port}/audio"
        for number in range(FEWEST_STREAMS):
            stack.push_async_callback((await call(url, number)).close)
        await until(lambda: len(list(server.hub.streams())) == FEWEST_STREAMS and long())

        live = next(iter(server.hub.streams()))
        leave = server.hub.subscribe(live.recording_id, lambda _: None)
        await until(brisk)
        leave()
        await until(long)

        server.figures.taps.listeners = 1  # its socket is open, and it is still hearing the past
        await until(brisk)
        server.figures.taps.listeners = 0
        await until(long)

        _, idle = await asyncio.open_connection("127.0.0.1", listener.port)
        await until(brisk)
        idle.close()
        await idle.wait_closed()
        await until(long)

        server.stop()
        count = len(rests)
        await until(lambda: len(rests) > count + 3 or not server.sessions)
        assert max(rests[count:], default=0) <= BRISK_INTERVAL_SECONDS
