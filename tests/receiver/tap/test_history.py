"""The past of a live stream, read while its journal grows."""

from __future__ import annotations

from pathlib import Path

import pytest

from receiver.journal import records as journal
from receiver.journal.records import EndRecord, MessageRecord, Record
from receiver.media import EndReason, MediaFormat, Track
from receiver.tap.hub import LiveChunk, LiveMessage, PrecedingChunk, StreamPosition
from receiver.tap.replay import JournalTail
from tests.receiver.helpers.journals import HEADER, chunk, start_message

CODES = b"\x10" * 160
MEDIA = MediaFormat()


def records(first: int, last: int) -> list[Record]:
    """Return chunks of 20 ms each."""
    return [chunk(n, CODES, timestamp_ms=(n - 1) * 20) for n in range(first, last + 1)]


def append(path: Path, content: list[Record]) -> None:
    """Append to a journal."""
    with path.open("ab") as file:
        file.write(b"".join(map(journal.encode, content)))


def a_past(path: Path, *, start_ms: float = 0, since_ms: float = 0) -> JournalTail:
    """Return a reader of a journal's past."""
    position = StreamPosition(0, 0, 0, None)
    return JournalTail(path, MEDIA, start_ms=start_ms, since_ms=since_ms, position=position)


def numbers(events: list[LiveChunk | LiveMessage]) -> list[int | None]:
    """Return the chunk numbers."""
    return [event.chunk.chunk for event in events if type(event) is LiveChunk]


def test_it_grows_with_the_file(tmp_path: Path) -> None:
    """Nothing before the first batch, then what is there, then what came."""
    path = tmp_path / "journal"
    past = a_past(path)
    assert [] == past.read()
    append(path, [HEADER, MessageRecord(0, start_message()), *records(1, 3)])
    assert [1, 2, 3] == numbers(past.read())
    assert [] == past.read()
    append(path, records(4, 5))
    assert [4, 5] == numbers(past.read())
    past.close()
    past.close()


def test_nothing_wanted_is_no_end(tmp_path: Path) -> None:
    """A block without anything that was asked for is followed by others."""
    path = tmp_path / "journal"
    append(path, [HEADER, *records(1, 2000)])
    past = a_past(path, start_ms=39_980)
    assert [] == numbers(past.read())
    assert not past.at_end
    found = []
    while not past.at_end:
        found += past.read()
    assert [2000] == numbers(found)
    past.close()


def test_half_a_record_is_awaited(tmp_path: Path) -> None:
    """A batch may be seen before all of it is written."""
    path = tmp_path / "journal"
    append(path, [HEADER, *records(1, 1)])
    whole = b"".join(map(journal.encode, records(2, 3)))
    past = a_past(path)
    with path.open("ab") as file:
        file.write(whole[:100])
        file.flush()
        assert [1] == numbers(past.read())
        file.write(whole[100:])
    assert [2, 3] == numbers(past.read())
    past.close()


def test_it_begins_where_asked(tmp_path: Path) -> None:
    """By the stream's clock, or by the time of arrival for what has no timestamp."""
    path = tmp_path / "journal"
    unstamped = [chunk(n, CODES, arrival_ms=(n - 1) * 20) for n in range(51, 61)]
    append(path, [HEADER, *records(1, 50), *unstamped])
    past = a_past(path, start_ms=890, since_ms=1100)
    assert [45, 46, 47, 48, 49, 50, 56, 57, 58, 59, 60] == numbers(past.read())
    past.close()


@pytest.mark.parametrize("ticks_per_ms", [1, 8])
def test_it_begins_where_asked_of_a_clock_that_begins_far_from_0(
    tmp_path: Path, ticks_per_ms: int
) -> None:
    """Its timestamps count from another moment, and perhaps samples."""
    path = tmp_path / "journal"
    stamps = [10**6 + n * 20 * ticks_per_ms for n in range(5)]
    append(path, [HEADER, *(chunk(n, CODES, timestamp_ms=at) for n, at in enumerate(stamps))])
    position = StreamPosition(5, 0, 100, None, (), 10**6, ticks_per_ms=ticks_per_ms)
    past = JournalTail(path, MEDIA, start_ms=60, since_ms=60, position=position)
    assert [3, 4] == numbers(past.read())
    past.close()


def test_the_chunk_before_the_past_comes_first(tmp_path: Path) -> None:
    """The latest chunk of each track, before its first that was asked for; not what comes late."""
    path = tmp_path / "journal"
    other = [chunk(n, CODES, track=Track.OUTBOUND, timestamp_ms=(n - 1) * 20) for n in (1, 2)]
    mixed = [records(n, n)[0] for n in (4, 5, 3, 7, 6, 2)]
    append(path, [HEADER, *records(1, 1), *other, *mixed])
    past = a_past(path, start_ms=100)
    found = [e for e in past.read() if isinstance(e, LiveChunk)]
    got = [(e.chunk.track, e.chunk.chunk, type(e)) for e in found]
    assert [
        (Track.INBOUND, 5, PrecedingChunk),
        (Track.INBOUND, 7, LiveChunk),
        (Track.INBOUND, 6, LiveChunk),
        (Track.OUTBOUND, 2, PrecedingChunk),
    ] == got
    past.close()


@pytest.mark.parametrize("arrival_ms", [0, 200, 10_000])
def test_messages_stand_behind_chunks(tmp_path: Path, arrival_ms: int) -> None:
    """Whenever they came: what was asked for begins on the stream's clock."""
    path = tmp_path / "journal"
    content: list[Record] = []
    for number in range(1, 5):
        content += [*records(number, number), MessageRecord(arrival_ms, b"%d" % number)]
    append(path, [HEADER, MessageRecord(0, start_message()), *content])
    past = a_past(path, start_ms=40, since_ms=100)
    messages = [event.message for event in past.read() if isinstance(event, LiveMessage)]
    assert [b"2", b"3", b"4"] == messages
    past.close()


def test_it_ends_where_the_present_began(tmp_path: Path) -> None:
    """By count: what came in the same millisecond, but later, is the live part's."""
    path = tmp_path / "journal"
    standing = StreamPosition(3, 1, 40, None)
    append(path, [HEADER, MessageRecord(0, start_message()), *records(1, 2)])
    past = a_past(path)
    assert [1, 2] == numbers(past.read(standing))
    assert not past.has_reached(standing)
    same_moment = [chunk(4, CODES, timestamp_ms=60, arrival_ms=40)]
    append(path, [*records(3, 3), *same_moment])
    assert [3] == numbers(past.read(standing))
    assert past.has_reached(standing)
    past.close()


def test_dropped_chunks_do_not_lead_into_the_present(tmp_path: Path) -> None:
    """Where the disk was full, counting would go too far: the time of arrival ends it."""
    path = tmp_path / "journal"
    standing = StreamPosition(5, 0, 70, None)
    append(path, [HEADER, *records(1, 2), *records(4, 6)])
    past = a_past(path)
    assert [1, 2, 4] == numbers(past.read(standing))
    assert past.has_reached(standing)
    past.close()


def test_the_end_of_the_stream_is_an_end(tmp_path: Path) -> None:
    """Nothing more is awaited, and its reason is known."""
    path = tmp_path / "journal"
    everything = StreamPosition(2**62, 2**62, 2**62, None)
    append(path, [HEADER, *records(1, 2), EndRecord(40, EndReason.STOP, "")])
    for until in (everything, None):
        past = a_past(path)
        assert past.end_reason is None
        assert [1, 2] == numbers(past.read(until))
        assert past.has_reached(everything)
        assert EndReason.STOP is past.end_reason
        past.close()
