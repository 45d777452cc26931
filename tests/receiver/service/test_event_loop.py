"""uvloop serves where it is installed, asyncio's own event loop where it is not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from receiver.service import event_loop
from tests.bounds import at_most
from tests.end_to_end.receiver_process import ReceiverProcess

pytestmark = pytest.mark.integration

WITHOUT_UVLOOP = """\
import sys
sys.modules["uvloop"] = None  # the documented way to hide a module
from receiver.cli.main import main
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("program", "expected"),
    [(("-m", "receiver"), "uvloop"), (("-c", WITHOUT_UVLOOP), "asyncio")],
)
def test_the_log_names_the_event_loop(
    tmp_path: Path, program: tuple[str, ...], expected: str
) -> None:
    """A receiver without uvloop starts, serves and stops all the same."""
    root = str(Path(__file__).parents[3])
    receiver = ReceiverProcess(tmp_path, program=program, environment={"PYTHONPATH": root})
    try:
        assert expected == receiver.wait_for("listening")["event_loop"]
        assert 0 == receiver.stop()
    finally:
        receiver.release()


async def test_work_is_repeated_behind_its_own_end() -> None:
    """However long it takes: there is never a second one beside it."""
    running, most, times = 0, 0, 0
    enough = asyncio.Event()

    async def work() -> None:
        nonlocal running, most, times
        running, times = running + 1, times + 1
        most = max(most, running)
        await asyncio.sleep(0.005)
        running -= 1
        if times == 3:
            enough.set()

    repeating = asyncio.create_task(event_loop.repeat(work, 0.001))
    async with asyncio.timeout(at_most(30)):
        await enough.wait()
    repeating.cancel()
    assert 1 == most
