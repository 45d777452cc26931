"""What all tests share: property tests are not judged by the clock of a busy machine."""

from __future__ import annotations

import asyncio.constants
import gc
import os

from hypothesis import HealthCheck, settings

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the commands do; many processes start

settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

# asyncio's debug mode notes where each callback came from, which is a fifth of the time of tests
# with many sockets, and helps nobody here. What it checks, it checks all the same.
asyncio.constants.DEBUG_STACK_DEPTH = 0  # type: ignore[misc]


def pytest_collection_finish() -> None:
    """Spare collections of garbage what lives as long as the process: a twentieth of a second."""
    gc.freeze()


def pytest_unconfigure() -> None:
    """Have the end find everything, as extension modules expect that tell of leaks."""
    gc.unfreeze()
