"""Why chunks that are not there are not there: refused, or dropped while the disk was full."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from receiver.journal import DroppedRecord
from receiver.media import GapKind
from receiver.ordering import TrackIndex

_MOST_ASKED = 100_000
"""A hole of more chunks than this is not looked at one by one."""


@dataclass(frozen=True, slots=True, order=True)
class _Excuse:
    first: int  # chunk number
    last: int
    kind: GapKind


class Excuses:
    """What is known of a track's missing chunks, by chunk number."""

    def __init__(self, index: TrackIndex) -> None:
        self._refused = {refused.chunk for refused in index.rejected}
        self._rows = _apart(row for row in map(_dropped, index.dropped) if row)
        self._unnumbered = [row.kind for row in index.dropped]

    def kind_of(self, number: int) -> GapKind:
        """Return why chunk `number` is missing; nobody knowing is LOST."""
        if number in self._refused:
            return GapKind.REJECTED
        at = bisect_right(self._rows, number, key=lambda row: row.first) - 1
        known = at >= 0 and number <= self._rows[at].last
        return self._rows[at].kind if known else GapKind.LOST

    def rows(self, first: int, last: int) -> list[tuple[GapKind, int]]:
        """Return the chunks `[first:last]` as rows of one kind, each with its length."""
        if last - first > _MOST_ASKED:
            return [(GapKind.LOST, last - first)]
        kinds = itertools.groupby(range(first, last), self.kind_of)
        return [(kind, sum(1 for _ in row)) for kind, row in kinds]

    def of_unnumbered(self) -> GapKind:
        """Return the kind of a hole on a track whose chunks have no numbers."""
        return self._unnumbered[0] if self._unnumbered else GapKind.LOST


def _apart(rows: Iterable[_Excuse]) -> list[_Excuse]:
    """Return rows by their first chunk; where they overlap, the one that begins first counts."""
    apart: list[_Excuse] = []
    for row in sorted(rows):
        first = max(row.first, apart[-1].last + 1) if apart else row.first
        if first <= row.last:
            apart.append(_Excuse(first, row.last, row.kind))
    return apart


def _dropped(row: DroppedRecord) -> _Excuse | None:
    """Return a row of dropped chunks, unless its counters make no sense."""
    if row.first_chunk is None or row.last_chunk is None:
        return None
    if not row.first_chunk <= row.last_chunk < row.first_chunk + 2 * row.chunks:
        return None
    return _Excuse(row.first_chunk, row.last_chunk, row.kind)
