"""What pages show: rows of the catalogue and documents, as plain values with words for people.

A page's template and its JSON twin get the same values, so each has the exact figure beside the
words. Addresses are paths of the console. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, urlencode

from receiver.catalogue.rows import Row
from receiver.media import (
    Encoding,
    EndReason,
    GapKind,
    Track,
    TrackGap,
    json_text,
    parameter_text,
    visible,
)
from receiver.recording.annotations import Annotations
from receiver.recording.document import RecordedTrack, Recording
from receiver.recording.verdict import (
    SIDES,
    badges,
    clock,
    gap_mark,
    gap_text,
    verdict,
)

API: Final = "/api/v1/recordings"
MOST_SPANS, MOST_GAPS, MOST_EVENTS = 4000, 30, 200
"""Drawn, listed, and put under the waveforms; all of them are in the document."""
MOST_CHIPS, LONGEST_VALUE, LONGEST_TITLE = 5, 80, 60
_FIRST_NAMES: Final = ("agent", "queue", "name", "caller", "case")
"""Parameters that name a recording best, where it has them."""
_LOOKS: Final = {
    GapKind.PAUSED: "paused",
    GapKind.ERASED: "paused",
    GapKind.SENDER_SILENCE: "silent",
}
_PROVIDERS: Final = {"signalwire": "SignalWire", "twilio": "Twilio"}
_ENCODINGS: Final = {Encoding.PCMU: "mu-law", Encoding.PCMA: "A-law", Encoding.L16: "16-bit linear"}
_ENDS: Final = {
    EndReason.STOP: "by the provider, as it should",
    EndReason.CLOSED: "the connection closed",
    EndReason.IDLE: "nothing came any more",
    EndReason.SHUTDOWN: "the receiver was stopped",
    EndReason.CRASH: "the receiver ended without warning",
    EndReason.PROTOCOL_ERROR: "the sender broke the protocol",
    EndReason.REPLACED: "another stream began on the connection",
}
_POSITION: Final = re.compile(r"(?:[0-9]{1,4}:){0,2}[0-9]{1,6}(?:\.[0-9]{1,6})?")
_MONTHS: Final = (
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
    *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)


# Words and figures.


def day_and_time(moment: str, form: str = "") -> str:
    """Return an RFC 3339 time in UTC as `30 Nov 2026, 14:31:07`, with the form `day` without time.

    A text that is none is returned as it is.
    """
    try:
        at = datetime.fromisoformat(moment).astimezone(UTC)
    except ValueError:
        return moment
    day = f"{at.day} {_MONTHS[at.month - 1]} {at.year}"
    return day if form == "day" else f"{day}, {at:%H:%M:%S}"


def length_text(ms: float, decimals: int = 0) -> str:
    """Return a length as a clock shows it: `4:12`, `1:02:03`, with two decimals `0:20.00`."""
    unit = 10**decimals
    units = round(ms * unit / 1000)
    minutes, seconds = divmod(units // unit, 60)
    hours, minutes = divmod(minutes, 60)
    rest = f".{units % unit:0{decimals}}" if decimals else ""
    head = f"{hours}:{minutes:02}" if hours else f"{minutes}"
    return f"{head}:{seconds:02}{rest}"


def short(text: str) -> str:
    """Return the end of an id, by which people tell it from others."""
    return text if len(text) <= 10 else f"…{text[-8:]}"


FILTERS: Final = {"day_and_time": day_and_time, "length_text": length_text, "short": short}
"""For templates."""


def seconds_of(text: str) -> float | None:
    """Return the position that a person wrote: `62.5`, `1:02.5`, `1:02:03`; `None` is no position.

    Raises:
        ValueError: it is none of these.
    """
    if not text.strip():
        return None
    if not _POSITION.fullmatch(text.strip()):
        raise ValueError(f"{text!r} is no position in a recording")
    total = 0.0
    for part in text.strip().split(":"):
        total = total * 60 + float(part)
    return total


def title_of(parameters: Mapping[str, Any], call_sid: str) -> str:
    """Return what a recording is called: its most telling parameters, or else its call."""
    texts = {
        name: visible(value.strip())
        for name, value in parameters.items()
        if isinstance(value, str) and 0 < len(value.strip()) <= LONGEST_TITLE // 2
    }
    by_name = {name.lower(): name for name in texts}
    names = [by_name[name] for name in _FIRST_NAMES if name in by_name]
    names += [name for name in texts if name not in names]
    return ", ".join(texts[name] for name in names[:2]) or f"Call {short(visible(call_sid))}"


def _cut(text: str, most: int = LONGEST_VALUE) -> str:
    text = visible(text)
    return text if len(text) <= most else f"{text[: most - 1]}…"


# Addresses.


def search_url(words: Iterable[tuple[str, str]], ending: str = "") -> str:
    """Return the address of the list with these query words."""
    query = urlencode([(name, value) for name, value in words if value])
    return f"/recordings{ending}" + (f"?{query}" if query else "")


def recording_url(recording_id: str) -> str:
    """Return the address of a recording's page."""
    return f"/recordings/{quote(recording_id, safe='')}"


def call_url(call_sid: str) -> str:
    """Return the address of a call's page."""
    return f"/calls/{quote(call_sid, safe='')}"


def parameter_url(name: str, value: str) -> str:
    """Return the address of the list of recordings that have this parameter."""
    return search_url([(f"param.{name}", value)])


# A row of a list.


def row_view(row: Row) -> dict[str, Any]:
    """Return a recording as a list shows it."""
    shown = list(row.parameters.items())[:MOST_CHIPS]
    return {
        "id": row.id,
        "title": title_of(row.parameters, row.call_sid),
        "url": recording_url(row.id),
        "audio_url": f"{API}/{row.id}",
        "call_sid": row.call_sid,
        "call_url": call_url(row.call_sid),
        "stream_sid": row.stream_sid,
        "started_at": row.started_at,
        "duration_ms": row.duration_ms,
        "tracks": list(row.tracks),
        "complete": row.complete,
        "findings": list(row.findings),
        "verdict": visible(row.verdict),
        "badges": _badges(row),
        "lost_ms": row.lost_ms,
        "paused_ms": row.paused_ms,
        "parameters": dict(row.parameters),
        "chips": [chip(name, parameter_text(value)) for name, value in shown],
        "more_parameters": max(0, len(row.parameters) - MOST_CHIPS),
        "labels": list(row.labels),
        "held": row.held,
        "notes": row.notes,
    }


def _badges(row: Row) -> list[dict[str, str]]:
    found = badges(
        row.findings, complete=row.complete, lost_ms=row.lost_ms, paused_ms=row.paused_ms
    )
    return [{"text": badge.text, "tone": badge.tone.value} for badge in found]


def chip(name: str, value: str) -> dict[str, str]:
    """Return a parameter as it is shown, with the address of all recordings that have it."""
    return {"name": _cut(name), "value": _cut(value), "url": parameter_url(name, value)}


COLUMNS: Final = (
    *("id", "started_at", "duration_ms", "call_sid", "stream_sid", "tracks", "complete"),
    *("findings", "lost_ms", "paused_ms", "labels", "held", "notes", "verdict"),
)


def csv_head(names: Sequence[str]) -> list[object]:
    """Return the heading of a table of recordings, with a column for each of these parameters.

    The last column has all parameters as JSON, also those that are first seen further below.
    """
    return [*COLUMNS, *(f"param.{name}" for name in names), "parameters"]


def csv_lines(rows: Iterable[Mapping[str, Any]], names: Sequence[str]) -> Iterator[list[object]]:
    """Yield the rows of a list as lines of the table."""
    for row in rows:
        given = row["parameters"]
        cells = [parameter_text(given[name]) if name in given else "" for name in names]
        yield [*(_cell(row[column]) for column in COLUMNS), *cells, json_text(given)]


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(map(str, value)) if isinstance(value, list) else value


# A recording.


def recording_view(recording: Recording, annotations: Annotations) -> dict[str, Any]:
    """Return everything that the page of a recording shows of its files."""
    found = verdict(recording)
    gaps = sorted(_gaps(recording), key=lambda each: each[1].start_ms)
    missed = list(_missed(gaps))
    return {
        "recording": _head(recording),
        "tracks": [_track(track) for track in _in_order(recording.tracks)],
        "verdict": {
            "is_complete": found.is_complete,
            "headline": found.headline,
            "text": found.text,
            "sentences": [
                {"text": visible(each.text), "codes": each.codes, "is_loss": each.is_loss}
                for each in found.sentences
            ],
        },
        "more_to_know": [
            visible(each.text)
            for each in found.sentences
            if each.codes and not (each.is_loss or each.is_asked)
        ],
        "parameters": [chip(name, parameter_text(v)) for name, v in recording.parameters.items()],
        "spans": [_span(track, gap) for track, gap in gaps[:MOST_SPANS]],
        "gaps": [_gap(sides, gap) for sides, gap in missed[:MOST_GAPS]],
        "more_gaps": max(0, len(missed) - MOST_GAPS),
        "events": _events(recording, annotations, missed)[:MOST_EVENTS],
        "facts": list(_facts(recording)),
        **annotations_view(annotations),
    }


def _head(recording: Recording) -> dict[str, Any]:
    media = recording.media_format
    return {
        "id": recording.id,
        "title": title_of(recording.parameters, recording.call_sid),
        "url": recording_url(recording.id),
        "audio_url": f"{API}/{recording.id}",
        "call_sid": recording.call_sid,
        "call_url": call_url(recording.call_sid),
        "started_at": recording.started_at,
        "ended_at": recording.ended_at,
        "duration_ms": recording.duration_ms,
        "provider_text": _PROVIDERS.get(recording.provider, visible(recording.provider)),
        "format_text": f"{_ENCODINGS[media.encoding]} {media.sample_rate / 1000:g} kHz",
    }


def _in_order(tracks: Iterable[RecordedTrack]) -> list[RecordedTrack]:
    """Return tracks with the caller above the agent."""
    return sorted(tracks, key=lambda each: list(Track).index(each.track))


def side_of(track: Track) -> str:
    """Return what a track is called: caller or agent."""
    return SIDES[track].removeprefix("the ")


def _track(track: RecordedTrack) -> dict[str, Any]:
    return {"track": track.track.value, "side": side_of(track.track), "sha256": track.sha256}


def _gaps(recording: Recording) -> Iterator[tuple[Track, TrackGap]]:
    for track in recording.tracks:
        for gap in track.gaps:
            yield track.track, gap


def _span(track: Track, gap: TrackGap) -> dict[str, Any]:
    return {
        "track": track.value,
        "from": gap.start_ms / 1000,
        "to": (gap.start_ms + gap.duration_ms) / 1000,
        "look": _LOOKS.get(gap.kind, "lost"),
        "text": gap_text(gap, SIDES[track]),
    }


def _missed(gaps: Iterable[tuple[Track, TrackGap]]) -> Iterator[tuple[str, TrackGap]]:
    """Yield whose audio is missing, and where; what both sides miss alike is one gap."""
    found: dict[TrackGap, list[Track]] = {}
    for track, gap in gaps:
        if gap.kind is not GapKind.SENDER_SILENCE:
            found.setdefault(gap, []).append(track)
    for gap, tracks in found.items():
        yield (SIDES[tracks[0]] if len(tracks) == 1 else "both sides"), gap


def _gap(sides: str, gap: TrackGap) -> dict[str, Any]:
    at, text = gap.start_ms, gap_text(gap, sides)
    return {"at": at / 1000, "clock": clock(at), "text": text, "kind": gap.kind.value}


def _events(
    recording: Recording, annotations: Annotations, missed: Iterable[tuple[str, TrackGap]]
) -> list[dict[str, Any]]:
    """Return what stands under the waveforms: keys, marks, notes, what is missing; in order."""
    found = [
        _event(press.at_ms, press.digit, "key", f"key {press.digit}") for press in recording.dtmf
    ]
    found += [
        _event(mark.at_ms, mark.name, "mark", f"mark {mark.name}") for mark in recording.marks
    ]
    found += [
        _event(note.t_ms, f"“{_cut(note.text, 40)}”", "note-at", note.text)
        for note in annotations.notes
        if note.t_ms is not None
    ]
    for sides, gap in missed:
        look, end_ms = _LOOKS.get(gap.kind, "bad"), gap.start_ms + gap.duration_ms
        text = gap_text(gap, sides)
        found.append(_event(gap.start_ms, gap_mark(gap.kind), look, text, end_ms=end_ms))
    return sorted(found, key=lambda event: event["at"])


def _event(
    at_ms: float, text: str, look: str, title: str, *, end_ms: float | None = None
) -> dict[str, Any]:
    return {
        "at": at_ms / 1000,
        "end": (at_ms if end_ms is None else end_ms) / 1000,
        "clock": clock(at_ms),
        "text": _cut(text, 44),
        "look": look,
        "title": _cut(title, 300),
    }


def annotations_view(annotations: Annotations) -> dict[str, Any]:
    """Return labels, notes and the hold of a recording."""
    hold = annotations.hold
    return {
        "labels": [
            {"name": each.name, "by": each.by, "at": each.at} for each in annotations.labels
        ],
        "notes": [
            {
                "id": note.id,
                "text": note.text,
                "at_s": None if note.t_ms is None else note.t_ms / 1000,
                "clock": "" if note.t_ms is None else clock(note.t_ms),
                "by": note.by,
                "at": note.at,
            }
            for note in annotations.notes
        ],
        "hold": None if hold is None else {"reason": hold.reason, "by": hold.by, "at": hold.at},
    }


def _facts(recording: Recording) -> Iterator[dict[str, Any]]:
    tracks = _in_order(recording.tracks)
    if tracks:
        spoken = [(side_of(t.track), t.silence_share) for t in tracks]
        parts = [f"{side} {1 - share:.0%}" for side, share in spoken if share is not None]
        if parts:
            yield _fact("Speech", ", ".join(parts).replace("%", " %"))
        yield _fact("Received", ", ".join(f"{side_of(t.track)} {_packets(t)}" for t in tracks))
        drifts = [f"{side_of(t.track)} {t.drift_ppm:+.0f} ppm" for t in tracks if t.drift_ppm]
        if drifts:
            yield _fact("Clock", ", ".join(drifts))
    yield _fact("Ended", f"{_ENDS[recording.end_reason]}")
    for track in tracks:
        text = f"{side_of(track.track)} {track.sha256[:4]}…{track.sha256[-4:]}"
        yield {**_fact("SHA-256", text, is_code=True), "whole": track.sha256}
    for name, value in (
        ("Call", recording.call_sid),
        ("Stream", recording.stream_sid),
        ("Account", recording.account_sid),
    ):
        if value:
            yield _fact(name, _cut(value), is_code=True)
    yield _fact("Rendered by", f"tapreel {visible(recording.receiver_version)}")


def _fact(name: str, value: str, *, is_code: bool = False) -> dict[str, Any]:
    return {"name": name, "value": value, "is_code": is_code, "whole": ""}


def _packets(track: RecordedTrack) -> str:
    ledger = track.chunks
    if ledger.written == ledger.received:
        return f"{ledger.received:,} packets"
    return f"{ledger.written:,} of {ledger.received:,} packets kept"


def downloads(tracks: Collection[str], recording_id: str) -> list[dict[str, str]]:
    """Return what can be downloaded of a recording, with addresses and sizes in words."""
    base = f"{API}/{recording_id}"
    found = []
    for track in tracks:
        side = side_of(Track(track))
        found.append({"text": f"WAV, {side}", "note": "exact", "url": f"{base}/{track}.wav"})
    if tracks:
        both = f"{base}/stereo"
        found += [
            {"text": "WAV, stereo", "note": "left caller, right agent", "url": f"{both}.wav"},
            {"text": "FLAC, stereo", "note": "exact, half the size", "url": f"{both}.flac"},
            {"text": "Opus, stereo", "note": "small", "url": f"{both}.opus"},
        ]
    return [*found, {"text": "Everything", "note": "zip", "url": f"{base}/all.zip"}]
