"""Repeated trouble: counted, and told once in a while."""

from __future__ import annotations

from receiver.rate_limit import LogThrottle


def test_the_first_time_is_logged_at_once() -> None:
    """Trouble that comes once is not held back."""
    assert 1 == LogThrottle().count("stream", now=5.0)


def test_repetitions_are_counted_until_they_may_be_told() -> None:
    """Within the interval nothing is said; the next word says how often it was."""
    throttle = LogThrottle(interval_seconds=1.0)
    throttle.count("stream", now=0.0)
    assert [0, 0, 0] == [throttle.count("stream", now=n / 10) for n in (1, 5, 9)]
    assert 4 == throttle.count("stream", now=1.0)
    assert 1 == throttle.count("stream", now=2.0)


def test_subjects_do_not_silence_each_other() -> None:
    """Each stream or address has its own interval."""
    throttle = LogThrottle()
    assert [1, 1] == [throttle.count(subject, now=0.0) for subject in "ab"]


def test_memory_is_bounded() -> None:
    """An attacker with many addresses fills nothing."""
    throttle = LogThrottle()
    for number in range(5000):
        throttle.count(str(number), now=0.0)
    assert len(throttle._logged_at) <= 1024
