"""The ledger for an event loop: in order, without waiting, and whole at the end."""

from __future__ import annotations

import asyncio
import fcntl
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from receiver.errors import LedgerError
from receiver.lifecycle.ledger import Ledger
from receiver.lifecycle.ledger_thread import LedgerThread
from tests.bounds import at_most


def entered(recordings: Path) -> list[int]:
    """Return the numbers that were entered, the oldest first."""
    return [entry.details["number"] for entry in Ledger(recordings).read()][::-1]


def block(recordings: Path) -> None:
    """Make the ledger unusable: something else is in its place."""
    (recordings / ".ledger").mkdir(0o700)
    (recordings / ".ledger" / "head").mkdir()


async def test_entries_come_in_the_order_in_which_they_were_given(tmp_path: Path) -> None:
    """Whether they are waited for or not; closing waits for all."""
    thread = LedgerThread(tmp_path)
    await thread.append("heard", who="ann", via="tap", number=0)
    assert [0] == entered(tmp_path)
    for number in range(1, 10):
        thread.submit("heard", who="ann", via="tap", number=number)
    assert await thread.close()
    assert list(range(10)) == entered(tmp_path)
    assert await thread.close()


async def test_what_is_waited_for_is_on_disk(tmp_path: Path) -> None:
    """While another process has the ledger, nothing is, and the loop goes on."""
    thread = LedgerThread(tmp_path)
    await thread.append("heard", who="ann", via="tap", number=0)
    with (tmp_path / ".ledger" / "head").open("rb") as head:
        fcntl.flock(head, fcntl.LOCK_EX)
        waiting = asyncio.ensure_future(thread.append("heard", who="ann", via="tap", number=1))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not waiting.done()
        assert [0] == entered(tmp_path)
    await asyncio.wait_for(waiting, at_most(10))
    assert [0, 1] == entered(tmp_path)
    await thread.close()


async def test_a_failure_is_raised_to_who_waits_and_logged(tmp_path: Path) -> None:
    """Often at once, and so in one line."""
    block(tmp_path)
    thread = LedgerThread(tmp_path)
    with capture_logs() as lines:
        with pytest.raises(LedgerError, match="nothing was done"):
            await thread.append("heard", who="ann", via="tap", number=0)
        for number in range(3):
            thread.submit("heard", who="ann", via="tap", number=number)
        await thread.close()
    (line,) = lines
    assert ("ledger_failed", 1) == (line["event"], line["times"])


async def test_others_cannot_lead_it_elsewhere(tmp_path: Path) -> None:
    """That is an error of the ledger for whoever waits."""
    (tmp_path / ".ledger").symlink_to(tmp_path)
    thread = LedgerThread(tmp_path)
    with pytest.raises(LedgerError, match="symbolic link"):
        await thread.append("heard", who="ann", via="tap", number=0)
    await thread.close()


async def test_a_closed_one_takes_no_more(tmp_path: Path) -> None:
    """What comes too late is logged."""
    thread = LedgerThread(tmp_path)
    await thread.close()
    with capture_logs() as lines, pytest.raises(LedgerError, match="closed"):
        await thread.append("heard", who="ann", via="tap", number=0)
    with capture_logs() as lines:
        LedgerThread.submit(thread, "heard", who="ann", via="tap", number=1)
    assert [] == lines  # the line before was less than a second ago
    assert [] == entered(tmp_path)
