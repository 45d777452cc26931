"""The event loop a receiver runs on: how often it reads, its lag, errors that nothing caught."""

from __future__ import annotations

import asyncio
import asyncio.sslproto
import time
from collections.abc import Awaitable, Callable, Coroutine
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


async def repeat(work: Callable[[], Awaitable[None]], seconds: float) -> None:
    """Await `work` again and again, each time so many seconds after its end; runs for ever."""
    while True:
        await asyncio.sleep(seconds)
        await work()


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


FEWEST_STREAMS: Final = 20
"""With fewer, less than a handful of chunks would gather."""
INTERVAL_SECONDS: Final = 0.02
"""What one packet lasts. The journal's writer comes round ten times more seldom."""
BRISK_INTERVAL_SECONDS: Final = 0.001
"""... and where somebody waits for what comes, such as a listener."""
_ROUNDS: Final = 3
"""Of the event loop between two long rests, so that a task which is woken up gets on."""


class ReadCoalescer:
    """Reads sockets in batches while many streams live, as network cards coalesce interrupts.

    Streams in real time are too many to let a process rest and too few to keep it busy: with 150
    calls a chunk comes every 67 us, and each one wakes the process up and is read by itself. A
    short sleep every few rounds of the event loop lets chunks gather, two to a read where nothing
    needs a low latency. An idle receiver, or one with few streams, never sleeps that way.

    `low_latency` returns whether somebody would notice a long rest; it is called every round.
    """

    def __init__(self, low_latency: Callable[[], bool]) -> None:
        self._loop = asyncio.get_running_loop()
        self._low_latency = low_latency
        self._streams = 0
        self._rested_at = -INTERVAL_SECONDS
        self._round = 0  # since the last rest
        self._ticking = False

    def observe(self, streams: int) -> None:
        """Set how many streams live."""
        self._streams = streams
        if not self._ticking and streams >= FEWEST_STREAMS:
            self._ticking = True
            self._loop.call_soon(self._tick)

    def _tick(self) -> None:
        """Rest for what is left of the interval; a loop that is late does not rest at all."""
        if self._streams < FEWEST_STREAMS:
            self._ticking = False
            return
        self._round += 1
        if self._low_latency():
            self._rest(BRISK_INTERVAL_SECONDS)
        elif self._round >= _ROUNDS:
            self._rest(INTERVAL_SECONDS)
        self._loop.call_soon(self._tick)

    def _rest(self, interval: float) -> None:
        left = self._rested_at + interval - time.monotonic()
        if left > 0:
            time.sleep(left)
        self._rested_at = time.monotonic()
        self._round = 0
