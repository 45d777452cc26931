"""The event loop rests while many streams live, and only then."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from receiver.service import event_loop
from receiver.service.event_loop import FEWEST_STREAMS, ReadCoalescer

ROUNDS = 3  # of the event loop for a long rest


@pytest.fixture
def rests(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the lengths of all rests, during which time goes on."""
    now, taken = [1000.0], []
    really_sleep = time.sleep

    def sleep(seconds: float) -> None:
        if threading.current_thread() is not threading.main_thread():
            return really_sleep(seconds)  # one that another test has left behind
        taken.append(seconds)
        now[0] += seconds
        return None

    monkeypatch.setattr("receiver.service.event_loop.time.monotonic", lambda: now[0])
    monkeypatch.setattr("receiver.service.event_loop.time.sleep", sleep)
    return taken


async def rounds(count: int) -> None:
    """Run some turns of the event loop."""
    for _ in range(count):
        await asyncio.sleep(0)


def never() -> bool:
    """Return that nothing needs a low latency."""
    return False


async def test_few_streams_are_never_held_up(rests: list[float]) -> None:
    """Below the threshold nothing rests."""
    ReadCoalescer(never).observe(FEWEST_STREAMS - 1)
    await rounds(5 * ROUNDS)
    assert [] == rests


async def test_with_many_streams_the_loop_rests_after_some_rounds(rests: list[float]) -> None:
    """At first it only sets the time; noting more streams changes nothing."""
    coalescer = ReadCoalescer(never)
    coalescer.observe(FEWEST_STREAMS)
    coalescer.observe(FEWEST_STREAMS + 1)
    await rounds(4 * ROUNDS)
    assert [pytest.approx(event_loop.INTERVAL_SECONDS)] * 3 == rests
    coalescer.observe(0)
    await rounds(4 * ROUNDS)
    assert 3 == len(rests)


async def test_low_latency_makes_rests_short(rests: list[float]) -> None:
    """A rest is short from the first round that needs it on, and only as long as it does."""
    waiting = [False]
    coalescer = ReadCoalescer(lambda: waiting[0])
    coalescer.observe(FEWEST_STREAMS)
    await rounds(2 * ROUNDS)
    waiting[0] = True
    await rounds(2)
    waiting[0] = False
    await rounds(ROUNDS)
    long, short = event_loop.INTERVAL_SECONDS, event_loop.BRISK_INTERVAL_SECONDS
    assert [pytest.approx(seconds) for seconds in (long, short, short, long)] == rests


async def test_it_starts_again_when_streams_come_back(rests: list[float]) -> None:
    """That streams were few for a while is no end for good."""
    coalescer = ReadCoalescer(never)
    coalescer.observe(FEWEST_STREAMS)
    await rounds(2 * ROUNDS)
    coalescer.observe(0)
    await rounds(2)
    before = len(rests)
    coalescer.observe(FEWEST_STREAMS)
    await rounds(2 * ROUNDS)
    assert before < len(rests)


async def test_a_late_loop_does_not_rest(
    rests: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one round takes longer than the interval, none of it is slept away."""
    late = iter(range(1000))
    monkeypatch.setattr("receiver.service.event_loop.time.monotonic", lambda: float(next(late)))
    ReadCoalescer(never).observe(FEWEST_STREAMS)
    await rounds(5 * ROUNDS)
    assert [] == rests
