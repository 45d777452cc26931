"""All the time there is, until the clock of a shutdown runs."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import pytest

from receiver.service.shutdown_deadline import ShutdownDeadline
from tests.bounds import at_most

WAIT_SECONDS = at_most(30)
LONG_SECONDS = 3600.0


async def test_before_the_start_work_is_done_to_its_end() -> None:
    """However few seconds it is given, and its error is raised."""
    done = asyncio.Event()

    async def work() -> None:
        await asyncio.sleep(0)
        done.set()

    async def fail() -> None:
        raise OSError("no")

    deadline = ShutdownDeadline()
    assert deadline.remaining(0.0) is None
    await deadline.run_until(work, 0.0)
    assert done.is_set()
    assert not deadline.started
    with pytest.raises(OSError, match="no"):
        await deadline.run_until(fail, 0.0)


async def test_work_is_cancelled_when_its_time_is_over() -> None:
    """Also work that was started before."""
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        try:
            started.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    deadline = ShutdownDeadline()
    working = asyncio.create_task(deadline.run_until(work, 0.01))
    await started.wait()
    deadline.start()
    async with asyncio.timeout(WAIT_SECONDS):
        await working
        await cancelled.wait()


async def test_a_pause_of_the_process_takes_no_time_away() -> None:
    """SIGSTOP, or a container that is frozen: what is still to do gets its seconds afterwards."""
    seconds = [1000.0]
    deadline = ShutdownDeadline(lambda: seconds[0])
    deadline.start()
    seconds[0] += LONG_SECONDS
    left = deadline.remaining(8.0)
    assert left is not None
    assert 6 < left < 8


async def test_after_the_start_there_is_time_left() -> None:
    """Work that fits is done; starting again does not make the time longer."""

    async def work() -> str:
        for _ in range(10):
            await asyncio.sleep(0)
        return "done"

    deadline = ShutdownDeadline()
    deadline.start()
    assert "done" == await deadline.run_until(work, LONG_SECONDS)
    left = deadline.remaining(LONG_SECONDS)
    assert left
    assert left <= LONG_SECONDS
    assert 0.0 == deadline.remaining(0.0)
    await deadline.wait_until(0.0)
    deadline.start()
    async with asyncio.timeout(WAIT_SECONDS):
        await deadline.wait_until(0.0)
    assert deadline.started


HANGING = """
import asyncio, threading
from receiver import logs
from receiver.service import shutdown_deadline

def left_behind():
    if {mute}:
        threading.Event().wait()
    return dict(journals=2)

async def main():
    logs.configure("info")
    shutdown_deadline.LAST_SECONDS = 0.1
    clock = shutdown_deadline.ShutdownDeadline()
    clock.arm_watchdog(left_behind)
    clock.start()
    threading.Event().wait()  # as in a call that does not return

asyncio.run(main())
"""


@pytest.mark.integration
@pytest.mark.parametrize("mute", [False, True])
def test_a_process_that_hangs_ends_all_the_same(mute: bool) -> None:
    """With code 1 and one line that says what is left; also where logging hangs."""
    done = subprocess.run(
        [sys.executable, "-c", HANGING.format(mute=mute)],
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
    assert 1 == done.returncode
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    logged = [(line["event"], line["level"], line["journals"]) for line in lines]
    assert ([] if mute else [("ended_by_force", "error", 2)]) == logged
