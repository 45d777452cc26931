"""What a peer may do besides sending audio."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from receiver.rate_limit import TokenBucket

STEPS = st.lists(st.floats(0, 5, allow_nan=False), min_size=1, max_size=200)


@given(STEPS, st.integers(1, 20), st.floats(0.1, 10))
def test_a_bucket_never_gives_more_than_it_holds(
    steps: list[float], at_once: int, per_second: float
) -> None:
    """In any stretch of time: what may come at once, and what flows in meanwhile."""
    bucket, now, taken = TokenBucket(at_once, per_second), 1000.0, []
    for step in steps:
        now += step
        if bucket.take(now):
            taken.append(now)
    for first, since in enumerate(taken):
        for last, until in enumerate(taken[first:], 1):
            assert last <= at_once + (until - since) * per_second + 1e-6


@given(STEPS, st.integers(1, 20))
def test_who_keeps_to_the_rate_is_never_refused(steps: list[float], at_once: int) -> None:
    """One event at a time, never faster than the bucket fills."""
    bucket, now = TokenBucket(at_once, 1.0), 1000.0
    for step in steps:
        now += 1.001 + step  # sums of floats are not exact
        assert bucket.take(now)


def test_a_full_bucket_is_there_at_once() -> None:
    """Nothing has to fill up first, and then it is empty."""
    bucket = TokenBucket(3, 1.0)
    answers = [bucket.take(0.0) for _ in range(5)]
    assert [True, True, True, False, False] == answers
    assert bucket.take(1.0)
    assert not bucket.take(1.5)
