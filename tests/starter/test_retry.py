"""The waits between tries."""

import pytest

from starter.retry import RetryPolicy


@pytest.mark.parametrize(
    ("attempt", "wait"), [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (5, 8.0), (6, 8.0), (7, None)]
)
def test_waits_double_up_to_the_longest(attempt: int, wait: float | None) -> None:
    """The upper edge doubles from try to try, until the tries are used up."""
    assert wait == RetryPolicy(attempts=7).wait_seconds(attempt, None, lambda: 1.0)


def test_jitter_is_full() -> None:
    """The dice may bring the wait down to nothing."""
    assert 0.0 == RetryPolicy().wait_seconds(3, None, lambda: 0.0)


@pytest.mark.parametrize(("retry_after", "wait"), [(0.1, 0.25), (30.0, 30.0), (60.0, 60.0)])
def test_retry_after_is_the_least_to_wait(retry_after: float, wait: float) -> None:
    """The client never comes back sooner than it was told."""
    assert wait == RetryPolicy().wait_seconds(1, retry_after, lambda: 0.5)


def test_too_long_a_retry_after_means_giving_up() -> None:
    """Beyond its patience the client neither waits nor pesters."""
    assert RetryPolicy().wait_seconds(1, 60.5, lambda: 0.5) is None
