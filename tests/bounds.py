"""How long tests wait for what may take long: one factor stretches every bound.

A wait that ends as soon as something happens costs nothing when its bound is generous; a bound
that is too tight fails on a busy machine. `TAPREEL_TEST_PATIENCE=3 make test` waits three times
as long, everywhere.
"""

from __future__ import annotations

import os
from typing import Final

FACTOR: Final = float(os.environ.get("TAPREEL_TEST_PATIENCE") or 1)


def at_most(seconds: float) -> float:
    """Return a bound for a wait or a duration, in seconds, stretched by the factor."""
    return seconds * FACTOR


def fewer(count: int) -> int:
    """Return how many of something a test sends at once: the factor makes a burst smaller.

    A reader that must keep up with a burst cannot be waited for; it can only be given less.
    """
    return max(1, round(count / FACTOR))
