"""Threads for what may wait: bounded, and never waited for too long."""

from __future__ import annotations

import asyncio
import threading

import pytest

from receiver.console.context import Threads
from receiver.console.problems import Problem


async def test_what_a_call_returns_or_raises_is_passed_on() -> None:
    """Its arguments, too."""
    threads = Threads()
    assert 7 == await threads.run(max, 3, 7)
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0)
    with pytest.raises(TimeoutError, match="its own"):
        await threads.run(raise_timeout)
    assert threads.close()


def raise_timeout() -> None:
    """Fail as a database may."""
    raise TimeoutError("its own")


async def test_a_call_that_hangs_is_given_up() -> None:
    """Whoever waited is told so, and the thread is known to be busy."""
    threads, released = Threads(1, seconds=0.05), threading.Event()
    with pytest.raises(Problem, match="does not answer"):
        await threads.run(released.wait)
    assert not threads.close()
    released.set()


async def test_when_all_are_busy_no_more_is_taken() -> None:
    """The answer comes at once."""
    threads, released = Threads(1, most_waiting=2), threading.Event()
    waiting = [asyncio.create_task(threads.run(released.wait)) for _ in range(2)]
    await asyncio.sleep(0)  # both have had their turn
    assert 2 == threads.busy
    with pytest.raises(Problem, match="busy"):
        await threads.run(released.wait)
    released.set()
    assert [True, True] == await asyncio.gather(*waiting)
    await asyncio.sleep(0)
    assert threads.close()
