"""All the time there is, until somebody is in a hurry."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import pytest

from receiver.service.shutdown_deadline import ShutdownDeadline

PATIENCE_SECONDS = 30
LONG_SECONDS = 3600.0


async def test_without_a_hurry_work_is_done_to_its_end() -> None:
    """However little time a hurry would leave, and its error is the caller's."""
    done = asyncio.Event()

    async def work() -> None:
        await asyncio.sleep(0)
        done.set()

    async def fail() -> None:
        raise OSError("no")

    hurry = ShutdownDeadline()
    assert hurry.left(0.0) is None
    await hurry.allow(work, 0.0)
    assert done.is_set()
    assert not hurry.begun
    with pytest.raises(OSError, match="no"):
        await hurry.allow(fail, 0.0)


async def test_work_is_given_up_when_the_time_is_over() -> None:
    """Also work that was begun before, and it learns of it."""
    begun, given_up = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            given_up.set()
            raise

    hurry = ShutdownDeadline()
    working = asyncio.create_task(hurry.allow(work, 0.01))
    await begun.wait()
    hurry.begin()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await working
        await given_up.wait()


async def test_in_a_hurry_there_is_time_left() -> None:
    """Work that fits is done; beginning again does not make the time longer."""

    async def work() -> str:
        for _ in range(10):
            await asyncio.sleep(0)
        return "done"

    hurry = ShutdownDeadline()
    hurry.begin()
    assert "done" == await hurry.allow(work, LONG_SECONDS)
    left = hurry.left(LONG_SECONDS)
    assert left
    assert left <= LONG_SECONDS
    assert 0.0 == hurry.left(0.0)
    await hurry.passed(0.0)
    hurry.begin()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await hurry.passed(0.0)
    assert hurry.begun


HANGING = """
import asyncio, threading
from receiver import logs
from receiver.service import shutdown_deadline as hurry

def left_behind():
    if {mute}:
        threading.Event().wait()
    return dict(journals=2)

async def main():
    logs.configure("info")
    hurry.LAST_SECONDS = 0.1
    clock = hurry.ShutdownDeadline()
    clock.enforce(left_behind)
    clock.begin()
    threading.Event().wait()  # as in a call that does not return

asyncio.run(main())
"""


@pytest.mark.parametrize("mute", [False, True])
def test_a_process_that_hangs_ends_all_the_same(mute: bool) -> None:
    """With code 1 and one line that says what is left; also where saying that hangs."""
    done = subprocess.run(
        [sys.executable, "-c", HANGING.format(mute=mute)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert 1 == done.returncode
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    told = [(line["event"], line["level"], line["journals"]) for line in lines]
    assert ([] if mute else [("ended_by_force", "error", 2)]) == told
