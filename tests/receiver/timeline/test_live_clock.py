"""When live audio is due: what moves a track's level, and what only looks as if it did."""

from __future__ import annotations

import random

import pytest

from receiver.media import Track
from receiver.timeline.live_clock import LiveClock

LONGEST = 240


def played(clock: LiveClock, track: Track, start_ms: int, end_ms: int, late_ms: float = 0) -> None:
    """Observe chunks of 20 ms, each when its last sample is there, or so much later."""
    for at_ms in range(start_ms, end_ms, 20):
        end = at_ms + 20
        clock.observe(track, end, 20, int(end + late_ms), 0)


def level(clock: LiveClock) -> float:
    """Return how late audio is due that came early."""
    return clock.due_ms(0, -(10**6)) - clock.wait_ms


def test_it_starts_with_the_longest_wait() -> None:
    """After a second, what is seen decides; after ten in which both came in time, it is short."""
    clock = LiveClock(Track, LONGEST)
    assert LONGEST == clock.wait_ms
    for second in range(12):
        for track in Track:
            played(clock, track, second * 1000, second * 1000 + 1000)
        assert second or LONGEST == clock.wait_ms
        assert not 1 < second < 9 or 60 == clock.wait_ms
    assert 40 == clock.wait_ms


def test_a_track_without_a_counterpart_waits_for_60_ms() -> None:
    """There is nothing that could be late."""
    clock = LiveClock(Track, LONGEST)
    played(clock, Track.INBOUND, 0, 20_000)
    assert 60 == clock.wait_ms


@pytest.mark.parametrize("mean_ms", [5, 15, 30])
def test_jitter_is_waited_for(mean_ms: int) -> None:
    """So that nearly nothing is late, and not for much longer than that."""
    clock, dice, newest = LiveClock(Track, LONGEST), random.Random(1), 0.0
    late = 0
    for end_ms in range(20, 60_000, 20):
        due = None
        for track in Track:
            newest = max(newest, end_ms + dice.expovariate(1 / mean_ms))
            late += due is not None and newest > due
            clock.observe(track, end_ms, 20, int(newest), 0)
            due = due or clock.due_ms(end_ms, int(newest))
    assert 2 >= late
    assert clock.wait_ms <= min(LONGEST, max(60, 16 * mean_ms))


def test_long_packets_are_waited_for() -> None:
    """For three of them, and still for seconds after the latest of them."""
    clock = LiveClock(Track, LONGEST)
    for end_ms in range(100, 3000, 100):
        clock.observe(Track.INBOUND, end_ms, 100, end_ms, 0)
    assert 300 == clock.wait_ms
    played(clock, Track.INBOUND, 3000, 4000)
    assert 200 < clock.wait_ms < 300


@pytest.mark.parametrize("skew_ms", [80, 180])
def test_a_track_that_is_always_behind_is_waited_for(skew_ms: int) -> None:
    """From its first chunk on; and no longer, seconds after it has caught up."""
    clock = LiveClock(Track, LONGEST)
    for start in range(0, 2000, 20):
        played(clock, Track.OUTBOUND, start, start + 20)
        played(clock, Track.INBOUND, start, start + 20, skew_ms)
    assert skew_ms == level(clock)
    for start in range(2000, 9000, 20):
        played(clock, Track.OUTBOUND, start, start + 20)
        played(clock, Track.INBOUND, start, start + 20, 10)
    assert 10 == level(clock)


def test_a_track_that_falls_behind_is_waited_for() -> None:
    """Once everything of half a second was late, and no further than the longest wait."""
    clock = LiveClock(Track, LONGEST)
    for track in Track:
        played(clock, track, 0, 2000)
    played(clock, Track.INBOUND, 2000, 3000, 100)
    assert 100 == level(clock)
    played(clock, Track.INBOUND, 3000, 4000, 900)
    assert LONGEST == level(clock)


def test_a_stall_moves_nothing() -> None:
    """Its backlog comes at once, and falls back; neither later, nor at the beginning."""
    clock = LiveClock(Track, LONGEST)
    for stall_ms in (0, 5000):
        for at_ms in range(stall_ms, stall_ms + 3000, 20):
            clock.observe(Track.INBOUND, at_ms + 20, 20, stall_ms + 3000, 0)
        assert 60 >= level(clock)
        played(clock, Track.INBOUND, stall_ms + 3000, stall_ms + 5000)
        assert 0 == level(clock)


def test_audio_that_is_sent_ahead_moves_nothing() -> None:
    """Neither a burst, nor one turn after the other; nor what is spoken live after it."""
    clock = LiveClock(Track, LONGEST)
    for turn_ms in range(0, 30_000, 6000):
        for at_ms in range(turn_ms, turn_ms + 3000, 20):
            clock.observe(Track.OUTBOUND, at_ms + 20, 20, turn_ms + 50, 0)
    assert 0 <= level(clock) <= 50
    played(clock, Track.INBOUND, 30_000, 31_000)
    assert 0 <= level(clock) <= 50


def test_a_clock_that_counts_from_elsewhere_is_what_it_is() -> None:
    """A call that is ten seconds older than its stream is not sent ahead of time."""
    clock = LiveClock(Track, LONGEST)
    played(clock, Track.INBOUND, 10_000, 12_000, -10_000)
    assert -10_000 == level(clock)


def test_a_track_that_was_anchored_anew_starts_afresh() -> None:
    """How late it was before, and by how much it is behind at that moment, says nothing."""
    clock = LiveClock(Track, LONGEST)
    for track in Track:
        played(clock, track, 0, 3000)
    clock.restart(Track.INBOUND, 3000)
    assert 0 == clock.level_of_others_ms(Track.INBOUND)
    assert clock.level_of_others_ms(Track.OUTBOUND) is None
    clock.observe(Track.INBOUND, 3000, 20, 3200, 0)
    assert 200 == level(clock)
    assert 60 == clock.wait_ms
