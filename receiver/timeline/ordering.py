"""Which chunks of a track count, and in which order: the first half of the time line.

Everything here sees the whole track, so any reordering is repaired, not just what fits a
window. The plan of `order`:

1. A chunk is identified by its chunk number. Where any chunk of the track has none, or where
   numbers repeat for half of the track, its sequence number serves instead; where that fails
   too, its timestamp; and where timestamps are missing or too much alike, nothing: then all
   chunks are kept as they came.
2. A counter that restarted is made to go on (`_undo_restarts`). The numbers of chunks that were
   refused or dropped go through the same restarts, so that gaps can be explained by them.
3. Chunks are sorted by identity. Of equal ones the first to arrive is kept; others are
   duplicates (equal bytes) or conflicts (other bytes).

An example, of a 16-bit counter that wraps while two chunks overtake each other:

    arrived      65534  65535      0      2      1  65535
    unwrapped    65534  65535  65536  65538  65537  65535
    chosen       rows 0, 1, 2, 4, 3; `numbers` are 65534 to 65538 without a gap
    late         1, because 65537 arrived behind 65538
    duplicate    1, the second 65535, if its bytes are those of the first
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from receiver.media import Finding
from receiver.timeline.track_index import MISSING, Column, TrackIndex

_RESTART: Final = 1000
"""A number this far behind the highest one, later on the clock, is a restarted counter."""
_MOST_RESTARTS: Final = 64


@dataclass(frozen=True, slots=True)
class Order:
    """The chunks to write, as indices into the columns, in the order of the sender.

    `numbers` are their chunk numbers, restarts undone. They are `None` where nothing may be
    concluded from numbers, so that nobody can say how many chunks are missing between two.
    `not_kept_numbers` are, likewise, those of the first and the last chunk of each row of
    `TrackIndex.not_kept`.
    """

    chosen: Column
    numbers: Column | None = None
    not_kept_numbers: Column | None = None
    duplicate: int = 0  # came again with equal bytes
    conflict: int = 0  # came again with other bytes
    late: int = 0  # arrived behind one that belongs after them; these are chosen
    findings: tuple[Finding, ...] = ()


def order(index: TrackIndex) -> Order:
    """Return the order of a track that carried at least one chunk."""
    findings: list[Finding] = []
    numbers = index.not_kept_bounds.numbers
    unknown = np.full_like(numbers, MISSING)
    columns = (("chunk", index.number, numbers), ("sequence", index.sequence, unknown))
    for name, keys, bounds in columns:
        if (keys == MISSING).any():
            continue
        unwrapped, not_kept_numbers, restarts = _unwrapped(keys, bounds, index)
        found = _sorted_by(unwrapped, index)
        if found.conflict > 2 and 2 * found.conflict >= len(index):
            text = f"the {name} numbers repeat"
            findings.append(Finding("counters_unusable", text, index.track))
            continue
        if restarts:
            findings.append(Finding("counters_restarted", f"{restarts} times", index.track))
        if name == "chunk":
            known = unwrapped[found.chosen]
            found = replace(found, numbers=known, not_kept_numbers=not_kept_numbers)
        return replace(found, findings=tuple(findings))
    return replace(_without_numbers(index), findings=tuple(findings))


def _unwrapped(keys: Column, bounds: Column, index: TrackIndex) -> tuple[Column, Column, int]:
    """Return keys of chunks and of rows that were not kept, restarts undone, and their count.

    Both go through together, because a counter may have restarted among chunks that were not
    kept: each bound is put in where its row came, and taken out again.
    """
    _, stamps, chunks_before = index.not_kept_bounds
    known = bounds != MISSING
    kept = np.insert(np.ones(len(keys), bool), chunks_before[known], False)
    merged, restarts = _undo_restarts(
        np.insert(keys, chunks_before[known], bounds[known]),
        np.insert(index.timestamp, chunks_before[known], stamps[known]),
        kept,
    )
    unwrapped_bounds = bounds.copy()
    unwrapped_bounds[known] = merged[~kept]
    return merged[kept], unwrapped_bounds, restarts


def _undo_restarts(numbers: Column, timestamps: Column, kept: Column) -> tuple[Column, int]:
    """Return numbers that go on where the sender's counter restarted, and how often it did.

    A 16-bit counter of 20 ms chunks wraps after 22 minutes. A restart is a chunk that is more
    than `_RESTART` behind by number and ahead of everything so far by timestamp; a late chunk is
    behind by both. It gets the number behind the highest one so far, and so does, with the same
    shift, everything whose timestamp is not before its own. The timestamp of what was not `kept`
    may be nonsense, so it hides no restart. After too many restarts numbers are returned as they
    were.
    """
    unwrapped = numbers
    newest = np.maximum.accumulate(np.where(kept, timestamps, MISSING))
    for restarts in range(_MOST_RESTARTS):
        highest = np.maximum.accumulate(unwrapped)
        behind = unwrapped[1:] < highest[:-1] - _RESTART
        restarted = np.flatnonzero(behind & (timestamps[1:] > newest[:-1]))
        if not len(restarted):
            return unwrapped, restarts
        first = int(restarted[0]) + 1
        step = int(highest[first - 1]) + 1 - int(unwrapped[first])
        new_epoch = np.arange(len(numbers)) >= first
        new_epoch &= timestamps >= timestamps[first]
        unwrapped = np.where(new_epoch, unwrapped + step, unwrapped)
    return numbers, 0


def _sorted_by(keys: Column, index: TrackIndex, *, keep_conflicts: bool = False) -> Order:
    """Return the order by `keys`: of equal ones the first to arrive, the others counted."""
    arrived = np.argsort(keys, kind="stable")
    ordered = keys[arrived]
    repeats = np.concatenate(([False], ordered[1:] == ordered[:-1]))
    first = np.maximum.accumulate(np.where(repeats, 0, np.arange(len(arrived))))
    size, checksum = index.size[arrived], index.checksum[arrived]
    equal = (size == size[first]) & (checksum == checksum[first])
    dropped = repeats & equal if keep_conflicts else repeats
    chosen = arrived[~dropped]
    return Order(
        chosen,
        duplicate=int((repeats & equal).sum()),
        conflict=int((dropped & ~equal).sum()),
        late=int((keys < np.maximum.accumulate(keys))[chosen].sum()),
    )


def _without_numbers(index: TrackIndex) -> Order:
    """Return the order by timestamps if they tell chunks apart, else as the chunks arrived."""
    timestamps = index.timestamp
    distinct = len(np.unique(timestamps)) * 2 > len(timestamps)
    if distinct and not (timestamps == MISSING).any():
        return _sorted_by(timestamps, index, keep_conflicts=True)
    return Order(np.arange(len(index)))
