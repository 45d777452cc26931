"""Repeated trouble is counted, and told at most once in a while."""

from __future__ import annotations

from typing import Final

INTERVAL_SECONDS: Final = 1.0
_MOST_SUBJECTS: Final = 1024


class LogThrottle:
    """Tells for each subject (a stream, an address) when it may be spoken of again."""

    def __init__(self, interval_seconds: float = INTERVAL_SECONDS) -> None:
        self._interval_seconds = interval_seconds
        self._told_at: dict[str, float] = {}
        self._held_back: dict[str, int] = {}

    def count(self, subject: str, now: float) -> int:
        """Return how often `subject` came up since it was last told, or 0 if it is too soon.

        `now` is a clock in seconds that never goes back. Only so many subjects are remembered:
        beyond that all of them may be spoken of anew.
        """
        times = self._held_back.get(subject, 0) + 1
        told_at = self._told_at.get(subject)
        if told_at is not None and now - told_at < self._interval_seconds:
            self._held_back[subject] = times
            return 0
        if len(self._told_at) >= _MOST_SUBJECTS:
            self._told_at.clear()
            self._held_back.clear()
        self._told_at[subject] = now
        self._held_back[subject] = 0
        return times


class TokenBucket:
    """So many at once, so many a second in the long run (a token bucket).

    Times are seconds of a clock that never goes back.
    """

    def __init__(self, at_once: int, per_second: float) -> None:
        self._most = self._left = float(at_once)
        self._per_second = per_second
        self._filled_at = 0.0

    def take(self, now: float) -> bool:
        """Take one; return whether there was one to take."""
        gained = (now - self._filled_at) * self._per_second
        self._left = min(self._most, self._left + gained)
        self._filled_at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def give_back(self) -> None:
        """Put one back, unless the bucket is full."""
        self._left = min(self._most, self._left + 1)
