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
    """A random number of 0 means no wait."""
    assert 0.0 == RetryPolicy().wait_seconds(3, None, lambda: 0.0)


@pytest.mark.parametrize(("retry_after", "wait"), [(0.1, 0.25), (30.0, 30.0), (60.0, 60.0)])
def test_retry_after_is_the_least_to_wait(retry_after: float, wait: float) -> None:
    """The client never tries again sooner than `Retry-After`."""
    assert wait == RetryPolicy().wait_seconds(1, retry_after, lambda: 0.5)


def test_too_long_a_retry_after_ends_the_tries() -> None:
    """Beyond 60 seconds the client neither waits nor tries again."""
    assert RetryPolicy().wait_seconds(1, 60.5, lambda: 0.5) is None
