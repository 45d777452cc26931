"""What the numbers of all tracks together say is missing, and when they say nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import pytest

from receiver.journal.records import ChunkRecord, DroppedRecord
from receiver.media import GapKind, MediaFormat, Track
from receiver.timeline.numbering import number_tracks
from receiver.timeline.ordering import Order
from receiver.timeline.track_index import MISSING, MessageIndex, TrackIndex
from tests.receiver.helpers.journals import chunk

IN, OUT = Track.INBOUND, Track.OUTBOUND
MULAW = MediaFormat()

Event = ChunkRecord | DroppedRecord | int
"""A chunk, a row of chunks that were not kept, or a message with this sequence number."""


def numbered(events: Iterable[Event], *, ended_ms: int = 0) -> dict[Track, Order]:
    """Return the orders of the tracks on which something came, by what came in this order."""
    tracks, messages = dict[Track, TrackIndex](), MessageIndex()
    for end, event in enumerate(events, 1):
        if isinstance(event, int):
            messages.add(event, end)
            continue
        index = tracks.setdefault(event.track, TrackIndex(event.track))
        if isinstance(event, DroppedRecord):
            index.add_not_kept(event)
        else:
            index.add(event, end)
    messages.ended_ms = ended_ms
    present = [index for index in tracks.values() if len(index)]
    orders, _ = number_tracks(present, messages, MULAW)
    return dict(zip((index.track for index in present), orders, strict=True))


def talk(
    sequences: Iterable[int],
    tracks: Sequence[Track] = (IN, OUT),
    *,
    numbers: str = "own",
    stamped: bool = True,
    at_ms: int = 0,
) -> list[ChunkRecord]:
    """Return chunks with these sequence numbers; from 2 on the tracks take turns."""
    found = []
    for sequence in sequences:
        turn, place = (sequence - 2) % len(tracks), (sequence - 2) // len(tracks)
        number = {"own": place + 1, "shared": sequence - 1, "none": None}[numbers]
        found.append(
            chunk(
                number,
                b"%08d" % sequence * 20,
                track=tracks[turn],
                sequence_number=sequence,
                timestamp_ms=20 * place if stamped else None,
                arrival_ms=20 * place + at_ms,
            )
        )
    return found


def lost(order: Order) -> list[int]:
    """Return how many chunks are missing before the first one, inside, and behind the last."""
    assert order.numbers is not None
    inside = int(order.numbers[-1] - order.numbers[0]) + 1 - len(order.numbers)
    return [order.head or 0, inside, order.tail]


FORMS = [(numbers, stamped) for numbers in ("own", "shared", "none") for stamped in (True, False)]


@pytest.mark.parametrize(("numbers", "stamped"), FORMS)
def test_sequence_numbers_say_what_is_missing_from_start_to_stop(
    numbers: str, stamped: bool
) -> None:
    """At the head, inside and at the tail, on the track of which the turn would be."""
    came = [n for n in range(8, 198) if n not in (50, 60, 61, 71)]
    events: list[Event] = [1, *talk(came, numbers=numbers, stamped=stamped), 202]
    found = numbered(events)
    assert [3, 2, 2] == lost(found[IN])
    assert [3, 2, 2] == lost(found[OUT])


@pytest.mark.parametrize(("numbers", "stamped"), FORMS)
def test_a_track_that_is_lost_to_the_end_is_known_by_the_other(numbers: str, stamped: bool) -> None:
    """Sequence numbers skip one of every two."""
    came = [*range(2, 102), *range(102, 302, 2)]
    found = numbered([1, *talk(came, numbers=numbers, stamped=stamped), 302])
    assert [0, 0, 0] == lost(found[IN])
    assert [0, 0, 100] == lost(found[OUT])


def test_messages_that_are_no_media_use_numbers_up() -> None:
    """So do chunks that were refused, which are known by their number."""
    events: list[Event] = [1, *talk(range(2, 50), (IN,)), 50, 51]
    events += [talk([n], (IN,))[0] for n in range(52, 80)]
    assert [0, 0, 0] == lost(numbered([*events, 80])[IN])
    assert [0, 0, 0] == lost(numbered([*events, 80, 81, 82])[IN])
    assert [0, 0, 1] == lost(numbered([*events, 80, 82])[IN])


@pytest.mark.parametrize("numbers", ["own", "none"])
def test_a_message_that_was_no_chunk_is_not_lost_audio(numbers: str) -> None:
    """Numbers of both tracks go on over it, or their clocks do."""
    records = [
        msgspec.structs.replace(record, sequence_number=2 + at + (at >= 40))
        for at, record in enumerate(talk(range(2, 100), numbers=numbers))
    ]
    found = numbered([1, *records])
    assert [0, 0, 0] == lost(found[IN])
    assert [0, 0, 0] == lost(found[OUT])


def test_contiguous_sequence_numbers_exclude_loss() -> None:
    """What chunk numbers skip nobody has sent."""
    records = [
        chunk(n + 3 * (n // 10), b"%08d" % n * 20, sequence_number=2 + n, timestamp_ms=20 * n)
        for n in range(100)
    ]
    found = numbered([1, *records, 102])[IN]
    assert [0, 0, 0] == lost(found)


@pytest.mark.parametrize("stop", [9999, 300, None])
def test_numbers_that_both_tracks_repeat_are_no_ledger(stop: int | None) -> None:
    """Each track says 2, 4, 6, and stop whatever it likes: nothing is lost."""
    records = [
        chunk(
            n + 1,
            b"%08d" % (2 * n + at) * 20,
            track=track,
            sequence_number=2 * n + 2,
            timestamp_ms=20 * n,
        )
        for n in range(100)
        for at, track in enumerate(Track)
    ]
    found = numbered([1, *records, *([stop] if stop else [])])
    for track in Track:
        assert [0, 0, 0] == lost(found[track])


@pytest.mark.parametrize("step", [2, 3])
def test_numbers_that_skip_all_the_time_are_no_ledger(step: int) -> None:
    """They count more than this stream."""
    records = [
        chunk(n + 1, b"%08d" % n * 20, sequence_number=2 + step * n, timestamp_ms=20 * n)
        for n in range(100)
    ]
    assert [0, 0, 0] == lost(numbered([1, *records])[IN])


def test_a_stop_message_may_have_any_number() -> None:
    """A hundred times what came is no loss."""
    assert [0, 0, 0] == lost(numbered([1, *talk(range(2, 100), (IN,)), 9999])[IN])
    assert [0, 0, 100] == lost(numbered([1, *talk(range(2, 100), (IN,)), 200])[IN])


@pytest.mark.parametrize("number", ["sequence", "chunk"])
@pytest.mark.parametrize("older_ms", [3000, 59_000, 600_000])
def test_a_stream_that_was_joined_in_its_middle_lost_nothing_before(
    number: str, older_ms: int
) -> None:
    """Its numbers and its clock are high, and it comes as soon as it starts."""
    first = older_ms // 20
    records = [
        chunk(
            n + 1,
            b"%08d" % n * 20,
            sequence_number=n + 2 if number == "sequence" else None,
            timestamp_ms=20 * n,
            arrival_ms=20 * n - older_ms,
        )
        for n in range(first, first + 100)
    ]
    found = numbered([1, *records, first + 102])[IN]
    assert 0 == found.head
    assert 0 == found.tail


@pytest.mark.parametrize("numbers", ["own", "none"])
def test_a_head_for_which_there_was_time_is_lost(numbers: str) -> None:
    """The start came three seconds before the first chunk."""
    found = numbered([1, *talk(range(152, 300), (IN,), numbers=numbers), 300])[IN]
    assert [150, 0, 0] == lost(found)


def test_sequence_numbers_wrap() -> None:
    """16 bits are enough, also where the wrap is among what is lost."""
    sent = talk(range(2, 400))
    records = [
        chunk(
            None,
            record.payload,
            track=record.track,
            timestamp_ms=record.timestamp_ms,
            sequence_number=(65_400 + (record.sequence_number or 0)) % 65_536,
        )
        for record in sent
        if not 130 <= (record.sequence_number or 0) < 140
    ]
    found = numbered([65_401, *records, (65_400 + 400) % 65_536])
    assert [0, 5, 0] == lost(found[IN])
    assert [0, 5, 0] == lost(found[OUT])


def test_sequence_numbers_that_begin_anew_say_nothing() -> None:
    """Nobody knows what was between their counts."""
    records = [*talk(range(2, 2000), numbers="none"), *talk(range(2, 100), numbers="none")]
    assert all(order.numbers is None for order in numbered([1, *records]).values())


def test_an_equal_message_that_came_twice_is_one() -> None:
    """Sequence numbers stay a ledger."""
    records = talk(range(2, 100), numbers="none")
    found = numbered([1, *records[:50], *records[45:], 100])
    for track in Track:
        assert [0, 0, 0] == lost(found[track])
        assert found[track].duplicate > 0


@pytest.mark.parametrize("numbers", ["own", "shared", "none"])
def test_what_came_and_was_not_kept_is_not_lost(numbers: str) -> None:
    """It has numbers, behind which the lost ones are."""
    before, missed, after = talk(range(2, 52), numbers=numbers), range(52, 62), range(64, 100)
    rows = [
        DroppedRecord(
            GapKind.DISK,
            track,
            5,
            of[0].chunk,
            of[-1].chunk,
            of[0].timestamp_ms,
            of[-1].timestamp_ms,
        )
        for at, track in enumerate((IN, OUT))
        if (of := talk(list(missed)[at::2], numbers=numbers))
    ]
    found = numbered([1, *before, *rows, *talk(after, numbers=numbers), 100])
    for track in Track:
        assert [0, 6, 0] == lost(found[track])
        bounds = found[track].not_kept_numbers
        assert bounds is not None
        assert MISSING not in bounds
        known = found[track].numbers
        assert known is not None
        assert int(known[24]) < bounds[0] <= bounds[1] < int(known[25])


def test_a_track_that_begins_late_has_lost_nothing_before() -> None:
    """Its own numbers begin with 1, so what is missing is of the other."""
    early = talk(range(2, 52), (IN,))
    late = [
        msgspec.structs.replace(
            record,
            chunk=(record.chunk or 0) + (50 if record.track is IN else 0),
            timestamp_ms=(record.timestamp_ms or 0) + 500,
        )
        for record in talk(range(52, 152))
    ]
    moved = [
        msgspec.structs.replace(
            record, chunk=(record.chunk or 0) - 25, timestamp_ms=(record.timestamp_ms or 0) - 500
        )
        for record in late
    ]
    found = numbered([1, *early[:20], *early[21:], *moved, 152])
    assert [0, 1, 0] == lost(found[IN])
    assert [0, 0, 0] == lost(found[OUT])


@pytest.mark.parametrize(
    ("sequences", "ends", "unclaimed"),
    [
        (range(2, 42), (1, 42), 0),
        (range(2, 42, 2), (1, 42), 20),  # each second one was another track's
        ([2, 3], (1, 4), 0),  # too few for a ledger, and none is missing
        ([2, 5], (1, 6), 2),
        ([0] * 30, (1, 999), None),  # they count nothing
    ],
)
def test_what_the_only_track_cannot_have_lost_is_left(
    sequences: Sequence[int], ends: tuple[int, int], unclaimed: int | None
) -> None:
    """Its own numbers have no gap, so what is missing was of a track that never came."""
    index, messages = TrackIndex(IN), MessageIndex()
    messages.add(ends[0], 1)
    for place, sequence in enumerate(sequences):
        payload = b"%08d" % place * 20
        row = chunk(place + 1, payload, timestamp_ms=20 * place, sequence_number=sequence)
        index.add(row, place + 2)
    messages.add(ends[1], len(index) + 2)
    messages.ended_ms = 20 * len(index)
    assert unclaimed == number_tracks([index], messages, MULAW).unclaimed
    messages.unnumbered = 2
    known = None if unclaimed is None else max(0, unclaimed - 2)
    assert known == number_tracks([index], messages, MULAW).unclaimed


@pytest.mark.parametrize(("stop", "unclaimed"), [(2, 0), (302, 300), (99_999, None)])
def test_where_no_chunk_came_what_is_missing_is_believed_if_there_was_time(
    stop: int, unclaimed: int | None
) -> None:
    """A stop message may have any number."""
    messages = MessageIndex()
    messages.add(1, 1)
    messages.add(stop, 2)
    messages.ended_ms = 3000
    assert ([], unclaimed) == number_tracks([], messages, MULAW)
    assert number_tracks([], MessageIndex(), MULAW).unclaimed is None
