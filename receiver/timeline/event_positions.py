"""Where key presses and marks are on the time line.

Providers give them no time of their own. They are where the audio of the chunk ends that came
right before them, which is known once all chunks are placed. Chunks that came as 1, 3, 2 and a
key behind the last of them: the key is at the end of chunk 2, wherever that is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from receiver.media import MediaFormat, Track
from receiver.timeline.track_index import Column, TrackIndex
from receiver.timeline.track_timeline import Placement


@dataclass(frozen=True, slots=True)
class EventPosition:
    """Right behind the latest chunk of the stream, the `chunks`th that came on its track."""

    track: Track | None = None  # none had come
    chunks: int = 0


def at_ms(
    positions: Iterable[EventPosition],
    tracks: Mapping[Track, TrackIndex],
    placements: Iterable[Placement],
    media: MediaFormat,
) -> tuple[int, ...]:
    """Return where events are, in whole milliseconds of stream time; 0 is before all audio.

    Args:
        positions: behind which chunk each event came.
        tracks: the chunks of each track, as they came.
        placements: the time lines of the tracks that have audio.
        media: the format of their payloads.
    """
    positions = tuple(positions)
    asked = {position.track for position in positions}
    ends = {
        placement.track: _ends(placement, tracks[placement.track])
        for placement in placements
        if placement.track in asked
    }
    return tuple(
        int(ends[position.track][position.chunks - 1]) // media.bytes_per_ms
        if position.track in ends
        else 0
        for position in positions
    )


def _ends(placement: Placement, index: TrackIndex) -> Column:
    """Return at which byte each chunk's audio ends, in the order in which they came.

    One that was not written, because it came twice, ends where the one that came before it does.
    """
    chosen, runs = placement.order.chosen, list(placement.runs)
    audio_before = np.concatenate(([0], np.cumsum(index.size[chosen], dtype=np.int64)))
    lengths = [run.last - run.first for run in runs]
    shifts = [run.start - int(audio_before[run.first]) for run in runs]
    written = np.zeros(len(index), np.int64)
    written[chosen] = chosen
    ends = np.zeros(len(index), np.int64)
    ends[chosen] = audio_before[1:] + np.repeat(np.array(shifts, np.int64), lengths)
    found: Column = ends[np.maximum.accumulate(written)]
    return found
