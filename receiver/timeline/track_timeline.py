"""The whole time line of one track: `place` orders, judges the clock and places.

The recording starts at stream time 0, so tracks line up with each other to the sample. Positions
are counted in bytes of payload, which are exact: every sample rate has whole samples per
millisecond.

Key presses and marks get no time of their own from providers. They are where the audio of the
chunk ends that came right before them, which is known once all chunks are placed (`at_ms`). Chunks
that came as 1, 3, 2 and a key behind the last of them: the key is at the end of chunk 2, wherever
that is.
"""

from __future__ import annotations

import itertools
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from receiver.media import ChunkCounts, ClockRule, Finding, GapKind, MediaFormat, Track, TrackGap
from receiver.timeline.anchoring import Anchors, anchors
from receiver.timeline.clock import (
    SenderTimes,
    clock_rules,
    drift_ppm,
    running_drift,
    without_useless_numbers,
)
from receiver.timeline.gaps import ByteGap, GapList
from receiver.timeline.numbering import number_tracks
from receiver.timeline.ordering import Order
from receiver.timeline.placement import TrackPlacer
from receiver.timeline.track_index import MISSING, Column, MessageIndex, TrackIndex


@dataclass(frozen=True, slots=True)
class Run:
    """Chunks `chosen[first:last]`, back to back from byte `start` of the time line on."""

    first: int
    last: int
    start: int


@dataclass(frozen=True, slots=True)
class Placement:
    """A track's time line. `length` is where its audio ends, in bytes.

    `unshown` chunks came and were not kept, and no gap stands for them.
    """

    track: Track
    order: Order
    length: int
    clock_rule: ClockRule
    findings: tuple[Finding, ...]
    ledger: ChunkCounts
    first_timestamp_ms: int | None
    drift_ppm: float | None
    gaps: GapList
    unshown: Counter[GapKind]
    _runs: array[int]  # a lossy call has so many that objects would take most of the memory

    @property
    def runs(self) -> Iterator[Run]:
        """Yield the runs, in their order."""
        return itertools.starmap(Run, zip(*[iter(self._runs)] * 3, strict=True))


def place(index: TrackIndex, media: MediaFormat, *, origin_ms: int = 0) -> Placement:
    """Return the time line of a recording's only track, as `place_tracks` does."""
    ((placement,), _) = place_tracks([index], media, origin_ms=origin_ms)
    return placement


class TimeLines(NamedTuple):
    """The time lines of all tracks that have chunks.

    `unclaimed` is how many messages of the stream never came that were chunks of none of them;
    `None` where no numbers say so.
    """

    placements: list[Placement]
    unclaimed: int | None


def place_tracks(
    indices: Sequence[TrackIndex],
    media: MediaFormat,
    *,
    origin_ms: int = 0,
    messages: MessageIndex | None = None,
) -> TimeLines:
    """Return the time lines of all tracks of a recording.

    Args:
        indices: the tracks; each carried at least one chunk.
        media: the format of its payloads.
        origin_ms: the timestamp at which stream time begins (`clock.origin_ms`).
        messages: what else came; by default nothing.
    """
    orders, unclaimed = number_tracks(indices, messages or MessageIndex(), media)
    ordered = [
        without_useless_numbers(index, found, media)
        for index, found in zip(indices, orders, strict=True)
    ]
    times = [
        SenderTimes(index, found, media, rule, origin_ms)
        for index, found, rule in zip(
            indices, ordered, clock_rules(indices, ordered, media), strict=True
        )
    ]
    if drift := running_drift(times):
        for track in times:
            track.without_drift(drift)
    stops = anchors([track.clock() for track in times])
    placed = []
    for index, found, at in zip(indices, ordered, stops, strict=True):
        placed.append(_placed(index, found, times.pop(0), at))  # and free the columns of its times
    return TimeLines(placed, unclaimed)


def _placed(index: TrackIndex, ordered: Order, times: SenderTimes, stops: Anchors) -> Placement:
    """Return the time line of one track."""
    placer = TrackPlacer(index, ordered, times.media, times, stops)
    placer.place_all()
    findings = (*ordered.findings, *placer.anomalies.findings(index.track, times.rule))
    if stops:
        text = f"{len(stops)} times, {sum(map(abs, stops.values()))} ms in all"
        findings = (*findings, Finding("clock_reanchored", text, index.track))
    untold = placer.untold if ordered.proven else 0
    first_stamp = int(index.timestamp[ordered.chosen[0]])
    return Placement(
        track=index.track,
        order=replace(ordered, numbers=None, not_kept_numbers=None),  # not needed any more
        length=placer.cursor,
        clock_rule=times.rule,
        findings=findings,
        ledger=_ledger(index, ordered),
        first_timestamp_ms=None if first_stamp == MISSING else first_stamp,
        drift_ppm=drift_ppm(index, ordered, times.rule),
        gaps=placer.gaps,
        unshown=placer.missing.unshown() + Counter({GapKind.LOST: untold}),
        _runs=placer.runs,
    )


def gaps_in_ms(placement: Placement, length: int, media: MediaFormat) -> tuple[TrackGap, ...]:
    """Return the gaps of a track in milliseconds; those of one kind that touch are one.

    Args:
        placement: the track.
        length: up to which byte it is filled with silence: the end of the longest track.
        media: the format of its payloads.
    """
    end = placement.length - placement.length % media.bytes_per_sample
    filled = [ByteGap(end, length, GapKind.SENDER_SILENCE)] if length > end else []
    found: list[ByteGap] = []
    for gap in (*placement.gaps, *filled):
        if found and (found[-1].stop, found[-1].kind) == (gap.start, gap.kind):
            found[-1] = replace(found[-1], stop=gap.stop)
        else:
            found.append(gap)
    return tuple(
        TrackGap(
            milliseconds(gap.start, media),
            milliseconds(gap.stop, media) - milliseconds(gap.start, media),
            gap.kind,
        )
        for gap in found
    )


def milliseconds(position: int, media: MediaFormat) -> float:
    """Return a position or length in bytes as milliseconds."""
    exact, rest = divmod(position, media.bytes_per_ms)
    return exact if not rest else position / media.bytes_per_ms


def _ledger(index: TrackIndex, ordered: Order) -> ChunkCounts:
    return ChunkCounts(
        received=len(index) + index.rejected,
        written=len(ordered.chosen),
        duplicate=ordered.duplicate,
        late=ordered.late,
        conflict=ordered.conflict,
        rejected=index.rejected,
    )


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
