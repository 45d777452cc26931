"""Units that carry next to nothing: how many of them one connection may send."""

from __future__ import annotations

import asyncio

import pytest

from receiver.transports.interface import Limits
from receiver.transports.small_units import SmallFrameLimit

LIMITS = Limits(small_frame_bytes=16, max_small_frames=3, small_frames_per_second=10)


@pytest.fixture
def units(monkeypatch: pytest.MonkeyPatch) -> SmallFrameLimit:
    """Return a count on a clock that stands still."""
    loop = asyncio.new_event_loop()
    loop.close()
    monkeypatch.setattr(loop, "time", lambda: 1000.0)
    return SmallFrameLimit(LIMITS, loop)


def test_so_many_small_ones_may_come_at_once(units: SmallFrameLimit) -> None:
    """One more is one too many, a short fragment or a control unit of any length."""
    assert [True, True, True, False] == [
        units.bear(length, control=control)
        for length, control in ((0, False), (15, False), (125, True), (0, True))
    ]


def test_large_fragments_count_for_nothing(units: SmallFrameLimit) -> None:
    """However many they are."""
    assert all(units.bear(16, control=False) for _ in range(100))


def test_a_large_fragment_makes_up_for_a_small_one(units: SmallFrameLimit) -> None:
    """Libraries that end each message with an empty fragment are in the right."""
    assert all(units.bear(length, control=False) for _ in range(100) for length in (16, 0))
    assert [True, True, False] == [units.bear(0, control=False) for _ in range(3)]
