"""Where a sender's clock stopped: told from stalls of the network and from audio sent ahead."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import numpy as np
import pytest

from receiver.timeline.anchoring import TrackClock, anchors


def clock(lags: Iterable[float], *, stamps: Sequence[int] = (), stamped: bool = True) -> TrackClock:
    """Return a track of chunks of 20 ms that lag by so much; they follow each other."""
    behind = np.array(list(lags), float)
    stamped_at = np.array(stamps or range(0, 20 * len(behind), 20), float)
    lengths = np.full(len(behind), 20.0)
    return TrackClock(stamped_at + lengths + behind, stamped_at, lengths, stamped)


def backlog(stall_ms: int) -> list[int]:
    """Return the lags of chunks that a stall of the network held up."""
    return list(range(50 + stall_ms, 50, -20))


def burst(length: int, lag: int = 50) -> list[int]:
    """Return the lags of chunks that are sent at once."""
    return [lag - 20 * n for n in range(length)]


@pytest.mark.parametrize(
    ("lags", "expected"),
    [
        ([50] * 200, {}),
        ([50] * 100 + [3050] * 100, {100: 3000}),
        ([50] * 100 + [3050] * 100 + [5050] * 100, {100: 3000, 200: 2000}),
        ([50] * 100 + [550] * 100, {100: 500}),
        ([50] * 100 + [350] * 100 + [650] * 100, {100: 300, 200: 300}),
        ([50] * 100 + [200] * 100, {}),  # which could be the network
        ([50] * 100 + [350] * 100, {}),  # nor a longer way from then on
        ([50] * 100 + backlog(5000) + [50] * 100, {}),
        (backlog(5000) + [50] * 100, {}),
        ([50] * 100 + backlog(5000), {}),
        ([50] * 100 + backlog(5000)[:20], {}),  # cut off within the backlog
        (backlog(5000), {}),
        (burst(100) + burst(100) + [50] * 100, {}),
        (burst(100) + [50] * 100 + burst(100), {}),
        (burst(150) + burst(150, 3050) + burst(150, 6050), {150: 3000, 300: 3000}),
        ([50] * 100 + [3050 + n / 50 for n in range(5000)], {100: 3000}),  # and drifts
        ([50 + n / 50 for n in range(50_000)], {}),
        ([50 - n / 50 for n in range(50_000)], {}),
        ([50 + n for n in range(5000)], {}),  # one that sends each chunk 1 ms late
        ([50 - 2 * n for n in range(5000)], {}),
        ([50] * 50 + [-(2**40)] + [50] * 50, {}),  # one absurd timestamp
        ([50] * 50 + [2**40] + [50] * 50, {}),
        ([-30_000] * 100, {}),  # in mid-call
        ([-(2**40)] + [50] * 100, {}),
    ],
)
def test_a_lag_that_stays_is_a_clock_that_stopped(
    lags: list[float], expected: dict[int, int]
) -> None:
    """One that falls back is the network's; one that is lower is of audio sent ahead."""
    (found,) = anchors([clock(lags)])
    assert expected == found


def test_a_spurt_within_a_stall_that_a_long_pause_follows_is_no_stopped_clock() -> None:
    """The next chunk, minutes later, comes as it used to."""
    stamps = [*range(0, 2000, 20), *range(2000, 4000, 20), *range(200_000, 202_000, 20)]
    lags = [50] * 100 + burst(100, 8050) + [50] * 100
    (found,) = anchors([clock(lags, stamps=stamps)])
    assert {} == found


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([50] * 200, [6050] * 200, {0: 6000}),
        ([50] * 400, burst(200, 6050), {0: 6000}),
        ([50] * 200, [250] * 200, {}),
        ([50] * 200, [1050] * 200, {}),
        ([50] * 200, [1051] * 200, {0: 1001}),
        (backlog(6000) + [50] * 50, backlog(6000) + [50] * 50, {}),
        ([50] * 400, backlog(2000) + [50] * 100, {}),  # one track stalls alone
        ([50] * 200, [6050 - 2_000_000] * 200, {0: 6000 - 2_000_000}),  # a beginning of its own
        ([50] * 200, [50 - 60_000] * 200, {}),  # followed as a pause
    ],
)
def test_a_track_whose_clock_begins_late_is_anchored_by_the_other(
    first: list[float], second: list[float], expected: dict[int, int]
) -> None:
    """Seconds are no skew of the network."""
    assert [{}, expected] == anchors([clock(first), clock(second)])


def test_a_clock_that_begins_with_a_late_track_is_anchored_by_the_beginning_of_the_stream() -> None:
    """Of a single track as well."""
    assert [{0: 5050}] == anchors([clock([5050] * 100)])


@pytest.mark.parametrize(("pause", "expected"), [(150, {}), (300, {100: 300})])
def test_without_timestamps_shorter_pauses_count(pause: int, expected: dict[int, int]) -> None:
    """There is nothing but arrivals to go by."""
    assert [expected] == anchors([clock([50] * 100 + [50 + pause] * 100, stamped=False)])


@pytest.mark.parametrize("both", [True, False])
def test_an_hour_of_jitter_and_stalls_has_no_stopped_clock(both: bool) -> None:
    """200 ms of network jitter in the mean, and ten stalls of up to ten seconds."""
    source = random.Random(7)
    count = 180_000
    clocks = []
    for stalls in (True, both):
        sent = np.arange(count) * 20 + 20 + 50.0
        at = sent + np.array([source.expovariate(1 / 200) for _ in range(count)])
        for start in np.linspace(0, count * 20 - 9000, 10) if stalls else ():
            length = source.randint(1000, 10_000)
            at = np.where((start <= at) & (at < start + length), start + length, at)
        at = np.floor(np.maximum.accumulate(at)).astype(np.float64)
        clocks.append(TrackClock(at, np.arange(0.0, 20.0 * count, 20.0), np.full(count, 20.0)))
    assert [{}, {}] == anchors(clocks)
