"""Which track has lost what the numbers of all tracks together say is missing.

`number_tracks` asks the ledgers (`ledger`), and then whose the missing messages were:

1. Numbers of each track's own say which of the missing messages were its chunks, and never more
   than these. What is left belongs to a track that has no numbers, or to one that had not begun
   or had ended there; of two by the order in which the tracks take turns (`_Shares`).
2. Each track gets numbers of its own, between which just as many are missing.
3. Where numbers begin anew and no sequence numbers go on, the first number says what is lost
   (`_count_lost_at_restarts`).

An example, of a call whose outbound track is lost from number 6 on, and of which stop has 11:

    sequence    2   3   4   5   6   -   8   -   10  (stop 11)
    track       in  out in  out in      in      in
    missing                         out     out
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from receiver.media import GapKind, MediaFormat
from receiver.timeline.clock import counts_samples
from receiver.timeline.jumps import LARGEST_JITTER_MS
from receiver.timeline.ledger import (
    MOST_TIMES,
    OLDER_MS,
    OTHERS,
    NumberLedger,
    is_joined,
    missing_at_ends,
    missing_without_ledger,
    of_numbers,
    of_sequences,
    with_ends,
)
from receiver.timeline.ordering import WRAP, WRAP_LOSS, Count, Order, order, shared_order
from receiver.timeline.track_index import MISSING, Column, MessageIndex, TrackIndex

_ENOUGH: Final = 4
_SWAPPED: Final = 4
"""A chunk that was sent too early or too late is so many messages from its place."""
_EXACT_MS: Final = 5
"""Timestamps that are off by less show where there is no room for a lost chunk."""
_MOST_NOISE_MS: Final = 200
_NOISES: Final = 6
"""Timestamps show gaps that are longer than what they are usually off by, so many times."""
_LONGEST_LOSS: Final = 50
"""Where a counter and its clock began anew, a number that is higher says nothing of loss."""
_MOST_UNKNOWN: Final = 3
"""Before the chunks that a new count lacks so many times as many are lost; a pause is longer."""
_REMEMBERED: Final = 2
_FILLED: Final = 0.9
"""A gap of the clock that the missing chunks fill to this share is no pause."""


class Numbered(NamedTuple):
    """The order of each track, and how many messages are missing that were chunks of none.

    The latter is `None` where no sequence numbers say so.
    """

    orders: list[Order]
    unclaimed: int | None


def number_tracks(
    indices: Sequence[TrackIndex], messages: MessageIndex, media: MediaFormat
) -> Numbered:
    """Return the order of each track, with what the numbers of all of them say is missing.

    Args:
        indices: the tracks; each carried at least one chunk.
        messages: what else came.
        media: the format of the payloads.
    """
    if not indices:
        return Numbered([], missing_without_ledger([], messages, media))
    orders = [order(index) for index in indices]
    shared = shared_order(indices, orders)
    orders = shared or orders
    sequences = None if messages.incomplete else of_sequences(indices, orders, messages)
    by_numbers = shared is not None and (sequences is None or not shared[0].restarts)
    ledger = of_numbers(orders) if by_numbers else sequences
    head, tail = missing_at_ends(indices, sequences, messages, media) if sequences else (None, 0)
    if head is None and is_joined(indices, media):
        head = 0
    tracks = [_Track(index, found, media) for index, found in zip(indices, orders, strict=True)]
    if not sequences:
        _count_lost_at_restarts(tracks, ledger)
    unclaimed = None if messages.incomplete else missing_without_ledger(indices, messages, media)
    if ledger is None:
        return Numbered([replace(track.counted(), head=head) for track in tracks], unclaimed)
    ledger = with_ends(ledger, head or 0, tail)
    most_ms = messages.ended_ms - messages.started_ms + OLDER_MS
    shares = _Shares(tracks, ledger, own=not shared, refused=by_numbers, most_ms=most_ms)
    left = shares.distribute()
    if sequences and not by_numbers:
        unclaimed = max(0, left - messages.unnumbered)
    latest = [int(index.arrival.max()) for index in indices]
    numbered = [
        track.numbered(max(latest) - at, head_known=head is not None)
        for track, at in zip(tracks, latest, strict=True)
    ]
    return Numbered(numbered, unclaimed)


def _count_lost_at_restarts(tracks: Sequence[_Track], shared: NumberLedger | None) -> None:
    """Count what is lost where a counter began anew, by the number that it begins with.

    Without a shared counter, each track has its own.
    """
    lowest = _lowest(tracks)
    if shared is None:
        for track in tracks:
            track.lose_at_restarts(lowest)
        return
    for count in tracks[0].counts[1:]:
        room = sum(track.room_at(track.rank_of(count)) for track in tracks)
        behind = int(np.searchsorted(shared.ids, count.first))
        shared.ids[behind:] += _lost_at_restart(count.sent - lowest, room)


def _lowest(tracks: Sequence[_Track]) -> int:
    """Return the lowest number with which the sender began to count."""
    return min((count.sent for track in tracks for count in track.counts), default=0)


def _lost_at_restart(above_lowest: int, room: float) -> int:
    """Return how many chunks are lost where a counter began anew.

    Where it begins as it does elsewhere, the sender paused at most. Otherwise its first chunks
    are lost, and so are the last ones of the count before if those are not many more. Where the
    clock began anew, too, only a number that is not far above says so.
    """
    if not 0 < above_lowest <= (_LONGEST_LOSS if np.isinf(room) else room):
        return 0
    rest = room - above_lowest
    return round(room) if rest <= _MOST_UNKNOWN * above_lowest else above_lowest


class _Shares:
    """Which missing messages were chunks of which track.

    Args:
        tracks: the tracks.
        ledger: numbers of all of them; what is missing in it is claimed here.
        own: whether chunk numbers are each track's own.
        refused: whether chunks that were refused are no entries of the ledger.
        most_ms: for how long the tracks can have sent anything.
    """

    def __init__(
        self,
        tracks: Sequence[_Track],
        ledger: NumberLedger,
        *,
        own: bool,
        refused: bool,
        most_ms: float,
    ) -> None:
        self._ledger, self._tracks = ledger, tracks
        came = int((ledger.owners != OTHERS).sum())
        for at, track in enumerate(tracks):
            track.enter(at, ledger)
            track.limit(came, most_ms)
            track.claim_what_came(ledger, refused=refused)
        if own:
            self._claim_own()
        for track in tracks:
            track.claim_by_clock(ledger)
        if all(track.may_have_wrapped(ledger) for track in tracks):
            for track in tracks:
                track.begin_before_wrap(ledger)

    def _claim_own(self) -> None:
        """Claim what own numbers skip, and what they lack where counts begin."""
        ledger, tracks = self._ledger, self._tracks
        ends = [track.ends for track in tracks]
        inner = max(first for first, _ in ends), min(last for _, last in ends)
        claims = [claim for track in tracks for claim in track.own_claims(ledger)]
        for _, rank, track in sorted(claims, key=lambda claim: claim[0]):
            track.claim_own(rank, ledger, inner)
        for _, rank, track in claims:
            track.claim_swapped(rank, ledger)
        for track in tracks:
            track.claim_beginnings(_lowest(tracks), ledger)

    def distribute(self) -> int:
        """Give what is missing and unclaimed to the tracks that may have lost it.

        Of two tracks, the turn is that of the number two before it, or else of one behind it.

        Returns:
            How many none of them may have lost.
        """
        others, ledger, turns = 0, self._ledger, _Turns(self._ledger)
        for at in np.flatnonzero(ledger.left).tolist():
            first, left = int(ledger.ids[at]) + 1, int(ledger.left[at])
            for number in range(first, first + left):
                owner = self._give(at, turns.of(number, at))
                if owner == OTHERS:  # nor may any of them have lost the rest
                    others += first + left - number
                    break
                turns.give(number, owner)
            ledger.left[at] = 0
        return others

    def _give(self, at: int, turn: int) -> int:
        """Give one missing chunk to the track whose turn it is, if it may have lost it.

        Returns:
            Which track has lost it; `OTHERS` if none has, because it was no chunk.
        """
        begins_at = (
            min(track.begins_at() for track in self._tracks) if at else 0.0
        )  # or 1, who knows
        room = [track.room(at, begins_at) for track in self._tracks]
        if room[turn] < 1:
            turn = max(range(len(room)), key=room.__getitem__)
        if room[turn] < 1:
            return OTHERS
        self._tracks[turn].lose(at)
        return turn


class _Turns:
    """Whose turn each missing number is: the track's that has the number two before it.

    Where nobody has that, it is the turn of the next chunk behind it with a number as even or odd,
    or else of the nearest chunk before it. Numbers may skip millions, so none is kept for those
    that nobody has.
    """

    def __init__(self, ledger: NumberLedger) -> None:
        self._ids, self._owners = ledger.ids.tolist(), ledger.owners.tolist()
        self._given = dict[int, int]()  # the last two of the missing numbers, and whose they are
        entries = np.arange(len(ledger.ids))
        known = ledger.owners != OTHERS
        self._before = np.maximum.accumulate(np.where(known, entries, -1)).tolist()
        self._behind = []  # for even numbers, and for odd ones: the first entry from each on
        for odd in (0, 1):
            places = np.where(known & (ledger.ids % 2 == odd), entries, len(entries))
            self._behind.append([*np.minimum.accumulate(places[::-1])[::-1].tolist(), len(entries)])

    def of(self, number: int, at: int) -> int:
        """Return the track whose turn a number is that is missing behind an entry."""
        if (owner := self._owner(number - 2, at)) != OTHERS:
            return owner
        behind = self._behind[number % 2][at + 1]
        if behind < len(self._owners):
            return int(self._owners[behind])
        before = self._before[at]
        given = max(self._given, default=None)
        if given is not None and (before < 0 or given > self._ids[before]):
            return self._given[given]
        return int(self._owners[before]) if before >= 0 else 0

    def _owner(self, number: int, at: int) -> int:
        """Return who has a number that is at most one before an entry, or behind it."""
        for entry in (at, at - 1):
            if entry >= 0 and self._ids[entry] == number:
                return int(self._owners[entry])
        return self._given.get(number, OTHERS)

    def give(self, number: int, owner: int) -> None:
        """Note whose a missing number is; they come in order."""
        if len(self._given) == _REMEMBERED:
            del self._given[min(self._given)]
        self._given[number] = owner


class _Track:
    """One track's part of a ledger. Ranks are places in the track's order."""

    def __init__(self, index: TrackIndex, found: Order, media: MediaFormat) -> None:
        count = len(found.chosen)
        self._index, self._order, self._count = index, found, count
        self.counts = found.counts if found.numbers is not None else ()
        self._rank_of = np.full(len(index), count)
        self._rank_of[found.chosen] = np.arange(count)
        self._lost = np.zeros(count + 1, np.int64)  # before each chunk, and behind the last one
        self._came = np.zeros(count + 1, np.int64)  # likewise, and was not kept
        self._unused = np.zeros(count, np.int64)  # numbers before each chunk
        self._own = False
        self._anew = np.zeros(count + 1, bool)  # where own numbers begin anew
        self._anew[[self.rank_of(begun) for begun in self.counts[1:]]] = True
        self._rounds = 0  # by how much less its first number is than it was before it wrapped
        self._row_ranks: list[int] = []  # before which chunk each row was that was not kept
        self._usual_ms = float(np.median(index.size)) / media.bytes_per_ms
        self._noise_ms = np.inf
        self._most, self._given = np.inf, 0  # chunks that may be missing, and that are by turns
        self._free_ms = self._free(media)

    def enter(self, at: int, ledger: NumberLedger) -> None:
        """Find the track's chunks in a ledger, which knows it by `at`."""
        self._mine = np.flatnonzero(ledger.owners == at)  # entries of the ledger
        places = np.full(len(self._index), -1)
        places[ledger.rows[self._mine]] = self._mine
        self._places = np.maximum.accumulate(np.maximum(places[self._order.chosen], 0))
        ranks = self._rank_of[ledger.rows[self._mine]]
        self._ranks = np.minimum.accumulate(ranks[::-1])[::-1]  # some were swapped

    def rank_of(self, begun: Count) -> int:
        """Return before which of the track's chunks a count began."""
        assert self._order.numbers is not None  # noqa: S101  (it has counts)
        return int(np.searchsorted(self._order.numbers, begun.first))

    def _free(self, media: MediaFormat) -> NDArray[np.float64] | None:
        """Return how long the clock is free behind each chunk, if timestamps are exact.

        Where the clock began anew, too, nobody knows.
        """
        stamps, sizes = self._index.timestamp[self._order.chosen], self._index.size
        audio_ms = sizes[self._order.chosen][:-1] / media.bytes_per_ms
        if (stamps == MISSING).any() or len(stamps) < _ENOUGH or not self._usual_ms:
            return None
        steps = np.diff(stamps).astype(np.float64)
        samples = media.sample_rate / 1000
        if audio_ms.all() and counts_samples(steps / audio_ms / samples):
            steps /= samples
        free: NDArray[np.float64] = steps - audio_ms
        self._noise_ms = float(np.median(abs(free)))
        back = free < -_NOISES * max(_EXACT_MS, self._noise_ms)
        free[(free < -LARGEST_JITTER_MS) | (back & self._anew[1:-1])] = np.inf
        return free if self._noise_ms <= _MOST_NOISE_MS else None

    def room_at(self, rank: int) -> float:
        """Return for how many chunks the clock has room before a chunk."""
        if self._free_ms is None or not 0 < rank < self._count:
            return np.inf
        slack_ms = self._usual_ms / 2 if self._noise_ms <= _EXACT_MS else 3 * self._noise_ms
        return float(np.floor((self._free_ms[rank - 1] + slack_ms) / self._usual_ms))

    def lose_at_restarts(self, lowest: int) -> None:
        """Count what is lost where a counter of its own began anew."""
        for begun in self.counts[1:]:
            rank = self.rank_of(begun)
            self._lost[rank] = _lost_at_restart(begun.sent - lowest, self.room_at(rank))

    def claim_by_clock(self, ledger: NumberLedger) -> None:
        """Claim what fills a gap of the clock: as much is missing as the track would have sent.

        Where much less is missing, the sender paused there; where more is, others lost some, too.
        Own numbers say less than all where they skip some and began anew within what was lost.
        """
        if self._free_ms is None:
            return
        free_ms = np.where(np.isinf(self._free_ms), 0, self._free_ms)
        room = (free_ms / self._usual_ms + 0.5).astype(np.int64) - self._came[1:-1]
        noise = _NOISES * self._noise_ms / self._usual_ms
        known = self._skipped() if self._own else np.zeros_like(room)
        asked = (room >= np.maximum(known + 1, noise)) & ((known > 0) | (not self._own))
        for rank in (np.flatnonzero(asked) + 1).tolist():
            first, last = self._around(rank, ledger)
            missing, most = int(ledger.left[first:last].sum()), int(room[rank - 1])
            claimed = int(known[rank - 1])
            if _FILLED * most <= missing + claimed <= most + noise:
                self._lost[rank] += ledger.take(first, last, missing)
                self._anew[rank] |= self._own

    def _skipped(self) -> Column:
        """Return how many chunks own numbers say to be missing before each but the first."""
        assert self._order.numbers is not None  # noqa: S101  (they are its own)
        skipped: Column = np.diff(self._order.numbers) - 1 - self._unused[1:]
        skipped[self._anew[1:-1]] = self._lost[1:-1][self._anew[1:-1]]
        return skipped - self._came[1:-1]

    def claim_what_came(self, ledger: NumberLedger, *, refused: bool) -> None:
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
                if refused or row.kind in (GapKind.DISK, GapKind.PAUSED):
                    ledger.take(*self._around(rank, ledger), row.chunks)

    def _around(self, rank: int, ledger: NumberLedger) -> tuple[int, int]:
        """Return between which entries of the ledger a chunk would be that has this rank."""
        before = int(self._places[rank - 1]) if rank else 0
        behind = int(self._places[rank]) if rank < self._count else len(ledger.ids) - 1
        return min(before, behind), max(before, behind)

    @property
    def ends(self) -> tuple[int, int]:
        """Return the first and the last entry of the ledger that are the track's."""
        return (int(self._mine[0]), int(self._mine[-1])) if len(self._mine) else (0, 0)

    def own_claims(self, ledger: NumberLedger) -> Iterator[tuple[int, int, _Track]]:
        """Yield where the track's own numbers skip some: up to which entry, and before which rank.

        What may be claimed of the fewest entries to come is to be claimed first.
        """
        numbers = self._order.numbers
        if numbers is None:
            return
        self._own = True
        skips = np.append(False, np.diff(numbers) > 1) & ~self._anew[:-1]
        for rank in np.flatnonzero(skips).tolist():
            yield self._around(rank, ledger)[1], rank, self
            self._unused[rank] = int(numbers[rank] - numbers[rank - 1]) - 1 - self._came[rank]

    def claim_own(self, rank: int, ledger: NumberLedger, inner: tuple[int, int]) -> None:
        """Claim what own numbers skip before a rank; what nobody sent, they have never used.

        It is claimed first where all tracks were on (`inner`): elsewhere others may claim more.
        """
        first, last = self._around(rank, ledger)
        begin, end = (min(max(bound, first), last) for bound in inner)
        for part in ((begin, end), (first, begin), (end, last)):
            self._unused[rank] -= ledger.take(*part, max(0, int(self._unused[rank])))
        if self._came[rank]:
            self._unused[rank] = 0

    def claim_swapped(self, rank: int, ledger: NumberLedger) -> None:
        """Claim what own numbers skip and is missing nearby: the sender may have swapped two."""
        first, last = self._around(rank, ledger)
        near = max(0, first - _SWAPPED), min(len(ledger.ids) - 1, last + _SWAPPED)
        self._unused[rank] -= ledger.take(*near, max(0, int(self._unused[rank])))

    def claim_beginnings(self, lowest: int, ledger: NumberLedger) -> None:
        """Claim what own numbers lack where a count begins, if so much is missing there."""
        for begun in self.counts:
            rank = self.rank_of(begun)
            above = begun.sent - lowest - int(self._came[rank])
            first, last = self._around(rank, ledger)
            if 0 < above <= int(ledger.left[first:last].sum()):
                self._lost[rank] += ledger.take(first, last, above, latest=True)

    def begins_at(self) -> float:
        """Return with which own number the track began, as far as it is known."""
        numbers = self._order.numbers
        if not self._own or numbers is None:
            return np.inf
        return float(numbers[0] + self._rounds - self._lost[0] - self._came[0])

    def may_have_wrapped(self, ledger: NumberLedger) -> bool:
        """Return whether own numbers of 16 bits may have wrapped before they began, or later."""
        numbers = self._order.numbers
        wrapped = self._own and numbers is not None and int(numbers[-1]) >= WRAP - WRAP_LOSS
        return wrapped or self._begins_too_low(ledger)

    def _begins_too_low(self, ledger: NumberLedger) -> bool:
        """Return whether more is missing before the track than numbers below its first one."""
        return 1 < self.begins_at() < int(ledger.left[: self.ends[0]].sum())

    def begin_before_wrap(self, ledger: NumberLedger) -> None:
        """Count the first number as one behind a wrap, if it is too low for what is missing."""
        if self._begins_too_low(ledger):
            self._rounds = WRAP

    def limit(self, came: int, most_ms: float) -> None:
        """Bound what may be missing: many times what came, or what there was time for."""
        self._most = max(MOST_TIMES * came, most_ms / max(self._usual_ms, 1))

    def room(self, at: int, begins_at: float) -> float:
        """Return how many of the track's chunks may be missing behind an entry of the ledger.

        Args:
            at: the entry.
            begins_at: with which own numbers begin.
        """
        behind = int(np.searchsorted(self._mine, at, side="right"))
        most = self._most - self._given
        if behind == len(self._mine):
            return most
        rank = int(self._ranks[behind])
        if self._is_before(at):
            return min(self.begins_at() - begins_at, most)
        if self._own and not self._anew[rank]:
            return 0
        if not behind:
            return most
        return min(self.room_at(rank) - int(self._lost[rank] + self._came[rank]), most)

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
        self._given += 1

    def counted(self) -> Order:
        """Return the order by own numbers, with what restarts hide of loss, and nobody used."""
        if self._order.numbers is None:
            return self._order
        hidden = np.where(self._anew, self._lost, 0)[:-1]
        moved = np.cumsum(hidden - self._unused)
        bounds = self._order.not_kept_numbers
        if bounds is not None:
            at = np.searchsorted(self._order.numbers, bounds, side="right")
            bounds = np.where(bounds == MISSING, MISSING, bounds + np.append(0, moved)[at])
        return replace(self._order, numbers=self._order.numbers + moved, not_kept_numbers=bounds)

    def numbered(self, waited_ms: int, *, head_known: bool) -> Order:
        """Return the order, numbered so that what is missing is missing between the numbers."""
        missing, found = self._lost + self._came, self.counted()
        if not self._own:
            numbers = np.cumsum(1 + missing[:-1])
            found = replace(found, numbers=numbers, not_kept_numbers=self._row_numbers(numbers))
        return replace(
            found,
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
