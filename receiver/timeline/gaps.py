"""The holes of a track's time line: where nothing was kept, and why."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from receiver.media import GapKind, MediaFormat
from receiver.timeline.missing import LossRecord, MissingChunks

_KINDS: Final = tuple(GapKind)


@dataclass(frozen=True, slots=True)
class ByteGap:
    """Bytes `[start, stop)` of the time line that no chunk covers."""

    start: int
    stop: int
    kind: GapKind


class GapList:
    """Collects holes in their order; each begins and ends on a sample.

    Chunks are `usual` bytes long, as far as anybody knows of those that are missing.
    """

    def __init__(self, excuses: MissingChunks, media: MediaFormat, usual: int) -> None:
        self._excuses = excuses
        self._usual = usual
        self._sample = media.bytes_per_sample
        self._rows = array("q")  # a lossy call has so many that objects would take most memory

    def __iter__(self) -> Iterator[ByteGap]:
        for start, stop, kind in zip(*[iter(self._rows)] * 3, strict=True):
            yield ByteGap(start, stop, _KINDS[kind])

    def add(self, start: int, stop: int, kind: GapKind) -> None:
        """Leave a hole, unless it is none."""
        if stop > start:
            self._rows.extend((start, stop, _KINDS.index(kind)))

    def explain(self, start: int, stop: int, missing: range) -> None:
        """Leave a hole where the `missing` chunks would be, split by what became of them."""
        before, border, position = len(self._rows), start, start
        for excuse, count, size in self._shares(stop - start, missing):
            position += size
            end = position // self._sample * self._sample
            kind = excuse.kind if excuse else GapKind.LOST
            if len(self._rows) > before and kind is _KINDS[self._rows[-1]]:
                self._rows[-2] = end  # it goes on where one of its kind ended
            else:
                self.add(border, end, kind)
            if excuse and end > border:
                self._excuses.show(excuse, count)
            border = end

    def _shares(self, size: int, missing: range) -> Iterator[tuple[LossRecord | None, int, int]]:
        """Yield the rows of `missing` chunks, and how much of a hole's size is each one's.

        Pauses of the sender may have made it longer than its chunks: the longest row gets them.
        """
        rows = list(self._excuses.of(missing))
        usual = min(self._usual, size // (missing.stop - missing.start))
        longest = max(range(len(rows)), key=lambda at: rows[at][1])
        rest = size - usual * (missing.stop - missing.start)
        for at, (excuse, count) in enumerate(rows):
            yield excuse, count, count * usual + (rest if at == longest else 0)
