"""The script of a call: order, numbers, times and faults."""

import json
from base64 import b64decode
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from starter.models import Codec
from starter.simulator.dialects import SignalWireDialect
from starter.simulator.script import Delivery, Faults, Plan, Step, write_script
from starter.simulator.stream_info import MEDIA_FORMATS, Identity, Keypress, TrackAudio
from tests.bounds import examples

INBOUND = bytes(range(250)) + bytes(range(250))
OUTBOUND = bytes(reversed(range(256))) * 2

PLAN = Plan(
    dialect=SignalWireDialect(Identity("a", "c", "s")),
    media_format=MEDIA_FORMATS[Codec.PCMU],
    tracks=(TrackAudio("inbound", INBOUND), TrackAudio("outbound", OUTBOUND)),
    packet_ms=10,
)
LONG = replace(PLAN, tracks=(TrackAudio("inbound", bytes(80 * 2000)),))

chances = st.floats(0, 1)
faults = st.builds(
    Faults,
    loss=chances,
    reorder=chances,
    duplicate=chances,
    jitter_ms=st.floats(0, 100),
    seed=st.text(max_size=3),
)


def script(plan: Plan) -> list[tuple[Step, dict[str, Any]]]:
    """All steps with their parsed messages."""
    return [(step, json.loads(step.message)) for step in write_script(plan)]


def payload(plan: Plan, track: str) -> bytes:
    """One track put together again in the order of its chunk numbers."""
    bodies = {
        int(message["media"]["chunk"]): b64decode(message["media"]["payload"])
        for step, message in script(plan)
        if step.track == track
    }
    return b"".join(bodies[number] for number in sorted(bodies))


def test_a_call_without_faults() -> None:
    """`connected`, start, then both tracks interleaved; the last chunk is short, not padded."""
    rows = [
        (
            step.at_ms,
            step.sequence,
            message["event"],
            message.get("media", {}).get("track"),
            message.get("media", {}).get("chunk"),
            message.get("media", {}).get("timestamp"),
        )
        for step, message in script(replace(PLAN, tracks=PLAN.tracks, packet_ms=30))
    ]

    assert [
        (0, 0, "connected", None, None, None),
        (0, 1, "start", None, None, None),
        (30.0, 2, "media", "inbound", "1", "0"),
        (30.0, 3, "media", "outbound", "1", "0"),
        (60.0, 4, "media", "inbound", "2", "30"),
        (60.0, 5, "media", "outbound", "2", "30"),
        (62.5, 6, "media", "inbound", "3", "60"),
        (64.0, 7, "media", "outbound", "3", "60"),
    ] == rows


def test_the_tracks_are_whole() -> None:
    """The payloads put together are the audio, byte for byte."""
    assert INBOUND == payload(PLAN, "inbound")
    assert OUTBOUND == payload(PLAN, "outbound")


def test_start_says_what_follows() -> None:
    """Tracks and parameters are those of the plan."""
    plan = replace(PLAN, tracks=PLAN.tracks[1:], parameters={"größe": "1"})
    start = script(plan)[1][1]["start"]

    assert (["outbound"], {"größe": "1"}) == (start["tracks"], start["customParameters"])


def test_keys_are_pressed_at_their_time() -> None:
    """Keypresses are between the chunks, have sequence numbers, and may outlast the audio."""
    keys = (Keypress(10_000, "#"), Keypress(15, "5"))
    rows = script(replace(PLAN, tracks=PLAN.tracks[:1], keypresses=keys))
    events = [(step.at_ms, step.sequence, message["event"]) for step, message in rows[2:]]

    assert (10.0, 2, "media") == events[0]
    assert (15, 3, "dtmf") == events[1]
    assert (20.0, 4, "media") == events[2]
    assert (10_000, len(rows) - 1, "dtmf") == events[-1]
    assert ["5", "#"] == [message["dtmf"]["digit"] for _, message in rows if "dtmf" in message]


def test_a_call_without_audio() -> None:
    """Nothing but `connected` and start."""
    assert ["connected", "start"] == [m["event"] for _, m in script(replace(PLAN, tracks=()))]


def test_timestamps_may_begin_later() -> None:
    """Some providers' clocks do not start at 0; the pace does."""
    step, message = script(replace(PLAN, first_timestamp_ms=99))[2]

    assert ("99", 10.0) == (message["media"]["timestamp"], step.at_ms)


@given(faults)
@settings(max_examples=examples(50))
def test_faults_keep_the_numbers(given_faults: Faults) -> None:
    """Whatever befalls them, chunks keep numbers, times and bytes of the faultless call."""
    plain = {step.sequence: step for step in write_script(PLAN)}
    steps = list(write_script(replace(PLAN, faults=given_faults)))
    originals = [step for step in steps if step.delivery is not Delivery.DUPLICATED]

    assert sorted(plain) == sorted(step.sequence for step in originals)
    for step in steps:
        assert (plain[step.sequence].message, plain[step.sequence].track) == (
            step.message,
            step.track,
        )
    assert [step.at_ms for step in steps] == sorted(step.at_ms for step in steps)


@given(faults)
@settings(max_examples=examples(50))
def test_reordered_means_overtaken(given_faults: Faults) -> None:
    """A chunk is marked reordered exactly if a later one was sent before it."""
    highest = 0
    for step in write_script(replace(PLAN, faults=given_faults)):
        if step.track is None or step.delivery in (Delivery.LOST, Delivery.DUPLICATED):
            continue
        assert (step.sequence < highest) is (step.delivery is Delivery.REORDERED)
        highest = max(highest, step.sequence)


@given(faults)
@settings(max_examples=examples(20))
def test_a_seed_gives_one_script(given_faults: Faults) -> None:
    """The same plan gives the same script."""
    plan = replace(PLAN, faults=given_faults)
    assert list(write_script(plan)) == list(write_script(plan))


@pytest.mark.parametrize(
    ("fault", "delivery"),
    [("loss", Delivery.LOST), ("reorder", Delivery.REORDERED), ("duplicate", Delivery.DUPLICATED)],
)
def test_a_chance_is_a_share(fault: str, delivery: Delivery) -> None:
    """Of 2000 chunks a tenth is befallen, within the bounds of luck."""
    shares: dict[str, Any] = {fault: 0.1}
    faulty = Faults(**shares)
    fates = Counter(step.delivery for step in write_script(replace(LONG, faults=faulty)))

    assert 150 < fates[delivery] < 250


def test_seeds_differ() -> None:
    """Another seed loses other chunks."""

    def lost(seed: str) -> list[int]:
        plan = replace(LONG, faults=Faults(loss=0.1, seed=seed))
        return [step.sequence for step in write_script(plan) if step.delivery is Delivery.LOST]

    assert lost("1") != lost("2")


def test_one_fault_leaves_the_others_alone() -> None:
    """More loss does not change which chunks are doubled among those that arrive."""

    def doubled(loss: float) -> set[int]:
        plan = replace(LONG, faults=Faults(loss=loss, duplicate=0.1))
        return {
            step.sequence for step in write_script(plan) if step.delivery is Delivery.DUPLICATED
        }

    assert doubled(0.5) < doubled(0.0)


def test_jitter_delays_by_at_most_its_bound() -> None:
    """Late, but never early, later than the bound, or out of order."""
    plain = list(write_script(LONG))
    late = list(write_script(replace(LONG, faults=Faults(jitter_ms=35))))
    delays = [after.at_ms - before.at_ms for before, after in zip(plain, late, strict=True)]

    assert 0 <= min(delays) <= max(delays) <= 35
    assert max(delays) > 30
