"""Bounds of the memory that bridges a slow disk: which journals stop keeping chunks, and why.

Memory keeps what the disk has not taken yet. A disk that fails is bridged for `MOST_HELD_SECONDS`.
Bytes are bounded for each journal, and for all of them together.

A journal that stops keeping chunks frees nothing at once, but it stops growing. So the heaviest
ones stop, until those that go on have room: a flood on one stream costs no other stream's audio.

Example, in units of the bound for all journals together, which hold 1.1:

    a 0.5, b 0.4, c 0.2     all go on: too much, and 1.1 is above the spared 0.75
    a stops                 b and c hold 0.6, which is below it: they go on
    a holds 0.25 or less    a keeps chunks again (see `JournalWriter.start_dropping`)
    above 1.25 in all       every journal stops, whatever it holds
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, TypeVar

MOST_HELD_SECONDS: Final = 30.0
"""For how long memory bridges a disk that takes nothing, for each stream."""
MOST_HELD_BYTES: Final = 2**30
"""What all journals together may hold; beyond it the heaviest stop keeping chunks."""
MOST_HELD_BYTES_EACH: Final = 2**25
"""What one journal may hold. A stream brings under 100 KB a second, so a call never gets there."""
_SPARED: Final = 0.75
"""Of the bound for all, what those journals may hold that go on when it is passed."""
_LAST_RESORT: Final = 1.25
"""Of the bound for all, what no journal goes on beyond."""

_Journal = TypeVar("_Journal")


def too_heavy(growing: Mapping[_Journal, int], *, total: int) -> Iterator[tuple[_Journal, str]]:
    """Yield the journals that have to stop keeping chunks, heaviest first, and why.

    Args:
        growing: The bytes that each journal holds which still keeps chunks.
        total: The bytes that all journals hold, those which keep none any more among them.
    """
    spared = sum(growing.values())
    for journal in sorted(growing, key=growing.__getitem__, reverse=True):
        reason = _too_much(growing[journal], total=total, spared=spared)
        if not reason:
            return
        yield journal, reason
        spared -= growing[journal]


def _too_much(held: int, *, total: int, spared: int) -> str:
    """Return why the heaviest journal holds too much, or an empty text."""
    if held > MOST_HELD_BYTES_EACH:
        return "it holds too much"
    if total > MOST_HELD_BYTES * _LAST_RESORT:
        return "all together hold far too much"
    if total > MOST_HELD_BYTES and spared > MOST_HELD_BYTES * _SPARED:
        return "all together hold too much, and it the most"
    return ""
