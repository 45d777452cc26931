"""Loss by numbers: whatever senders count, what is said to be lost is what was."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.media import Track
from tests.accuracy.recorded import Outcome, outcome
from tests.accuracy.senders import Network, Numbers, Sender, Spurt, call
from tests.bounds import examples

IN, OUT = Track.INBOUND, Track.OUTBOUND
CALM = Network()
LENGTH_MS = 6000
PACKET_MS = 20
Speech = dict[Track, Sequence[Spurt]]
TALKING: Speech = {IN: [(0, LENGTH_MS)], OUT: [(0, LENGTH_MS)]}
TURNS: Speech = {IN: [(0, 2000), (4000, LENGTH_MS)], OUT: [(2000, 4000)]}
LATE: Speech = {IN: [(0, LENGTH_MS)], OUT: [(3000, LENGTH_MS)]}
ALONE: Speech = {IN: [(0, LENGTH_MS)]}
HOLD: Speech = {track: [(0, 1500), (4500, LENGTH_MS)] for track in Track}


def recorded(speech: Speech, sender: Sender, network: Network = CALM, seed: int = 0) -> Outcome:
    """Return what the receiver makes of a call, beside the truth."""
    with tempfile.TemporaryDirectory() as folder:
        return outcome(call(speech, sender, network, seed=seed), Path(folder))


def is_right(found: Outcome, within_ms: float = PACKET_MS) -> None:
    """Nothing is missing from the file, loss is told where it was, and nowhere else."""
    assert 0 == found.missing
    for track, told in found.told_lost_ms.items():
        assert abs(told - found.truly_lost_ms[track]) <= within_ms, track
    assert found.recording.complete != any(found.truly_lost_ms.values())


@pytest.mark.parametrize("speech", [TALKING, TURNS, LATE, ALONE, HOLD])
@pytest.mark.parametrize("numbers", Numbers)
@pytest.mark.parametrize("jitter", [0, 40])
def test_where_nothing_is_lost_nothing_is_said_to_be(
    speech: Speech, numbers: Numbers, jitter: int
) -> None:
    """Contiguous numbers exclude loss: own ones, shared ones, and those of messages alone."""
    found = recorded(speech, Sender(numbers=numbers, stamp_jitter_ms=jitter))
    is_right(found)
    assert found.duration_error_ms <= jitter


@pytest.mark.parametrize("speech", [TALKING, LATE, HOLD])
@pytest.mark.parametrize("jitter", [0, 40])
def test_a_shared_counter_needs_no_sequence_numbers(speech: Speech, jitter: int) -> None:
    """The numbers of both tracks together have no gap."""
    sender = Sender(numbers=Numbers.SHARED, sequence=False, stamp_jitter_ms=jitter)
    is_right(recorded(speech, sender))


@pytest.mark.parametrize("speech", [TURNS, LATE, HOLD])
@pytest.mark.parametrize("packets", [(40,), (10, 20, 40, 80, 160)])
@pytest.mark.parametrize("jitter", [15, 200])
@pytest.mark.parametrize("restarts", [(), (1800,)])
def test_a_shared_counter_is_found_however_the_tracks_overtake_each_other(
    speech: Speech, packets: tuple[int, ...], jitter: int, restarts: tuple[int, ...]
) -> None:
    """The network says nothing of loss: numbers of both tracks have no gap in whatever order."""
    sender = Sender(
        numbers=Numbers.SHARED, sequence=False, packets_ms=packets, restarts_at_ms=restarts
    )
    network = Network(jitter_ms=jitter, skew_ms={OUT: 200}, swapped=0.02)
    is_right(recorded(speech, sender, network))


@given(
    speech=st.sampled_from([TALKING, ALONE]),
    numbers=st.sampled_from(Numbers),
    first=st.sampled_from([0, 1, 77, 65_500]),
    jitter=st.sampled_from([0, 40]),
    swapped=st.booleans(),
    lost=st.lists(
        st.tuples(
            st.sampled_from([(IN,), (OUT,), (IN, OUT)]),
            st.integers(0, LENGTH_MS // PACKET_MS - 1),
            st.sampled_from([1, 3, 25, 100]),
        ),
        max_size=2,
    ),
    seed=st.integers(0, 1000),
)
@settings(max_examples=examples(40))
def test_what_is_said_to_be_lost_is_what_was(
    speech: Speech,
    numbers: Numbers,
    first: int,
    jitter: int,
    swapped: bool,
    lost: list[tuple[tuple[Track, ...], int, int]],
    seed: int,
) -> None:
    """At the head, in the middle and at the tail, on one track and on both, across a wrap."""
    windows = tuple(
        (track, at * PACKET_MS, min(LENGTH_MS, (at + count) * PACKET_MS))
        for tracks, at, count in lost
        for track in tracks
    )
    sender = Sender(numbers=numbers, first_number=first, wraps=True, stamp_jitter_ms=jitter)
    # Only numbers of chunks tell those apart that overtook each other.
    often = 0.05 if swapped and numbers is not Numbers.NONE else 0.0
    found = recorded(speech, sender, Network(lost=windows, swapped=often), seed)
    apart_ms = sum(found.told_lost_ms.values()) - sum(found.truly_lost_ms.values())
    assert abs(apart_ms) <= 2 * PACKET_MS
    if numbers is Numbers.SHARED and jitter:  # whose they were, only the clock's room says
        is_right(found, 5 * jitter)
    else:
        is_right(found, 2 * PACKET_MS if jitter else PACKET_MS)


def test_numbers_that_count_milliseconds_are_no_shared_counter(tmp_path: Path) -> None:
    """They are distinct over both tracks, and yet say nothing of chunks."""
    turns = call(TURNS, Sender(sequence=True))
    for _, message in turns.messages:
        if message["event"] == "media":
            message["media"]["chunk"] = message["media"]["timestamp"]
    is_right(outcome(turns, tmp_path))


@pytest.mark.parametrize("numbers", [Numbers.TRACK, Numbers.SHARED])
@pytest.mark.parametrize("seed", range(3))
def test_loss_among_chunks_that_are_swapped_is_counted(numbers: Numbers, seed: int) -> None:
    """A lost chunk's message was sent behind or before those that are beside it by number."""
    windows = tuple((OUT, at, at + PACKET_MS) for at in range(400, LENGTH_MS, 400))
    is_right(recorded(TALKING, Sender(numbers=numbers), Network(lost=windows, swapped=0.2), seed))


@pytest.mark.parametrize("first", [0, 1])
def test_a_first_chunk_that_is_lost_before_two_that_are_swapped_is_counted(first: int) -> None:
    """The chunk that comes first of the track is not the one before which it is missing."""
    network = Network(lost=((OUT, 0, 20),), swapped=0.05)
    is_right(recorded(TALKING, Sender(first_number=first), network, seed=1))


@pytest.mark.parametrize("speech", [TALKING, ALONE])
@pytest.mark.parametrize("lost", [(IN,), (IN, OUT)])
def test_chunks_that_are_lost_with_the_wrap_of_their_numbers_are_counted(
    speech: Speech, lost: tuple[Track, ...]
) -> None:
    """The first number that came is lower than what sequence numbers say is missing before it."""
    network = Network(lost=tuple((track, 0, 2000) for track in lost if track in speech))
    is_right(recorded(speech, Sender(first_number=65_500, wraps=True), network))


@given(
    numbers=st.sampled_from([Numbers.TRACK, Numbers.SHARED]),
    at=st.integers(10, LENGTH_MS // PACKET_MS - 20),
    first=st.sampled_from([0, 1, 77]),
    lost=st.sampled_from([0, 1, 5]),
    behind=st.integers(0, 10),
    sequence=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=examples(30))
def test_a_counter_that_begins_anew_hides_no_loss(
    numbers: Numbers, at: int, first: int, lost: int, behind: int, sequence: bool, seed: int
) -> None:
    """Behind the restart chunk numbers say what is lost; sequence numbers across it, too."""
    start = (at + behind + (0 if sequence else 1)) * PACKET_MS
    sender = Sender(
        numbers=numbers, first_number=first, restarts_at_ms=(at * PACKET_MS,), sequence=sequence
    )
    window = (IN, start, start + lost * PACKET_MS)
    is_right(recorded(TALKING, sender, Network(lost=(window,)), seed))


@pytest.mark.parametrize("speech", [TALKING, TURNS, LATE, HOLD, ALONE])
@pytest.mark.parametrize("packets", [(20,), (40,), (10, 20, 40, 80, 160)])
@pytest.mark.parametrize("first", [0, 1, 77])
@pytest.mark.parametrize("lost", [(), ((IN, 800, 1040),), ((IN, 5000, 5020), (OUT, 2500, 2700))])
def test_numbers_that_count_what_was_sent_tell_loss_from_a_pause(
    speech: Speech, packets: tuple[int, ...], first: int, lost: tuple[tuple[Track, int, int], ...]
) -> None:
    """They need neither sequence numbers nor the clock, whatever the chunks' sizes are."""
    lost = tuple(window for window in lost if speech is not LATE or window[0] is IN)
    sender = Sender(
        numbers=Numbers.BYTES_SENT, first_number=first, packets_ms=packets, sequence=False
    )
    is_right(recorded(speech, sender, Network(lost=lost)), max(packets))


@pytest.mark.parametrize("numbers", [Numbers.MILLISECONDS, Numbers.BYTES_SENT])
@pytest.mark.parametrize("speech", [TALKING, HOLD])
def test_numbers_that_count_audio_say_whose_the_loss_is(numbers: Numbers, speech: Speech) -> None:
    """Sequence numbers alone do not, and each number skips some that nobody used."""
    network = Network(lost=((IN, 800, 1040), (OUT, 5000, 5100)))
    is_right(recorded(speech, Sender(numbers=numbers), network), 0)


@given(
    speech=st.sampled_from([TALKING, TURNS, HOLD]),
    numbers=st.sampled_from([Numbers.TRACK, Numbers.SHARED]),
    restarts=st.sampled_from([(2000,), (1000, 3000)]),
    stamps=st.booleans(),
    first=st.sampled_from([0, 1, 77]),
    sequence=st.booleans(),
    start=st.integers(1, LENGTH_MS // PACKET_MS - 40),
    count=st.sampled_from([0, 1, 5, 12, 25]),
    both=st.booleans(),
)
@settings(max_examples=examples(40))
def test_counters_and_clocks_that_begin_anew_hide_no_loss(
    speech: Speech,
    numbers: Numbers,
    restarts: tuple[int, ...],
    stamps: bool,
    first: int,
    sequence: bool,
    start: int,
    count: int,
    both: bool,
) -> None:
    """Whatever comes is kept, and where something is known to be missing, nothing is complete."""
    start_ms = start * PACKET_MS
    end_ms = start_ms + count * PACKET_MS
    sender = Sender(
        numbers=numbers,
        first_number=first,
        restarts_at_ms=restarts,
        stamps_restart=stamps,
        sequence=sequence,
    )
    lost = tuple((track, start_ms, end_ms) for track in ((IN, OUT) if both else (IN,)))
    found = recorded(speech, sender, Network(lost=lost))
    told, true = sum(found.told_lost_ms.values()), sum(found.truly_lost_ms.values())
    ends = [edge for spurts in speech.values() for spurt in spurts for edge in spurt]
    inner = not any(start_ms <= edge <= end_ms for edge in (*restarts, *ends))
    assert 0 == found.missing
    if sequence or inner:
        assert (told > 0) == (true > 0)
    if not stamps:  # else who knows what lies between two counts
        assert told <= true + PACKET_MS
        assert told >= true - PACKET_MS or not (sequence or inner)
    assert found.recording.complete == (told == 0)


def _drawn(seed: int, *, overtaking: bool) -> tuple[Speech, Sender, Network]:
    """Return a sender whose counter begins anew up to five times, wherever it likes.

    Chunks overtake each other by up to seconds, or some are lost. Where no sequence numbers go
    on, nobody knows what is missing beside a restart or a pause, so nothing is lost there.
    """
    dice = random.Random(f"{seed} {overtaking}")
    speech = dice.choice([TALKING, TURNS, LATE, HOLD])
    anew = [PACKET_MS * dice.randrange(10, 300) for _ in range(dice.randint(1, 5))]
    sender = Sender(
        numbers=dice.choice([Numbers.TRACK, Numbers.SHARED]),
        first_number=dice.choice([0, 1, 77]),
        restarts_at_ms=tuple(sorted(anew)),
        sequence=dice.random() < 0.5,
    )
    if overtaking:
        return (
            speech,
            sender,
            Network(
                jitter_ms=dice.choice([15, 200]),
                swapped=dice.choice([0, 0.1]),
                skew_ms=dice.choice([{}, {OUT: 200}]),
            ),
        )
    at = PACKET_MS * dice.randrange(240)
    window = at, at + PACKET_MS * dice.choice([1, 5, 25])
    edges = {*anew, *(edge for spurts in speech.values() for spurt in spurts for edge in spurt)}
    if not sender.sequence and any(window[0] <= edge <= window[1] for edge in edges):
        return speech, sender, CALM
    lost = dice.choice([(IN,), (OUT,), (IN, OUT)])
    return speech, sender, Network(lost=tuple((track, *window) for track in lost))


@pytest.mark.parametrize("overtaking", [False, True])
@pytest.mark.parametrize("seed", range(40))
def test_a_counter_may_begin_anew_again_and_again(seed: int, overtaking: bool) -> None:
    """However chunks overtake each other meanwhile, nothing is dropped, and all loss is told."""
    is_right(recorded(*_drawn(seed, overtaking=overtaking), seed))


@pytest.mark.parametrize("numbers", [Numbers.TRACK, Numbers.SHARED])
@pytest.mark.parametrize("first", [0, 77])
def test_a_restart_within_what_is_lost_hides_none_of_it(numbers: Numbers, first: int) -> None:
    """Numbers behind it skip few; sequence numbers and the clock's room say how many."""
    sender = Sender(numbers=numbers, first_number=first, restarts_at_ms=(4600, 5400))
    network = Network(lost=((IN, 4780, 5980),))
    is_right(recorded(HOLD, sender, network))


def test_a_pause_beside_a_lost_chunk_is_no_loss() -> None:
    """The chunk is lost, the pause is silence of the sender."""
    found = recorded(TURNS, Sender(), Network(lost=((IN, 1980, 2000),)))
    is_right(found, 0)


def test_loss_at_the_end_is_known_by_the_stop_message() -> None:
    """It has the number behind all of those that came before it."""
    network = Network(lost=((IN, 5000, LENGTH_MS), (OUT, 4000, LENGTH_MS)))
    found = recorded(TALKING, Sender(), network)
    is_right(found, 0)
    assert 0 == found.duration_error_ms
    assert "audio_lost" not in [
        finding.code
        for finding in recorded(TALKING, Sender(stop=False), network).recording.findings
        if finding.track is IN
    ]
