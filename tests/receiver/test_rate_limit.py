"""Rate limits: repeated lines are counted and logged once in a while; buckets refill."""

from __future__ import annotations

from receiver.rate_limit import (
    CALLS_AT_ONCE,
    LogThrottle,
    RefusalThrottle,
    TokenBucket,
    TokenBuckets,
)


def test_the_first_time_is_logged_at_once() -> None:
    """What happens once is not suppressed."""
    assert 1 == LogThrottle().count("stream", now=5.0)


def test_repetitions_are_counted_until_they_may_be_logged() -> None:
    """Within the interval nothing is logged; the next line has how many there were."""
    throttle = LogThrottle(interval_seconds=1.0)
    throttle.count("stream", now=0.0)
    assert [0, 0, 0] == [throttle.count("stream", now=n / 10) for n in (1, 5, 9)]
    assert 4 == throttle.count("stream", now=1.0)
    assert 1 == throttle.count("stream", now=2.0)


def test_lines_of_what_goes_on_come_less_often() -> None:
    """Twice as far apart each time, up to the longest; after a quiet time from the beginning."""
    throttle = LogThrottle(interval_seconds=1.0, longest_seconds=4.0)
    logged = [n / 2 for n in range(40) if throttle.count("stream", now=n / 2)]
    assert [0.0, 1.0, 3.0, 7.0, 11.0, 15.0, 19.0] == logged
    assert 2 == throttle.count("stream", now=30.0)
    assert 1 == throttle.count("stream", now=31.0)


def test_subjects_do_not_suppress_each_other() -> None:
    """Each stream or address has its own interval."""
    throttle = LogThrottle()
    assert [1, 1] == [throttle.count(subject, now=0.0) for subject in "ab"]


def test_memory_is_bounded() -> None:
    """An attacker with many addresses fills nothing."""
    throttle = LogThrottle()
    for number in range(5000):
        throttle.count(str(number), now=0.0)
    assert len(throttle._logged_at) <= 1024


def test_a_bucket_is_full_at_first_and_refills_at_its_rate() -> None:
    """So many at once, then so many a second."""
    bucket = TokenBucket(3, 2.0)
    assert [True, True, True, False] == [bucket.take(10.0) for _ in range(4)]
    assert [False, True, False] == [bucket.take(now) for now in (10.25, 10.5, 10.75)]


def test_a_bucket_holds_no_more_than_at_first() -> None:
    """An hour of silence saves up nothing, and neither does giving back."""
    bucket = TokenBucket(2, 1.0)
    bucket.give_back()
    assert [True, True, False] == [bucket.take(3600.0) for _ in range(3)]
    bucket.give_back()
    assert [True, False] == [bucket.take(3600.0) for _ in range(2)]


def test_each_refused_call_has_a_line_and_then_none_for_a_while() -> None:
    """Those of one address do not suppress each other, nor those that name no call."""
    throttle = RefusalThrottle(10.0)
    calls = ("a", "b", None, "a", "b", None)
    times = [throttle.count_peer("192.0.2.1", call, "why", now=0.0) for call in calls]
    assert [1, 1, 1, 0, 0, 0] == times
    assert 2 == throttle.count_peer("192.0.2.1", "a", "why", now=10.0)


def test_calls_that_somebody_invents_fill_no_log() -> None:
    """They are as many lines as calls may come at once, and then one of the address."""
    throttle = RefusalThrottle(10.0)
    lines = [throttle.count_peer("192.0.2.1", f"{n}" * 9, "why", now=0.0) for n in range(1000)]
    assert CALLS_AT_ONCE + 1 == sum(map(bool, lines))


def test_each_subject_has_a_bucket_of_its_own() -> None:
    """What one has used up is no other one's loss."""
    buckets = TokenBuckets(1, 1.0)
    assert [True, False, True] == [buckets.take(subject, 10.0) for subject in "aab"]
    buckets.give_back("a")
    buckets.give_back("unknown")
    assert [True, False] == [buckets.take("a", 10.0) for _ in range(2)]


def test_the_bucket_that_was_asked_for_least_lately_is_forgotten() -> None:
    """So memory is bounded, and who asks all the time stays known."""
    buckets = TokenBuckets(1, 0.0, most=2)
    assert [True, True, False, True] == [buckets.take(subject, 10.0) for subject in "abac"]
    assert [False, True] == [buckets.take(subject, 10.0) for subject in "ab"]
