"""What a sender's clock counts, and how fast it runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from receiver.media import ClockRule, Finding, MediaFormat
from receiver.timeline.jumps import LONGEST_JUMP_MS, origin_of_first
from receiver.timeline.ordering import MISSING, Column, Order, TrackIndex

Flags = NDArray[np.bool_]

_BEGINNING: Final = 50
"""No chunk is overtaken by more at the beginning; what is behind is not the first one."""
_LOOK_AHEAD: Final = 25  # chunks: half a second
_FULL_ROOM: Final = 0.99
"""Below this share of the room that the audio needs, timestamps cannot place it."""
_SHORTEST_DRIFT_MS: Final = 10_000
"""Over less time than this, arrival times say nothing about a clock's drift."""
_EXACT: Final = 0.02
"""A clock that counts samples is no further from their number than this share."""
_ENOUGH: Final = 4
"""From fewer neighbours than this nothing is concluded."""


def origin_ms(tracks: Iterable[TrackIndex]) -> int:
    """Return where stream time begins: 0, or where all tracks agree that it is far from it.

    A sender whose timestamps count from long ago still says how its tracks lie to each other.
    """
    first = [(_first_stamp(track), int(track.arrival[0])) for track in tracks]
    if any(stamp == MISSING for stamp, _ in first):
        return 0
    return min((origin_of_first(stamp, arrival) for stamp, arrival in first), default=0)


def _first_stamp(track: TrackIndex) -> int:
    """Return where a track's clock begins: its first chunks may have overtaken each other."""
    early = track.timestamp[:_BEGINNING]
    first = int(early[0])
    return first if first == MISSING else int(early[early >= first - LONGEST_JUMP_MS].min())


class ClockLookahead:
    """What the chunks that follow one say of its timestamp.

    `targets` are where timestamps put a track's chunks, `places` where they would be if their
    sender never paused.
    """

    def __init__(self, targets: Column, places: Column) -> None:
        said = np.where(targets == MISSING, 0, np.arange(len(targets)))
        self._shifts = (targets - places)[np.maximum.accumulate(said)]

    def beyond(self, first: int) -> int:
        """Return how far chunk `first` is ahead of where three of four that follow put it.

        After a pause all are as far ahead, and so it is 0; one that stands alone jitters. Those
        in the lowest quarter are not believed, nor are those above it followed: what jitters
        is never placed too early, and a track that always jitters must not grow with it.
        """
        shifts = self._shifts[first : first + _LOOK_AHEAD]
        level = np.sort(shifts - shifts[0])[len(shifts) // 4]
        return max(0, -int(level))


def usual_size(index: TrackIndex) -> int:
    """Return the most frequent payload size in bytes."""
    sizes, counts = np.unique(index.size, return_counts=True)
    return int(sizes[counts.argmax()])


def without_useless_numbers(index: TrackIndex, ordered: Order, media: MediaFormat) -> Order:
    """Return the order without its chunk numbers where they do not tell what is missing.

    So it is where both tracks share a counter: numbers are missing all the time, and the clock
    goes on as if they were not. Then nothing may conclude from them that something is lost.
    """
    if ordered.numbers is None:
        return ordered
    apart = np.diff(ordered.numbers)
    skips = apart > 1
    idle = skips & _leaves_no_room(index, ordered, media)
    # Of few losses, a clock that jitters may show no room for most.
    enough = _ENOUGH if 4 * skips.sum() >= len(apart) else 3 * _ENOUGH
    if idle.sum() < enough or 4 * idle.sum() <= 3 * skips.sum():
        return ordered
    text = "chunk numbers are missing where the clock leaves no room"
    note = Finding("counters_unusable", text, index.track)
    return replace(ordered, numbers=None, bounds=None, findings=(*ordered.findings, note))


def _leaves_no_room(index: TrackIndex, ordered: Order, media: MediaFormat) -> Flags:
    """Tell where the clock goes on as if no chunk were missing between two neighbours.

    Where it says nothing, numbers of which hardly two follow each other are not believed.
    """
    assert ordered.numbers is not None  # noqa: S101  (the caller looked)
    missing = np.diff(ordered.numbers) - 1
    stamps, sizes = index.timestamp[ordered.chosen], index.size[ordered.chosen][:-1]
    steps = np.diff(stamps)
    sane = (stamps != MISSING)[1:] & (stamps != MISSING)[:-1] & (abs(steps) <= LONGEST_JUMP_MS)
    sane &= sizes > 0
    pace = _pace(steps[sane] / sizes[sane], missing[sane] == 0, media)
    no_room = steps < (sizes + missing * (usual_size(index) / 2)) * pace
    few = (missing == 0).sum() < max(_ENOUGH, len(missing) / 20)
    found: Flags = np.where(sane, no_room, few)
    return found


def _pace(paces: NDArray[np.float64], beside: Flags, media: MediaFormat) -> float:
    """Return the ticks of the clock for a byte of audio: of chunks `beside` each other, if any."""
    if beside.sum() >= _ENOUGH:
        return float(np.median(paces[beside]))
    samples = 1 / media.bytes_per_sample
    counts_samples = len(paces) and abs(np.median(paces) / samples - 1) < _EXACT
    return samples if counts_samples else 1 / media.bytes_per_ms


def clock_rule(index: TrackIndex, ordered: Order, media: MediaFormat) -> ClockRule:
    """Tell what the timestamps count, from neighbours whose step is sane."""
    stamps = index.timestamp[ordered.chosen]
    present = stamps != MISSING
    if 2 * present.sum() < len(stamps) or not present.any():
        return ClockRule.CHUNKS
    steps_ms = np.diff(stamps)
    room_ms = index.size[ordered.chosen][:-1] / media.bytes_per_ms
    if ordered.numbers is not None:
        missing = np.diff(ordered.numbers) - 1
        room_ms = room_ms + missing * (usual_size(index) / media.bytes_per_ms)
    sane = present[1:] & present[:-1] & (steps_ms >= 0) & (steps_ms <= LONGEST_JUMP_MS)
    sane &= room_ms > 0
    steps_ms, room_ms = steps_ms[sane], room_ms[sane]
    if len(steps_ms) < _ENOUGH:
        return ClockRule.TIMESTAMP
    usual_step = float(np.median(steps_ms / room_ms))
    if abs(usual_step / (media.sample_rate / 1000) - 1) < _EXACT:
        return ClockRule.SAMPLES
    # One chunk that is too long for its step is no slow clock, and neither is one that steps
    # in bursts: either the usual step or the whole way leaves enough room.
    whole_way = float(steps_ms.sum()) / float(room_ms.sum())
    return ClockRule.TIMESTAMP if max(usual_step, whole_way) >= _FULL_ROOM else ClockRule.CHUNKS


def drift_ppm(index: TrackIndex, ordered: Order, rule: ClockRule) -> float | None:
    """Return how much faster the sender's clock runs than ours, in parts per million."""
    stamps = index.timestamp[ordered.chosen]
    arrivals = index.arrival[ordered.chosen]
    if rule is not ClockRule.TIMESTAMP or (stamps == MISSING).any():
        return None
    if int(arrivals.max() - arrivals.min()) < _SHORTEST_DRIFT_MS:
        return None
    ours = arrivals - arrivals.mean()
    theirs = stamps - stamps.mean()
    return round(float((ours * theirs).sum() / (ours * ours).sum() - 1) * 1e6, 1)
