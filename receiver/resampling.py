"""Samples at another rate, by soxr, in a thread of its own: never on the event loop.

soxr comes with the extra `dsp`. One thread does all the work in the order in which it came in,
so that each stream's messages keep theirs.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.util
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from receiver import codec
from receiver.tap_kinds import Kind
from receiver.tap_queue import Item

_BLOCK_SECONDS: Final = 1
_BYTES_PER_SAMPLE: Final = 2
Done = Callable[[list[Item], bool], None]


def available() -> bool:
    """Whether soxr is installed."""
    return importlib.util.find_spec("soxr") is not None


@functools.cache
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="resampler")


class Resampling:
    """One channel's way from the stream's rate to another."""

    def __init__(self, source_rate: int, kind: Kind, *, begin_ms: float) -> None:
        import soxr  # an extra, and only where it is asked for

        rate, channels = kind.rate or source_rate, kind.channels
        self._rate = rate
        self._source_rate = source_rate
        self._channels = channels
        self._track = kind.track
        self._begin_ms = begin_ms
        self._produced = 0  # samples of each track
        # Measured: "MQ" holds audio back for 15 to 36 ms, "HQ" for 21 to 138.
        self._stream: Any = soxr.ResampleStream(
            source_rate, rate, channels, dtype="int16", quality="MQ"
        )
        self._loop = asyncio.get_running_loop()

    def submit(self, items: list[Item], *, last: bool, done: Done) -> None:
        """Have `done` called, on the event loop, with what becomes of `items`."""
        if not items and not last:
            return
        _thread().submit(self._work, items, last, done)

    def _work(self, items: list[Item], last: bool, done: Done) -> None:
        made = list(self.convert(items, last=last))
        try:
            self._loop.call_soon_threadsafe(done, made, last)
        except RuntimeError:
            return  # the loop is closed: nobody listens any more

    def convert(self, items: list[Item], *, last: bool) -> Iterator[Item]:
        """Yield `items` at the other rate; what is not audio keeps its place."""
        for item in items:
            if isinstance(item.message, bytes):
                yield from self._audio(item.message * item.repeat)
            elif last and item is items[-1]:
                yield from self._audio(b"", last=True)
                yield item
            else:
                yield item

    def _audio(self, message: bytes, *, last: bool = False) -> Iterator[Item]:
        block = self._source_rate * _BLOCK_SECONDS * self._channels * _BYTES_PER_SAMPLE
        for start in range(0, max(1, len(message)), block):
            samples = codec.rows(message[start : start + block], self._channels)
            made: bytes = self._stream.resample_chunk(samples, last=last).tobytes()
            count = len(made) // (self._channels * _BYTES_PER_SAMPLE)
            if count:
                at_ms = self._begin_ms + self._produced * 1000 / self._rate
                self._produced += count
                yield Item(made, self._track, at_ms, count * 1000 / self._rate)
