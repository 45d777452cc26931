"""When something was said besides audio, and where on the time line that is.

Providers give keys and marks no time of their own: they are where the audio of the chunk before
them ends, which nobody knows before all chunks are placed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from receiver.media import MediaFormat, Track
from receiver.timeline.ordering import Column, TrackIndex
from receiver.timeline.track_timeline import Placement


@dataclass(frozen=True, slots=True)
class EventPosition:
    """Right behind the latest chunk of the stream, the `chunks`th that came on its track."""

    track: Track | None = None  # none had come
    chunks: int = 0


def at_ms(
    moments: Iterable[EventPosition],
    tracks: Mapping[Track, TrackIndex],
    placements: Iterable[Placement],
    media: MediaFormat,
) -> tuple[int, ...]:
    """Return where moments are, in whole milliseconds; 0 is before all audio."""
    moments = tuple(moments)
    asked = {moment.track for moment in moments}
    ends = {
        placement.track: _ends(placement, tracks[placement.track])
        for placement in placements
        if placement.track in asked
    }
    return tuple(
        int(ends[moment.track][moment.chunks - 1]) // media.bytes_per_ms
        if moment.track in ends
        else 0
        for moment in moments
    )


def _ends(placement: Placement, index: TrackIndex) -> Column:
    """Return where each chunk's audio ends, in the order in which they came.

    That of one which was not written, because it came twice, is where the one before it ends.
    """
    chosen, runs = placement.order.chosen, list(placement.runs)
    brought = np.concatenate(([0], np.cumsum(index.size[chosen], dtype=np.int64)))
    lengths = [run.last - run.first for run in runs]
    shifts = [run.start - int(brought[run.first]) for run in runs]
    written = np.zeros(len(index), np.int64)
    written[chosen] = chosen
    ends = np.zeros(len(index), np.int64)
    ends[chosen] = brought[1:] + np.repeat(np.array(shifts, np.int64), lengths)
    found: Column = ends[np.maximum.accumulate(written)]
    return found
