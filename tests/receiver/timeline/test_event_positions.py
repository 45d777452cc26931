"""When keys and marks came, and where that is once all chunks are placed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.journal.records import ChunkRecord
from receiver.media import MediaFormat, Track
from receiver.timeline.track_index import TrackIndex
from receiver.timeline.track_timeline import EventPosition, at_ms, place
from tests.receiver.helpers.journals import chunk

MULAW = MediaFormat()
IN, OUT = Track
FAR_MS = 1_790_000_000_000


def asked(
    positions: Iterable[EventPosition],
    chunks: Mapping[Track, Iterable[ChunkRecord]],
    *,
    origin_ms: int = 0,
) -> tuple[int, ...]:
    """Return where events are among placed chunks."""
    tracks = {track: TrackIndex(track) for track in chunks}
    for track, records in chunks.items():
        for record in records:
            tracks[track].add(record, 0)
    placements = [place(index, MULAW, origin_ms=origin_ms) for index in tracks.values()]
    return at_ms(positions, tracks, placements, MULAW)


def call(*stamps: int | None) -> list[ChunkRecord]:
    """Return numbered chunks of 20 ms."""
    return [
        chunk(n, bytes([n]) * 160, timestamp_ms=stamp, arrival_ms=20 * n)
        for n, stamp in enumerate(stamps)
    ]


@pytest.mark.parametrize(
    ("stamps", "origin_ms"),
    [
        (range(0, 1200, 20), 0),
        (range(0, 9600, 160), 0),  # samples
        ([None] * 60, 0),
        (range(FAR_MS, FAR_MS + 1200, 20), FAR_MS),
        ([*range(0, 600, 20), *range(10**9, 10**9 + 600, 20)], 0),  # the clock was set anew
        (range(0, 600, 10), 0),  # it is far too slow
        ([0] * 60, 0),
    ],
)
def test_they_are_where_the_audio_before_them_ends(
    stamps: Iterable[int | None], origin_ms: int
) -> None:
    """Whatever the sender's clock counts, and from when."""
    found = asked(
        [EventPosition(), EventPosition(IN, 1), EventPosition(IN, 50)],
        {IN: call(*stamps)},
        origin_ms=origin_ms,
    )
    assert (0, 20, 1000) == found


def test_pauses_are_before_them() -> None:
    """A key behind the first chunk is before the pause, one behind the second is after it."""
    found = asked([EventPosition(IN, 1), EventPosition(IN, 2)], {IN: call(0, 3000)})
    assert (20, 3020) == found


def test_each_track_has_its_own_place() -> None:
    """The chunk before a key may be of either track."""
    chunks = {IN: call(0, 20, 40), OUT: call(500, 520)}
    assert (520, 60) == asked([EventPosition(OUT, 1), EventPosition(IN, 3)], chunks)


def test_a_chunk_that_came_again_moves_nothing() -> None:
    """It is not written, so the one that came before it counts."""
    first, second, third = call(0, 20, 40)
    came = [first, second, first, third]
    found = asked([EventPosition(IN, n) for n in range(1, 5)], {IN: came})
    assert (20, 40, 40, 60) == found


def test_a_chunk_that_was_overtaken_is_in_its_place() -> None:
    """A key behind a late chunk is where that one ends."""
    first, second, third = call(0, 20, 40)
    found = asked([EventPosition(IN, n) for n in (2, 3)], {IN: [first, third, second]})
    assert (60, 40) == found


def test_a_track_of_which_nothing_could_be_placed_has_no_time() -> None:
    """There is no audio that it could be behind."""
    assert (0,) == at_ms([EventPosition(IN, 1)], {}, [], MULAW)


@given(st.lists(st.sampled_from([20, 20, 20, 0, 27, 500]), min_size=1, max_size=50))
def test_they_never_go_back_where_chunks_come_in_order(steps: list[int]) -> None:
    """And each is where the run of its chunk says."""
    stamps = [sum(steps[:n]) for n in range(len(steps))]
    found = asked([EventPosition(IN, n) for n in range(1, len(steps) + 1)], {IN: call(*stamps)})
    assert list(found) == sorted(found)
    assert all(later - earlier >= 20 for earlier, later in itertools.pairwise(found))
