"""A running server, in this process: when its event loop may rest, and for how long."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from structlog.testing import capture_logs
from websockets.asyncio.client import ClientConnection, connect

from receiver.auth.bearer import digest
from receiver.auth.tap_tokens import TapGrant
from receiver.config.settings import Config
from receiver.service.event_loop import (
    BRISK_INTERVAL_SECONDS,
    FEWEST_STREAMS,
    INTERVAL_SECONDS,
)
from receiver.service.server import Server
from receiver.transports.listener import SocketListener
from tests.bounds import at_most
from tests.end_to_end import sender

pytestmark = pytest.mark.integration

TOKEN = "a-token-for-tests-only"


@contextlib.asynccontextmanager
async def serving(folder: Path, **settings: Any) -> AsyncIterator[tuple[Server, SocketListener]]:
    """Run a server until the block ends."""
    places = {"recordings": folder / "out", "spool": folder / "out" / "spool"}
    options = {"port": 0, "no_tls": True, "tokens": TOKEN, **places, **settings}
    server = Server(Config(**options))
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
    """Run turns of the event loop until something is so."""
    async with asyncio.timeout(at_most(60)):
        while not condition():  # noqa: ASYNC110  what is awaited are rounds
            await asyncio.sleep(0)


async def test_a_loop_with_many_streams_rests_briefly_for_low_latency(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listener, a connection that has yet to be admitted, and the end shorten its rests."""
    rests: list[float] = []
    sleep = time.sleep

    def rest(seconds: float) -> None:
        if threading.current_thread() is threading.main_thread():  # not one of an earlier test
            rests.append(seconds)
        sleep(seconds)

    def brisk() -> bool:
        return len(rests) > 20 and max(rests[-20:]) <= BRISK_INTERVAL_SECONDS

    def long() -> bool:
        return bool(rests) and BRISK_INTERVAL_SECONDS < rests[-1] <= INTERVAL_SECONDS

    monkeypatch.setattr("receiver.service.event_loop.time.sleep", rest)
    async with serving(tmp_path) as (server, listener), contextlib.AsyncExitStack() as stack:
        url = f"ws://127.0.0.1:{listener.port}/audio"
        for number in range(FEWEST_STREAMS):
            stack.push_async_callback((await call(url, number)).close)
        await until(lambda: len(list(server.recorder.hub.streams())) == FEWEST_STREAMS and long())

        live = next(iter(server.recorder.hub.streams()))
        leave = server.recorder.hub.subscribe(live.recording_id, lambda _: None)
        await until(brisk)
        leave()
        await until(long)

        server.counters.taps.listeners = 1  # its socket is open, and it still gets the past
        await until(brisk)
        server.counters.taps.listeners = 0
        await until(long)

        _, idle = await asyncio.open_connection("127.0.0.1", listener.port)
        await until(brisk)
        idle.close()
        await idle.wait_closed()
        await until(long)

        server.stop()
        count = len(rests)
        await until(lambda: len(rests) > count + 3 or not server.recorder.sessions)
        assert max(rests[count:], default=0) <= BRISK_INTERVAL_SECONDS


def write(path: Path, text: str) -> Path:
    """Write a file that only we may read, as secrets must be."""
    path.write_text(text)
    path.chmod(0o600)
    return path


async def test_a_link_in_place_of_a_workers_folder_is_told_and_holds_back_nothing(
    tmp_path: Path,
) -> None:
    """Journals may be behind it: the line names it, and streams are admitted."""
    link = tmp_path / "out" / "spool" / "worker-2"
    link.parent.mkdir(mode=0o700, parents=True)
    link.symlink_to(tmp_path)
    with capture_logs() as lines:
        async with serving(tmp_path) as (_, listener):
            await (await call(f"ws://127.0.0.1:{listener.port}/audio", 1)).close()
    (left,) = (line for line in lines if line["event"] == "worker_folder_left")
    assert (str(link), "error") == (left["folder"], left["log_level"])
    assert "symbolic link" in left["reason"]


async def test_a_bad_part_holds_back_no_good_one(tmp_path: Path) -> None:
    """Each is read again, and has a log line of its own."""
    streams = write(tmp_path / "streams", TOKEN)
    taps = write(tmp_path / "taps", "a-tap-token-for-tests-only")
    secrets = {"tokens": None, "token_file": streams, "tap_token_file": taps}
    async with serving(tmp_path, **secrets) as (server, _):
        for good, bad in ((streams, taps), (taps, streams)):
            write(good, f"another-good-token-for-{good.name}")
            write(bad, "")
            with capture_logs() as lines:
                server.reload()
            by_event = {line["event"]: line["part"] for line in lines}
            parts = {streams: "stream tokens", taps: "tap tokens"}
            assert {"reloaded": parts[good], "reload_failed": parts[bad]} == by_event


async def test_a_token_never_opens_both_though_a_reload_half_fails(tmp_path: Path) -> None:
    """It moves from one list to the other one with both files, or stays where it was."""
    first, second = "a-token-that-moves-between-lists", "a-token-that-stays-where-it-is"
    streams, taps = write(tmp_path / "streams", first), write(tmp_path / "taps", second)
    key = write(tmp_path / "key", "k" * 32)
    secrets = {"tokens": None, "token_file": streams, "tap_token_file": taps, "tap_key_file": key}

    def opens(token: str) -> tuple[bool, bool]:
        """Whether a token opens streams, and whether it opens taps."""
        listens = server._taps.taps.tokens.still_has(TapGrant(token_digest=digest(token)))
        return server._admission.tokens.has_any([digest(token)]), listens

    async with serving(tmp_path, **secrets) as (server, _):
        write(streams, "another-token-for-streams")
        write(taps, f"{first}\n{second}")
        streams.chmod(0o644)  # the old stream tokens stay
        server.reload()
        assert ((True, False), (False, True)) == (opens(first), opens(second))
        write(streams, second)
        write(taps, "another-token-for-taps")
        key.chmod(0o644)  # the old tap tokens stay, though their own file is good
        server.reload()
        assert ((True, False), (False, True)) == (opens(first), opens(second))
        key.chmod(0o600)
        server.reload()
        assert ((False, False), (True, False)) == (opens(first), opens(second))


async def test_a_certificate_that_providers_refuse_is_served_with_a_warning(tmp_path: Path) -> None:
    """At the start and when it is read again: here the authority is not the system's."""
    pair = trustme.CA().issue_cert("rec.example.com")
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    pair.cert_chain_pems[0].write_to_path(certificate)
    pair.private_key_pem.write_to_path(key)
    key.chmod(0o600)
    with capture_logs() as lines:
        async with serving(tmp_path, no_tls=False, tls=(certificate, key)) as (server, _):
            server.reload()
    found = [line for line in lines if line["event"] == "certificate_distrusted"]
    assert ["warning"] * 2 == [line["log_level"] for line in found]
    assert all("fullchain.pem" in line["reason"] for line in found)
