"""What a sender's clock counts, where it begins, and how fast it runs.

All of it is decided with the whole track in view, before any chunk is placed. By the providers'
pages timestamps count milliseconds since the stream started. Some senders count samples, or from
long ago, or hardly at all, and some number the chunks of both tracks together. None says so: the
evidence is steps between neighbours. An example, for chunks of 160 bytes (20 ms of mu-law):

    step    numbers    what it says if most steps are so
    20      1, 2       the clock counts milliseconds (`clock_rule`)
    160     1, 2       it counts samples
    7       1, 2       it leaves too little room to place by it
    20      1, 3       2 is the other track's: numbers are shared (`without_useless_numbers`)
    40      1, 3       2 was lost
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from receiver.media import ClockRule, Finding, MediaFormat
from receiver.timeline.jumps import LONGEST_JUMP_MS, origin_of_first
from receiver.timeline.ordering import Order
from receiver.timeline.track_index import MISSING, Column, TrackIndex

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
    """Return the timestamp at which stream time begins, for all tracks of a recording.

    It is 0, or the earliest first timestamp where all of them are more than `LONGEST_JUMP_MS`
    ahead of their arrival: a sender that counts from long ago still says how its tracks lie to
    each other.
    """
    first = [(_first_stamp(track), int(track.arrival[0])) for track in tracks]
    if any(stamp == MISSING for stamp, _ in first):
        return 0
    return min((origin_of_first(stamp, arrival) for stamp, arrival in first), default=0)


def _first_stamp(track: TrackIndex) -> int:
    """Return the earliest timestamp of a track: its first chunks may have overtaken each other."""
    early = track.timestamp[:_BEGINNING]
    first = int(early[0])
    return first if first == MISSING else int(early[early >= first - LONGEST_JUMP_MS].min())


class ClockLookahead:
    """Tells a timestamp that stands alone (jitter) from a pause, by the chunks that follow it.

    A chunk's shift is how far its timestamp puts it behind where it would be had the sender
    never paused. After a pause the shift stays; one that stands alone is a jitter:

        shift of chunks    0  0  40  0  0  0     the third is ahead of the next ones by 40
        shift of chunks    0  0  40  40 40 40    a pause of 40: ahead of the next ones by 0

    Args:
        targets: at which byte each chunk's timestamp puts it; one that is `MISSING` gets the
            shift of the chunk before.
        places: at which byte each would be had its sender never paused.
    """

    def __init__(self, targets: Column, places: Column) -> None:
        stamped = np.where(targets == MISSING, 0, np.arange(len(targets)))
        self._shifts = (targets - places)[np.maximum.accumulate(stamped)]

    def ahead(self, first: int) -> int:
        """Return how many bytes chunk `first` is ahead of where three of four that follow put it.

        The lowest quarter of them is not followed, nor are those above it: what jitters is never
        placed too early, and a track that always jitters does not grow with it.
        """
        shifts = self._shifts[first : first + _LOOK_AHEAD]
        level = np.sort(shifts - shifts[0])[len(shifts) // 4]
        return max(0, -int(level))


def usual_size(index: TrackIndex) -> int:
    """Return the most frequent payload size in bytes: what a missing chunk is taken to have."""
    sizes, counts = np.unique(index.size, return_counts=True)
    return int(sizes[counts.argmax()])


def without_useless_numbers(index: TrackIndex, ordered: Order, media: MediaFormat) -> Order:
    """Return the order, without its chunk numbers where they do not say what is missing.

    So it is where both tracks share a counter: numbers are missing all the time, and the clock
    goes on as if they were not. They still tell chunks apart, but nothing may be concluded from
    them about loss. Numbers are useless if the clock leaves no room for most of what they skip.
    """
    if ordered.numbers is None:
        return ordered
    steps = np.diff(ordered.numbers)
    skips = steps > 1
    no_room = skips & _leaves_no_room(index, ordered, media)
    # Of few losses, a clock that jitters may show no room for most.
    enough = _ENOUGH if 4 * skips.sum() >= len(steps) else 3 * _ENOUGH
    if no_room.sum() < enough or 4 * no_room.sum() <= 3 * skips.sum():
        return ordered
    text = "chunk numbers are missing where the clock leaves no room"
    finding = Finding("counters_unusable", text, index.track)
    findings = (*ordered.findings, finding)
    return replace(ordered, numbers=None, not_kept_numbers=None, findings=findings)


def _leaves_no_room(index: TrackIndex, ordered: Order, media: MediaFormat) -> Flags:
    """Return, for each two neighbours, whether the clock has no room for what numbers skip there.

    There is none if the step is shorter than the chunk before and half of each missing one.
    Where a step makes no sense, the answer is whether hardly any two numbers of the track
    follow each other.
    """
    assert ordered.numbers is not None  # noqa: S101  (the caller checked)
    missing = np.diff(ordered.numbers) - 1
    stamps, sizes = index.timestamp[ordered.chosen], index.size[ordered.chosen][:-1]
    steps = np.diff(stamps)
    sane = (stamps != MISSING)[1:] & (stamps != MISSING)[:-1] & (abs(steps) <= LONGEST_JUMP_MS)
    sane &= sizes > 0
    ticks = _ticks_per_byte(steps[sane] / sizes[sane], missing[sane] == 0, media)
    no_room = steps < (sizes + missing * (usual_size(index) / 2)) * ticks
    few = (missing == 0).sum() < max(_ENOUGH, len(missing) / 20)
    found: Flags = np.where(sane, no_room, few)
    return found


def _ticks_per_byte(steps: NDArray[np.float64], beside: Flags, media: MediaFormat) -> float:
    """Return how many ticks of the clock a byte of audio takes.

    Args:
        steps: ticks per byte between neighbours.
        beside: which of those have numbers that follow each other; they are asked first.
        media: the format, for what it should be.
    """
    if beside.sum() >= _ENOUGH:
        return float(np.median(steps[beside]))
    samples = 1 / media.bytes_per_sample
    counts_samples = len(steps) and abs(np.median(steps) / samples - 1) < _EXACT
    return samples if counts_samples else 1 / media.bytes_per_ms


def clock_rule(index: TrackIndex, ordered: Order, media: MediaFormat) -> ClockRule:
    """Return what the timestamps of a track count, from neighbours whose step is sane.

    Too few of them are no evidence: then timestamps count milliseconds, as documented.
    """
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
    """Return how much faster the sender's clock runs than ours, in parts per million.

    It is the slope of the line that fits timestamps to arrival times best; `None` where
    timestamps are no complete clock of milliseconds, or arrivals span less than ten seconds.
    """
    stamps = index.timestamp[ordered.chosen]
    arrivals = index.arrival[ordered.chosen]
    if rule is not ClockRule.TIMESTAMP or (stamps == MISSING).any():
        return None
    if int(arrivals.max() - arrivals.min()) < _SHORTEST_DRIFT_MS:
        return None
    ours = arrivals - arrivals.mean()
    theirs = stamps - stamps.mean()
    return round(float((ours * theirs).sum() / (ours * ours).sum() - 1) * 1e6, 1)
