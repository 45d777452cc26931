"""What is reported of a recording: the document, its findings, and whether it is complete."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

import receiver
from receiver.media import (
    ByteOrder,
    ClockRule,
    Finding,
    GapKind,
    MediaFormat,
    PauseEnd,
    Track,
    TrackGap,
    timestamp,
)
from receiver.recording.document import (
    SCHEMA_VERSION,
    DtmfPress,
    MarkPassed,
    PausedSpan,
    PreviousRecording,
    RecordedTrack,
    Recording,
    RefusedAudio,
)
from receiver.recording.journal_scan import Joint, JournalScan, findings_of
from receiver.timeline import track_timeline
from receiver.timeline.gaps import chunks_not_kept
from receiver.timeline.jumps import LONGEST_JUMP_MS
from receiver.timeline.track_timeline import Placement
from receiver.wire.messages import UNKNOWN_TRACK, DtmfMessage, MarkMessage, Start

_TWILIO_SID: Final = re.compile(r"MZ[0-9a-f]{32}")
UNNAMED: Final = Start("", "", "", (), {}, MediaFormat())
"""In the place of the start message where none came."""
_HARMLESS: Final = frozenset(
    {
        "byte_order_chosen",
        "clock_rule",
        "clock_reanchored",
        "counters_restarted",
        "counters_unusable",
    }
    | {"journal_rewritten", "track_assumed", "audio_kept_aside", "parameters_not_kept"}
    | {"audio_paused"}  # somebody asked for it, and the document says so
    | {"messages_not_kept", "unknown_events", "clock_origin", "start_restated"}
    | {"messages_rejected", "timestamps_missing", "timestamps_overlap", "timestamps_absurd"}
    | {"track_silent"}
)
"""Findings that leave out nothing a listener would miss."""
_WHY: Final = {
    GapKind.REJECTED: "were refused",
    GapKind.DISK: "came while the disk took none",
    GapKind.LOST: "never came",
    GapKind.PAUSED: "came while recording was paused",
}
_MISSED_KINDS: Final = frozenset(GapKind) - {GapKind.SENDER_SILENCE}


@dataclass(frozen=True, slots=True)
class Rendered:
    """What rendering made of a journal: the files of tracks and what they were made with."""

    placements: Sequence[Placement]
    tracks: tuple[RecordedTrack, ...]
    length: int  # of every track, in payload bytes
    byte_order: ByteOrder | None = None  # for L16 only
    byte_order_chosen: bool = False  # by comparing, not by a setting
    stereo: dict[str, str] | None = None
    refused: RefusedAudio | None = None
    joint: Joint | None = None  # with the recording before this one
    unclaimed: int | None = None  # messages that never came, and are of no track that has audio
    origin_ms: int = 0  # the timestamp at which the time line starts
    peaks: dict[str, str] | None = None
    events_at_ms: Sequence[int] = ()  # where keys and marks of a scanned journal are, then pauses


def report(scanned: JournalScan, rendered: Rendered) -> Recording:
    """Return the document of a recording, with everything a listener should know."""
    media, start = scanned.media_format, scanned.start or UNNAMED
    findings = tuple(_findings(scanned, rendered))
    messages = [message for _, message in scanned.events]
    events = list(zip(rendered.events_at_ms[: len(messages)], messages, strict=True))
    pauses = _pauses(scanned, rendered.events_at_ms[len(messages) :])
    return Recording(
        schema_version=SCHEMA_VERSION,
        id=scanned.header.recording_id,
        provider=_provider(start),
        account_sid=start.account_sid,
        call_sid=start.call_sid,
        stream_sid=start.stream_sid,
        started_at=timestamp(scanned.header.started_at_ms),
        ended_at=timestamp(scanned.ended_at_ms),
        end_reason=scanned.end_reason,
        complete=all(finding.code in _HARMLESS for finding in findings),
        findings=findings,
        parameters=start.parameters,
        media_format=media,
        duration_ms=track_timeline.milliseconds(rendered.length, media),
        clock_rule=_clock_rule(rendered.placements),
        tracks=tuple(_with_reasons(track, pauses) for track in rendered.tracks),
        dtmf=tuple(
            DtmfPress(at, m.digit, m.duration_ms) for at, m in events if type(m) is DtmfMessage
        ),
        marks=tuple(MarkPassed(at, m.name) for at, m in events if type(m) is MarkMessage),
        journal_sha256=scanned.sha256,
        receiver_version=receiver.__version__,
        byte_order=rendered.byte_order,
        stereo=rendered.stereo,
        refused=rendered.refused,
        previous=_previous(scanned, rendered.joint),
        peaks=rendered.peaks,
        paused_ms=sum(pause.duration_ms for pause in pauses),
        pauses=pauses,
        consent=scanned.consent,
    )


def _pauses(scanned: JournalScan, at_ms: Sequence[int]) -> tuple[PausedSpan, ...]:
    return tuple(
        PausedSpan(at, each.ended_ms - each.since_ms, each.reason, each.end or PauseEnd.CRASH)
        for at, each in zip(at_ms, scanned.pauses, strict=True)
    )


def _with_reasons(track: RecordedTrack, pauses: Sequence[PausedSpan]) -> RecordedTrack:
    """Return a track whose paused gaps have the reason of the pause that began nearest to them."""

    def with_reason(gap: TrackGap) -> TrackGap:
        nearest = min(pauses, key=lambda pause: abs(pause.at_ms - gap.start_ms))
        return msgspec.structs.replace(gap, reason=nearest.reason)

    if not pauses:
        return track
    gaps = (with_reason(gap) if gap.kind is GapKind.PAUSED else gap for gap in track.gaps)
    return msgspec.structs.replace(track, gaps=tuple(gaps))


def _provider(start: Start) -> str:
    """Return the provider by the form of its ids: Twilio's are a prefix and 32 hex digits."""
    return "twilio" if _TWILIO_SID.fullmatch(start.stream_sid) else "signalwire"


def _previous(scanned: JournalScan, joint: Joint | None) -> PreviousRecording | None:
    previous = scanned.previous
    if previous is None or joint is None:
        return None
    return PreviousRecording(previous.id, previous.stream_sid, joint.gap_ms)


def _between_parts(joint: Joint) -> Iterator[Finding]:
    """Yield what lies between two parts of a stream, where no gap of this one stands for it."""
    if joint.origin_ms is not None and joint.gap_ms > LONGEST_JUMP_MS and not joint.is_pause:
        text = f"{joint.gap_ms / 1000:g} s are neither here nor in the one before"
        yield Finding("between_parts", text)


def _findings(scanned: JournalScan, rendered: Rendered) -> Iterator[Finding]:
    yield from findings_of(scanned)
    if rendered.byte_order_chosen and rendered.byte_order is not None:
        yield Finding("byte_order_chosen", f"{rendered.byte_order.value} is the smoother reading")
    if rendered.joint is not None:
        yield from _between_parts(rendered.joint)
    continued = rendered.joint is not None and rendered.joint.origin_ms is not None
    if rendered.origin_ms and not continued:
        yield Finding("clock_origin", f"stream time was counted from {rendered.origin_ms} ms on")
    for placement in rendered.placements:
        yield from placement.findings
    for track in rendered.tracks:
        yield from _track_findings(track)
    yield from _audio_missing(scanned, rendered.placements)
    yield from _silent_tracks(scanned, rendered.unclaimed)
    if rendered.refused is not None:
        chunks = sum(part.chunks for part in rendered.refused.parts)
        text = f"{chunks} payloads are in {rendered.refused.file}, as they came"
        yield Finding("audio_kept_aside", text)


def _clock_rule(placements: Iterable[Placement]) -> ClockRule:
    """Return the recording's rule: that of its tracks, the least exact one where they differ."""
    rules = {placed.clock_rule for placed in placements}
    exactness = (ClockRule.CHUNKS, ClockRule.SAMPLES)
    return next((rule for rule in exactness if rule in rules), ClockRule.TIMESTAMP)


def _track_findings(track: RecordedTrack) -> Iterator[Finding]:
    """Yield what a listener would miss on one track."""
    for kind in sorted(_MISSED_KINDS):
        durations = [gap.duration_ms for gap in track.gaps if gap.kind is kind]
        if durations:
            text = f"{sum(durations):g} ms in {len(durations)} gaps"
            yield Finding(f"audio_{kind.value}", text, track.track)
    ledger = track.chunks
    if ledger.conflict:
        text = f"{ledger.conflict} chunks came again with other bytes; the first was kept"
        yield Finding("chunk_conflicts", text, track.track)
    if not ledger.balanced:
        yield Finding("ledger_mismatch", f"{ledger}", track.track)


def _silent_tracks(scanned: JournalScan, unclaimed: int | None) -> Iterator[Finding]:
    """Yield a finding for each track that the start message names and of which nothing came.

    Providers name a party that never speaks, too. Only numbers that are missing, and that no
    other track may have lost, say that any of it was sent. Where no audio came at all, the
    recording says so by itself.
    """
    named = scanned.start.tracks if scanned.start else ()
    silent = [track for track in Track if track in named and track not in scanned.tracks]
    if unclaimed and not scanned.tracks:
        yield Finding("audio_lost", f"{unclaimed} messages never came, and no audio did")
    if scanned.refused_format or not scanned.tracks:
        return
    for track in silent:
        if unclaimed:
            yield Finding("audio_lost", f"all {unclaimed} chunks never came", track)
        else:
            proof = "nothing is missing by" if unclaimed == 0 else "it cannot be told by"
            text = f"the start message names it, and nothing came; {proof} sequence numbers"
            yield Finding("track_silent", text, track)


def _audio_missing(scanned: JournalScan, placements: Iterable[Placement]) -> Iterator[Finding]:
    """Yield findings for chunks that were lost or not kept, where no gap stands for them.

    A track of which nothing was kept has no gaps; on others counters may make no sense.
    """
    if unknown := scanned.rejected[UNKNOWN_TRACK]:
        yield Finding("audio_rejected", f"{unknown} chunks of no known track were refused")
    unshown = {placement.track: placement.unshown for placement in placements}
    for track, index in scanned.tracks.items():
        missed = unshown.get(track, chunks_not_kept(index.not_kept))
        for kind, chunks in sorted(missed.items()):
            if kind not in _MISSED_KINDS:  # they are in another recording
                continue
            text = f"{chunks} chunks {_WHY.get(kind, 'were not kept')}"
            text = f"{text}; no gap says where" if track in unshown else f"all {text}"
            yield Finding(f"audio_{kind.value}", text, track)
