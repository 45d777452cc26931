"""The bounded queue of a listener: nothing is reordered, all that is missing is noticed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from receiver.tap.encoding.format import OutMessage
from receiver.tap.queue import LIMIT_BYTES, SendQueue

CHUNK = b"\x01\x02" * 160


def audio(number: int, track: str = "inbound") -> OutMessage:
    """Return chunk `number`, 20 ms each."""
    return OutMessage(CHUNK, track, 20 * number, 20)


def notice(track: str, timestamp_ms: float, duration_ms: float) -> str:
    """Return a gap as text that tests can read."""
    return f"gap {track} {timestamp_ms:g} {duration_ms:g}"


def a_queue(**options: float) -> SendQueue:
    """Return a queue that nobody waits for."""
    return SendQueue(gap_notice=notice, **options)  # type: ignore[arg-type]  # numbers


def drained(queue: SendQueue) -> list[OutMessage]:
    """Return everything that waits."""
    items = []
    while (item := queue.pop()) is not None:
        items.append(item)
    return items


def test_what_fits_comes_out_as_it_went_in() -> None:
    """Two seconds of audio wait without loss."""
    queue, items = a_queue(), [audio(number) for number in range(100)]
    for item in items:
        queue.put(item)
    assert 2000 == queue.waiting_ms
    assert items == drained(queue)
    assert (0, 0, 0) == (queue.dropped, queue.waiting_ms, queue.waiting_bytes)


def test_a_full_queue_drops_the_oldest_and_says_so_first() -> None:
    """One notice covers what was dropped in a row; what follows is whole."""
    queue = a_queue()
    for number in range(150):
        queue.put(audio(number))
    items = drained(queue)
    assert "gap inbound 0 1000" == items[0].message
    assert [audio(number) for number in range(50, 150)] == items[1:]
    assert (50, 1000) == (queue.dropped, queue.dropped_ms)


def test_events_stay_where_they_were() -> None:
    """A key that was pressed between dropped chunks is sent between two notices."""
    queue = a_queue(limit_ms=40)
    for item in (audio(0), OutMessage("key"), audio(1), audio(2), audio(3)):
        queue.put(item)
    messages = [item.message for item in drained(queue)]
    assert ["gap inbound 0 20", "key", "gap inbound 20 20", CHUNK, CHUNK] == messages


def test_each_track_has_its_own_notice() -> None:
    """Of alternating tracks two notices remain, not one for every chunk."""
    queue = a_queue(limit_ms=40)
    for number in range(10):
        queue.put(audio(number, "inbound"))
        queue.put(audio(number, "outbound"))
    messages = [item.message for item in drained(queue)]
    assert ["gap inbound 0 180", "gap outbound 0 180", CHUNK, CHUNK] == messages


def test_a_notice_that_was_taken_grows_no_more() -> None:
    """What is dropped after it gets a notice of its own."""
    queue = a_queue(limit_ms=40)
    for number in range(3):
        queue.put(audio(number))
    first = queue.pop()
    for number in range(3, 5):
        queue.put(audio(number))
    messages = [item.message for item in drained(queue)]
    assert "gap inbound 0 20" == (first.message if first else "")
    assert ["gap inbound 20 40", CHUNK, CHUNK] == messages


def test_without_notices_a_gap_is_a_jump() -> None:
    """A forwarded stream just has a jump in its counters."""
    queue = SendQueue(limit_ms=20)
    for number in range(3):
        queue.put(audio(number))
    assert [audio(2)] == drained(queue)


def test_silence_takes_no_room() -> None:
    """A minute of it is one small item, and comes out in blocks."""
    queue = a_queue()
    queue.put(OutMessage(b"\0\0", "inbound", 0, 60_000, 480_000))
    queue.put(audio(3000))
    assert 20 == queue.waiting_ms
    silence = queue.pop()
    blocks = list(silence.messages()) if silence else []
    assert bytes(960_000) == b"".join(block for block in blocks if isinstance(block, bytes))
    assert 2**15 >= max(map(len, blocks))


def test_events_alone_are_bounded_too() -> None:
    """A sender of marks without end cannot fill the memory of a listener that is stuck."""
    queue = a_queue()
    for number in range(5000):
        queue.put(OutMessage(f"{number:>1000}"))
    assert LIMIT_BYTES >= queue.waiting_bytes
    rest = [int(str(item.message)) for item in drained(queue)]
    assert list(range(5000 - len(rest), 5000)) == rest


class RecordingSender:
    """A sender that records how often it is woken, and sends when it has to."""

    def __init__(self, queue: SendQueue, *, sends: bool) -> None:
        self.woken = 0
        self.sent: list[OutMessage] = []
        self._queue = queue
        self._sends = sends
        queue.attach(self)

    def wake(self) -> None:
        self.woken += 1

    def flush_now(self) -> None:
        if self._sends:
            self.sent += drained(self._queue)


def test_it_wakes_once_and_says_when_it_is_empty() -> None:
    """One wake-up for any number of items; the next one only after it was found empty."""
    emptied: list[int] = []
    queue = SendQueue(on_empty=lambda: emptied.append(0))
    sender = RecordingSender(queue, sends=False)
    for number in range(3):
        queue.put(audio(number))
    assert (1, 0) == (sender.woken, len(emptied))
    drained(queue)
    queue.put(audio(3))
    assert (2, 1) == (sender.woken, len(emptied))
    assert 1 == len(queue)
    queue.clear()
    assert (0, 0, 0) == (len(queue), queue.waiting_ms, queue.waiting_bytes)


def test_what_waited_for_a_sender_wakes_it() -> None:
    """Also where nothing but the closing of the socket waits; one that is gone is not woken."""
    full, closing, gone = a_queue(), a_queue(), a_queue()
    full.put(audio(0))
    closing.close(1000, "the stream has ended")
    senders = [RecordingSender(queue, sends=False) for queue in (full, closing, gone)]
    gone.detach()
    gone.put(audio(0))
    assert [1, 1, 0] == [sender.woken for sender in senders]


def test_it_is_crowded_when_half_full() -> None:
    """A reader of the past, which can wait, has to know in time."""
    queue = a_queue(limit_ms=100)
    queue.put(audio(0))
    queue.put(audio(1))
    assert not queue.is_crowded()
    queue.put(audio(2))
    assert queue.is_crowded()


def test_what_is_on_its_way_crowds_it_too() -> None:
    """Together with what waits, and by itself where it is much."""
    queue = a_queue()
    queue.put(OutMessage(CHUNK, "inbound", 0, 900))
    assert not queue.is_crowded(100)
    assert queue.is_crowded(101)
    assert not a_queue(limit_ms=60_000).is_crowded(500)
    assert a_queue(limit_ms=60_000).is_crowded(501)


def test_what_can_be_taken_now_is_not_dropped() -> None:
    """A burst is longer than the queue, but its sender is fast."""
    queue = a_queue()
    sender = RecordingSender(queue, sends=True)
    for number in range(250):
        queue.put(audio(number))
    assert [audio(number) for number in range(250)] == sender.sent + drained(queue)
    assert 0 == queue.dropped


def test_audio_longer_than_the_limit_is_kept_until_more_comes() -> None:
    """Its text may follow; the next piece of audio takes its place."""
    queue = a_queue()
    long = OutMessage(CHUNK, "inbound", 0, 5000)
    queue.put(long)
    queue.put(OutMessage("key"))
    assert [long, OutMessage("key")] == drained(queue)
    queue.put(long)
    queue.put(audio(250))
    assert ["gap inbound 0 5000", CHUNK] == [item.message for item in drained(queue)]


STEPS = st.lists(
    st.one_of(st.just("take"), st.just("event"), st.just("inbound"), st.just("outbound")),
    max_size=200,
)


@given(STEPS, st.integers(1, 6), st.integers(1, 3000))
def test_everything_is_sent_or_noticed(steps: list[str], chunks: int, limit_bytes: int) -> None:
    """Per track, sound and notices cover the time without overlap, in order, within bounds."""
    queue = a_queue(limit_ms=chunks * 20, limit_bytes=limit_bytes)
    put: dict[str, int] = {"inbound": 0, "outbound": 0, "event": 0}
    taken: list[OutMessage] = []
    for step in steps:
        if step == "take":
            item = queue.pop()
            taken += [item] if item else []
            continue
        queue.put(OutMessage(f"event {put[step]}") if step == "event" else audio(put[step], step))
        put[step] += 1
        assert chunks * 20 >= queue.waiting_ms
        assert limit_bytes >= queue.waiting_bytes
    taken += drained(queue)
    for track in ("inbound", "outbound"):
        position = 0.0
        for item in taken:
            words = str(item.message).split()
            if item.track == track:
                start, length = item.timestamp_ms, item.duration_ms
            elif words[:2] == ["gap", track]:
                start, length = float(words[2]), float(words[3])
            else:
                continue
            assert position == start
            position += length
        assert put[track] * 20 == position
    events = [int(str(item.message).split()[1]) for item in taken if "event" in str(item.message)]
    assert sorted(events) == events
