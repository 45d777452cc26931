"""Webhooks of a real receiver with its console, which are killed in the midst of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest

from receiver.catalogue.database import open_database
from receiver.notifications.expectations import CONNECTED, RECORDED, Expectations
from tests.bounds import at_most
from tests.end_to_end import sender
from tests.end_to_end.console_process import console_line
from tests.end_to_end.receiver_process import ReceiverProcess
from tests.receiver.helpers import hooks
from tests.receiver.helpers.hooks import SECRET, Hook, hook
from tests.receiver.helpers.secret_files import secret

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
WAIT_SECONDS = at_most(90)
ALL = {"stream.started", "stream.ended", "recording.published"}


def settings(folder: Path, made: Hook) -> tuple[str, ...]:
    """Write settings with a webhook and a command; return the options that name them."""
    path = secret(folder / "webhook-secret", SECRET)
    file = folder / "tapreel.toml"
    file.write_text(
        f"on_published = \"sh -c 'cat >> {folder}/told; echo >> {folder}/told'\"\n"
        f'[[webhook]]\nurl = "{made.url}"\nsecret_file = "{path}"\nallow_private = true\n'
    )
    return ("--console", "--console-port", "0", "--config", str(file))


def place_call(receiver: ReceiverProcess) -> None:
    """Send a call of one chunk, and wait until it is published."""
    with sender.dial(receiver.url) as call:
        call.send(sender.connected())
        call.send(sender.start({"queue": "sales"}))
        call.send(sender.media("inbound", 1, bytes(160)))
    receiver.published()


async def until_told(made: Hook, types: set[str]) -> None:
    """Wait until events of these types have come."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not types <= {event["type"] for event in made.events}:
            made.came.clear()
            await made.came.wait()


async def until_written(path: Path) -> None:
    """Wait until the command has written what it read; it may have been killed with the others."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not await asyncio.to_thread(path.exists):  # noqa: ASYNC110  another process makes it
            await asyncio.sleep(0.05)


async def test_the_outbox_outlives_every_process(tmp_path: Path) -> None:
    """Killed with everything that it had started, while the other end was down."""
    async with hook(hooks.status(503)) as made:
        options = settings(tmp_path, made)
        receiver = await asyncio.to_thread(ReceiverProcess, tmp_path, *options)
        try:
            await asyncio.to_thread(console_line, receiver)
            await asyncio.to_thread(place_call, receiver)
            await until_told(made, ALL)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(receiver.process.pid, signal.SIGKILL)
            await asyncio.to_thread(receiver.release)
        before = dict(zip(made.ids, made.events, strict=True))
        made.bodies.clear()
        made.headers.clear()
        made.answer = hooks.status(200)
        again = await asyncio.to_thread(ReceiverProcess, tmp_path, *options)
        try:
            await until_told(made, ALL)
            await until_written(tmp_path / "told")
        finally:
            again.stop(signal.SIGINT)
            again.release()
    assert dict(zip(made.ids, made.events, strict=True)).items() <= before.items()
    (published,) = (e for e in made.verified() if e["type"] == "recording.published")
    assert {"queue": "sales"} == published["data"]["parameters"]
    assert "recording.published" in (tmp_path / "told").read_text()
    assert "Traceback" not in receiver.raw_log + again.raw_log


async def test_a_stream_that_is_expected_is_connected_then_recorded(tmp_path: Path) -> None:
    """By what the taps say while it lives, and the publication log behind it."""
    receiver = await asyncio.to_thread(
        ReceiverProcess, tmp_path, "--console", "--console-port", "0"
    )
    try:
        await asyncio.to_thread(console_line, receiver)
        database = await asyncio.to_thread(open_database, None, receiver.recordings)
        kept = Expectations(database, 600)
        expected = await asyncio.to_thread(kept.add, sender.CALL_SID)

        async def until(state: str) -> None:
            async with asyncio.timeout(WAIT_SECONDS):
                while (  # noqa: ASYNC110  it is in a database
                    await asyncio.to_thread(kept.get, expected.id, {})
                ).state != state:
                    await asyncio.sleep(0.05)

        with contextlib.ExitStack() as call:
            opened = await asyncio.to_thread(call.enter_context, sender.dial(receiver.url))
            for message in (sender.connected(), sender.start({"queue": "sales"})):
                await asyncio.to_thread(opened.send, message)
            await until(CONNECTED)
        await until(RECORDED)
        recording = (await asyncio.to_thread(kept.get, expected.id, {})).recording_id
        assert recording in (await asyncio.to_thread(receiver.published))[0].name
        database.close()
        assert 0 == await asyncio.to_thread(receiver.stop, signal.SIGINT)
        assert "Traceback" not in receiver.raw_log
    finally:
        await asyncio.to_thread(receiver.release)
