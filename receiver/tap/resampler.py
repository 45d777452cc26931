"""Samples at another rate, by soxr, in a thread of its own: never on the event loop.

soxr comes with the extra `dsp`. One thread does all the work in the order in which it came in,
so that each stream's messages keep theirs.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from receiver.audio import codec
from receiver.media import GapReason
from receiver.tap.encoding.format import OutMessage, OutputSpec, gap_notice

_BLOCK_SECONDS: Final = 1
_TAIL_SECONDS: Final = 0.1
"""Of silence, after which the filter has forgotten what was before it (36 ms at most)."""
_BYTES_PER_SAMPLE: Final = 2
_MOST_COMING_MS: Final = 5000.0
"""Of one feed's audio that may wait for the thread; more is dropped, with a notice."""
_LONGEST_TEXT_WAIT_SECONDS: Final = 0.1
"""How long a text waits for more audio, which brings what the filter holds back before it."""
Done = Callable[[list[OutMessage], bool], None]


@dataclass(frozen=True, slots=True)
class _Skip:
    """Audio that was not resampled, because the thread had too much to do."""

    duration_ms: float


@functools.cache
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="resampler")


class Resampler:
    """Resamples what one feed sends, from the stream's rate to another.

    Texts (keys, marks, notices) stay where they are in the audio: the filter holds audio back for
    some milliseconds, and a text waits until all audio before it has come out.
    """

    def __init__(self, source_rate: int, spec: OutputSpec, *, start_ms: float) -> None:
        import soxr  # an extra, and only where it is asked for

        rate, channels = spec.rate or source_rate, spec.channels
        self._rate = rate
        self._source_rate = source_rate
        self._channels = channels
        self._track = spec.track
        self._start_ms = start_ms
        self._consumed = 0  # samples of each track
        self._produced = 0
        # Texts, and behind how many samples that will be produced they belong.
        self._texts: deque[tuple[int, OutMessage]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._submitted = 0  # lists of messages that the thread has yet to return
        self.dropped = 0  # pieces of audio that the thread had no time for
        self._skipped_ms = 0.0  # of them, what no notice was made of yet
        # Measured: "MQ" holds audio back for 15 to 36 ms, "HQ" for 21 to 138.
        self._fresh_stream: Callable[[], Any] = lambda: soxr.ResampleStream(
            source_rate, rate, channels, dtype="int16", quality="MQ"
        )
        self._stream = self._fresh_stream()
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
        self._run(lambda: self.convert(work, last=last), length_ms, last=last, done=done)

    def _run(
        self, make: Callable[[], Iterator[OutMessage]], length_ms: float, *, last: bool, done: Done
    ) -> None:
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
                self._schedule_texts(done)

        _thread().submit(self._work, make, deliver)

    def _schedule_texts(self, done: Done) -> None:
        """Schedule that waiting texts are sent, in case that no more audio comes."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._texts:
            self._timer = self._loop.call_later(_LONGEST_TEXT_WAIT_SECONDS, self._flush_texts, done)

    def _flush_texts(self, done: Done) -> None:
        self._timer = None
        if not self._submitted:
            self._run(self._drained, 0, last=False, done=done)

    def _drained(self) -> Iterator[OutMessage]:
        """Yield all that is held back; the filter starts afresh, as behind silence."""
        yield from self._flushed()
        yield from self._overdue()
        self._stream = self._fresh_stream()

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
        self,
        make: Callable[[], Iterator[OutMessage]],
        deliver: Callable[[list[OutMessage]], None],
    ) -> None:
        made = list(make())
        try:
            self._loop.call_soon_threadsafe(deliver, made)
        except RuntimeError:
            return  # the loop is closed, and with it every listener

    def convert(self, items: Sequence[OutMessage | _Skip], *, last: bool) -> Iterator[OutMessage]:
        """Yield `items` at the other rate; what is not audio keeps its place."""
        for item in items:
            if isinstance(item, _Skip):
                yield self._notice(item.duration_ms)
            elif isinstance(item.message, bytes):
                yield from self._audio(item.message, item.repeat)
            else:
                yield from self._text(item, last=last and item is items[-1])

    def _notice(self, duration_ms: float) -> OutMessage:
        """Return the notice of audio that is left out; what follows is behind it."""
        at_ms = self._start_ms + self._produced * 1000 / self._rate
        self._start_ms += duration_ms
        return OutMessage(gap_notice(GapReason.SLOW_LISTENER, self._track, at_ms, duration_ms))

    def _text(self, text: OutMessage, *, last: bool) -> Iterator[OutMessage]:
        """Yield a text when everything before it has come out of the filter."""
        if last:
            yield from self._flushed()
            yield from self._overdue()
            yield text
            return
        self._texts.append((self._consumed * self._rate // self._source_rate, text))
        yield from self._with_texts(self._produced, self._produced)

    def _overdue(self) -> Iterator[OutMessage]:
        """Yield all texts that wait."""
        while self._texts:
            yield self._texts.popleft()[1]

    def _with_texts(
        self, start: int, end: int, piece: Callable[[int, int], OutMessage] | None = None
    ) -> Iterator[OutMessage]:
        """Yield pieces of what was produced from sample `start` to `end`, and texts between."""
        while self._texts and self._texts[0][0] <= end:
            at, text = self._texts.popleft()
            if piece is not None and at > start:
                yield piece(start, at)
                start = at
            yield text
        if piece is not None and end > start:
            yield piece(start, end)

    def _audio(self, message: bytes, repeat: int) -> Iterator[OutMessage]:
        """Yield a piece of audio, which may be silence of any length, at the other rate."""
        tail = 0
        if repeat > 1:
            tail = min(repeat, int(self._source_rate * _TAIL_SECONDS))
            message, repeat = message * tail, repeat - tail
        for block in self._blocks(message):
            yield from self._made(block)
        if tail:
            yield from self._silence(repeat)

    def _silence(self, count: int) -> Iterator[OutMessage]:
        """Yield silence behind silence: one length, as all silence, which takes no room."""
        unit = bytes(self._channels * _BYTES_PER_SAMPLE)
        longest = self._source_rate * _BLOCK_SECONDS
        before = self._produced
        for start in range(0, count, longest):
            self._resample(unit * min(longest, count - start))

        def piece(start: int, end: int) -> OutMessage:
            return OutMessage(unit, self._track, *self._time(start, end), end - start)

        yield from self._with_texts(before, self._produced, piece)

    def _flushed(self) -> Iterator[OutMessage]:
        """Yield what the filter holds back."""
        return self._made(b"", last=True)

    def _blocks(self, message: bytes) -> Iterator[bytes]:
        size = self._source_rate * _BLOCK_SECONDS * self._channels * _BYTES_PER_SAMPLE
        return (message[start : start + size] for start in range(0, len(message), size))

    def _made(self, message: bytes, *, last: bool = False) -> Iterator[OutMessage]:
        before, size = self._produced, self._channels * _BYTES_PER_SAMPLE
        made = self._resample(message, last=last)

        def piece(start: int, end: int) -> OutMessage:
            content = made[(start - before) * size : (end - before) * size]
            return OutMessage(content, self._track, *self._time(start, end))

        yield from self._with_texts(before, self._produced, piece)

    def _time(self, start: int, end: int) -> tuple[float, float]:
        """Return when a piece starts on the stream's clock, and how long it is."""
        return self._start_ms + start * 1000 / self._rate, (end - start) * 1000 / self._rate

    def _resample(self, message: bytes, *, last: bool = False) -> bytes:
        samples = codec.rows(message, self._channels)
        self._consumed += len(message) // (self._channels * _BYTES_PER_SAMPLE)
        made: bytes = self._stream.resample_chunk(samples, last=last).tobytes()
        self._produced += len(made) // (self._channels * _BYTES_PER_SAMPLE)
        return made
