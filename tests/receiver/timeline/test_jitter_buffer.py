"""Chunks that overtook each other: who waits, for how long, and who never does."""

from __future__ import annotations

import itertools

import pytest

from receiver.media import Chunk, MediaFormat, Track
from receiver.timeline.jitter_buffer import JitterBuffer, LiveLedger, SharedCounter, unwrapped

PAYLOAD = bytes(160)


def chunk(number: int | None, at_ms: int | None = None) -> Chunk:
    """Return a chunk of 20 ms; its time is that of its number."""
    stamp = (number - 1) * 20 if number is not None and at_ms is None else at_ms
    return Chunk(Track.INBOUND, None, number, stamp, PAYLOAD)


def released(buffer: JitterBuffer, *numbers: int | None, at_ms: int = 0) -> list[int | None]:
    """Return the numbers of what is let go when chunks come."""
    return [c.chunk for number in numbers for c, _ in buffer.feed(chunk(number), at_ms)]


def test_nobody_waits_in_order() -> None:
    """Not for the first one either, nor without a number."""
    assert [7, 8, None, 9] == released(JitterBuffer(MediaFormat(), 60), 7, 8, None, 9)


def test_what_is_behind_a_missing_one_waits_for_it() -> None:
    """Then all of it goes, up to the next that is missing."""
    buffer = JitterBuffer(MediaFormat(), 60)
    assert [1] == released(buffer, 1, 3, 5)
    assert 0 == buffer.waiting_since_ms
    assert [2, 3] == released(buffer, 2, at_ms=10)
    assert [4, 5, 6] == released(buffer, 4, 6)
    assert not buffer


def test_the_first_chunk_may_be_overtaken() -> None:
    """Where the clock has room for it, and the stream is received from its start."""
    buffer = JitterBuffer(MediaFormat(), 60, from_the_first=True)
    assert [] == released(buffer, 3, 2)
    assert [1, 2, 3, 4] == released(buffer, 1, 4)
    assert [3] == released(JitterBuffer(MediaFormat(), 60), 3)
    buffer = JitterBuffer(MediaFormat(), 60, from_the_first=True)
    buffer.origin_ms = 7  # of the other track, whose first chunk came first
    assert [] == released(buffer, 3, 2)
    assert [2, 3] == [c.chunk for c, _ in buffer.release_due(60)]
    for number, at_ms in ((57, 2000), (2, 0), (0, 0), (1, 0), (1, 20), (5, None)):
        first = Chunk(Track.INBOUND, None, number, at_ms, PAYLOAD)
        buffer = JitterBuffer(MediaFormat(), 60, from_the_first=True)
        assert [(first, 0)] == buffer.feed(first, 0)


def test_it_waits_only_so_long() -> None:
    """By the clock of arrivals, and in audio that came at once."""
    buffer = JitterBuffer(MediaFormat(), 60)
    released(buffer, 1)
    assert [] == released(buffer, 3, at_ms=20)
    assert [] == buffer.release_due(79)
    assert [(chunk(3), 20)] == buffer.release_due(80)
    assert [] == released(buffer, 5, 6, 8, at_ms=90)
    assert [5, 6] == released(buffer, 9, at_ms=90)
    assert [(8, 90), (9, 90)] == [(c.chunk, at) for c, at in buffer.release_all()]
    assert buffer.waiting_since_ms is None


def test_long_packets_wait_as_long_as_short_ones() -> None:
    """However much audio they are; a burst of them does not."""
    buffer = JitterBuffer(MediaFormat(), 60)

    def let_go(number: int, at_ms: int) -> list[int | None]:
        packet = Chunk(Track.INBOUND, None, number, (number - 1) * 100, PAYLOAD * 5)
        return [c.chunk for c, _ in buffer.feed(packet, at_ms)]

    assert [1] == let_go(1, 100)
    assert [[], []] == [let_go(number, at_ms) for number, at_ms in ((3, 300), (4, 359))]
    assert [2, 3, 4] == let_go(2, 359)
    assert [[], [], []] == [let_go(number, 700) for number in (6, 7, 8)]
    assert [6, 7, 8, 9] == let_go(9, 700)


def test_what_is_behind_is_not_its_business() -> None:
    """Doubles and what is late go on at once; of what is held, a second one is dropped."""
    buffer = JitterBuffer(MediaFormat(), 60)
    assert [1, 2, 1, 2] == released(buffer, 1, 2, 1, 2)
    assert [] == released(buffer, 4, 4)
    assert 1 == buffer.duplicates
    assert [1] == released(buffer, 1)


def test_a_counter_that_begins_anew_is_followed() -> None:
    """What was held goes first."""
    buffer = JitterBuffer(MediaFormat(), 60)
    numbers = [5_533, 5_535, 0, 1]
    times = [0, 40, 60, 80]
    let_go = [
        c.chunk for n, t in zip(numbers, times, strict=True) for c, _ in buffer.feed(chunk(n, t), t)
    ]
    assert numbers == let_go


def test_a_counter_of_16_bits_goes_on() -> None:
    """With what is missing at the wrap, and what was overtaken there."""
    buffer = JitterBuffer(MediaFormat(), 60)
    wrapped = [(65_534, 0), (0, 40), (65_535, 20), (2, 80), (1, 60), (3, 100)]
    let_go = [c.chunk for n, t in wrapped for c, _ in buffer.feed(chunk(n, t), t)]
    assert list(range(65_534, 65_540)) == let_go


@pytest.mark.parametrize(
    ("number", "latest", "meant"),
    [
        (0, 65_535, 65_536),
        (65_535, 65_536, 65_535),
        (7, 131_000, 131_079),
        (1, 500, 1),
        (1, 60_000, 1),
        (65_600, 65_599, 65_600),
        (65_535, 2, 65_535),
    ],
)
def test_numbers_are_those_nearest_to_the_latest(number: int, latest: int, meant: int) -> None:
    """Of a counter of 16 bits; what is far from it has begun anew."""
    assert meant == unwrapped(number, latest)


def test_what_the_other_track_has_is_not_missing() -> None:
    """Where both are counted together; also if it comes a little later."""
    counter = SharedCounter()
    buffer = JitterBuffer(MediaFormat(), 60)
    buffer.elsewhere = counter.elsewhere("inbound")
    for number in range(1, 9):
        counter.add("inbound" if number % 2 else "outbound", number)
    assert [1, 3, 5, 7] == released(buffer, 1, 3, 5, 7)
    assert [] == released(buffer, 11)
    counter.add("outbound", 8)
    counter.add("outbound", 10)
    assert [] == buffer.release_due(1)
    assert [9, 11] == released(buffer, 9)
    assert [] == released(buffer, 15)
    for number in (12, 13, 14):
        counter.add("outbound", number)
    assert [15] == [c.chunk for c, _ in buffer.release_due(1)]


@pytest.mark.parametrize(
    ("inbound", "outbound"),
    [((1, 2, 3, 4), (1, 2, 3, 4)), ((300, 301, 302), (1, 2, 3)), ((1, 2, 4), (3, 5, 6, 4))],
)
def test_tracks_with_counters_of_their_own(
    inbound: tuple[int, ...], outbound: tuple[int, ...]
) -> None:
    """Both have a number, or the second one begins elsewhere."""
    counter = SharedCounter()
    for numbers in itertools.zip_longest(inbound, outbound):
        for track, number in zip(("inbound", "outbound"), numbers, strict=True):
            counter.add(track, number)
    assert not any(counter.elsewhere("inbound")(number) for number in (*inbound, *outbound))


def test_what_was_lost_in_a_turn_is_lost_of_one_track() -> None:
    """The other one, whose turn comes next, lacks none of its numbers."""
    counter = SharedCounter()
    for number in (*range(1, 21), *range(31, 51)):
        counter.add("inbound", number)
    counter.add("outbound", 51)
    assert not counter.elsewhere("outbound")(25)
    counter.add_lost("inbound", range(21, 31))
    assert all(map(counter.elsewhere("outbound"), range(1, 51)))


def test_what_was_before_the_beginning_is_missing_on_neither_track() -> None:
    """One was silent for long when a listener came, and the other one had its numbers."""
    counter = SharedCounter()
    counter.start_after("inbound", 100)
    counter.start_after("outbound", 400)
    for number in range(401, 701):
        counter.add("outbound", number)
    counter.add("inbound", 701)
    assert all(map(counter.elsewhere("inbound"), range(101, 701)))


def test_tracks_that_are_counted_together_miss_nothing() -> None:
    """Every other number is the other track's: the clock leaves no room for it."""
    buffer = JitterBuffer(MediaFormat(), 60)
    assert [1, 3, 5] == [c.chunk for n in (1, 3, 5) for c, _ in buffer.feed(chunk(n, n * 10), 0)]


def numbered(track: Track, number: int | None, sequence: int, at_ms: int | None = None) -> Chunk:
    """Return a chunk of 20 ms."""
    return Chunk(track, sequence, number, at_ms, bytes(160))


@pytest.mark.parametrize("numbers", ["chunks", "timestamps", "shared", "wrapping"])
def test_sequence_numbers_say_what_a_silent_track_lacks(numbers: str) -> None:
    """Whatever else identifies chunks; not for longer than until it comes again."""
    ledger, first = LiveLedger(), 65_500 if numbers == "wrapping" else 2
    for at in range(60):
        for side, track in enumerate(Track):
            count = 2 * at + side if numbers == "shared" else at
            chunk = None if numbers == "timestamps" else count + 1
            if side == 0 or at < 40:
                sequence = (first + 2 * at + side) % 65_536
                ledger.add_chunk(numbered(track, chunk, sequence, at * 20))
    assert [0, 19] == [ledger.missing(track) for track in Track]
    ledger.add_chunk(numbered(Track.OUTBOUND, None, (first + 121) % 65_536, 1200))
    assert 0 == ledger.missing(Track.OUTBOUND)


def test_sequence_numbers_that_mostly_jump_say_nothing() -> None:
    """The provider counts something else."""
    ledger = LiveLedger()
    ledger.add_chunk(numbered(Track.OUTBOUND, 1, 1))
    for at in range(200):
        ledger.add_chunk(numbered(Track.INBOUND, at + 1, 3 + 7 * at))
    assert 0 == ledger.missing(Track.OUTBOUND)


def test_other_messages_use_sequence_numbers() -> None:
    """A key or a mark is no chunk that was lost; nor is one that is only late."""
    ledger = LiveLedger()
    for at in range(20):
        ledger.add_chunk(numbered(Track.OUTBOUND, at + 1, at + 1))
    for at, sequence in enumerate([21, 23, 24, 27]):
        ledger.add_chunk(numbered(Track.INBOUND, at + 1, sequence))
    ledger.add(28)
    ledger.add(None)
    assert 3 == ledger.missing(Track.OUTBOUND)
    ledger.add(22)
    assert 2 == ledger.missing(Track.OUTBOUND)
