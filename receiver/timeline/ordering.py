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

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from receiver.media import Finding, Track
from receiver.timeline.track_index import MISSING, Bounds, Column, TrackIndex

Flags = NDArray[np.bool_]

_RESTART: Final = 1000
"""A number this far behind the highest one, later on the clock, is a restarted counter."""
MOST_CONFLICTS: Final = 0.01
"""A counter of which a larger share is on two chunks does not count both."""
_FEWEST_SHARED: Final = 20
"""Fewer chunks are no evidence of a shared counter."""
_MOST_RESTARTS: Final = 64
WRAP: Final = 65_536
WRAP_LOSS: Final = 3000
"""A 16-bit counter wraps from at most this many before its end to behind its beginning."""
_SHORTEST_MS: Final = 5  # of a chunk
_NEAR: Final = 50
"""No chunk is overtaken by more chunks than this."""
_BEGINNING: Final = 50
"""Within so many chunks stragglers of an old count are looked for."""
_SOON: Final = 8
"""Within so many chunks, and numbers, a counter that began anew goes on."""


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
    restarts: int = 0  # how often the counter wrapped or began anew
    late: int = 0  # arrived behind one that belongs after them; these are chosen
    findings: tuple[Finding, ...] = ()
    proven: bool = False  # numbers are of `numbering`: just as many are missing as were lost
    head: int | None = None  # how many are missing before the first chunk, if that is known
    tail: int = 0  # how many are missing behind the last chunk
    waited_ms: int = 0  # how long others came behind the last chunk

    def with_restarts(self, restarts: int, track: Track) -> Order:
        """Return the order with a finding about restarts, unless there were none."""
        if not restarts:
            return self
        finding = Finding("counters_restarted", f"{restarts} times", track)
        return replace(self, restarts=restarts, findings=(*self.findings, finding))


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
        found = sorted_by(unwrapped, index)
        if found.conflict > 2 and 2 * found.conflict >= len(index):
            text = f"the {name} numbers repeat"
            findings.append(Finding("counters_unusable", text, index.track))
            continue
        if name == "chunk":
            known = unwrapped[found.chosen]
            found = replace(found, numbers=known, not_kept_numbers=not_kept_numbers)
        return replace(found, findings=tuple(findings)).with_restarts(restarts, index.track)
    return replace(_without_numbers(index), findings=tuple(findings))


class Arrivals(NamedTuple):
    """What tells chunks apart, in the order in which they came."""

    stamps: Column
    sequences: Column
    content: Column  # size and checksum in one number


def arrivals_of(index: TrackIndex) -> Arrivals:
    """Return what tells the chunks of a track apart."""
    content = index.size.astype(np.int64) << 32 | index.checksum
    return Arrivals(index.timestamp, index.sequence, content)


def _unwrapped(keys: Column, bounds: Column, index: TrackIndex) -> tuple[Column, Column, int]:
    """Return keys of chunks and of rows that were not kept, restarts undone, and their count."""
    unwrapped, restarts = undo_restarts(keys, arrivals_of(index))
    return unwrapped, like_neighbours(bounds, index.not_kept_bounds, keys, unwrapped), restarts


def like_neighbours(bounds: Column, rows: Bounds, keys: Column, unwrapped: Column) -> Column:
    """Return numbers of what was not kept, restarts undone as around the place where it came.

    Between two chunks of different counts it is of the one that puts it nearer to them.
    """
    last = np.clip(rows.chunks_before - 1, 0, len(keys) - 1)
    following = np.clip(rows.chunks_before, 0, len(keys) - 1)
    near = unwrapped[last]
    as_last = bounds + near - keys[last]
    as_next = bounds + unwrapped[following] - keys[following]
    nearer = np.where(abs(as_next - near) < abs(as_last - near), as_next, as_last)
    wrapped = (bounds < WRAP_LOSS) & (bounds >= 0) & (keys.max() < WRAP)
    wrapped &= keys[last] >= WRAP - WRAP_LOSS  # and no chunk came behind the wrap
    nearer = np.where(wrapped & (nearer < near), as_last + WRAP, nearer)
    return np.where(bounds == MISSING, MISSING, nearer)


def undo_restarts(numbers: Column, arrivals: Arrivals) -> tuple[Column, int]:
    """Return numbers that go on where the sender's counter began anew, and how often it did.

    A counter of 16 bits wraps, which its numbers alone show (`undo_wraps`). Others begin anew
    wherever they like: see `_restart`. The lowest number of the new count gets the number behind
    the highest one so far, and so does, with the same shift, everything behind it that is no
    straggler of the old count. After too many restarts numbers are returned as they were.
    """
    unwrapped, wraps = undo_wraps(numbers, arrivals.stamps)
    for restarts in range(_MOST_RESTARTS):
        first = _restart(unwrapped, arrivals)
        if first is None:
            return unwrapped, wraps + restarts
        unwrapped = _carried_on(unwrapped, arrivals, first)
    return numbers, 0


def undo_wraps(numbers: Column, stamps: Column) -> tuple[Column, int]:
    """Return the numbers of a 16-bit counter as the nearest to their neighbours modulo 65,536.

    From near its end to near its beginning it wrapped, and back again is a straggler. A step over
    many numbers needs a clock that has room for them: otherwise the counter began anew.
    """
    if numbers.min() < 0 or numbers.max() >= WRAP or np.ptp(numbers) < WRAP - WRAP_LOSS:
        return numbers, 0
    steps = np.diff(numbers)
    skipped = (steps + WRAP // 2) % WRAP - WRAP // 2
    known = (stamps[1:] != MISSING) & (stamps[:-1] != MISSING)
    no_room = known & (abs(skipped) > _NEAR) & (np.diff(stamps) < skipped * _SHORTEST_MS)
    across = (abs(steps) > WRAP - WRAP_LOSS) & ~no_room
    rounds = np.concatenate(([0], np.cumsum(np.where(across, -np.sign(steps), 0))))
    return numbers + rounds * WRAP, int(np.ptp(rounds))


def _restart(numbers: Column, arrivals: Arrivals) -> int | None:
    """Return where the counter began anew first: the first number of its new count to arrive.

    It is a number that is not ahead of all before it, and no late or repeated chunk, because

    - it is more than `_RESTART` behind, and ahead of everything so far by timestamp; or
    - it came before with other bytes, or is ahead by timestamp, and neither sequence number nor
      timestamp say that it is the same chunk; and the next number follows soon, likewise; or
    - it never came, is more than `_NEAR` behind, is not behind by timestamp, and is followed so.
    """
    highest, stamps = np.maximum.accumulate(numbers), arrivals.stamps
    distance = np.concatenate(([-1], highest[:-1] - numbers[1:]))
    behind = distance >= 0
    if not behind.any():
        return None
    newest = np.concatenate(([MISSING], np.maximum.accumulate(stamps)[:-1]))
    ahead = behind & (stamps > newest) & (newest != MISSING)
    far = ahead & (distance > _RESTART)
    again = behind & _other_chunk(numbers, arrivals, ahead)
    fresh = ~_came_before(numbers)[1] & (distance > _NEAR)
    anew = again | (fresh & (ahead | (stamps == MISSING)))
    far[-1] |= again[-1] and again.sum() == 1  # a chunk alone, and nothing behind it
    for row in np.flatnonzero(far | anew).tolist():
        if far[row] or _is_followed(numbers, anew, row):
            return _beginning(numbers, arrivals, row, distance)
    return None


def _came_before(numbers: Column) -> tuple[Column, Flags]:
    """Return the row in which each number came first, and for which rows that was before."""
    _, first, place = np.unique(numbers, return_index=True, return_inverse=True)
    rows = first[place]
    return rows, rows < np.arange(len(numbers))


def _other_chunk(numbers: Column, arrivals: Arrivals, ahead: Flags) -> Flags:
    """Return which rows have a number that came before, with another chunk."""
    rows, again = _came_before(numbers)
    stamps, sequences = arrivals.stamps, arrivals.sequences
    same_stamp = (stamps == stamps[rows]) & (stamps != MISSING)
    same_sequence = (sequences == sequences[rows]) & (sequences != MISSING)
    other_bytes = arrivals.content != arrivals.content[rows]
    # A sender that began anew as a whole repeats timestamps, too: only sequence numbers go on.
    last = np.concatenate(([MISSING], np.maximum.accumulate(sequences)[:-1]))
    goes_on = (sequences > last) & (last != MISSING)
    differs = other_bytes & (~same_stamp | goes_on) & ~same_sequence
    found: Flags = again & (differs | (ahead & ~same_sequence))
    return found


def _other_than_before(numbers: Column, arrivals: Arrivals, first: int) -> Flags:
    """Return which rows from `first` on have a number of a row before it, and another chunk."""
    rows, _ = _came_before(numbers)
    rows, tail = rows[first:], slice(first, None)
    same = np.zeros(len(rows), bool)
    for counter in (arrivals.stamps, arrivals.sequences):
        same |= (counter[tail] == counter[rows]) & (counter[rows] != MISSING)
    found: Flags = (rows < first) & ~(same & (arrivals.content[tail] == arrivals.content[rows]))
    return found


def _is_followed(numbers: Column, anew: Flags, row: int) -> bool:
    """Return whether the counter goes on from a row on."""
    soon = slice(row + 1, row + 1 + _SOON)
    steps = numbers[soon] - numbers[row]
    return bool(((steps > 0) & (steps <= _SOON) & anew[soon]).any())


def _beginning(numbers: Column, arrivals: Arrivals, row: int, distance: Column) -> int:
    """Return the earliest row of the new count: the next chunk may have overtaken its first.

    `row` is of the new count, and each number is `distance` behind the highest before it.
    """
    rows, again = _came_before(numbers)
    stamps = np.where(arrivals.stamps == MISSING, 0, arrivals.stamps)
    step = np.median(np.diff(stamps))
    first, before, twin = row, row - 1, rows[row]
    while before > 0 and first - before <= _SOON:
        same = rows[before]
        if distance[before] < 0:
            new = False
        elif again[before]:
            new = any(column[before] != column[same] for column in arrivals)
            new &= bool(abs(numbers[before] - numbers[first]) <= _SOON)
        else:
            new = distance[before] > _NEAR or numbers[before] < numbers[:before].min()
            stamp = stamps[before] - step * (numbers[before] - numbers[row])
            new |= bool(abs(stamp - stamps[row]) < abs(stamp - stamps[twin]))
            new &= bool(abs(numbers[row] - numbers[before]) <= _SOON)
        first = before if new else first
        before -= 1
    return first


def _carried_on(numbers: Column, arrivals: Arrivals, first: int) -> Column:
    """Return numbers of which those from row `first` on, but for stragglers, go on."""
    highest, begins = int(numbers[:first].max()), int(numbers[first])
    rows = np.arange(first, len(numbers))
    tail = numbers[first:]
    old = rows - first < _BEGINNING
    old &= abs(tail - highest) < abs(tail - begins - (rows - first))
    stamps = arrivals.stamps[first:]
    old &= (stamps == MISSING) | (stamps <= arrivals.stamps[: first + 1].max())
    old &= ~_other_than_before(numbers, arrivals, first)
    new = tail[:_SOON][~old[:_SOON]]
    lowest = int(new[new >= begins - _SOON].min())
    highest = max(highest, int(tail[old].max(initial=highest)))
    shifted = np.where(old, tail, tail + highest + 1 - lowest)
    return np.concatenate((numbers[:first], shifted))


def all_rows(indices: Sequence[TrackIndex]) -> tuple[Column, Column, Column]:
    """Return owner and row of all chunks, and how to sort them by arrival."""
    owners = np.repeat(np.arange(len(indices)), [len(index) for index in indices])
    rows = np.concatenate([np.arange(len(index)) for index in indices])
    ends = np.concatenate([index.end for index in indices])
    return owners, rows, np.argsort(ends, kind="stable")


def shared_order(indices: Sequence[TrackIndex], own: Sequence[Order]) -> list[Order] | None:
    """Return the order of two tracks that share one counter of chunks, or `None`.

    Args:
        indices: the tracks.
        own: their order, were the numbers of each its own.
    """
    if len(indices) != 2 or any((index.number == MISSING).any() for index in indices):
        return None
    if sum(map(len, indices)) < _FEWEST_SHARED:
        return None
    most_restarts = max(found.restarts for found in own)
    if not most_restarts and not _are_distinct([index.number for index in indices]):
        return None
    owners, _, came = all_rows(indices)
    both = [arrivals_of(index) for index in indices]
    arrivals = Arrivals(*(np.concatenate(pair)[came] for pair in zip(*both, strict=True)))
    numbers = np.concatenate([index.number for index in indices])
    unwrapped = np.empty_like(numbers, np.int64)
    unwrapped[came], restarts = undo_restarts(numbers[came], arrivals)
    tracks = [unwrapped[owners == at] for at in range(2)]
    if restarts > most_restarts or not _are_distinct(tracks):
        return None
    if 2 * (np.diff(np.unique(unwrapped)) == 1).sum() < len(unwrapped):
        return None  # they count something else than chunks
    if _unused([unwrapped]) >= _unused([index.numbers for index in own]):
        return None  # each track's own numbers say as much
    return [_by_shared(*pair, restarts) for pair in zip(indices, tracks, strict=True)]


def _are_distinct(tracks: Sequence[Column]) -> bool:
    """Return whether hardly any number is on both tracks."""
    return len(np.intersect1d(tracks[0], tracks[1])) <= MOST_CONFLICTS * min(map(len, tracks))


def _unused(counters: Sequence[Column | None]) -> float:
    """Return how many numbers are missing between those of each counter."""
    unused = 0.0
    for numbers in counters:
        if numbers is None:
            return np.inf
        unused += float(np.maximum(np.diff(np.unique(numbers)) - 1, 0).sum())
    return unused


def _by_shared(index: TrackIndex, unwrapped: Column, restarts: int) -> Order:
    rows = index.not_kept_bounds
    found = sorted_by(unwrapped, index)
    bounds = like_neighbours(rows.numbers, rows, index.number, unwrapped)
    known = replace(found, numbers=unwrapped[found.chosen], not_kept_numbers=bounds)
    return known.with_restarts(restarts, index.track)


def sorted_by(keys: Column, index: TrackIndex, *, keep_conflicts: bool = False) -> Order:
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
        return sorted_by(timestamps, index, keep_conflicts=True)
    return Order(np.arange(len(index)))
