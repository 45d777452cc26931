"""What was deleted is found by its tombstone: words, orders, pages, limits of a person."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from receiver.catalogue.catalogue import Catalogue
from receiver.catalogue.query import parse
from receiver.lifecycle import tombstones
from receiver.media import timestamp
from receiver.recording.store import Tombstone
from tests.receiver.helpers import recordings_builder as builder

NOW = datetime(2026, 12, 1, tzinfo=UTC)


def tombstone(number: int) -> Tombstone:
    """Return what is left of a recording of a day of November."""
    started = timestamp(builder.STARTED_AT_MS + number * 1000)
    return Tombstone(
        at=f"2026-{11 + number % 2}-30T10:00:00.000Z",
        what="deleted",
        who="ann",
        via="command",
        reason="asked for",
        id=f"{number:016x}",
        folder=f"2026/11/22/20261122T203000Z-{number:016x}",
        call_sid=f"CA{number}",
        started_at=started,
        duration_ms=1000.0 * (10 - number),
    )


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    """Yield the catalogue of a recording that is there and five that were deleted."""
    recordings = tmp_path / "recordings"
    builder.put(recordings, "ffff000011112222")
    for number in range(5):
        tombstones.append(recordings, tombstone(number))
    erased = msgspec.structs.replace(tombstone(7), what="erased")
    unknown = msgspec.structs.replace(tombstone(8), started_at="", call_sid="", duration_ms=0)
    for each in (erased, unknown):
        tombstones.append(recordings, each)
    with Catalogue(None, recordings) as found:
        found.reconcile()
        yield found


def numbers(catalogue: Catalogue, *pairs: tuple[str, str]) -> list[int]:
    """Return what a search for what was deleted finds, over all pages."""
    found, after = list[int](), ""
    while True:
        query = parse([("state", "deleted"), *pairs, ("after", after)], NOW)
        page = catalogue.page(query, {})
        found += [int(row.id, 16) for row in page.rows]
        assert {"deleted"} >= {row.state for row in page.rows}
        if page.next_after is None:
            return found
        after = page.next_after


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([], [4, 3, 2, 1, 0, 8]),
        ([("sort", "oldest"), ("limit", "2")], [8, 0, 1, 2, 3, 4]),
        ([("sort", "longest"), ("limit", "1")], [0, 1, 2, 3, 4, 8]),
        ([("sort", "shortest"), ("limit", "4")], [8, 4, 3, 2, 1, 0]),
        ([("call", "CA3")], [3]),
        ([("min_duration", "8"), ("max_duration", "9")], [2, 1]),
        ([("from", "2026-11-22T20:30:03Z")], [4, 3]),
        ([("from", "2026-11-22"), ("to", "2026-11-22T20:30:02Z")], [1, 0]),
        ([("param.queue", "sales")], []),
        ([("q", "0000000000000002")], [2]),
    ],
)
def test_words_find_what_was_deleted(
    catalogue: Catalogue, pairs: list[tuple[str, str]], expected: list[int]
) -> None:
    """In every order, page by page; what is unknown of one counts as the least."""
    assert expected == numbers(catalogue, *pairs)


def test_it_says_who_deleted_it_and_nothing_else(catalogue: Catalogue) -> None:
    """Other searches do not find it, and nobody who is limited by parameters does."""
    query = parse([("state", "deleted"), ("call", "CA1")], NOW)
    (row,) = catalogue.page(query, {}).rows
    assert "Deleted at 2026-12-30T10:00:00.000Z by ann: asked for." == row.verdict
    assert ({}, [], []) == (row.parameters, row.labels, row.tracks)
    assert [] == catalogue.page(query, {"queue": "sales"}).rows
    everything = catalogue.page(parse([], NOW), {}).rows
    assert ["ffff000011112222"] == [each.id for each in everything]
