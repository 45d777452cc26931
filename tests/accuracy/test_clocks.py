"""Recordings of senders whose clocks stop, begin late, drift or jitter, held to the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.media import GapKind, Track
from tests.accuracy.recorded import Outcome, outcome
from tests.accuracy.senders import Network, Sender, Spurt, Stamps, call
from tests.bounds import examples

Speech = dict[Track, Sequence[Spurt]]

IN, OUT = Track.INBOUND, Track.OUTBOUND
BOTH: Speech = {IN: [(0, 12_000)], OUT: [(0, 12_000)]}
TURNS: Speech = {IN: [(0, 3000), (6000, 9000)], OUT: [(3000, 6000), (9000, 12_000)]}
LATE: Speech = {IN: [(0, 12_000)], OUT: [(6000, 12_000)]}

_SENDER, _NETWORK = Sender(), Network()


def recorded(
    speech: Speech,
    sender: Sender = _SENDER,
    network: Network = _NETWORK,
    seed: int = 0,
) -> Outcome:
    """Return what becomes of a call."""
    with TemporaryDirectory() as folder:
        return outcome(call(speech, sender, network, seed=seed), Path(folder))


def codes(found: Outcome) -> set[str]:
    """Return what the recording reports."""
    return {finding.code for finding in found.recording.findings}


@pytest.mark.parametrize(
    ("speech", "stamps"),
    [
        (LATE, Stamps.OWN),
        (TURNS, Stamps.OWN),
        (TURNS, Stamps.SENT),
        (TURNS, Stamps.SAMPLES_SENT),
        (TURNS, Stamps.NONE),
    ],
)
@pytest.mark.parametrize("ahead", [False, True])
def test_a_clock_that_stops_or_begins_late_is_anchored_anew(
    speech: Speech, stamps: Stamps, ahead: bool
) -> None:
    """Every chunk is where it was spoken, the recording is complete, and it says so."""
    found = recorded(speech, Sender(stamps=stamps, ahead=ahead))
    assert (0, True) == (found.missing, found.recording.complete)
    assert found.worst_ms <= 20
    assert "clock_reanchored" in codes(found)
    kinds = {gap.kind for track in found.recording.tracks for gap in track.gaps}
    assert {GapKind.SENDER_SILENCE} == kinds


@pytest.mark.parametrize("seed", [1, 7, 8, 10, 24])
def test_a_hold_is_found_on_both_tracks_of_a_network_that_jitters(seed: int) -> None:
    """Few chunks come at their own time, but all of them as fast as they were spoken."""
    hold: Speech = {track: [(0, 3000), (20_000, 23_000)] for track in Track}
    network = Network(jitter_ms=200, lost=((IN, 500, 520),))
    found = recorded(hold, Sender(stamps=Stamps.SENT), network, seed)
    assert found.worst_ms <= 1000


@pytest.mark.parametrize("seed", [7, 26, 29, 46, 48, 61])
@pytest.mark.parametrize("stamps", [Stamps.CALL, Stamps.SAMPLES])
def test_backlogs_of_a_network_that_jitters_are_not_sent_ahead(stamps: Stamps, seed: int) -> None:
    """They never come before they were spoken: the clock of the call goes on."""
    speech: Speech = {
        IN: [(0, 1000), (1500, 3000), (5200, 12_000)],
        OUT: [(0, 2500), (4000, 4400), (6000, 12_000)],
    }
    stalls = ((3000, 5500),) if seed % 2 else ()
    network = Network(jitter_ms=200, stalls=stalls)
    found = recorded(speech, Sender(stamps=stamps), network, seed)
    assert 0 == found.worst_ms
    assert "clock_reanchored" not in codes(found)


@pytest.mark.parametrize("length_ms", [700, 1000])
def test_a_clock_that_stops_soon_is_no_skew(length_ms: int) -> None:
    """Where clocks stop later on, that of the other track had not begun by half a second."""
    turns = [(at * length_ms, (at + 1) * length_ms) for at in range(8)]
    found = recorded({IN: turns[::2], OUT: turns[1::2]}, Sender(stamps=Stamps.SENT))
    assert (0, True) == (found.missing, found.recording.complete)
    assert found.worst_ms <= 20


@pytest.mark.parametrize("stamps", [Stamps.CALL, Stamps.NOW])
@pytest.mark.parametrize("speech", [TURNS, LATE, {IN: [(1000, 3000), (4000, 5000)]}])
def test_bursts_are_where_they_were_sent(stamps: Stamps, speech: Speech) -> None:
    """What follows a pause at once is no timestamp that stands alone."""
    found = recorded(speech, Sender(stamps=stamps, ahead=True))
    assert (0, True) == (found.missing, found.recording.complete)
    assert 0 == found.worst_ms == found.duration_error_ms
    assert "clock_reanchored" not in codes(found)


@pytest.mark.parametrize("stamps", [Stamps.CALL, Stamps.SAMPLES, Stamps.NOW])
@pytest.mark.parametrize("seed", [0, 12, 13])
def test_bursts_are_where_they_were_sent_however_the_network_jitters(
    stamps: Stamps, seed: int
) -> None:
    """Timestamps that show pauses, or stand still within a burst, are no count of what was sent."""
    network = Network(jitter_ms=200)
    found = recorded(TURNS, Sender(stamps=stamps, ahead=True), network, seed)
    assert (0, 0.0, 0.0) == (found.missing, found.worst_ms, found.duration_error_ms)
    assert "clock_reanchored" not in codes(found)


@pytest.mark.parametrize(
    ("pause_ms", "jitter"),
    [(200, 0), (300, 0), (500, 0), (700, 0), (300, 15), (500, 15), (700, 15)],
)
@pytest.mark.parametrize("stamps", [Stamps.SENT, Stamps.SAMPLES_SENT, Stamps.NONE])
def test_a_short_stop_is_followed_where_the_other_track_goes_on(
    pause_ms: int, stamps: Stamps, jitter: int
) -> None:
    """What the other one brought meanwhile says that the network held nothing up."""
    spurts = [(0, 3000), (3000 + pause_ms, 6000), (6000 + pause_ms, 9000)]
    found = recorded({IN: [(0, 12_000)], OUT: spurts}, Sender(stamps=stamps), Network(jitter))
    assert (0, True) == (found.missing, found.recording.complete)
    assert found.worst_ms <= 5
    assert "clock_reanchored" in codes(found)


@pytest.mark.parametrize("seed", [1555, 2415])
def test_a_late_track_in_a_network_that_jitters_has_the_clock_of_the_call(seed: int) -> None:
    """Its first timestamp is not where a clock of its own would begin."""
    sender = Sender(packets_ms=(20,), restarts_at_ms=(1200,), first_number=77)
    found = recorded(LATE, sender, Network(jitter_ms=200), seed)
    assert (0, 0.0, 0.0) == (found.missing, found.worst_ms, found.duration_error_ms)


@pytest.mark.parametrize("ppm", [200, -200, 1000, -1000])
@pytest.mark.parametrize("speech", [BOTH, TURNS])
def test_drift_leaves_no_silence_in_speech(ppm: int, speech: Speech) -> None:
    """However timestamps run, audio that goes on is one piece."""
    found = recorded(speech, Sender(drift_ppm=ppm))
    assert (0, True) == (found.missing, found.recording.complete)
    assert found.worst_ms <= 2
    assert codes(found) <= {"timestamps_overlap"}
    silences = sum(len(track.gaps) for track in found.recording.tracks)
    assert (0 if speech is BOTH else 4) == silences


@pytest.mark.parametrize("jitter", [5, 40, 200])
@pytest.mark.parametrize("seed", range(4))
def test_timestamps_that_jitter_leave_no_silence_in_speech(jitter: int, seed: int) -> None:
    """Neither at the end, where few chunks follow that say otherwise."""
    found = recorded(BOTH, Sender(stamp_jitter_ms=jitter), seed=seed)
    assert (0, True) == (found.missing, found.recording.complete)
    assert 0 == sum(gap.start_ms > 0 for track in found.recording.tracks for gap in track.gaps)
    assert found.worst_ms <= jitter


@given(
    jitter=st.sampled_from([0, 15, 200]),
    stalls=st.lists(st.tuples(st.integers(0, 12_000), st.integers(100, 5000)), max_size=3),
    speech=st.sampled_from([BOTH, TURNS, LATE]),
    packets=st.sampled_from([(20,), (10, 20, 40, 80, 160)]),
    ahead=st.booleans(),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=examples(25), deadline=None)
def test_what_the_network_does_moves_no_audio(
    jitter: int,
    stalls: list[tuple[int, int]],
    speech: Speech,
    packets: tuple[int, ...],
    ahead: bool,
    seed: int,
) -> None:
    """Timestamps of the call are right, whenever their chunks come."""
    ahead = ahead and speech is TURNS  # of bursts that all are late nobody knows it
    stalls = stalls[:1] if ahead else stalls
    network = Network(jitter_ms=jitter, stalls=tuple((at, at + ms) for at, ms in stalls))
    found = recorded(speech, Sender(packets_ms=packets, ahead=ahead), network, seed)
    assert (0, 0.0, 0.0) == (found.missing, found.worst_ms, found.duration_error_ms)
    assert found.recording.complete
    assert () == found.recording.findings


@pytest.mark.parametrize("stamps", [Stamps.NONE, Stamps.SENT])
def test_a_turn_that_ends_within_a_stall_hides_no_stop_behind_it(stamps: Stamps) -> None:
    """What the stall held up never falls back to the level; the next turn still says when."""
    turns = [(1600, 1740), (7320, 7440), (8520, 11_400), (21_800, 22_160)]
    network = Network(stalls=((10_000, 12_000),))
    found = recorded(
        {IN: [(0, 30_000)], OUT: turns}, Sender(stamps=stamps, packets_ms=(40,)), network
    )
    assert (0, True) == (found.missing, found.recording.complete)
    assert found.worst_ms <= 700


@st.composite
def conversations(draw: st.DrawFn) -> Speech:
    """Draw parties that speak by turns, for half a second and longer, with pauses in between."""
    speech: dict[Track, list[Spurt]] = {IN: [(0, 1000)], OUT: []}
    at = 1000
    for _ in range(draw(st.integers(3, 8))):
        start = at + 20 * draw(st.integers(5, 100))
        at = start + 20 * draw(st.integers(30, 150))
        speech[draw(st.sampled_from([IN, OUT]))].append((start, at))
    speech[OUT] = speech[OUT] or [(at + 500, at + 2500)]
    return dict(speech)


STOPPING = [Stamps.OWN, Stamps.SENT, Stamps.SAMPLES_SENT, Stamps.NONE]


@given(
    speech=conversations(),
    stamps=st.sampled_from(STOPPING),
    packets=st.sampled_from([(20,), (30,), (10, 20, 40)]),
    jitter=st.sampled_from([0, 5, 15]),
    ppm=st.sampled_from([0, 200]),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=examples(25), deadline=None)
def test_clocks_that_stop_are_followed_by_arrivals(
    speech: Speech, stamps: Stamps, packets: tuple[int, ...], jitter: int, ppm: int, seed: int
) -> None:
    """A stop of under half a second waits for the next one, and a late beginning of under one."""
    sender = Sender(stamps=stamps, packets_ms=packets, drift_ppm=ppm)
    found = recorded(speech, sender, Network(jitter_ms=jitter), seed)
    assert (0, True) == (found.missing, found.recording.complete)
    longest = 1000 if stamps is not Stamps.NONE else 200
    assert found.worst_ms <= longest + 6 * jitter + 50 + 2 * max(packets)
    assert set() == {code for code in codes(found) if code.startswith("audio_")}


@given(
    speech=conversations(),
    stamps=st.sampled_from([Stamps.CALL, Stamps.SAMPLES, Stamps.SENT, Stamps.OWN]),
    packets=st.sampled_from([(20,), (30,), (10, 20, 40, 80, 160)]),
    ppm=st.sampled_from([0, 200, -200]),
    lost=st.sets(st.integers(1, 60), min_size=1, max_size=5),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=examples(25), deadline=None)
def test_what_is_lost_is_told_whatever_the_clock_does(
    speech: Speech,
    stamps: Stamps,
    packets: tuple[int, ...],
    ppm: int,
    lost: set[int],
    seed: int,
) -> None:
    """Within a packet for each chunk that is lost, on the right track, and not complete."""
    sender = Sender(stamps=stamps, packets_ms=packets, drift_ppm=ppm)
    spoken = call(speech, sender, seed=seed).of(IN)
    gone = [spoken[n] for n in lost if n < len(spoken) - 1]
    network = Network(lost=tuple((IN, chunk.at_ms, chunk.at_ms + 1) for chunk in gone))
    found = recorded(speech, sender, network, seed)
    assert (0, not gone) == (found.missing, found.recording.complete)
    assert 0 == found.told_lost_ms.get(OUT, 0)
    off_ms = abs(found.told_lost_ms[IN] - found.truly_lost_ms[IN])
    assert off_ms <= 1 + len(gone) * max(packets)  # before a pause nobody knows a chunk's size


@pytest.mark.parametrize("jitter_ms", [0, 15])
@pytest.mark.parametrize("longer_ms", [150, 220, 300, 450])
@pytest.mark.parametrize("at_ms", [5000, 10_000, 11_000])
def test_a_longer_way_through_the_network_moves_no_audio(
    jitter_ms: int, longer_ms: int, at_ms: int
) -> None:
    """Both tracks come later from then on, and neither says that the network held nothing up."""
    spoken = call(BOTH, _SENDER, Network(jitter_ms=jitter_ms), seed=3)
    messages = [(at + longer_ms * (at >= at_ms), message) for at, message in spoken.messages]
    with TemporaryDirectory() as folder:
        found = outcome(replace(spoken, messages=messages), Path(folder))
    assert (0, 0) == (found.missing, found.worst_ms)
    assert "clock_reanchored" not in codes(found)
