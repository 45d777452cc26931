"""What a sender's clock counts, and how fast it runs."""

from __future__ import annotations

from typing import Final

import numpy as np

from receiver.media import ClockRule, MediaFormat
from receiver.ordering import MISSING, Order, TrackIndex

LONGEST_JUMP_MS: Final = 60_000
"""A longer jump of the clock is silence only if the arrival times agree with it."""
_FULL_ROOM: Final = 0.99
"""Below this share of the room that the audio needs, timestamps cannot place it."""
_SHORTEST_DRIFT_MS: Final = 10_000
"""Over less time than this, arrival times say nothing about a clock's drift."""


def usual_size(index: TrackIndex) -> int:
    """Return the most frequent payload size in bytes."""
    sizes, counts = np.unique(index.size, return_counts=True)
    return int(sizes[counts.argmax()])


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
    if len(steps_ms) < 4:
        return ClockRule.TIMESTAMP
    usual_step = float(np.median(steps_ms / room_ms))
    if abs(usual_step / (media.sample_rate / 1000) - 1) < 0.02:
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
