"""Which chunks of a track count, and in which order: the first half of the time line.

Everything here sees the whole track, so any reordering is repaired, not just what fits a
window. The plan of `order`:

1. A chunk is identified by its chunk number. Where any chunk of the track has none, or where
   numbers repeat for half of the track, its sequence number serves instead; where that fails
   too, its timestamp; and where timestamps are missing or too much alike, nothing: then all
   chunks are kept as they came.
2. A counter that restarted is made to go on (`undo_restarts`). The numbers of chunks that were
   refused or dropped go through the same restarts, so that gaps can be explained by them.
   A counter that counts audio (milliseconds, samples, bytes) counts chunks behind that
   (`AudioCounter`).
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

from collections.abc import Iterator, Sequence
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
_HALF: Final = 0.5  # of the shortest chunk: a longer gap has one
_NEAR: Final = 50
"""No chunk is overtaken by more chunks than this."""
_BEGINNING: Final = 50
"""Within so many chunks stragglers of an old count are looked for."""
_SOON: Final = 8
"""Within so many chunks, and numbers, a counter that began anew goes on."""
_LEAST_STEP: Final = 5
"""A counter that adds less for each chunk of a track is shared by several tracks."""
_LATEST_MS: Final = 3000
"""No chunk comes later, by its timestamp, than one that it should have come before."""
_AS_A_WHOLE: Final = 3
"""A sender that repeats all of its counters is known by so many other chunks that follow."""


class Count(NamedTuple):
    """What a counter counted until it began anew: its lowest number, with restarts undone and as
    it was sent."""

    first: int
    sent: int


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
    counts: tuple[Count, ...] = ()  # the first one, and one more wherever the counter began anew
    number_before: int | None = None  # of the last chunk in the recording before
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
        audio = AudioCounter.of(keys, index) if name == "chunk" else None
        unit = audio.unit if audio else 1
        unwrapped, restarts, counts = undo_restarts(keys, arrivals_of(index), unit)
        found = sorted_by(unwrapped, index)
        if found.conflict > 2 and 2 * found.conflict >= len(index):
            text = f"the {name} numbers repeat"
            findings.append(Finding("counters_unusable", text, index.track))
            continue
        if name == "chunk":
            rows = index.not_kept_bounds
            found = replace(
                found,
                numbers=unwrapped[found.chosen],
                not_kept_numbers=like_neighbours(
                    scaled(bounds, unit), rows, scaled(keys, unit), unwrapped
                ),
                counts=counts,
                number_before=index.number_before,
            )
            found = audio.of_chunks(found, index.size) if audio else found
        return replace(found, findings=tuple(findings)).with_restarts(restarts, index.track)
    return replace(_without_numbers(index), findings=tuple(findings))


@dataclass(frozen=True, slots=True)
class AudioCounter:
    """A counter that adds to each number how much audio the chunk before has.

    It may count milliseconds, samples or bytes, of the call or of what was sent. Numbers are
    scaled to the shortest chunk until restarts are undone, and count chunks then:

        bytes     0  160  320  640  800
        chunks    0    1    2    4    5
    """

    unit: int  # by how much the number grows for a chunk of the shortest size
    shortest: float  # that size in bytes
    expected: float  # what a chunk has on the average

    @classmethod
    def of(cls, numbers: Column, index: TrackIndex) -> AudioCounter | None:
        """Return what the chunk numbers of a track count, if that is audio."""
        by = _least_disorder(numbers, arrivals_of(index), 1)
        steps, sizes = np.diff(numbers[by]), index.size[by][:-1]
        running = (steps > 0) & (sizes > 0)
        if running.sum() < _LEAST_STEP:
            return None
        steps, sizes = steps[running], sizes[running]
        by_byte = float(np.median(steps / sizes))
        beside = abs(steps - by_byte * sizes) <= 1  # whole numbers are rounded
        less = steps < by_byte * sizes - 1
        shortest = float(np.quantile(index.size, MOST_CONFLICTS))
        unit = round(by_byte * shortest)
        if unit < _LEAST_STEP or 2 * beside.sum() < len(steps) or 10 * less.sum() > len(steps):
            return None
        return cls(unit, shortest, float(index.size.mean()))

    def of_chunks(self, order: Order, sizes: NDArray[np.int32]) -> Order:
        """Return an order of which scaled numbers, restarts undone, count chunks."""
        units = order.numbers
        assert units is not None  # noqa: S101  (the caller has them)
        scale = self.shortest / self.expected
        rest = np.diff(units) - sizes[order.chosen[:-1]] / self.shortest
        missing = np.maximum(np.rint(rest * scale), rest >= _HALF).astype(np.int64)
        numbers = np.cumsum(np.append(round(int(units[0]) * scale), 1 + missing))

        def counted(known: Column) -> Column:
            at = np.searchsorted(units, known, side="right") - 1
            beyond = np.rint((known - units[at]) * scale).astype(np.int64)
            return np.where(known == MISSING, MISSING, numbers[at] + beyond)

        before = order.number_before
        bounds = order.not_kept_numbers
        return replace(
            order,
            numbers=numbers,
            not_kept_numbers=None if bounds is None else counted(bounds),
            number_before=None if before is None else round(before / self.unit * scale),
            counts=tuple(
                Count(int(counted(np.array([first]))[0]), round(sent * scale))
                for first, sent in order.counts
            ),
        )


def scaled(numbers: Column, unit: int) -> Column:
    """Return numbers in units of a counter; missing ones stay so."""
    return np.where(numbers == MISSING, MISSING, numbers // unit) if unit > 1 else numbers


class Arrivals(NamedTuple):
    """What tells chunks apart, in the order in which they came."""

    stamps: Column
    sequences: Column
    content: Column  # size and checksum in one number


def arrivals_of(index: TrackIndex) -> Arrivals:
    """Return what tells the chunks of a track apart."""
    content = index.size.astype(np.int64) << 32 | index.checksum
    return Arrivals(index.timestamp, index.sequence, content)


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


class Unwrapped(NamedTuple):
    """Numbers that go on where the sender's counter began anew; `restarts` are wraps, too."""

    numbers: Column
    restarts: int
    counts: tuple[Count, ...]


def undo_restarts(
    numbers: Column, arrivals: Arrivals, unit: int = 1, *, tracks: int = 1
) -> Unwrapped:
    """Return numbers that go on where the sender's counter began anew.

    A counter of 16 bits wraps, which its numbers alone show (`undo_wraps`). Others begin anew
    wherever they like: see `_restart`. The lowest number of the new count gets the number behind
    the highest one so far, and so does, with the same shift, everything behind it that is no
    straggler of the old count. After too many restarts numbers are returned as they were.
    Where a counter adds `unit` for each chunk, they are returned in such units.
    """
    wrapped, wraps = undo_wraps(numbers, arrivals.stamps, unit)
    numbers, unwrapped = scaled(numbers, unit), scaled(wrapped, unit)
    by = _least_disorder(unwrapped, arrivals, tracks)
    arrivals = Arrivals(*(column[by] for column in arrivals))
    found = _undo_restarts(numbers[by], unwrapped[by], arrivals, wraps)
    in_place = np.empty_like(numbers)
    in_place[by] = found.numbers
    return found._replace(numbers=in_place)


def _least_disorder(numbers: Column, arrivals: Arrivals, tracks: int) -> Column | slice:
    """Return the order of rows in which numbers fall back least, by default that of arrival.

    What overtook another on its way is in order again by timestamp or sequence number, so that
    numbers fall back only where the counter began anew.
    """
    best: Column | slice = slice(None)
    falls = int((np.diff(numbers) < 0).sum())
    for by in _other_orders(numbers, arrivals, tracks) if falls else ():
        fewer = int((np.diff(numbers[by]) < 0).sum())
        if fewer < falls:
            falls, best = fewer, by
    return best


def _other_orders(numbers: Column, arrivals: Arrivals, tracks: int) -> Iterator[Column]:
    """Yield the orders of rows by those counters that did not begin anew, too.

    Two tracks that are counted together have a chunk each for a timestamp: the numbers say which
    is the first.
    """
    if _is_one_count(arrivals.stamps, _LATEST_MS, tracks):
        yield np.argsort(arrivals.stamps, kind="stable")
        yield np.lexsort((numbers, arrivals.stamps))
    if _is_one_count(arrivals.sequences, _NEAR, 1) and (arrivals.sequences != numbers).any():
        yield np.argsort(arrivals.sequences, kind="stable")


def _is_one_count(counter: Column, most_behind: int, most_alike: int) -> bool:
    """Return whether a counter tells chunks apart, and never falls far back."""
    if (counter == MISSING).any() or (np.maximum.accumulate(counter) - counter).max() > most_behind:
        return False
    return int(np.unique(counter, return_counts=True)[1].max()) <= most_alike


def _undo_restarts(numbers: Column, unwrapped: Column, arrivals: Arrivals, wraps: int) -> Unwrapped:
    """Return `unwrapped` numbers without restarts, of rows in the order in which they are."""
    counts = [Count(int(unwrapped.min()), int(unwrapped.min()))]
    for restarts in range(_MOST_RESTARTS):
        first = _restart(unwrapped, arrivals)
        if first is None:
            return Unwrapped(unwrapped, wraps + restarts, tuple(counts))
        carried = _carried_on(unwrapped, arrivals, first)
        soon = slice(first, first + _SOON)
        new = (carried[soon] != unwrapped[soon]) & (carried[soon] > unwrapped[:first].max())
        begins = int(carried[soon][new].min())
        counts.append(Count(begins, int(numbers[soon][carried[soon] == begins][0])))
        unwrapped = carried
    return Unwrapped(numbers, 0, ())


def undo_wraps(numbers: Column, stamps: Column, unit: int = 1) -> tuple[Column, int]:
    """Return the numbers of a 16-bit counter as the nearest to their neighbours modulo 65,536.

    From near its end to near its beginning it wrapped, and back again is a straggler. A step over
    many numbers needs a clock that has room for them: otherwise the counter began anew. A counter
    adds `unit` for each chunk.
    """
    if numbers.min() < 0 or numbers.max() >= WRAP or np.ptp(numbers) < WRAP - WRAP_LOSS:
        return numbers, 0
    steps = np.diff(numbers)
    skipped = (steps + WRAP // 2) % WRAP - WRAP // 2
    known = (stamps[1:] != MISSING) & (stamps[:-1] != MISSING)
    skipped = skipped / unit
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
    - it never came, is more than `_NEAR` behind, and is not behind by timestamp, or ahead by
      sequence number, and is followed so; or
    - it came before with other bytes, and so did several that follow: all counters began anew; or
    - it is the highest so far once more, of another chunk that is ahead, and the next one follows:
      the count before had a single number; or it is of another chunk that is ahead, right before
      a number that begins anew: of a counter for both tracks, one has a single chunk of a count.
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
    anew = again | (fresh & (ahead | (stamps == MISSING) | _goes_on(arrivals.sequences)))
    far[-1] |= again[-1] and again.sum() == 1  # a chunk alone, and nothing behind it
    repeated = _came_with_other_bytes(numbers, arrivals) & (distance >= _SOON)
    between = again & ahead & np.append(anew[1:], False)
    alone = (distance == 0) & again & (ahead | _goes_on(arrivals.sequences))
    for row in np.flatnonzero(far | anew | repeated).tolist():
        if (
            far[row]
            or (anew[row] and _followers(numbers, anew | ahead, row))
            or (alone[row] and _is_followed(numbers, row))
            or (between[row] and _followers(numbers, anew | ahead, row + 1))
            or (repeated[row] and _followers(numbers, repeated, row) >= _AS_A_WHOLE)
        ):
            return _beginning(numbers, arrivals, row, distance, ahead)
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
    differs = other_bytes & (~same_stamp | _goes_on(sequences)) & ~same_sequence
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


def _goes_on(sequences: Column) -> Flags:
    """Return which rows have a sequence number that is ahead of all before it."""
    last = np.concatenate(([MISSING], np.maximum.accumulate(sequences)[:-1]))
    found: Flags = (sequences > last) & (last != MISSING)
    return found


def _came_with_other_bytes(numbers: Column, arrivals: Arrivals) -> Flags:
    """Return which rows have a number that came before with other bytes."""
    rows, again = _came_before(numbers)
    found: Flags = again & (arrivals.content != arrivals.content[rows])
    return found


def _followers(numbers: Column, anew: Flags, row: int) -> int:
    """Return with how many of the next chunks the counter goes on from a row on."""
    soon = slice(row + 1, row + 1 + _SOON)
    steps = numbers[soon] - numbers[row]
    return int(((steps > 0) & (steps <= _SOON) & anew[soon]).sum())


def _is_followed(numbers: Column, row: int) -> bool:
    """Return whether a number came twice, and several of the next chunks have the next ones."""
    soon = np.unique(numbers[row + 1 : row + 1 + _SOON])
    once = len(soon) == min(_SOON, len(numbers) - row - 1)
    once &= row < 2 or bool(numbers[row - 2] != numbers[row])
    return bool(once and len(soon) >= _AS_A_WHOLE and numbers[row] + 1 in soon)


def _beginning(
    numbers: Column, arrivals: Arrivals, row: int, distance: Column, ahead: Flags
) -> int:
    """Return the earliest row of the new count: the next chunk may have overtaken its first.

    `row` is of the new count, and each number is `distance` behind the highest before it, and
    perhaps `ahead` of all before it by timestamp.
    """
    rows, again = _came_before(numbers)
    other = _came_with_other_bytes(numbers, arrivals)
    stamps = np.where(arrivals.stamps == MISSING, 0, arrivals.stamps)
    step = np.median(np.diff(stamps))
    first, before, twin = row, row - 1, rows[row]
    while before > 0 and first - before <= _SOON:
        same = rows[before]
        leads_up = distance[before] > _SOON and numbers[before] < numbers[first]
        if leads_up or distance[before] < 0:  # if it leads up and is equal, it is silence
            near = numbers[first] - numbers[before] <= _SOON
            new = bool(leads_up and (near or other[before]))
        elif again[before]:
            new = any(column[before] != column[same] for column in arrivals)
            near = abs(numbers[before] - numbers[first]) <= _SOON
            new &= bool(near or (ahead[before] and numbers[before] < numbers[first]))
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
    most_restarts = sum(found.restarts for found in own)  # some are seen on one track only
    if not most_restarts and not _are_distinct([index.number for index in indices]):
        return None
    owners, _, came = all_rows(indices)
    both = [arrivals_of(index) for index in indices]
    arrivals = Arrivals(*(np.concatenate(pair)[came] for pair in zip(*both, strict=True)))
    numbers = np.concatenate([index.number for index in indices])
    unwrapped = np.empty_like(numbers)
    unwrapped[came], restarts, counts = undo_restarts(numbers[came], arrivals, tracks=2)
    tracks = [unwrapped[owners == at] for at in range(2)]
    if restarts > most_restarts or not _are_distinct(tracks):
        return None
    if 2 * (np.diff(np.unique(unwrapped)) == 1).sum() < len(unwrapped):
        return None  # they count something else than chunks
    own_counts = [count for found in own for count in found.counts]
    together = _unused([unwrapped]) + _skipped(counts, own_counts)
    if together >= _unused([found.numbers for found in own]) + _skipped(own_counts, own_counts):
        return None  # each track's own numbers say as much
    return [_by_shared(*pair, restarts, counts) for pair in zip(indices, tracks, strict=True)]


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


def _skipped(counts: Sequence[Count], known: Sequence[Count]) -> int:
    """Return how many numbers counts lack at their beginnings, if the lowest known one lacks none.

    Where a counter of both tracks begins anew, each track goes on with some number of its own.
    """
    lowest = min((count.sent for count in (*counts, *known)), default=0)
    return sum(count.sent - lowest for count in counts)


def _by_shared(
    index: TrackIndex, unwrapped: Column, restarts: int, counts: tuple[Count, ...]
) -> Order:
    rows = index.not_kept_bounds
    found = sorted_by(unwrapped, index)
    bounds = like_neighbours(rows.numbers, rows, index.number, unwrapped)
    numbers = unwrapped[found.chosen]
    known = replace(
        found,
        numbers=numbers,
        not_kept_numbers=bounds,
        counts=counts,
        number_before=index.number_before,
    )
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
