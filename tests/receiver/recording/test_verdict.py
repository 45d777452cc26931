"""The verdict on a recording in plain sentences."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

import receiver
from receiver.media import (
    ChunkCounts,
    ClockRule,
    EndReason,
    Finding,
    GapKind,
    MediaFormat,
    Track,
    TrackGap,
)
from receiver.recording.document import RecordedTrack, Recording
from receiver.recording.verdict import (
    Tone,
    badges,
    clock,
    code_text,
    duration,
    gap_mark,
    gap_text,
    is_loss,
    lost_and_paused_ms,
    verdict,
)

TABLE: Final = re.compile(r"^\| ((?:`\w+`(?:, )?)+) \| .* \| (yes|no) \|$", re.MULTILINE)
INBOUND, OUTBOUND = Track.INBOUND, Track.OUTBOUND


def findings_described() -> dict[str, bool]:
    """Return, by each code that the package's page has, whether a listener misses something."""
    page = Path(receiver.__file__).parent / "recording/README.md"
    rows = TABLE.findall(page.read_text("utf-8").split("## Findings")[1])
    return {code: loss == "yes" for codes, loss in rows for code in re.findall(r"\w+", codes)}


def recorded(
    *findings: Finding,
    inbound: tuple[TrackGap, ...] = (),
    outbound: tuple[TrackGap, ...] = (),
    complete: bool = False,
    has_audio: bool = True,
) -> Recording:
    """Return the document of a recording of a minute with these findings and gaps."""
    tracks = tuple(
        RecordedTrack(
            track, f"{track.value}.wav", 480000, 60000, "", ChunkCounts(1, 1), 0, gaps, 0, 0
        )
        for track, gaps in ((INBOUND, inbound), (OUTBOUND, outbound))
    )
    return Recording(
        schema_version=1,
        id="00112233aabbccdd",
        provider="signalwire",
        account_sid="",
        call_sid="",
        stream_sid="",
        started_at="2026-11-22T20:30:00.000Z",
        ended_at="2026-11-22T20:31:00.000Z",
        end_reason=EndReason.STOP,
        complete=complete,
        findings=findings,
        parameters={},
        media_format=MediaFormat(),
        duration_ms=60000,
        clock_rule=ClockRule.TIMESTAMP,
        tracks=tracks if has_audio else (),
        dtmf=(),
        marks=(),
        journal_sha256="",
        receiver_version="",
    )


def lost(track: Track, text: str = "320 ms in 1 gaps") -> Finding:
    """Return what is reported of lost audio."""
    return Finding("audio_lost", text, track)


def test_a_recording_that_has_all_of_it_says_so() -> None:
    """In two sentences, and no more."""
    assert "Complete. Everything that was sent is here." == verdict(recorded(complete=True)).text


def test_a_gap_says_who_when_how_much_and_why() -> None:
    """And that nothing else is missing."""
    found = verdict(recorded(lost(INBOUND), inbound=(TrackGap(7400, 320, GapKind.LOST),)))
    assert (
        "Not complete. 320 ms of the caller are missing at 0:07.4: the packets never arrived. "
        "Everything else that was sent is here."
    ) == found.text


def test_a_pause_of_both_sides_is_one_sentence() -> None:
    """It was one act."""
    gaps = (TrackGap(12200, 2100, GapKind.PAUSED),)
    told = [Finding("audio_paused", "2100 ms in 1 gaps", track) for track in Track]
    found = verdict(recorded(*told, inbound=gaps, outbound=gaps))
    assert ["2.1 s of both sides were paused on request at 0:12.2."] == [
        each.text for each in found.sentences if each.is_asked
    ]


def test_gaps_that_differ_are_told_of_each_side() -> None:
    """Each has its own places."""
    found = verdict(
        recorded(
            lost(INBOUND),
            lost(OUTBOUND),
            inbound=(TrackGap(1000, 20, GapKind.LOST), TrackGap(3000, 40, GapKind.LOST)),
            outbound=(TrackGap(1000, 60, GapKind.LOST),),
        )
    )
    assert [
        "60 ms of the caller are missing at 0:01.0 and 0:03.0: the packets never arrived.",
        "60 ms of the agent are missing at 0:01.0: the packets never arrived.",
    ] == [each.text for each in found.sentences if each.is_loss]


def test_of_many_gaps_the_longest_is_named() -> None:
    """A sentence with forty times is none."""
    gaps = tuple(TrackGap(1000 * n, 20 * n, GapKind.LOST) for n in range(1, 6))
    found = verdict(recorded(lost(INBOUND, "300 ms in 5 gaps"), inbound=gaps))
    assert (
        "300 ms of the caller are missing in 5 places from 0:01.0 to 0:05.0, "
        "the longest of 100 ms at 0:05.0: the packets never arrived."
    ) == found.sentences[0].text


def test_silence_of_the_sender_is_no_loss() -> None:
    """Nothing was sent."""
    gaps = (TrackGap(1000, 9000, GapKind.SENDER_SILENCE),)
    found = verdict(recorded(complete=True, inbound=gaps))
    assert "Complete. Everything that was sent is here." == found.text


def test_packets_without_a_gap_are_told_beside_those_with_one() -> None:
    """Both findings have one code."""
    text = "4 chunks never came; no gap says where"
    gaps = (TrackGap(7400, 320, GapKind.LOST),)
    found = verdict(recorded(lost(INBOUND), lost(INBOUND, text), inbound=gaps))
    assert "Of the caller, 4 packets never came; no gap says where." in found.text
    assert "320 ms of the caller are missing" in found.text


def test_after_a_broken_line_nobody_knows_what_else_was_sent() -> None:
    """So the verdict does not claim it."""
    found = verdict(recorded(Finding("connection_lost", "no close frame received")))
    assert (
        "Not complete. The connection broke before the call ended (no close frame received). "
        "Whether anything else is missing cannot be known."
    ) == found.text


def test_a_recording_without_audio_says_so() -> None:
    """Rather than that everything is there."""
    assert (
        "Complete. No audio was recorded." == verdict(recorded(complete=True, has_audio=False)).text
    )


def test_what_leaves_no_loss_stands_behind_the_rest() -> None:
    """It is there for whoever asks, and in no headline."""
    finding = Finding("counters_restarted", "2 times", OUTBOUND)
    found = verdict(recorded(finding, complete=True))
    assert "Complete. Everything that was sent is here." == found.text
    assert "The packet numbers of the agent began anew: 2 times." == found.sentences[-1].text


@pytest.mark.parametrize(("code", "loses"), findings_described().items())
def test_every_finding_has_its_sentence(code: str, loses: bool) -> None:
    """With its detail, or without need of one; and it is a loss where the page says so."""
    found = verdict(recorded(Finding(code, "9 chunks of it", INBOUND), complete=not loses))
    (sentence,) = [each for each in found.sentences if each.codes]
    assert (loses, (code,)) == (sentence.is_loss, sentence.codes)
    assert loses == is_loss(code)
    assert re.fullmatch(r"[A-Z].{15,}\.", sentence.text)
    assert code not in sentence.text, "it is a code, and no sentence"
    assert "9 packets" in sentence.text or code == "crashed"


def test_the_page_describes_all_findings_that_are_tested_here() -> None:
    """The table is read from it, and an empty one would test nothing."""
    assert 30 < len(findings_described())


def test_a_finding_of_a_later_version_is_shown_with_its_code() -> None:
    """It explains a verdict that nothing else does."""
    found = verdict(recorded(Finding("gremlins", "3 of them")))
    assert (
        "Not complete. 3 of them (gremlins). Everything else that was sent is here." == found.text
    )


@pytest.mark.parametrize(
    ("codes", "complete", "lost_ms", "paused_ms", "shown"),
    [
        ([], True, 0, 0, ["complete"]),
        (["clock_origin"], True, 0, 0, ["complete"]),
        (["audio_lost"], False, 1200, 0, ["1.2 s lost"]),
        (["audio_paused"], False, 0, 14000, ["paused 14 s"]),
        (["audio_lost", "audio_paused"], False, 40, 14000, ["40 ms lost", "paused 14 s"]),
        (["connection_lost"], False, 0, 0, ["line broke"]),
        (["audio_paused", "crashed"], False, 0, 14000, ["receiver crashed", "paused 14 s"]),
        (["gremlins"], False, 0, 0, ["not complete"]),
    ],
)
def test_a_list_shows_a_verdict_in_few_words(
    codes: list[str], complete: bool, lost_ms: float, paused_ms: float, shown: list[str]
) -> None:
    """A pause was asked for, and is no loss beside one."""
    found = badges(codes, complete=complete, lost_ms=lost_ms, paused_ms=paused_ms)
    assert shown == [badge.text for badge in found]
    assert (found[0].tone is Tone.GOOD) == complete


def test_a_code_is_written_in_words() -> None:
    """As its badge, or as it is spelt."""
    assert "line broke" == code_text("connection_lost")
    assert "clock origin" == code_text("clock_origin")


def test_what_is_missing_is_counted_on_the_worse_track() -> None:
    """Both tracks run beside each other; silence of a sender counts for nothing."""
    found = recorded(
        inbound=(TrackGap(0, 100, GapKind.LOST), TrackGap(200, 300, GapKind.PAUSED)),
        outbound=(TrackGap(0, 80, GapKind.DISK), TrackGap(500, 900, GapKind.SENDER_SILENCE)),
    )
    assert (100, 300) == lost_and_paused_ms(found)
    assert (0, 0) == lost_and_paused_ms(recorded(has_audio=False))


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        *((0, "0 ms"), (320, "320 ms"), (999.6, "1 s"), (1200, "1.2 s"), (59_949, "59.9 s")),
        *((59_960, "1 min"), (60_000, "1 min"), (125_000, "2 min 5 s"), (3_780_000, "1 h 3 min")),
        (3_600_000, "1 h"),
    ],
)
def test_a_length_of_time_is_written_as_people_say_it(ms: float, text: str) -> None:
    """In one unit, or in two."""
    assert text == duration(ms)


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0:00.0"),
        (7400, "0:07.4"),
        (7499, "0:07.4"),
        (61_000, "1:01.0"),
        (3_723_000, "1:02:03.0"),
    ],
)
def test_a_position_is_never_behind_what_it_points_at(ms: float, text: str) -> None:
    """Whoever seeks there hears all of it."""
    assert text == clock(ms)


@pytest.mark.parametrize("kind", GapKind)
def test_every_kind_of_gap_explains_itself(kind: GapKind) -> None:
    """In words and in one mark."""
    text = gap_text(TrackGap(0, 320, kind), "the caller")
    assert text.startswith("320 ms")
    assert "the caller" in text
    assert gap_mark(kind)
