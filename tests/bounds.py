"""How long tests wait, and how much they try: one factor for each.

A wait that ends as soon as something happens costs nothing when its bound is generous; a bound
that is too tight fails on a busy machine. `TAPREEL_TEST_PATIENCE=3 make test` waits three times
as long, everywhere.

A property holds for every example, so each run tries some others. `TAPREEL_TEST_EXAMPLES=10 make
test` tries ten times as many.
"""

from __future__ import annotations

import os
from typing import Final

FACTOR: Final = float(os.environ.get("TAPREEL_TEST_PATIENCE") or 1)
EXAMPLES: Final = float(os.environ.get("TAPREEL_TEST_EXAMPLES") or 1)


def at_most(seconds: float) -> float:
    """Return a bound for a wait or a duration, in seconds, stretched by the factor."""
    return seconds * FACTOR


def examples(count: int) -> int:
    """Return how many examples of a property are tried."""
    return max(1, round(count * EXAMPLES))


def fewer(count: int) -> int:
    """Return how many of something a test sends at once: the factor makes a burst smaller.

    A reader that must keep up with a burst cannot be waited for; it can only be given less.
    """
    return max(1, round(count / FACTOR))
