"""All cases at once, at their own pace, into a real receiver, with a listener to each."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from receiver.disk import layout
from tests.bounds import at_most
from tests.cases.expected import FILES, LIVE, Check
from tests.cases.played import NAMES, Heard, Played, Step, read, steps
from tests.end_to_end.receiver_process import TOKEN, ReceiverProcess, read_document
from tests.end_to_end.taps import BEARER, tap_url, tapped_receiver

pytestmark = pytest.mark.integration

HOLD: Final = "C01-hold"
SECOND_PART: Final = "C31-part2"
RECONNECTED_AFTER_S: Final = 3.0
"""The second part of C31 begins so long after the first."""


def call_sid(name: str) -> str:
    """Return the call that a case's messages name."""
    return "call-" + (name if name[0].islower() else name.partition("-")[0])


async def play(receiver: ReceiverProcess, name: str, lines: list[Step]) -> Played:
    """Play one case at its own pace; return what was heard, and how the socket was closed."""
    played = Played(name)
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    line = await connect(
        receiver.url, additional_headers=bearer, compression=None, max_queue=None, proxy=None
    )
    started = asyncio.get_running_loop().time()
    try:
        for step in lines:
            left = started + step.at_ms / 1000 - asyncio.get_running_loop().time()
            if left > 0:
                await asyncio.sleep(left)
            await _take(line, step)
    except ConnectionClosed:
        pass
    await line.wait_closed()
    if line.close_code not in (None, 1000, 1006):
        played.closings.append((line.close_code or 0, line.close_reason or ""))
    return played


async def _take(line: ClientConnection, step: Step) -> None:
    if step.end == "close":
        await line.close()
    elif step.end is not None:
        if step.end == "rst":
            plain: socket.socket = line.transport.get_extra_info("socket")
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        line.transport.abort()
    else:
        await line.send(step.sent if step.message is None else step.sent.decode())


async def listen(receiver: ReceiverProcess, name: str) -> Heard:
    """Listen to both tracks of a case's call, from before it begins until it ends."""
    heard = Heard()
    url = tap_url(receiver, f"/{call_sid(name)}?track=stereo&wait=30")
    tap = await connect(
        url, additional_headers=BEARER, compression=None, max_queue=None, proxy=None
    )
    async for message in tap:
        if isinstance(message, bytes):
            heard.audio += message
        else:
            heard.texts.append(json.loads(message))
    return heard


async def play_with_listener(receiver: ReceiverProcess, name: str) -> Played:
    """Play a case while somebody listens."""
    lines = steps(name)
    if name == SECOND_PART:
        await asyncio.sleep(RECONNECTED_AFTER_S)
    listener = asyncio.create_task(listen(receiver, name)) if name in LIVE else None
    await asyncio.sleep(0.5)  # a listener is there before the call; there is no event for it
    played = await play(receiver, name, lines)
    if listener is not None:
        played.heard = await asyncio.wait_for(listener, at_most(30))
    return played


def failures(played: list[Played], right: dict[str, Check]) -> dict[str, str]:
    """Return what is not right, by case."""
    found: dict[str, str] = {}
    for one in played:
        if one.name in right:
            try:
                right[one.name](one)
            except (AssertionError, ValueError, StopIteration) as error:
                found[one.name] = f"{type(error).__name__}: {str(error)[:500]}"
    return found


def add_published(played: list[Played], receiver: ReceiverProcess) -> None:
    """Add to each case what was published of its call, in the order of time."""
    folders = sorted(
        (path.parent for path in receiver.recordings.rglob(layout.RECORDING_JSON)),
        key=lambda folder: read_document(folder).started_at,
    )
    documents = {folder: read_document(folder) for folder in folders}
    by_name = {one.name: one for one in played}
    for folder, document in documents.items():
        names = [name for name in by_name if call_sid(name) == document.call_sid]
        for name in names:
            by_name[name].published.append(read(folder, document))
            by_name[name].raw += sorted(folder.glob("*.raw"))
    if first := by_name.get("C31-part1"):
        del first.published[1:]


async def play_all(receiver: ReceiverProcess, names: list[str]) -> list[Played]:
    """Play cases at the same time."""
    return list(await asyncio.gather(*(play_with_listener(receiver, name) for name in names)))


def play_into(folder: Path, names: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Play cases into a receiver; return what is not right of what was heard, and of the files."""
    folder.mkdir()
    with tapped_receiver(folder) as receiver:
        played = asyncio.run(play_all(receiver, names))
    add_published(played, receiver)
    for one in played:
        one.log = [json.loads(line) for line in receiver.raw_log.splitlines()]
    return failures(played, LIVE), failures(played, FILES)


def test_a_real_receiver_is_right_about_every_case(tmp_path: Path) -> None:
    """What is on disk and what was heard, with all of them on one receiver.

    Cases are about single milliseconds, which a busy machine does not keep: what is not right is
    played once more.
    """
    live, files = play_into(tmp_path / "all", [name for name in NAMES if name != HOLD])
    if again := sorted({*live, *files}):
        live, files = play_into(tmp_path / "again", with_parts(again))
    assert {} == live
    assert {} == files


def with_parts(names: list[str]) -> list[str]:
    """Return cases with the one that has to come before another of them."""
    return sorted({*names, *({"C31-part1"} if SECOND_PART in names else ())})


def test_a_hold_is_longer_than_silence_may_be(tmp_path: Path) -> None:
    """While pings are answered, a stream that brings nothing for long is one recording."""
    lines = steps(HOLD)
    hold_ms = 6000

    def sooner(step: Step) -> Step:
        return step if step.at_ms < hold_ms else replace(step, at_ms=step.at_ms - 100_000 + hold_ms)

    async def run(receiver: ReceiverProcess) -> Played:
        return await play(receiver, HOLD, [sooner(step) for step in lines])

    with tapped_receiver(tmp_path, "--idle-timeout-seconds", "2") as receiver:
        played = asyncio.run(run(receiver))
    add_published([played], receiver)
    assert 200 == sum(track.chunks.written for track in played.only().document.tracks)
    assert "stop" == played.only().document.end_reason
