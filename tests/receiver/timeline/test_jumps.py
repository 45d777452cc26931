"""How far a sender's clock is followed, and where it begins for those who cannot wait."""

from __future__ import annotations

import pytest

from receiver.media import Chunk, Track
from receiver.timeline.jumps import LONGEST_JUMP_MS, JumpBudget, live_origin_ms


def test_a_jump_is_followed_as_far_as_it_was_waited_for() -> None:
    """What is left over may be a minute, in sum as well, and as much again as there is audio."""
    budget = JumpBudget()
    assert budget.spend(600_000, 540_000, audio_ms=0)
    assert not budget.spend(1, 0, audio_ms=0)
    assert budget.spend(1, 0, audio_ms=1)
    assert not budget.spend(1, 0, audio_ms=1)
    assert budget.spend(600_000, 600_000, audio_ms=1)


def test_a_jump_that_is_not_followed_costs_nothing() -> None:
    """Neither does one backwards, nor a wait that nothing jumped for."""
    budget = JumpBudget()
    assert not budget.spend(LONGEST_JUMP_MS + 1, 0, audio_ms=1e9)
    assert budget.spend(-5000, 0, audio_ms=0)
    assert budget.spend(0, 5000, audio_ms=0)
    assert not budget.spend(LONGEST_JUMP_MS + 1, -5000, audio_ms=0)
    assert budget.spend(LONGEST_JUMP_MS, -5000, audio_ms=0)


@pytest.mark.parametrize(
    ("stamp", "arrival_ms", "expected"),
    [
        (None, 0, 0),
        (99, 0, 0),
        (LONGEST_JUMP_MS, 0, 0),
        (LONGEST_JUMP_MS + 1, 0, LONGEST_JUMP_MS + 1),
        (LONGEST_JUMP_MS + 1, 1, 0),
    ],
)
def test_live_stream_time_begins_as_the_first_chunk_says(
    stamp: int | None, arrival_ms: int, expected: int
) -> None:
    """At 0, unless it is more than a minute ahead of its arrival."""
    assert expected == live_origin_ms(Chunk(Track.INBOUND, 1, 1, stamp, b"x"), arrival_ms)
