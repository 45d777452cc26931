"""What all tests share: property tests are not judged by the clock of a busy machine."""

from __future__ import annotations

import asyncio.constants
import os

from hypothesis import HealthCheck, settings

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the commands do; many processes start

settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

# asyncio's debug mode notes where each callback came from; ten frames deep that is a fifth of the
# time of tests with many sockets. What it checks, it checks all the same.
asyncio.constants.DEBUG_STACK_DEPTH = 1  # type: ignore[misc]
