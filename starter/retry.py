"""When to try again, and how long to wait first. Pure but for the random number it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Exponential backoff with full jitter.

    The wait before try n+1 is anywhere between 0 and `base_seconds` doubled n-1 times, at most
    `longest_seconds`. A `Retry-After` of up to `patience_seconds` is the least to wait; a longer
    one ends the tries, since trying earlier would be refused again.
    """

    attempts: int = 5
    base_seconds: float = 0.5
    longest_seconds: float = 8.0
    patience_seconds: float = 60.0

    def wait_seconds(
        self, attempt: int, retry_after: float | None, dice: Callable[[], float]
    ) -> float | None:
        """Seconds to wait after failed try `attempt` (the first is 1); None: no more tries.

        `dice` returns a number from 0 to 1.
        """
        if attempt >= self.attempts or (retry_after or 0.0) > self.patience_seconds:
            return None
        backoff = dice() * min(self.longest_seconds, self.base_seconds * 2.0 ** (attempt - 1))
        return max(backoff, retry_after or 0.0)
