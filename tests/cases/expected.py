"""What is right of each case: of the files (W), and of what a live listener gets (L)."""

from __future__ import annotations

import base64
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np

from receiver.media import EndReason, GapKind, Track
from tests.cases.played import Played, Published, Sent, steps, tone_hz

IN, OUT = Track.INBOUND, Track.OUTBOUND
PACKET_MS: Final = 20
ADAPTED_MS: Final = 1000
"""A live listener may miss something of a track while the clock of its own adapts to it."""

Check = Callable[[Played], None]
FILES: Final[dict[str, Check]] = {}
LIVE: Final[dict[str, Check]] = {}


def right_file(name: str) -> Callable[[Check], Check]:
    """Register what is right of a case's files."""
    return lambda check: FILES.setdefault(name, check)


def right_live(*names: str) -> Callable[[Check], Check]:
    """Register what is right of what is heard of some cases."""

    def register(check: Check) -> Check:
        LIVE.update(dict.fromkeys(names, check))
        return check

    return register


def complete(published: Published) -> None:
    """Nothing is missing, and nothing is said to be."""
    assert [] == [code for code in published.findings if "lost" in code]
    lost = [gap for track in published.document.tracks for gap in track.gaps if _is_loss(gap.kind)]
    assert [] == lost
    assert published.document.complete, published.findings


def _is_loss(kind: GapKind) -> bool:
    return kind is not GapKind.SENDER_SILENCE


def lost_ms(published: Published, track: Track) -> float:
    """Return how much is said to be lost of a track."""
    return sum(gap.duration_ms for gap in published.gaps(track) if gap.kind is GapKind.LOST)


def stands(
    published: Published,
    sent: list[Sent],
    true_ms: Callable[[Sent], float] = lambda chunk: chunk.stamp_ms,
    *,
    within_ms: float = 0.5,
) -> None:
    """Every chunk is in the file, at its place."""
    places = published.places_ms(sent)
    assert [] == [chunk.at_ms for chunk, at in zip(sent, places, strict=True) if at is None]
    wrong = [
        (chunk.stamp_ms, at)
        for chunk, at in zip(sent, places, strict=True)
        if at is not None and abs(at - true_ms(chunk)) > within_ms
    ]
    assert [] == wrong[:5], f"{len(wrong)} chunks are misplaced"


def hears(played: Played, track: Track, *, from_ms: float = 0) -> None:
    """Every chunk of a track is heard that was sent later than `from_ms` after its first one."""
    assert played.heard is not None
    sent = played.sent(track)
    due = sent[0].at_ms + from_ms
    missed = [at for at in played.heard.missed(sent) if at >= due]
    assert [] == missed[:5], f"{len(missed)} chunks of {track} were not heard"


# -- files


@right_file("C01-hold")
def _hold(played: Played) -> None:
    """A hold of 100 s is silence in one recording."""
    published = played.only()
    complete(published)
    assert EndReason.STOP is published.document.end_reason
    assert abs(102_000 - published.document.duration_ms) <= PACKET_MS
    for track in Track:
        stands(published, played.sent(track))


@right_file("C03-burst")
def _burst(played: Played) -> None:
    """Turns that arrive at once stand where they were sent, one chunk behind the other."""
    published = played.only()
    complete(published)
    stands(published, played.sent(IN))
    outbound = played.sent(OUT)
    bursts = [
        [chunk for chunk in outbound if chunk.at_ms < 3000],
        [chunk for chunk in outbound if chunk.at_ms >= 3000],
    ]
    for start_ms, burst in zip((1000, 4000), bursts, strict=True):
        places = published.places_ms(burst)
        true_ms = dict(zip(burst, range(start_ms, 6000, PACKET_MS), strict=False))
        stands(published, burst, true_ms.__getitem__, within_ms=PACKET_MS)
        steps = {round(b - a, 2) for a, b in pairwise(places) if a is not None and b is not None}
        assert {PACKET_MS} == steps


@right_file("C15-cjk")
def _cjk(played: Played) -> None:
    """Parameters are exact in any script."""
    expected = {"客户": "王小明", "queue": "📞 sales", "ключ": "значение"}
    assert expected | {"note": "naïve \u2013 ü"} == played.only().document.parameters
    complete(played.only())


@right_file("C27a-track-long")
def _long_track_names(played: Played) -> None:
    """`inbound_track` is the inbound track."""
    published = played.only()
    complete(published)
    assert 2000 == published.document.duration_ms
    for track in Track:
        stands(published, played.sent(track))


@right_file("C29-skew200")
def _skew(played: Played) -> None:
    """A track that always comes later is not later."""
    published = played.only()
    complete(published)
    for track in Track:
        stands(published, played.sent(track))


@right_file("C31-part1")
def _first_part(played: Played) -> None:
    """What was on the wire before the reset is there."""
    published = played.only()
    assert EndReason.CLOSED is published.document.end_reason
    for track in Track:
        stands(published, played.sent(track))


@right_file("C31-part2")
def _second_part(played: Played) -> None:
    """It names the part before; only the second between them is missing."""
    first, second = played.published
    previous = getattr(second.document, "previous", None)
    assert previous is not None
    assert first.document.id == previous.id
    for track in Track:
        sent = played.sent(track)
        told = lost_ms(second, track)
        assert abs(told - 1000) <= PACKET_MS or abs(previous.gap_ms - 1000) <= 200
        assert told <= 1000 + PACKET_MS
        assert None not in second.places_ms(sent)
    assert not second.document.complete


@right_file("C33-own-clocks")
def _own_clocks(played: Played) -> None:
    """A track whose timestamps begin with itself stands where it arrived."""
    _stands_by_arrival(played, 2000)


@right_file("T03-own-clock")
def _own_clock(played: Played) -> None:
    """The same, after six seconds."""
    _stands_by_arrival(played, 6000)


def _stands_by_arrival(played: Played, start_ms: int) -> None:
    published = played.only()
    complete(published)
    assert "clock_reanchored" in published.findings
    stands(published, played.sent(IN))
    outbound = played.sent(OUT)
    stands(published, outbound, lambda chunk: chunk.stamp_ms + start_ms, within_ms=100)


@right_file("T01-shared-counter")
def _shared_counter(played: Played) -> None:
    """Numbers that the other track has are not missing."""
    published = played.only()
    complete(published)
    assert 0 <= published.document.duration_ms - 10_000 <= 40
    for track in Track:
        sent = played.sent(track)
        true_ms = {chunk: chunk.at_ms - sent[0].at_ms for chunk in sent}
        stands(published, sent, true_ms.__getitem__, within_ms=60)


@right_file("T05-lost-beside-pause")
def _lost_beside_pause(played: Played) -> None:
    """One chunk is lost, and five seconds were silent."""
    published = played.only()
    assert not published.document.complete
    assert PACKET_MS == lost_ms(published, IN)
    assert 0 == lost_ms(published, OUT)
    for track in Track:
        silence = [
            gap.duration_ms for gap in published.gaps(track) if gap.kind is GapKind.SENDER_SILENCE
        ]
        assert abs(sum(silence) - 5000) <= PACKET_MS
        stands(published, played.sent(track))


@right_file("T06-drift-200ppm")
def _drift(played: Played) -> None:
    """Running speech has no silence in it, however the sender's clock runs."""
    published = played.only()
    complete(published)
    sent = played.sent(IN)
    places = published.places_ms(sent)
    steps = {round(b - a, 2) for a, b in pairwise(places) if a is not None and b is not None}
    assert {float(PACKET_MS)} == steps
    assert abs(len(sent) * PACKET_MS - published.document.duration_ms) <= PACKET_MS


@right_file("T08-mixed-sizes-live")
def _mixed_sizes(played: Played) -> None:
    """Packets of any size stand one behind the other."""
    published = played.only()
    complete(published)
    for track in Track:
        whole = b"".join(chunk.samples for chunk in played.sent(track))
        assert whole == published.samples[track].tobytes()[: len(whole)]


@right_file("T09-no-numbers-jitter")
def _no_numbers(played: Played) -> None:
    """Contiguous sequence numbers say that nothing is lost."""
    published = played.only()
    complete(published)
    for track in Track:
        assert None not in published.places_ms(played.sent(track))


@right_file("T12b-wrap-overtaken")
def _wrap(played: Played) -> None:
    """The counter wraps between two chunks that overtook each other."""
    published = played.only()
    complete(published)
    stands(published, sorted(played.sent(IN), key=lambda chunk: chunk.stamp_ms))
    assert len(played.sent(IN)) == published.track(IN).chunks.written


@right_file("T13-tail-lost")
def _tail(played: Played) -> None:
    """The number of the stop message says that something is missing before it."""
    published = played.only()
    assert not published.document.complete
    assert "audio_lost" in published.findings
    stands(published, played.sent(IN))


@right_file("T15-track-lost-to-end")
def _track_lost(played: Played) -> None:
    """The sequence numbers of the one track say what the other has lost."""
    published = played.only()
    assert not published.document.complete
    assert abs(lost_ms(published, OUT) - 4000) <= PACKET_MS
    assert 0 == lost_ms(published, IN)
    stands(published, played.sent(IN))
    stands(published, played.sent(OUT))


@right_file("T16-rate-changes")
def _rates(played: Played) -> None:
    """The tone is as high after the second start message as before it, and no longer."""
    seconds = 0.0
    for published in played.published:
        rate = published.document.media_format.sample_rate
        samples = published.samples[IN]
        seconds += len(samples) / rate
        for at in range(0, len(samples) - rate + 1, rate):
            strongest, share = tone_hz(samples[at : at + rate], rate)
            assert abs(strongest - 440) <= 2
            assert share > 0.9
    assert abs(seconds - 8) <= 0.02


@right_file("T21-counter-restart")
def _restart(played: Played) -> None:
    """Numbers that come again with other audio are no duplicates."""
    published = played.only()
    complete(published)
    sent = played.sent(IN)
    assert len(sent) == published.track(IN).chunks.written
    assert len(sent) * PACKET_MS == published.document.duration_ms
    stands(published, sent)


@right_file("T22-l16-odd-live")
def _odd(played: Played) -> None:
    """The tone goes on behind a lost chunk of an odd number of bytes."""
    published = played.only()
    assert not published.document.complete
    _is_tone_but_for(published.samples[IN], published.document.media_format.sample_rate)


def _is_tone_but_for(samples: np.ndarray[tuple[int], np.dtype[np.int16]], rate: int) -> None:
    """The 440 Hz tone, in all tenths of a second but those beside the one loss."""
    tenth = rate // 10
    parts = [samples[at : at + tenth] for at in range(0, len(samples) - tenth + 1, tenth)]
    wrong = [
        number
        for number, part in enumerate(parts)
        if not (abs(tone_hz(part, rate)[0] - 440) <= 10 and tone_hz(part, rate)[1] > 0.9)
    ]
    assert len(wrong) <= 3, wrong
    assert len(parts) >= 39


@right_file("telnyx-pcma-noise")
def _half_format(played: Played) -> None:
    """A format under another name is read, or what came is kept and not called complete."""
    published = played.only()
    if published.document.complete:
        assert _is_pure_tone(published, IN)
    else:
        assert "format_assumed" in published.findings
        assert _is_pure_tone(published, IN) or played.raw


@right_file("first-chunk-is-2")
def _second_chunk_first(played: Played) -> None:
    """Counters may begin with 2, a timestamp with 40: nothing is lost."""
    published = played.only()
    complete(published)
    assert _is_pure_tone(published, IN)
    assert 500 <= published.document.duration_ms <= 540


@right_file("g722-start")
def _unknown_encoding(played: Played) -> None:
    """What cannot be decoded is kept as it came, and said."""
    published = played.only()
    assert not published.document.complete
    assert "format_refused" in published.findings
    messages = [step.message or {} for step in steps(played.name)]
    sent = [base64.b64decode(one["media"]["payload"]) for one in messages if "media" in one]
    assert b"".join(sent) == b"".join(map(Path.read_bytes, played.raw))
    lines = [line for line in played.log if line.get("call_sid") == "call-g722-start"]
    assert "format_refused" in {line["event"] for line in lines}


@right_file("audiohook-open")
def _another_protocol(played: Played) -> None:
    """It is refused at once, with the reason."""
    assert [] == played.published
    ((code, reason),) = played.closings
    assert 1003 == code
    assert reason


def _dialect(played: Played) -> None:
    """A dialect is understood, or refused with a reason, or the recording says what is wrong."""
    if not played.published:
        assert {1003} == {code for code, _ in played.closings}
        assert all(reason for _, reason in played.closings)
    for published in played.published:
        if published.document.complete:
            assert published.samples
            assert all(_is_pure_tone(published, track) for track in published.samples)


for _name in ("bandwidth", "exotel", "jambonz", "plivo-mulaw", "vonage"):
    FILES[f"dialect-{_name}"] = _dialect
for _name in ("l16", "pcma", "pcmu"):
    FILES[f"dialect-telnyx-{_name}"] = _dialect


def _is_pure_tone(published: Published, track: Track) -> bool:
    samples, rate = published.samples[track], published.document.media_format.sample_rate
    strongest, share = tone_hz(samples, rate)
    return abs(strongest - 440) <= 20 and share > 0.9


# -- live


@right_live("C03-burst", "T08-mixed-sizes-live", "first-chunk-is-2")
def _everything(played: Played) -> None:
    """Nothing is late, nothing is missing."""
    assert played.heard is not None
    assert [] == [gap for gap in played.heard.gaps if gap["reason"] != "sender_silence"]
    for track in Track:
        if sent := played.sent(track):
            assert [] == played.heard.missed(sent)


@right_live("C27a-track-long", "C29-skew200", "C33-own-clocks", "T01-shared-counter")
def _both(played: Played) -> None:
    """Both parties are heard whole as soon as the clock has adapted."""
    for track in Track:
        hears(played, track, from_ms=ADAPTED_MS)


right_live("T03-own-clock", "T05-lost-beside-pause", "T09-no-numbers-jitter")(_both)
right_live("C31-part1", "C31-part2")(_both)


@right_live("T06-drift-200ppm", "T12b-wrap-overtaken", "T13-tail-lost", "T21-counter-restart")
def _inbound(played: Played) -> None:
    """The one party is heard whole."""
    hears(played, IN)


@right_live("T15-track-lost-to-end")
def _until_it_is_lost(played: Played) -> None:
    """Both are heard for as long as they come, and what never comes is lost, as in the file."""
    for track in Track:
        hears(played, track)
    assert played.heard is not None
    lost = {track.value: 0.0 for track in Track}
    for gap in played.heard.gaps:
        assert gap["reason"] in ("lost", "late"), played.heard.gaps  # late: a busy machine
        if gap["reason"] == "lost":
            lost[gap["track"]] += gap["duration_ms"]
    assert 0 == lost["inbound"]
    assert abs(lost["outbound"] - 4000) <= PACKET_MS, played.heard.gaps


@right_live("T22-l16-odd-live")
def _odd_live(played: Played) -> None:
    """Behind the loss there is the tone, and no noise."""
    assert played.heard is not None
    _is_tone_but_for(np.frombuffer(played.heard.line(IN), "<i2"), 16_000)


@right_live("T16-rate-changes")
def _rates_live(played: Played) -> None:
    """As high as it was said to be, before and behind the second start message."""
    assert played.heard is not None
    rate = next(
        text["media_format"]["sample_rate"]
        for text in played.heard.texts
        if text["event"] == "started"
    )
    samples = np.frombuffer(played.heard.line(IN), "<i2")
    assert len(samples) >= 3.9 * rate
    for at in range(0, len(samples) - rate + 1, rate):
        assert abs(tone_hz(samples[at : at + rate], rate)[0] - 440) <= 2
