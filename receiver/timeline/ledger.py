"""Ledgers: what the numbers of all tracks together say is missing.

Sequence numbers count the messages of a stream, whatever they carry, and some senders count the
chunks of both tracks together. Either is a ledger: a number that never came is a message that was
lost, and where none is missing nothing was, whatever the clock says.

1. Chunk numbers are shared where hardly any is on both tracks, and fewer are missing among those
   of both together than on each track by itself (`ordering.shared_order`).
   What they say holds where the sender swapped messages, too.
2. Sequence numbers are a ledger where they are distinct over the whole stream, do not begin anew,
   and mostly follow each other (`of_sequences`). What is missing before the first chunk
   and behind the last one is believed as far as the time allows it (`missing_at_ends`).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from receiver.media import GapKind, MediaFormat
from receiver.timeline.ordering import MOST_CONFLICTS, Order, all_rows, arrivals_of, undo_wraps
from receiver.timeline.track_index import MISSING, Column, MessageIndex, TrackIndex

_ENOUGH: Final = 4
OTHERS: Final = -1  # owns what is no chunk that counts
_ONE_EPOCH: Final = 1000
"""A number this far behind the highest one began anew."""
_FEWEST_STEADY: Final = 50
_LEAST_STEADY: Final = 0.1
_MOSTLY: Final = 0.5
"""This share of numbers follow the one before them, or at least `_FEWEST_STEADY` do."""
MOST_TIMES: Final = 10
"""No more is missing at an end than so many times what came, unless there was time for it."""
OLDER_MS: Final = 1000
"""A stream is joined in its middle if its clock is ahead of the arrivals by more."""
_SHORTEST_MS: Final = 10  # between two messages: chunks of 20 ms of two tracks


@dataclass(slots=True)
class NumberLedger:
    """Numbers in their order, and what came with each of them."""

    ids: Column
    owners: Column  # the place of the chunk's track, or `OTHERS`
    rows: Column  # the chunk, as it arrived on its track
    left: Column  # how many numbers are missing behind each, that no track has claimed

    @classmethod
    def of(cls, ids: Column, owners: Column, rows: Column) -> NumberLedger:
        """Return the ledger of distinct numbers in any order."""
        by = np.argsort(ids, kind="stable")
        ids = ids[by]
        return cls(ids, owners[by], rows[by], np.append(np.diff(ids) - 1, 0))

    def take(self, first: int, last: int, count: int, *, latest: bool = False) -> int:
        """Claim up to `count` missing numbers between two entries; return how many.

        The earliest are claimed first, or the `latest`.
        """
        taken = 0
        entries = range(last - 1, first - 1, -1) if latest else range(first, last)
        for at in entries if count else ():
            part = min(count - taken, int(self.left[at]))
            self.left[at] -= part
            taken += part
        return taken


def of_numbers(orders: Sequence[Order]) -> NumberLedger:
    """Return the ledger of a shared counter of chunks."""
    ids, owners, rows = [], [], []
    for at, found in enumerate(orders):
        assert found.numbers is not None  # noqa: S101  (shared ones are)
        ids.append(found.numbers)
        owners.append(np.full(len(found.numbers), at))
        rows.append(found.chosen)
    return NumberLedger.of(np.concatenate(ids), np.concatenate(owners), np.concatenate(rows))


def of_sequences(
    indices: Sequence[TrackIndex], orders: Sequence[Order], messages: MessageIndex
) -> NumberLedger | None:
    """Return the ledger of sequence numbers, from the first chunk to the last, or `None`.

    They are one if they behave as one: see the module's docstring.
    """
    if any((index.sequence == MISSING).any() for index in indices):
        return None
    owners, rows, _ = all_rows(indices)
    others = messages.sequences != MISSING
    sequences = np.concatenate([*(index.sequence for index in indices), messages.sequences[others]])
    ends = np.concatenate([*(index.end for index in indices), messages.ends[others]])
    owners = np.append(owners, np.full(int(others.sum()), OTHERS))
    rows = np.append(rows, np.flatnonzero(others))
    content = np.concatenate(
        [*(arrivals_of(index).content for index in indices), -1 - np.flatnonzero(others)]
    )
    came = np.argsort(ends, kind="stable")
    ids, owners, rows, content = sequences[came], owners[came], rows[came], content[came]
    chunks = np.flatnonzero(owners != OTHERS)
    inner = np.arange(len(ids))
    inner = (inner >= chunks[0]) & (inner <= chunks[-1])  # at the ends see `missing_at_ends`
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
        owners = np.where((owners == at) & dropped, OTHERS, owners)
    return NumberLedger.of(ids, owners, rows)


def _is_steady(ids: Column) -> bool:
    beside = int((np.diff(ids) == 1).sum())
    share = beside / (len(ids) - 1) if len(ids) > 1 else 0.0
    return share >= _MOSTLY or (beside >= _FEWEST_STEADY and share >= _LEAST_STEADY)


def missing_at_ends(
    indices: Sequence[TrackIndex], ledger: NumberLedger, messages: MessageIndex, media: MediaFormat
) -> tuple[int | None, int]:
    """Return how many messages are missing before the first chunk, if known, and after the last.

    A stream that was joined in its middle has a first number that the time before it cannot
    explain, and some senders' stop has any number.
    """
    first, last = int(ledger.ids[0]), int(ledger.ids[-1])
    chunks = int((ledger.owners != OTHERS).sum())
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
        in_time = each_ms * missing <= begins - messages.started_ms + OLDER_MS
        credible = in_time if paced else missing <= MOST_TIMES * chunks
        head = missing if missing >= 0 and credible else 0
    after = after[after != MISSING]
    if len(after) and last >= int(after.max()):  # it wrapped, too
        after = after + (last - int(after.max()) + 2**15) // 2**16 * 2**16
    after = np.unique(after[after > last])
    if not len(after):
        return head, 0
    tail = int(after[-1]) - last - len(after)
    in_time = each_ms * tail <= messages.ended_ms - ends + OLDER_MS
    return head, tail if in_time or tail <= MOST_TIMES * chunks else 0


def missing_without_ledger(
    indices: Sequence[TrackIndex], messages: MessageIndex, media: MediaFormat
) -> int | None:
    """Return how many messages never came of a stream that has no ledger, if that is known.

    So it is where nothing of a track came that has each second number, or nothing at all. They
    are believed as far as there was time for so many chunks, and where hardly any is there twice.
    """
    columns = [*(index.sequence for index in indices), messages.sequences]
    ids, counts = np.unique(np.concatenate(columns), return_counts=True)
    if not len(ids) or ids[0] == MISSING or (counts - 1).sum() > MOST_CONFLICTS * counts.sum():
        return None
    sizes = [float(np.median(index.size)) for index in indices]
    each_ms = min(sizes, default=0.0) / media.bytes_per_ms or _SHORTEST_MS
    missing = max(0, int(ids[-1] - ids[0]) + 1 - len(ids) - messages.unnumbered)
    in_time = missing * each_ms <= messages.ended_ms - messages.started_ms + OLDER_MS
    return missing if in_time else None


def _continues(indices: Sequence[TrackIndex]) -> bool:
    """Return whether a recording before this one holds the beginning of the stream."""
    rows = itertools.chain.from_iterable(index.not_kept for index in indices)
    return any(index.number_before is not None for index in indices) or any(
        row.kind is GapKind.SENDER_SILENCE for row in rows
    )


def is_joined(indices: Sequence[TrackIndex], media: MediaFormat) -> bool:
    """Return whether the stream is older than the recording: its clock is always ahead of ours."""
    if _continues(indices):
        return False
    for index in indices:
        stamps, arrivals = index.timestamp, index.arrival
        audio_ms = int(index.size.sum()) / media.bytes_per_ms
        if (stamps == MISSING).any() or int(np.ptp(arrivals)) < audio_ms / 2:
            return False
        if int((stamps - arrivals).min()) <= OLDER_MS:
            return False
    return True


def with_ends(ledger: NumberLedger, head: int, tail: int) -> NumberLedger:
    """Return a ledger with an entry before and behind it, and what is missing at its ends."""
    ids = np.concatenate(([ledger.ids[0] - head - 1], ledger.ids, [ledger.ids[-1] + tail + 1]))
    owners = np.concatenate(([OTHERS], ledger.owners, [OTHERS]))
    return NumberLedger.of(ids, owners, np.concatenate(([0], ledger.rows, [0])))
