"""How fast one connection is read, and how many frames it may send that carry next to nothing."""

from __future__ import annotations

import asyncio

import pytest

from receiver.transports.connection import SmallFrameLimit
from receiver.transports.interface import Limits

LIMITS = Limits(small_frame_bytes=16, max_small_frames=3, small_frames_per_second=10)


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> SmallFrameLimit:
    """Return a limit on a clock that does not move."""
    loop = asyncio.new_event_loop()
    loop.close()
    monkeypatch.setattr(loop, "time", lambda: 1000.0)
    return SmallFrameLimit(LIMITS, loop)


def test_so_many_small_ones_may_come_at_once(limit: SmallFrameLimit) -> None:
    """One more is one too many, a short fragment or a control frame of any length."""
    assert [True, True, True, False] == [
        limit.allows(length, control=control)
        for length, control in ((0, False), (15, False), (125, True), (0, True))
    ]


def test_large_fragments_count_for_nothing(limit: SmallFrameLimit) -> None:
    """However many they are."""
    assert all(limit.allows(16, control=False) for _ in range(100))


def test_a_large_fragment_makes_up_for_a_small_one(limit: SmallFrameLimit) -> None:
    """Some libraries end each message with an empty fragment, which is allowed."""
    assert all(limit.allows(length, control=False) for _ in range(100) for length in (16, 0))
    assert [True, True, False] == [limit.allows(0, control=False) for _ in range(3)]
