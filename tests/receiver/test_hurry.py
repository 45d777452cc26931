"""All the time there is, until somebody is in a hurry."""

from __future__ import annotations

import asyncio

import pytest

from receiver.hurry import Hurry

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

    hurry = Hurry()
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

    hurry = Hurry()
    working = asyncio.create_task(hurry.allow(work, 0.01))
    await begun.wait()
    hurry.begin()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await working
        await given_up.wait()


async def test_in_a_hurry_there_is_time_left() -> None:
    """Work that fits is done; beginning again does not make the time longer."""

    async def work() -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    hurry = Hurry()
    hurry.begin()
    await hurry.allow(work, LONG_SECONDS)
    await hurry.passed(0.0)
    hurry.begin()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await hurry.passed(0.0)
    assert hurry.begun
