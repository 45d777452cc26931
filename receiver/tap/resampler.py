"""Samples at another rate, by a polyphase filter, in a thread of its own: never on the event loop.

Each chunk comes out as a chunk of the same duration, at once: the filter looks back only, so that
the sound is 3 ms later than its place (of 8000 samples per second; less of more), always the same.
A filter that looks ahead would hold the end of each chunk back until the next one comes.

    in     20 ms   20 ms   20 ms        160 samples each, at 8000
    out    20 ms   20 ms   20 ms        320 samples each, at 16000; of silence, a length

One thread does all the work in the order in which it came in, so that each stream's messages keep
theirs.
"""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from receiver.audio import codec
from receiver.media import GapReason
from receiver.tap.encoding.format import OutMessage, OutputSpec, gap_notice

_BLOCK_SECONDS: Final = 1
_BYTES_PER_SAMPLE: Final = 2
_MOST_COMING_MS: Final = 5000.0
"""Of one feed's audio that may wait for the thread; more is dropped, with a notice."""
_REACH: Final = 24
"""Samples of the lower rate on either side that a sample is made of."""
_PASSED: Final = 0.90
"""Of the band of the lower rate: the filter is 6 dB down there."""
_KAISER_BETA: Final = 6.5
"""What is beyond the band is 65 dB down."""
Done = Callable[[list[OutMessage], bool], None]


@dataclass(frozen=True, slots=True)
class _Skip:
    """Audio that was not resampled, because the thread had too much to do."""

    duration_ms: float


@functools.cache
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="resampler")


@functools.cache
def _filters(up: int, down: int) -> NDArray[np.float32]:
    """Return the filter of each phase: shape `(up, taps)`; its delay is half of its taps."""
    reach = math.ceil(_REACH * max(1, down / up))
    taps = np.arange(2 * reach)
    at = (reach - 1 - taps)[None, :] + np.arange(up)[:, None] / up
    cutoff = _PASSED * min(1, up / down)
    window = np.i0(_KAISER_BETA * np.sqrt(np.maximum(0, 1 - (at / reach) ** 2)))
    bank = np.sinc(cutoff * at) * window
    normal: NDArray[np.float32] = (bank / bank.sum(1, keepdims=True)).astype(np.float32)
    return normal


class Polyphase:
    """One stream's samples at another rate, as many as there is time for: no more, no less.

    Args:
        source_rate: samples per second that come.
        rate: samples per second that are made.
        channels: 1, or 2 for samples of shape `(n, 2)`.
    """

    def __init__(self, source_rate: int, rate: int, channels: int) -> None:
        common = math.gcd(source_rate, rate)
        self.up, self.down = rate // common, source_rate // common
        self._filters = _filters(self.up, self.down)
        self.taps = self._filters.shape[1]
        self._before = np.zeros((self.taps - 1, channels), np.float32)
        self._consumed = 0
        self.produced = 0

    def feed(self, samples: NDArray[np.int16]) -> NDArray[np.int16]:
        """Return the samples of the same time; shapes `(n, channels)`."""
        made = np.arange(self.produced, self._made_after(len(samples))) * self.down
        first = self._consumed
        line = np.concatenate((self._before, samples.astype(np.float32)))
        windows = np.lib.stride_tricks.sliding_window_view(line, self.taps, axis=0)
        if self.down == 1:  # each sample that comes makes as many: much faster as one product
            result = np.matmul(windows, self._filters.T).swapaxes(1, 2).reshape(-1, line.shape[1])
        else:
            chosen = windows[made // self.up - first]
            result = np.einsum("nct,nt->nc", chosen, self._filters[made % self.up])
        self._before = line[len(line) - self.taps + 1 :]
        self._consumed += len(samples)
        self.produced += len(made)
        rounded: NDArray[np.int16] = np.clip(np.rint(result), -32768, 32767).astype(np.int16)
        return rounded

    def skip(self, count: int) -> int:
        """Return how many samples of silence follow from silence, of which the filter is full."""
        before, self.produced = self.produced, self._made_after(count)
        self._consumed += count
        return self.produced - before

    def _made_after(self, count: int) -> int:
        return -(-(self._consumed + count) * self.up // self.down)


class Resampler:
    """Resamples what one feed sends, from the stream's rate to another."""

    def __init__(self, source_rate: int, spec: OutputSpec, *, start_ms: float) -> None:
        self._rate = spec.rate or source_rate
        self._source_rate = source_rate
        self._channels = spec.channels
        self._track = spec.track
        self._start_ms = start_ms
        self._submitted = 0  # lists of messages that the thread has yet to return
        self.dropped = 0  # pieces of audio that the thread had no time for
        self._skipped_ms = 0.0  # of them, what no notice was made of yet
        self._filter = Polyphase(source_rate, self._rate, spec.channels)
        self._loop = asyncio.get_running_loop()
        self.coming_ms = 0.0  # audio that the thread has yet to return
        self.idle = asyncio.Event()  # the thread has returned everything
        self.idle.set()

    def submit(self, items: list[OutMessage], *, last: bool, done: Done) -> None:
        """Resample `items` in the thread; `done` is called on the event loop with the result."""
        if not items and not last:
            return
        work = self._without_overload(items)
        length_ms = sum(i.duration_ms for i in work if isinstance(i, OutMessage) and i.repeat == 1)
        self.idle.clear()
        self.coming_ms += length_ms
        self._submitted += 1

        def deliver(made: list[OutMessage]) -> None:
            self.coming_ms -= length_ms
            self._submitted -= 1
            done(made, last)
            if not self._submitted:
                self.coming_ms = 0.0  # fractions do not add up for ever
                self.idle.set()

        _thread().submit(self._work, work, deliver)

    def _without_overload(self, items: list[OutMessage]) -> list[OutMessage | _Skip]:
        """Return what the thread is to do: all, or where it is far behind, all but the audio."""
        late = self.coming_ms > _MOST_COMING_MS
        kept: list[OutMessage | _Skip] = [i for i in items if not (late and i.duration_ms)]
        if late:
            lost = [item.duration_ms for item in items if item.duration_ms]
            self.dropped += len(lost)
            self._skipped_ms += sum(lost)
        if self._skipped_ms and (not late or len(kept) > 0):
            kept.insert(0, _Skip(self._skipped_ms))
            self._skipped_ms = 0.0
        return kept

    def _work(
        self, work: Sequence[OutMessage | _Skip], deliver: Callable[[list[OutMessage]], None]
    ) -> None:
        made = list(self.convert(work))
        try:
            self._loop.call_soon_threadsafe(deliver, made)
        except RuntimeError:
            return  # the loop is closed, and with it every listener

    def convert(self, items: Sequence[OutMessage | _Skip]) -> Iterator[OutMessage]:
        """Yield `items` at the other rate; what is not audio keeps its place."""
        for item in items:
            if isinstance(item, _Skip):
                yield self._notice(item.duration_ms)
            elif isinstance(item.message, bytes):
                yield from self._audio(item.message, item.repeat)
            else:
                yield item

    def _notice(self, duration_ms: float) -> OutMessage:
        """Return the notice of audio that is left out; what follows is behind it."""
        at_ms = self._start_ms + self._filter.produced * 1000 / self._rate
        self._start_ms += duration_ms
        return OutMessage(gap_notice(GapReason.SLOW_LISTENER, self._track, at_ms, duration_ms))

    def _audio(self, message: bytes, repeat: int) -> Iterator[OutMessage]:
        """Yield a piece of audio, which may be silence of any length, at the other rate."""
        tail = 0
        if repeat > 1:  # once the filter has forgotten what was before, silence is a length
            tail = min(repeat, self._filter.taps)
            message, repeat = message * tail, repeat - tail
        size = self._source_rate * _BLOCK_SECONDS * self._channels * _BYTES_PER_SAMPLE
        for start in range(0, len(message), size):
            rows = codec.rows(message[start : start + size], self._channels)
            before = self._filter.produced
            made = self._filter.feed(rows.reshape(-1, self._channels))
            if len(made):
                yield self._message(made.astype("<i2").tobytes(), before, 1)
        if tail and repeat:
            before, unit = self._filter.produced, bytes(self._channels * _BYTES_PER_SAMPLE)
            if count := self._filter.skip(repeat):
                yield self._message(unit, before, count)

    def _message(self, content: bytes, start: int, repeat: int) -> OutMessage:
        """Return samples that start at one that was made, or silence of so many."""
        at_ms = self._start_ms + start * 1000 / self._rate
        length_ms = (self._filter.produced - start) * 1000 / self._rate
        return OutMessage(content, self._track, at_ms, length_ms, repeat)
