"""Live listeners of modelled calls: what comes is heard, whole, in its place, and in time."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from receiver.media import Track
from tests.accuracy.heard import heard
from tests.accuracy.senders import Network, Numbers, Sender, Spurt, Stamps, call
from tests.bounds import examples

IN, OUT = Track.INBOUND, Track.OUTBOUND
BOTH: dict[Track, Sequence[Spurt]] = {IN: [(0, 12_000)], OUT: [(0, 12_000)]}
TURNS: dict[Track, Sequence[Spurt]] = {
    IN: [(0, 3000), (6000, 9000)],
    OUT: [(3000, 6000), (9000, 12_000)],
}
LATE: dict[Track, Sequence[Spurt]] = {IN: [(0, 12_000)], OUT: [(6000, 12_000)]}
CASES: dict[str, tuple[dict[Track, Sequence[Spurt]], Sender, Network, float]] = {
    "clean": (BOTH, Sender(), Network(), 0),
    "turns": (TURNS, Sender(), Network(), 0),
    "80 ms apart": (BOTH, Sender(), Network(skew_ms={IN: 80}), 0),
    "200 ms apart": (BOTH, Sender(), Network(skew_ms={OUT: 200}), 0),
    "500 ms apart": (BOTH, Sender(), Network(skew_ms={IN: 500}), 500),
    "turns sent ahead": (TURNS, Sender(ahead=True), Network(), 0),
    "turns sent ahead, stamped when sent": (
        TURNS,
        Sender(ahead=True, stamps=Stamps.NOW),
        Network(),
        0,
    ),
    "a clock of its own": (LATE, Sender(stamps=Stamps.OWN), Network(), 20),
    "a clock of what was sent": (TURNS, Sender(stamps=Stamps.SENT), Network(), 20),
    "a clock of samples": (TURNS, Sender(stamps=Stamps.SAMPLES), Network(), 0),
    "a clock of samples that were sent": (TURNS, Sender(stamps=Stamps.SAMPLES_SENT), Network(), 20),
    "no clock": (TURNS, Sender(stamps=Stamps.NONE), Network(), 20),
    "a shared counter": (BOTH, Sender(numbers=Numbers.SHARED, stamp_jitter_ms=40), Network(), 40),
    "a shared counter in turns": (TURNS, Sender(numbers=Numbers.SHARED), Network(), 0),
    "a shared counter, one track late": (LATE, Sender(numbers=Numbers.SHARED), Network(), 0),
    "no counter": (BOTH, Sender(numbers=Numbers.NONE, stamp_jitter_ms=40), Network(), 40),
    "a clock that drifts": (BOTH, Sender(drift_ppm=200), Network(), 20),
    "mixed packets": (BOTH, Sender(packets_ms=(10, 20, 40, 80, 160)), Network(), 0),
    "a counter that wraps": (
        BOTH,
        Sender(wraps=True, first_number=65_500),
        Network(swapped=0.1),
        0,
    ),
    "a counter that restarts": (BOTH, Sender(restarts_at_ms=(5000,)), Network(), 0),
    "a call that started with a stall": (BOTH, Sender(), Network(stalls=((0, 3000),)), 0),
}


@pytest.mark.parametrize("track", ["stereo", "inbound", "outbound"])
@pytest.mark.parametrize("name", CASES)
def test_all_that_comes_is_heard(name: str, track: str) -> None:
    """Nothing is late, nothing is called lost that was not, and all of it is in its place."""
    speech, sender, network, most_ms = CASES[name]
    result = heard(call(speech, sender, network), track)
    assert (0, 0) == (result.missing, result.left_out)
    assert {reason for reason, *_ in result.gaps} <= {"sender_silence"}
    for errors in result.errors_ms.values():
        assert most_ms >= max(map(abs, errors))


def test_a_track_that_stands_later_than_its_clock_is_noticed_once() -> None:
    """With how much later, so that it can be related to what the sender says."""
    result = heard(call(LATE, Sender(stamps=Stamps.OWN)))
    assert 1 == result.events.count("clock_reanchored")


@pytest.mark.parametrize("track", ["stereo", "inbound", "outbound"])
@pytest.mark.parametrize(("stamps", "ticks_per_ms"), [(Stamps.CALL, 1), (Stamps.SAMPLES, 8)])
@pytest.mark.parametrize("speech", [BOTH, TURNS])
def test_who_joins_in_mid_call_is_where_the_others_are(
    speech: dict[Track, Sequence[Spurt]], stamps: Stamps, ticks_per_ms: int, track: str
) -> None:
    """Whatever timestamps count, and whoever speaks next."""
    spoken = call(speech, Sender(stamps=stamps))
    result = heard(spoken, track, joins_ms=4500, ticks_per_ms=ticks_per_ms)
    assert 4400 <= result.from_ms <= 4500
    assert (0, 0) == (result.missing, result.left_out)
    assert {0} == {error for errors in result.errors_ms.values() for error in errors}


def _turns(length_ms: int, count: int) -> dict[Track, Sequence[Spurt]]:
    turns = [(at * length_ms, (at + 1) * length_ms) for at in range(count)]
    return {IN: turns[::2], OUT: turns[1::2]}


@pytest.mark.parametrize("in_the_past", [False, True], ids=["live", "since"])
@pytest.mark.parametrize("track", ["stereo", "inbound", "outbound"])
@pytest.mark.parametrize("length_ms", [1000, 2000, 3000])
def test_a_clock_that_stops_while_the_other_speaks(
    length_ms: int, track: str, in_the_past: bool
) -> None:
    """Turns stand where they were spoken, also for a listener to one party, or to the past."""
    spoken = call(_turns(length_ms, 8), Sender(stamps=Stamps.SENT))
    result = heard(spoken, track, in_the_past=in_the_past)
    assert (0, 0) == (result.missing, result.left_out)
    assert 20 >= max(abs(error) for errors in result.errors_ms.values() for error in errors)


@pytest.mark.parametrize("in_the_past", [False, True], ids=["live", "since"])
@pytest.mark.parametrize("length_ms", [2000, 6000, 25_000])
@pytest.mark.parametrize("wraps", [False, True])
def test_long_turns_of_one_counter(wraps: bool, length_ms: int, in_the_past: bool) -> None:
    """What one party says is not lost of the other one, however long it speaks."""
    first = 65_400 if wraps else 1
    sender = Sender(numbers=Numbers.SHARED, wraps=wraps, first_number=first)
    result = heard(call(_turns(length_ms, 4), sender), in_the_past=in_the_past)
    assert (0, 0) == (result.missing, result.left_out)
    assert "lost" not in {reason for reason, *_ in result.gaps}


@pytest.mark.parametrize("skew_ms", [80, 150, 400])
@pytest.mark.parametrize("in_the_past", [False, True], ids=["live", "since"])
def test_a_track_that_speaks_first_before_the_other_has_come(
    in_the_past: bool, skew_ms: int
) -> None:
    """Of one counter, with the end of the other one's turn on its way: no turn is lost."""
    network = Network(skew_ms={IN: skew_ms})
    spoken = call(_turns(2500, 2), Sender(numbers=Numbers.SHARED), network)
    result = heard(spoken, in_the_past=in_the_past)
    assert (0, 0) == (result.missing, result.left_out)
    assert "lost" not in {reason for reason, *_ in result.gaps}


@pytest.mark.parametrize("skew_ms", [80, 150, 200])
@pytest.mark.parametrize("behind", [IN, OUT])
@pytest.mark.parametrize("length_ms", [1000, 3000])
def test_numbers_that_are_on_their_way_on_the_other_track_are_not_lost(
    length_ms: int, behind: Track, skew_ms: int
) -> None:
    """Of one counter, at every turn: what a track skips, the one behind it has yet to bring."""
    network = Network(skew_ms={behind: skew_ms})
    result = heard(call(_turns(length_ms, 10), Sender(numbers=Numbers.SHARED), network))
    assert (0, 0) == (result.missing, result.left_out)
    assert {"sender_silence"} == {reason for reason, *_ in result.gaps}


def test_a_loss_of_one_counter_is_noticed_on_one_track() -> None:
    """On that which had the turn; the other one's next turn lacks none of it."""
    lost = ((OUT, 7000, 7200), (IN, 13_000, 13_100))
    spoken = call(_turns(6000, 4), Sender(numbers=Numbers.SHARED), Network(lost=lost))
    sums = {"inbound": 0.0, "outbound": 0.0}
    for reason, track, _, length_ms in heard(spoken).gaps:
        sums[track] += length_ms if reason == "lost" else 0
    assert {"inbound": 100, "outbound": 200} == sums


@pytest.mark.parametrize("numbers", [Numbers.TRACK, Numbers.NONE])
@pytest.mark.parametrize("track", ["inbound", "stereo"])
def test_what_is_lost_behind_the_last_chunk_is_noticed_at_the_end(
    track: str, numbers: Numbers
) -> None:
    """By the number of the stop message, where one track alone may have lost it."""
    alone: dict[Track, Sequence[Spurt]] = {IN: [(0, 6000)]}
    lost = Network(lost=((IN, 5000, 6000),))
    gaps = heard(call(alone, Sender(numbers=numbers), lost), track).gaps
    assert ("lost", "inbound", 5000, 1000) in gaps
    silent = heard(call(alone, Sender(numbers=numbers)), track).gaps
    odd = heard(call(alone, Sender(numbers=numbers, stop=False), lost), track).gaps
    assert "lost" not in {reason for reason, *_ in (*silent, *odd)}


@pytest.mark.parametrize("seed", range(3))
def test_network_jitter_tears_nearly_nothing(seed: int) -> None:
    """Of a mean of 15 ms, at most one of 2,000 chunks is not where and when it should be."""
    speech: dict[Track, Sequence[Spurt]] = {IN: [(0, 60_000)], OUT: [(0, 60_000)]}
    result = heard(call(speech, Sender(), Network(jitter_ms=15), seed=seed))
    chunks = sum(map(len, result.errors_ms.values())) + result.missing
    late = sum(reason == "late" for reason, *_ in result.gaps)
    assert chunks >= 2000 * (result.missing + late)
    assert 0.1 * chunks > sum(error > 20 for e in result.errors_ms.values() for error in e)


def test_a_calm_call_is_heard_at_once() -> None:
    """One track alone, and both as soon as the later one came; a party that is alone soon after."""
    assert {0} == set(heard(call(BOTH), "inbound").latency_ms)
    assert {0} == set(heard(call(BOTH)).latency_ms)
    talk: dict[Track, Sequence[Spurt]] = {IN: [(0, 20_000)], OUT: [(0, 12_000)]}
    alone = heard(call(talk)).latency_ms[700:1000]
    assert 40 == statistics.median(alone)


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """Draw what may happen on the way of a call of 12 s."""
    skew = draw(st.sampled_from([{}, {IN: 60}, {OUT: 150}]))
    stalls = [] if skew else draw(st.lists(st.integers(0, 9_000), max_size=2))
    return Network(
        jitter_ms=0 if skew else draw(st.integers(0, 10)),
        stalls=tuple((at, at + draw(st.integers(500, 2500))) for at in stalls),
        skew_ms=skew,
    )


@st.composite
def senders(draw: st.DrawFn) -> Sender:
    """Draw a provider."""
    return Sender(
        numbers=draw(st.sampled_from(Numbers)),
        first_number=draw(st.sampled_from([0, 1, 2, 700])),
        stamps=draw(st.sampled_from([Stamps.CALL, Stamps.SAMPLES, Stamps.NONE])),
        packets_ms=draw(st.sampled_from([(20,), (10,), (60,), (10, 20, 40)])),
        sequence=draw(st.booleans()),
        drift_ppm=draw(st.sampled_from([0, 200, -200])),
    )


@given(senders(), networks(), st.sampled_from([BOTH, TURNS, LATE]), st.integers(0, 5))
@settings(max_examples=examples(20), deadline=None, phases=(Phase.reuse, Phase.generate))
def test_whatever_the_sender_and_the_network_do(
    sender: Sender, network: Network, speech: dict[Track, Sequence[Spurt]], seed: int
) -> None:
    """All that comes is heard, and nothing is called lost where each track counts its chunks."""
    result = heard(call(speech, sender, network, seed=seed))
    adapting = 15 if network.skew_ms else 0  # chunks at the start of a track that is behind
    assert adapting >= result.missing
    counts_chunks = sender.numbers in (Numbers.TRACK, Numbers.NONE)
    assert not counts_chunks or "lost" not in {reason for reason, *_ in result.gaps}
