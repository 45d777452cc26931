"""Rate limits: a token bucket for what peers may do, and a throttle for what is logged of them.

Pure: the caller passes the time, in seconds of a clock that never goes back.
"""

from __future__ import annotations

from typing import Final

INTERVAL_SECONDS: Final = 1.0
_MOST_SUBJECTS: Final = 1024


class LogThrottle:
    """Decides for each subject (a stream, an address) whether a line may be logged of it now.

    Lines of one subject are `interval_seconds` apart; with `longest_seconds` twice as long each
    time up to that, until the subject has been quiet for twice as long as that.
    """

    def __init__(
        self, interval_seconds: float = INTERVAL_SECONDS, *, longest_seconds: float = 0
    ) -> None:
        self._interval_seconds = interval_seconds
        self._longest_seconds = max(interval_seconds, longest_seconds)
        self._logged_at: dict[str, float] = {}
        self._intervals: dict[str, float] = {}  # of those that have grown
        self._suppressed: dict[str, int] = {}

    def count(self, subject: str, now: float) -> int:
        """Count one event; return how many there were since the last line, or 0 if it is too soon.

        Only so many subjects are remembered; when they are too many, all are forgotten.
        """
        times = self._suppressed.get(subject, 0) + 1
        logged_at = self._logged_at.get(subject)
        interval = self._intervals.get(subject, self._interval_seconds)
        if logged_at is not None and now - logged_at < interval:
            self._suppressed[subject] = times
            return 0
        quiet = logged_at is None or now - logged_at >= 2 * self._longest_seconds
        grown = self._interval_seconds if quiet else min(2 * interval, self._longest_seconds)
        if len(self._logged_at) >= _MOST_SUBJECTS:
            self._logged_at.clear()
            self._suppressed.clear()
            self._intervals.clear()
        if self._longest_seconds > self._interval_seconds:
            self._intervals[subject] = grown
        self._logged_at[subject] = now
        self._suppressed[subject] = 0
        return times


class TokenBucket:
    """A token bucket: so many events at once, so many a second in the long run."""

    def __init__(self, at_once: int, per_second: float) -> None:
        self._most = self._left = float(at_once)
        self._per_second = per_second
        self._filled_at = 0.0

    def take(self, now: float) -> bool:
        """Remove one token; return whether there was one."""
        gained = (now - self._filled_at) * self._per_second
        self._left = min(self._most, self._left + gained)
        self._filled_at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def give_back(self) -> None:
        """Add one token, unless the bucket is full."""
        self._left = min(self._most, self._left + 1)


CALLS_AT_ONCE: Final = 100
"""So many refused calls have a line of their own at once ..."""
CALLS_PER_SECOND: Final = 10.0
"""... and in the long run: what a peer invents fills no log."""
_LONGEST_NAME: Final = 100


class RefusalThrottle(LogThrottle):
    """Decides whether a line may be logged of a peer that was refused.

    A provider's address has many calls, and each of them has a line of its own the first time it
    is refused. After that it is like any other subject. Lines of what names no call, or of more
    calls than there can be, are those of the address.
    """

    def __init__(
        self, interval_seconds: float = INTERVAL_SECONDS, *, longest_seconds: float = 0
    ) -> None:
        super().__init__(interval_seconds, longest_seconds=longest_seconds)
        self._calls = TokenBucket(CALLS_AT_ONCE, CALLS_PER_SECOND)

    def count_peer(self, address: str, call_sid: str | None, reason: str, now: float) -> int:
        """Count a refusal; return how many there were since the last line, or 0 for no line."""
        call = call_sid[:_LONGEST_NAME] if call_sid and self._calls.take(now) else ""
        return self.count(f"{address} {call} {reason}", now)


class TokenBuckets:
    """A token bucket for each of many subjects, such as addresses; all of one size.

    Only so many are remembered: the one that was asked for least lately is forgotten first. It is
    full again by then, unless there are thousands at the same time.
    """

    def __init__(self, at_once: int, per_second: float, *, most: int = 4 * _MOST_SUBJECTS) -> None:
        self._at_once = at_once
        self._per_second = per_second
        self._most = most
        self._buckets: dict[str, TokenBucket] = {}

    def take(self, subject: str, now: float) -> bool:
        """Remove one token of a subject's; return whether there was one."""
        bucket = self._buckets.pop(subject, None) or TokenBucket(self._at_once, self._per_second)
        self._buckets[subject] = bucket  # now the latest
        if len(self._buckets) > self._most:
            del self._buckets[next(iter(self._buckets))]
        return bucket.take(now)

    def give_back(self, subject: str) -> None:
        """Add one token of a subject's, unless its bucket is full."""
        if subject in self._buckets:
            self._buckets[subject].give_back()
