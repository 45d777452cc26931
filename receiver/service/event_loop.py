"""The event loop a receiver runs on, its lag, and errors that nothing caught."""

from __future__ import annotations

import asyncio
import asyncio.sslproto
import time
from collections.abc import Coroutine
from typing import Any, Final

import structlog

from receiver.counters import Counters
from receiver.rate_limit import LogThrottle

_LAG_SECONDS: Final = 0.1
log = structlog.get_logger("receiver.loops")

TLS_BUFFER_BYTES: Final = 16_384
"""What a TLS record holds. asyncio sets 256 KiB aside for each connection, idle or not, which
was 292 KiB of memory per idle stream instead of 46."""


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run `main` to its end, on uvloop where there is one: not on PyPy, for example."""
    try:
        import uvloop
    except ImportError:
        factory = None  # asyncio's own
        asyncio.sslproto.SSLProtocol.max_size = TLS_BUFFER_BYTES
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main)


def name() -> str:
    """Return which library's event loop runs: "uvloop" or "asyncio"."""
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]


async def measure_lag(counters: Counters) -> None:
    """Record the worst delay with which the event loop ran what was due; runs for ever."""
    now = asyncio.get_running_loop().time
    while True:
        due = now() + _LAG_SECONDS
        await asyncio.sleep(_LAG_SECONDS)
        counters.worst_lag_seconds = max(counters.worst_lag_seconds, now() - due)


class LoopExceptionLogger:
    """Logs errors that nothing caught, at most once a second for each kind."""

    def __init__(self) -> None:
        self._throttle = LogThrottle()

    def __call__(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log one error; the signature is that of an event loop's exception handler."""
        problem, error = str(context.get("message")), context.get("exception")
        if times := self._throttle.count(problem, time.monotonic()):
            log.error("unforeseen", problem=problem, error=repr(error), times=times)
