"""The live page and its sockets: who sees what, who hears what, and what the ledger has of it."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from receiver.console import live_page
from receiver.console.app import endpoints
from receiver.console.live_page import listening_text
from receiver.console.routes import SocketEndpoint
from receiver.console.who import Role
from receiver.media import Chunk, Track
from receiver.notifications.expectations import CONNECTED, came
from receiver.tap.hub import StreamPosition
from tests.bounds import at_most
from tests.receiver.helpers.consoles import Served, serving
from tests.receiver.helpers.serving import (
    CHUNK,
    TOKEN,
    FixedSource,
    TapServer,
    serving_taps,
)
from tests.receiver.helpers.taps import live_stream

pytestmark = pytest.mark.integration
POSITION = StreamPosition(5, 1, 65_000, Chunk(Track.INBOUND, 5, 5, 80, CHUNK), (), 0, 2)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[TapServer]:
    """Serve the taps of a hub."""
    async with serving_taps(tmp_path / "x.journal") as running:
        yield running


@pytest.fixture
async def served(tmp_path: Path, server: TapServer) -> AsyncIterator[Served]:
    """Serve a console that knows these taps."""
    taps = (f"ws://127.0.0.1:{server.transport.port}",)
    async with serving(tmp_path, console_token=TOKEN, console_taps=taps) as found:
        yield found


def opened(served: Served, path: str, headers: dict[str, str], **options: Any) -> connect:
    """Return a connection to a socket of the console, to be opened."""
    url = served.url.replace("http:", "ws:") + path
    return connect(url, additional_headers=headers, proxy=None, **options)


async def read(socket: ClientConnection, wanted: Callable[[Any], bool]) -> Any:
    """Return the next message that is wanted: texts as documents."""
    async with asyncio.timeout(at_most(20)):
        while True:
            message = await socket.recv()
            found = json.loads(message) if isinstance(message, str) else message
            if wanted(found):
                return found


def is_event(name: str) -> Callable[[Any], bool]:
    """Return whether a message is a text of this kind."""
    return lambda message: isinstance(message, dict) and message["event"] == name


def entries(served: Served, what: str) -> list[Any]:
    """Return what the ledger has of one kind, newest first."""
    return [entry for entry in served.console.ledger.read() if entry.what == what]


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(at_most(20)):
        while not condition():  # noqa: ASYNC110  there is no event
            await asyncio.sleep(0.01)


async def test_the_page_has_a_card_for_every_call(served: Served, server: TapServer) -> None:
    """With its parameters, age and what is missing; as a page and as JSON, without a script."""
    server.open_stream(POSITION, agent="Jane", queue="<b>sales")
    headers = served.token("leo", Role.LISTENER)
    async with served.browser(headers=headers) as browser:
        document = (await browser.get("/.json")).json()
        (call,) = document["calls"]
        assert ("Jane, <b>sales", 65_000, "1:05", 40) == tuple(
            call[name] for name in ("title", "ms", "clock", "lost_ms")
        )
        assert ("40 ms lost", "bad") == (call["text"], call["tone"])
        assert ("1 call now", {"hear": True, "pause": False}) == (
            document["heading"],
            document["may"],
        )
        assert "room for 999 more · longest 1:05 · 40 ms lost" == document["summary"]
        page = (await browser.get("/", headers={"Accept": "text/html"})).text
        assert "Jane, &lt;b&gt;sales" in page
        assert "data-listen" in page
        assert 'http-equiv="refresh"' in page


async def test_what_was_asked_for_and_did_not_come_stands_on_top(tmp_path: Path) -> None:
    """For those who may know of it; it goes when the stream comes late."""
    async with serving(tmp_path, expect_seconds=0.1) as served:
        kept = served.console.notifier.expectations
        one = await asyncio.to_thread(
            functools.partial(kept.add, "c1", parameters={"agent": "<b>Jane", "queue": "sales"})
        )
        await until(lambda: bool(served.console.notifier.not_come))
        for scope, count in (({}, 1), ({"queue": "sales"}, 1), ({"queue": "support"}, 0)):
            name = f"u{len(scope)}{count}"
            async with served.browser(headers=served.token(name, Role.VIEWER, scope)) as browser:
                document = (await browser.get("/.json")).json()
                assert count == len(document["not_come"]), scope
                page = (await browser.get("/", headers={"Accept": "text/html"})).text
                assert bool(count) is ("&lt;b&gt;Jane, sales is not recorded." in page)
        async with served.browser(headers=served.token("ops", Role.VIEWER)) as browser:
            metrics = (await browser.get("/metrics")).text
        assert "tapreel_streams_missing_total 1\n" in metrics
        assert "tapreel_streams_expected 0\n" in metrics
        with served.console.catalogue.database.writing() as connection:
            assert one.id == came(connection, CONNECTED, stream_sid="s1", call_sid="c1")
        await until(lambda: not served.console.notifier.not_come)


async def test_a_viewer_sees_and_cannot_hear(served: Served, server: TapServer) -> None:
    """There is no button, and the socket is closed to them."""
    stream = server.open_stream(POSITION)
    headers = served.token("vera", Role.VIEWER)
    async with served.browser(headers=headers) as browser:
        page = (await browser.get("/", headers={"Accept": "text/html"})).text
        assert "data-listen" not in page
    with pytest.raises(InvalidStatus) as refused:
        await opened(served, f"live/audio/{stream.live.recording_id}", headers)
    assert 403 == refused.value.response.status_code


async def test_every_socket_needs_its_role_and_our_own_page(served: Served) -> None:
    """Nobody is refused with 401, too little of a role and another site's page with 403."""
    rows = [row for row in endpoints() if isinstance(row, SocketEndpoint)]
    assert 2 == len(rows)
    headers = {role: served.token(role, role) for role in Role}
    cases: list[tuple[str, dict[str, str], int]] = []
    for row in rows:
        path = row.path.lstrip("/").replace("{recording_id}", "x")
        cases += [(path, {}, 401), (path, {"Authorization": "Bearer nobody"}, 401)]
        cases += [(path, headers[role], 403) for role in Role if not role.includes(row.role)]
        cases.append((path, headers[Role.ADMIN] | {"Origin": "https://evil.example"}, 403))
    for path, given, status in cases:
        with pytest.raises(InvalidStatus) as refused:
            await opened(served, path, given)
        assert status == refused.value.response.status_code, path


async def test_each_role_finds_in_the_sockets_what_exists_for_it(
    served: Served, server: TapServer
) -> None:
    """Every role sees the calls of its scope, and from listeners on hears them, and no others."""
    shown = server.open_stream(POSITION, queue="sales").live
    hidden = msgspec.structs.replace(
        live_stream(queue="support"), recording_id="ff" * 8, call_sid="other"
    )
    server.hub.open(hidden, FixedSource(POSITION))
    for role in Role:
        for scope in ({}, {"queue": "sales"}):
            headers = served.token(f"{role}{len(scope)}", role, scope)
            exist = {shown.recording_id, *([] if scope else [hidden.recording_id])}
            async with opened(served, "live/events", headers) as socket:
                calls = (await read(socket, is_event("calls")))["calls"]
                assert exist == {call["id"] for call in calls}
                assert exist == set((await read(socket, is_event("levels")))["calls"])
            for recording_id in (shown.recording_id, hidden.recording_id):
                path = f"live/audio/{recording_id}"
                if role is not Role.VIEWER and recording_id in exist:
                    async with opened(served, path, headers) as socket:
                        await read(socket, is_event("started"))
                    continue
                with pytest.raises(InvalidStatus) as refused:
                    await opened(served, path, headers)
                status = 403 if role is Role.VIEWER else 404
                assert status == refused.value.response.status_code


async def test_somebody_with_limits_finds_no_other_call(served: Served, server: TapServer) -> None:
    """Neither on the page, nor in its sockets, nor by its address; nor in a number."""
    hidden = server.open_stream(POSITION, queue="support")
    headers = served.token("leo", Role.LISTENER, {"queue": "sales"})
    async with served.browser(headers=headers) as browser:
        document = (await browser.get("/.json")).json()
        assert ([], "No call now", "") == tuple(
            document[name] for name in ("calls", "heading", "summary")
        )
    async with opened(served, "live/events", headers) as socket:
        assert [] == (await read(socket, is_event("calls")))["calls"]
        assert {} == (await read(socket, is_event("levels")))["calls"]
    for name in (hidden.live.recording_id, "0123456789abcdef", hidden.live.call_sid):
        with pytest.raises(InvalidStatus) as refused:
            await opened(served, f"live/audio/{name}", headers)
        assert 404 == refused.value.response.status_code
    assert [] == entries(served, "listening_live")


async def test_an_open_page_follows_the_calls(served: Served, server: TapServer) -> None:
    """All of it when one comes or goes, and what moves four times a second."""
    headers = served.token("vera", Role.VIEWER)
    async with opened(served, "live/events", headers) as socket:
        assert [] == (await read(socket, is_event("calls")))["calls"]
        stream = server.open_stream(POSITION, agent="Jane")
        calls = (await read(socket, is_event("calls")))["calls"]
        assert ["Jane"] == [call["title"] for call in calls]
        moving = (await read(socket, is_event("levels")))["calls"][stream.live.recording_id]
        assert ("1:05", 40) == (moving["clock"], moving["lost_ms"])
        assert {"inbound", "outbound"} == set(moving["levels"])
        stream.end()
        assert [] == (await read(socket, is_event("calls")))["calls"]


async def test_a_browser_hears_a_call(served: Served, server: TapServer) -> None:
    """What the tap sends, until the end; who hears it is on the page and in the ledger."""
    stream = server.open_stream(agent="Jane")
    recording_id = stream.live.recording_id
    headers = served.token("leo", Role.LISTENER)
    async with opened(served, f"live/audio/{recording_id}", headers) as socket:
        started = await read(socket, is_event("started"))
        assert (8000, 2) == (started["rate"], started["channels"])
        (entry,) = entries(served, "listening_live")
        assert ("leo", recording_id) == (entry.who, entry.recording)
        async with served.browser(headers=headers) as browser:
            (call,) = (await browser.get("/.json")).json()["calls"]
            assert (["leo"], "leo listens") == (call["listeners"], call["listening_text"])
        for _ in range(25):
            stream.publish(1)
        audio = b""
        while len(audio) < 25 * 640:
            audio += await read(socket, lambda message: isinstance(message, bytes))
            await socket.send(str(len(audio)))
        stream.end()
        assert "stopped" == (await read(socket, is_event("stopped")))["event"]
        with pytest.raises(ConnectionClosed, match="1000"):
            await socket.recv()
    await until(lambda: bool(entries(served, "listened_live")))
    (entry,) = entries(served, "listened_live")
    assert {"call": stream.live.call_sid, "from_s": 0.0, "to_s": 0.5, "track": "stereo"} == (
        entry.details
    )


async def test_a_browser_that_does_not_read_loses_its_own_audio(
    served: Served, server: TapServer
) -> None:
    """The console reads no further ahead than two seconds, so the tap drops it, and says so."""
    stream = server.open_stream()
    headers = served.token("leo", Role.LISTENER)
    async with opened(served, f"live/audio/{stream.live.recording_id}", headers) as socket:
        await read(socket, is_event("started"))
        read_bytes = 0
        async with asyncio.timeout(at_most(60)):
            while not server.taps.counters.dropped["slow_listener"]:
                stream.publish(50)
                await asyncio.sleep(0.02)
        while read_bytes <= live_page.MOST_UNREAD_BYTES:
            read_bytes += len(await read(socket, lambda m: isinstance(m, bytes)))
        await socket.send("no number")
        gap = asyncio.create_task(read(socket, is_event("gap")))
        while not gap.done():
            await socket.send(str(10**9))  # more than was sent counts as all of it
            await asyncio.sleep(0.02)
        assert "slow_listener" == gap.result()["reason"]


async def test_whoever_may_no_longer_listen_is_cut_off(
    served: Served, server: TapServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signed out, or with another role or other limits, within seconds."""
    monkeypatch.setattr(live_page, "RECHECK_SECONDS", 0.1)
    stream = server.open_stream()
    served.add("leo", Role.LISTENER)
    changes = (
        lambda: served.console.sessions.close_all("leo"),
        lambda: served.console.accounts.change("leo", role=Role.VIEWER),
    )
    for path in (f"live/audio/{stream.live.recording_id}", "live/events"):
        for change in changes:
            served.console.accounts.change("leo", role=Role.LISTENER)
            async with await served.signed_in("leo") as browser:
                cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
            async with opened(served, path, {"Cookie": cookie}) as socket:
                await socket.recv()
                change()
                with pytest.raises(ConnectionClosed, match="1008"):
                    await read(socket, lambda _: False)


async def test_nobody_listens_whom_the_ledger_does_not_take(
    served: Served, server: TapServer
) -> None:
    """An entry comes first."""
    stream = server.open_stream()
    headers = served.token("leo", Role.LISTENER)
    ledger = served.console.config.recordings / ".ledger"
    if ledger.is_dir():
        for file in ledger.iterdir():
            file.unlink()
        ledger.rmdir()
    ledger.write_text("no folder")
    with pytest.raises(InvalidStatus) as refused:
        await opened(served, f"live/audio/{stream.live.recording_id}", headers)
    assert 503 == refused.value.response.status_code
    assert not server.taps.listeners


async def test_a_console_without_a_receiver_says_what_to_do(tmp_path: Path) -> None:
    """Where it was started by itself, and told of none."""
    async with serving(tmp_path) as served:
        headers = served.token("ada", Role.ADMIN)
        async with served.browser(headers=headers) as browser:
            assert not (await browser.get("/.json")).json()["is_connected"]
            assert "--tap-url" in (await browser.get("/", headers={"Accept": "text/html"})).text


async def test_a_receiver_that_is_away_is_said_on_the_page(tmp_path: Path) -> None:
    """Its address to admins alone."""
    async with serving(tmp_path, console_token=TOKEN, console_taps=("ws://127.0.0.1:9",)) as served:
        for role, shown in ((Role.ADMIN, "ws://127.0.0.1:9"), (Role.VIEWER, "")):
            headers = served.token(role, role)
            async with served.browser(headers=headers) as browser:
                (problem,) = (await browser.get("/.json")).json()["problems"]
                assert shown == problem["receiver"]
                assert "no connection" in problem["text"]


async def test_a_socket_outlives_the_time_for_a_first_request(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is for connections which never send one."""
    monkeypatch.setattr("receiver.console.server.HEAD_SECONDS", 0.3)
    headers = served.token("vera", Role.VIEWER)
    async with opened(served, "live/events", headers) as socket:
        loop = asyncio.get_running_loop()
        ends = loop.time() + 1
        while loop.time() < ends:
            await socket.recv()


def test_who_listens_is_said_in_words() -> None:
    """People by name, others by their number."""
    assert [
        *("", "1 listens", "2 listen", "leo listens", "ann and leo listen"),
        *("leo and 1 more listen", "ann, leo and 2 more listen"),
    ] == [
        listening_text(names, others)
        for names, others in (
            *(([], 0), ([], 1), ([], 2), (["leo"], 0), (["ann", "leo"], 0)),
            *((["leo"], 1), (["ann", "leo"], 2)),
        )
    ]
