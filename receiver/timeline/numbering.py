"""What the numbers of all tracks together say is missing.

Sequence numbers count the messages of a stream, whatever they carry, and some senders count the
chunks of both tracks together. Either is a ledger: a number that never came is a message that was
lost, and where none is missing nothing was, whatever the clock says. `number_tracks` asks both:

1. Chunk numbers are shared where hardly any is on both tracks, and each follows the one that came
   before it on the other track (`ordering.shared_order`).
   What they say holds where the sender swapped messages, too.
2. Sequence numbers are a ledger where they are distinct over the whole stream, do not begin anew,
   and mostly follow each other (`_sequences`). What is missing before the first chunk and behind
   the last one is believed as far as the time allows it (`_ends`).
3. Numbers of each track's own say which of the missing messages were its chunks, and never more
   than these. What is left belongs to a track that has no numbers, or to one that had not begun
   or had ended there; of two by the order in which the tracks take turns (`_Shares`).
4. Each track gets numbers of its own, between which just as many are missing.

An example, of a call whose outbound track is lost from number 6 on, and of which stop has 11:

    sequence    2   3   4   5   6   -   8   -   10  (stop 11)
    track       in  out in  out in      in      in
    missing                         out     out
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from receiver.media import GapKind, MediaFormat
from receiver.timeline.ordering import (
    MOST_CONFLICTS,
    WRAP,
    WRAP_LOSS,
    Order,
    all_rows,
    arrivals_of,
    order,
    shared_order,
    undo_wraps,
)
from receiver.timeline.track_index import MISSING, Column, MessageIndex, TrackIndex

_ENOUGH: Final = 4
_OTHERS: Final = -1  # owns what is no chunk that counts
_ONE_EPOCH: Final = 1000
"""A number this far behind the highest one began anew."""
_FEWEST_STEADY: Final = 50
_LEAST_STEADY: Final = 0.1
_MOSTLY: Final = 0.5
"""This share of numbers follow the one before them, or at least `_FEWEST_STEADY` do."""
_SWAPPED: Final = 4
"""A chunk that was sent too early or too late is so many messages from its place."""
_MOST_TIMES: Final = 10
"""No more is missing at an end than so many times what came, unless there was time for it."""
_OLDER_MS: Final = 1000
"""A stream is joined in its middle if its clock is ahead of the arrivals by more."""
_EXACT_MS: Final = 5
"""Timestamps that are off by less show where there is no room for a lost chunk."""
_MOST_NOISE_MS: Final = 200
_NOISES: Final = 6
"""Timestamps show gaps that are longer than what they are usually off by, so many times."""
_FILLED: Final = 0.9
"""A gap of the clock that the missing chunks fill to this share is no pause."""


@dataclass(slots=True)
class _Ledger:
    """Numbers in their order, and what came with each of them."""

    ids: Column
    owners: Column  # the place of the chunk's track, or `_OTHERS`
    rows: Column  # the chunk, as it arrived on its track
    left: Column  # how many numbers are missing behind each, that no track has claimed

    @classmethod
    def of(cls, ids: Column, owners: Column, rows: Column) -> _Ledger:
        """Return the ledger of distinct numbers in any order."""
        by = np.argsort(ids, kind="stable")
        ids = ids[by]
        return cls(ids, owners[by], rows[by], np.append(np.diff(ids) - 1, 0))

    def take(self, first: int, last: int, count: int) -> int:
        """Claim up to `count` missing numbers between two entries; return how many."""
        taken = 0
        for at in range(first, last) if count else ():
            part = min(count - taken, int(self.left[at]))
            self.left[at] -= part
            taken += part
        return taken


def number_tracks(
    indices: Sequence[TrackIndex], messages: MessageIndex, media: MediaFormat
) -> list[Order]:
    """Return the order of each track, with what the numbers of all of them say is missing.

    Args:
        indices: the tracks; each carried at least one chunk.
        messages: what else came.
        media: the format of the payloads.
    """
    if not indices:
        return []
    orders = [order(index) for index in indices]
    shared = shared_order(indices, orders)
    orders = shared or orders
    sequences = None if messages.incomplete else _sequences(indices, orders, messages)
    by_numbers = shared is not None and (sequences is None or not shared[0].restarts)
    ledger = _of_numbers(orders) if by_numbers else sequences
    head, tail = _ends(indices, sequences, messages, media) if sequences else (None, 0)
    if head is None and _is_joined(indices, media):
        head = 0
    if ledger is None:
        return [replace(found, head=head) for found in orders]
    ledger = _between(ledger, head or 0, tail)
    tracks = _Shares(indices, orders, ledger, media, own=not shared, refused=by_numbers).tracks
    latest = [int(index.arrival.max()) for index in indices]
    return [
        track.numbered(max(latest) - at, head_known=head is not None)
        for track, at in zip(tracks, latest, strict=True)
    ]


def _of_numbers(orders: Sequence[Order]) -> _Ledger:
    """Return the ledger of a shared counter of chunks."""
    ids, owners, rows = [], [], []
    for at, found in enumerate(orders):
        assert found.numbers is not None  # noqa: S101  (shared ones are)
        ids.append(found.numbers)
        owners.append(np.full(len(found.numbers), at))
        rows.append(found.chosen)
    return _Ledger.of(np.concatenate(ids), np.concatenate(owners), np.concatenate(rows))


def _sequences(
    indices: Sequence[TrackIndex], orders: Sequence[Order], messages: MessageIndex
) -> _Ledger | None:
    """Return the ledger of sequence numbers, from the first chunk to the last, or `None`.

    They are one if they behave as one: see the module's docstring.
    """
    if any((index.sequence == MISSING).any() for index in indices):
        return None
    owners, rows, _ = all_rows(indices)
    others = messages.sequences != MISSING
    sequences = np.concatenate([*(index.sequence for index in indices), messages.sequences[others]])
    ends = np.concatenate([*(index.end for index in indices), messages.ends[others]])
    owners = np.append(owners, np.full(int(others.sum()), _OTHERS))
    rows = np.append(rows, np.flatnonzero(others))
    content = np.concatenate(
        [*(arrivals_of(index).content for index in indices), -1 - np.flatnonzero(others)]
    )
    came = np.argsort(ends, kind="stable")
    ids, owners, rows, content = sequences[came], owners[came], rows[came], content[came]
    chunks = np.flatnonzero(owners != _OTHERS)
    inner = np.arange(len(ids))
    inner = (inner >= chunks[0]) & (inner <= chunks[-1])  # at the ends see `_ends`
    ids, owners, rows, content = ids[inner], owners[inner], rows[inner], content[inner]
    ids, _ = undo_wraps(ids, np.full_like(ids, MISSING))
    if (ids < np.maximum.accumulate(ids) - _ONE_EPOCH).any() or len(ids) < _ENOUGH:
        return None
    ids, first, back = np.unique(ids, return_index=True, return_inverse=True)
    other = (content != content[first][back]) | (owners != owners[first][back])
    if other.sum() > MOST_CONFLICTS * len(other) or not _is_steady(ids):
        return None
    owners, rows = owners[first], rows[first]
    for at, found in enumerate(orders):
        dropped = ~np.isin(rows, found.chosen)
        owners = np.where((owners == at) & dropped, _OTHERS, owners)
    return _Ledger.of(ids, owners, rows)


def _is_steady(ids: Column) -> bool:
    beside = int((np.diff(ids) == 1).sum())
    share = beside / (len(ids) - 1) if len(ids) > 1 else 0.0
    return share >= _MOSTLY or (beside >= _FEWEST_STEADY and share >= _LEAST_STEADY)


def _ends(
    indices: Sequence[TrackIndex], ledger: _Ledger, messages: MessageIndex, media: MediaFormat
) -> tuple[int | None, int]:
    """Return how many messages are missing before the first chunk, if known, and after the last.

    A stream that was joined in its middle has a first number that the time before it cannot
    explain, and some senders' stop has any number.
    """
    first, last = int(ledger.ids[0]), int(ledger.ids[-1])
    chunks = int((ledger.owners != _OTHERS).sum())
    usual = float(np.median(np.concatenate([index.size for index in indices])))
    each_ms = usual / media.bytes_per_ms / len(indices)
    begins = min(int(index.arrival.min()) for index in indices)
    ends = max(int(index.arrival.max()) for index in indices)
    paced = ends - begins >= each_ms * chunks / 2
    opening_end = min(int(index.end[0]) for index in indices)
    before, after = messages.around(opening_end, max(int(index.end[-1]) for index in indices))
    head = None  # what the recording before this one holds is known by chunk numbers
    if not _continues(indices) and not len(before):
        head = 0 if first <= 2 else None
    elif not _continues(indices):
        missing = first - int(before.min()) - len(np.unique(before))
        in_time = each_ms * missing <= begins - messages.started_ms + _OLDER_MS
        credible = in_time if paced else missing <= _MOST_TIMES * chunks
        head = missing if missing >= 0 and credible else 0
    after = after[after != MISSING]
    if len(after) and last >= int(after.max()):  # it wrapped, too
        after = after + (last - int(after.max()) + 2**15) // 2**16 * 2**16
    after = np.unique(after[after > last])
    if not len(after):
        return head, 0
    tail = int(after[-1]) - last - len(after)
    in_time = each_ms * tail <= messages.ended_ms - ends + _OLDER_MS
    return head, tail if in_time or tail <= _MOST_TIMES * chunks else 0


def _continues(indices: Sequence[TrackIndex]) -> bool:
    """Return whether a recording before this one holds the beginning of the stream."""
    rows = itertools.chain.from_iterable(index.not_kept for index in indices)
    return any(index.number_before is not None for index in indices) or any(
        row.kind is GapKind.SENDER_SILENCE for row in rows
    )


def _is_joined(indices: Sequence[TrackIndex], media: MediaFormat) -> bool:
    """Return whether the stream is older than the recording: its clock is always ahead of ours."""
    if _continues(indices):
        return False
    for index in indices:
        stamps, arrivals = index.timestamp, index.arrival
        audio_ms = int(index.size.sum()) / media.bytes_per_ms
        if (stamps == MISSING).any() or int(np.ptp(arrivals)) < audio_ms / 2:
            return False
        if int((stamps - arrivals).min()) <= _OLDER_MS:
            return False
    return True


def _between(ledger: _Ledger, head: int, tail: int) -> _Ledger:
    """Return a ledger with an entry before and behind it, and what is missing at its ends."""
    ids = np.concatenate(([ledger.ids[0] - head - 1], ledger.ids, [ledger.ids[-1] + tail + 1]))
    owners = np.concatenate(([_OTHERS], ledger.owners, [_OTHERS]))
    return _Ledger.of(ids, owners, np.concatenate(([0], ledger.rows, [0])))


class _Shares:
    """Which missing messages were chunks of which track.

    Args:
        indices: the tracks.
        orders: their order.
        ledger: numbers of all of them; what is missing in it is claimed here.
        media: the format of the payloads.
        own: whether chunk numbers are each track's own.
        refused: whether chunks that were refused are no entries of the ledger.
    """

    def __init__(
        self,
        indices: Sequence[TrackIndex],
        orders: Sequence[Order],
        ledger: _Ledger,
        media: MediaFormat,
        *,
        own: bool,
        refused: bool,
    ) -> None:
        self._ledger = ledger
        self.tracks = [
            _Track(at, index, found, ledger, media)
            for at, (index, found) in enumerate(zip(indices, orders, strict=True))
        ]
        for track in self.tracks:
            track.claim_what_came(ledger, refused=refused)
        ends = [track.ends for track in self.tracks]
        inner = max(first for first, _ in ends), min(last for _, last in ends)
        claims = [claim for track in self.tracks if own for claim in track.own_claims(ledger)]
        for _, rank, track in sorted(claims, key=lambda claim: claim[0]):
            track.claim_own(rank, ledger, inner)
        for _, rank, track in claims:
            track.claim_swapped(rank, ledger)
        for track in self.tracks:
            track.claim_by_clock(ledger)
        if all(track.may_have_wrapped(ledger) for track in self.tracks):
            for track in self.tracks:
                track.begin_before_wrap(ledger)
        self._distribute()

    def _distribute(self) -> None:
        """Give what is missing and unclaimed to the tracks that may have lost it.

        Of two tracks, the turn is that of the number two before it, or else of one behind it.
        """
        ledger = self._ledger
        turns = np.full(int(ledger.ids[-1] - ledger.ids[0]) + 1, _OTHERS)
        turns[ledger.ids - ledger.ids[0]] = ledger.owners
        for at in np.flatnonzero(ledger.left).tolist():
            first = int(ledger.ids[at] - ledger.ids[0]) + 1
            for number in range(first, first + int(ledger.left[at])):
                turns[number] = self._give(at, _turn(turns, number))
            ledger.left[at] = 0

    def _give(self, at: int, turn: int) -> int:
        """Give one missing chunk to the track whose turn it is, if it may have lost it.

        Returns:
            Which track has lost it; `_OTHERS` if none has, because it was no chunk.
        """
        begins_at = (
            min(track.begins_at() for track in self.tracks) if at else 0.0
        )  # or 1, who knows
        room = [track.room(at, begins_at) for track in self.tracks]
        if room[turn] < 1:
            turn = max(range(len(room)), key=room.__getitem__)
        if room[turn] < 1:
            return _OTHERS
        self.tracks[turn].lose(at)
        return turn


def _turn(turns: Column, number: int) -> int:
    """Return which track's turn a number is, by those of the same parity, or the nearest one."""
    if number > 1 and turns[number - 2] != _OTHERS:
        return int(turns[number - 2])
    behind = turns[number + 2 :: 2]
    known = behind[behind != _OTHERS]
    if not len(known):
        before = turns[:number]
        known = before[before != _OTHERS][::-1]
    return int(known[0]) if len(known) else 0


class _Track:
    """One track's part of a ledger. Ranks are places in the track's order."""

    def __init__(
        self, at: int, index: TrackIndex, found: Order, ledger: _Ledger, media: MediaFormat
    ) -> None:
        count = len(found.chosen)
        self._index, self._order, self._count = index, found, count
        self._mine = np.flatnonzero(ledger.owners == at)  # entries of the ledger
        places = np.full(len(index), -1)
        places[ledger.rows[self._mine]] = self._mine
        self._places = np.maximum.accumulate(np.maximum(places[found.chosen], 0))
        self._rank_of = np.full(len(index), count)
        self._rank_of[found.chosen] = np.arange(count)
        self._ranks = self._rank_of[ledger.rows[self._mine]]
        self._lost = np.zeros(count + 1, np.int64)  # before each chunk, and behind the last one
        self._came = np.zeros(count + 1, np.int64)  # likewise, and was not kept
        self._unused = np.zeros(count, np.int64)  # numbers before each chunk
        self._own = False
        self._anew = np.zeros(count, bool)  # where own numbers begin anew
        self._rounds = 0  # by how much less its first number is than it was before it wrapped
        self._row_ranks: list[int] = []  # before which chunk each row was that was not kept
        self._usual_ms = float(np.median(index.size)) / media.bytes_per_ms
        self._noise_ms = np.inf
        self._free_ms = self._free(media)

    def _free(self, media: MediaFormat) -> NDArray[np.float64] | None:
        """Return how long the clock is free behind each chunk, if timestamps are exact."""
        stamps = self._index.timestamp[self._order.chosen]
        if (stamps == MISSING).any() or len(stamps) < _ENOUGH:
            return None
        free: NDArray[np.float64] = (
            np.diff(stamps) - self._index.size[self._order.chosen][:-1] / media.bytes_per_ms
        )
        self._noise_ms = float(np.median(abs(free)))
        return free if self._noise_ms <= _MOST_NOISE_MS else None

    def claim_by_clock(self, ledger: _Ledger) -> None:
        """Claim what fills a gap of the clock: as much is missing as the track would have sent.

        Where much less is missing, the sender paused there.
        """
        if self._free_ms is None or self._own:
            return
        room = (self._free_ms / self._usual_ms + 0.5).astype(np.int64) - self._came[1:-1]
        noise = _NOISES * self._noise_ms / self._usual_ms
        for rank in (np.flatnonzero(room >= max(1.0, noise)) + 1).tolist():
            first, last = self._around(rank, ledger)
            missing, most = int(ledger.left[first:last].sum()), int(room[rank - 1])
            if missing >= _FILLED * most:
                all_of_it = missing <= most + noise
                self._lost[rank] += ledger.take(first, last, missing if all_of_it else most)

    def claim_what_came(self, ledger: _Ledger, *, refused: bool) -> None:
        """Remove what came and was not kept from what is missing.

        Args:
            ledger: the ledger.
            refused: whether chunks that were refused are no entries of it.
        """
        chunks_before = self._index.not_kept_bounds.chunks_before[::2].tolist()
        chosen = np.sort(self._order.chosen)
        for row, before in zip(self._index.not_kept, chunks_before, strict=True):
            behind = int(np.searchsorted(chosen, before))
            rank = int(self._rank_of[chosen[behind]]) if behind < self._count else self._count
            self._row_ranks.append(rank)
            if row.kind is not GapKind.SENDER_SILENCE:
                self._came[rank] += row.chunks
                if refused or row.kind is GapKind.DISK:
                    ledger.take(*self._around(rank, ledger), row.chunks)

    def _around(self, rank: int, ledger: _Ledger) -> tuple[int, int]:
        """Return between which entries of the ledger a chunk would be that has this rank."""
        before = int(self._places[rank - 1]) if rank else 0
        behind = int(self._places[rank]) if rank < self._count else len(ledger.ids) - 1
        return min(before, behind), max(before, behind)

    @property
    def ends(self) -> tuple[int, int]:
        """Return the first and the last entry of the ledger that are the track's."""
        return (int(self._mine[0]), int(self._mine[-1])) if len(self._mine) else (0, 0)

    def own_claims(self, ledger: _Ledger) -> Iterator[tuple[int, int, _Track]]:
        """Yield where the track's own numbers skip some: up to which entry, and before which rank.

        What may be claimed of the fewest entries to come is to be claimed first.
        """
        numbers = self._order.numbers
        if numbers is None:
            return
        self._own = True
        offsets = numbers - self._index.number[self._order.chosen]
        self._anew = np.append(False, np.diff(offsets) % 2**16 != 0)
        skips = np.append(False, np.diff(numbers) > 1) & ~self._anew
        for rank in np.flatnonzero(skips).tolist():
            yield self._around(rank, ledger)[1], rank, self
            self._unused[rank] = int(numbers[rank] - numbers[rank - 1]) - 1 - self._came[rank]

    def claim_own(self, rank: int, ledger: _Ledger, inner: tuple[int, int]) -> None:
        """Claim what own numbers skip before a rank; what nobody sent, they have never used.

        It is claimed first where all tracks were on (`inner`): elsewhere others may claim more.
        """
        first, last = self._around(rank, ledger)
        begin, end = (min(max(bound, first), last) for bound in inner)
        for part in ((begin, end), (first, begin), (end, last)):
            self._unused[rank] -= ledger.take(*part, max(0, int(self._unused[rank])))
        if self._came[rank]:
            self._unused[rank] = 0

    def claim_swapped(self, rank: int, ledger: _Ledger) -> None:
        """Claim what own numbers skip and is missing nearby: the sender may have swapped two."""
        first, last = self._around(rank, ledger)
        near = max(0, first - _SWAPPED), min(len(ledger.ids) - 1, last + _SWAPPED)
        self._unused[rank] -= ledger.take(*near, max(0, int(self._unused[rank])))

    def begins_at(self) -> float:
        """Return with which own number the track began, as far as it is known."""
        numbers = self._order.numbers
        if not self._own or numbers is None:
            return np.inf
        return float(numbers[0] + self._rounds - self._lost[0] - self._came[0])

    def may_have_wrapped(self, ledger: _Ledger) -> bool:
        """Return whether own numbers of 16 bits may have wrapped before they began, or later."""
        numbers = self._order.numbers
        wrapped = self._own and numbers is not None and int(numbers[-1]) >= WRAP - WRAP_LOSS
        return wrapped or self._begins_too_low(ledger)

    def _begins_too_low(self, ledger: _Ledger) -> bool:
        """Return whether more is missing before the track than numbers below its first one."""
        return 1 < self.begins_at() < int(ledger.left[: self.ends[0]].sum())

    def begin_before_wrap(self, ledger: _Ledger) -> None:
        """Count the first number as one behind a wrap, if it is too low for what is missing."""
        if self._begins_too_low(ledger):
            self._rounds = WRAP

    def room(self, at: int, begins_at: float) -> float:
        """Return how many of the track's chunks may be missing behind an entry of the ledger.

        Args:
            at: the entry.
            begins_at: with which own numbers begin.
        """
        behind = int(np.searchsorted(self._mine, at, side="right"))
        if behind == len(self._mine):
            return np.inf
        rank = int(self._ranks[behind])
        if self._is_before(at):
            return self.begins_at() - begins_at
        if self._own and not (rank < self._count and self._anew[rank]):
            return 0
        if not behind or self._free_ms is None or not 0 < rank < self._count:
            return np.inf
        slack_ms = self._usual_ms / 2 if self._noise_ms <= _EXACT_MS else 3 * self._noise_ms
        missing = int(self._lost[rank] + self._came[rank])
        return float(self._free_ms[rank - 1] + slack_ms) // self._usual_ms - missing

    def _is_before(self, at: int) -> bool:
        """Return whether a chunk that is missing behind an entry may be before the first one.

        Its own numbers say which it is, and the first ones may have been swapped.
        """
        return self._own and at < self.ends[0] + _SWAPPED

    def lose(self, at: int) -> None:
        """Count a chunk that was lost behind an entry of the ledger."""
        behind = int(np.searchsorted(self._mine, at, side="right"))
        rank = int(self._ranks[behind]) if behind < len(self._mine) else self._count
        self._lost[0 if self._is_before(at) or not behind else rank] += 1

    def numbered(self, waited_ms: int, *, head_known: bool) -> Order:
        """Return the order, numbered so that what is missing is missing between the numbers."""
        missing = self._lost + self._came
        if self._own:
            assert self._order.numbers is not None  # noqa: S101  (they are its own)
            restarted = np.where(self._anew, self._lost[:-1], 0)  # numbers do not say it
            numbers = self._order.numbers + np.cumsum(restarted - self._unused)
            bounds = self._order.not_kept_numbers
            if bounds is not None:
                at = np.searchsorted(self._order.numbers, bounds, side="right")
                moved = np.append(0, numbers - self._order.numbers)[at]
                bounds = np.where(bounds == MISSING, MISSING, bounds + moved)
        else:
            numbers = np.cumsum(1 + missing[:-1])
            bounds = self._row_numbers(numbers)
        return replace(
            self._order,
            numbers=numbers,
            not_kept_numbers=bounds,
            head=int(missing[0]) if head_known or not self._own else None,
            tail=int(missing[-1]),
            waited_ms=waited_ms,
            proven=True,
        )

    def _row_numbers(self, numbers: Column) -> Column:
        """Return the numbers of rows that were not kept, right before the chunks behind them."""
        found: list[int] = []
        used = dict[int, int]()
        for row, rank in zip(self._index.not_kept, self._row_ranks, strict=True):
            if row.kind is GapKind.SENDER_SILENCE:
                found += [MISSING, MISSING]
                continue
            start = int(numbers[rank - 1]) + 1 if rank else int(numbers[0] - self._came[0])
            first = start + used.get(rank, 0)
            used[rank] = used.get(rank, 0) + row.chunks
            found += [first, first + row.chunks - 1]
        return np.array(found, np.int64)
