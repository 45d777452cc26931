"""Bounds of memory: which journals stop keeping chunks, in which order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from receiver.journal import spool
from receiver.journal.spool import MOST_HELD_BYTES, MOST_HELD_BYTES_EACH, too_heavy

EACH = MOST_HELD_BYTES_EACH
HELD = st.dictionaries(st.integers(), st.integers(0, 2 * EACH), max_size=60)


def names(growing: dict[str, int], total: int | None = None) -> list[str]:
    """Return who has to stop; `total` is what is held with those who stopped before."""
    found = too_heavy(growing, total=sum(growing.values()) if total is None else total)
    return [name for name, _ in found]


def test_little_stops_none() -> None:
    """Nor does nothing at all, nor what is exactly at the bound."""
    assert [] == names({})
    assert [] == names({"a": EACH, "b": 0})


def test_one_that_holds_more_than_a_call_ever_does_stops_alone() -> None:
    """The others go on."""
    assert ["flood"] == names({"call": 1, "flood": EACH + 1, "other": EACH})


def test_when_all_hold_too_much_the_heaviest_stop_until_the_rest_has_room() -> None:
    """Three quarters of the bound are left to those who go on."""
    growing = {f"call {n}": EACH for n in range(32)}
    assert [] == names(growing)
    assert names(growing | {"flood": EACH // 2})[0] != "flood"
    assert 9 == len(names(growing | {"flood": EACH // 2}))


def test_what_stopped_before_counts_in_the_total_only() -> None:
    """Those that still grow are spared as long as they hold little."""
    assert [] == names({"a": 1, "b": 2}, total=MOST_HELD_BYTES + 1)


def test_the_last_resort_stops_all() -> None:
    """Memory is bounded, whichever journals hold it."""
    assert ["b", "a"] == names({"a": 1, "b": 2}, total=MOST_HELD_BYTES * 5 // 4 + 1)


@given(HELD, st.integers(0, MOST_HELD_BYTES))
def test_none_stops_before_a_heavier_one(growing: dict[int, int], stopped: int) -> None:
    """Each that goes on holds what one may, and together they hold what is spared."""
    total = sum(growing.values()) + stopped
    found = dict(too_heavy(growing, total=total))
    rest = [held for journal, held in growing.items() if journal not in found]
    assert not found or min(growing[journal] for journal in found) >= max(rest, default=0)
    assert all(held <= EACH for held in rest)
    if total > MOST_HELD_BYTES:
        assert not rest or sum(rest) <= MOST_HELD_BYTES * spool._SPARED
