"""What a journal becomes: the document `recording.json`, and the outcome of publishing.

The document holds everything that is known of one recording. Field names and their meaning are a
contract with the programs that read recordings. Durations and positions are milliseconds of the
stream's clock; absolute times are RFC 3339 in UTC with milliseconds.

A `Timeline` is `timeline.json`: what happened when, in one list, for whoever draws or skips.

An `Outcome` says what became of a journal, and `RenderOptions` what is asked of rendering. Both
cross processes. None of this imports numpy or libsndfile, so the serving process and the commands
can speak of recordings without mapping either.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from receiver.errors import UnreadableError
from receiver.media import (
    ByteOrder,
    ChunkCounts,
    ClockRule,
    EndReason,
    Finding,
    MediaFormat,
    PauseEnd,
    Track,
    TrackGap,
    visible,
)

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA_VERSION: Final = 1


class Level(msgspec.Struct, frozen=True):
    """How loud a track is, in dBFS: what is not silent of it, and its highest sample.

    0 is full scale, so a sine of full scale has an `rms` of -3. Nothing but silence has neither.
    """

    rms: float | None
    peak: float | None


class RecordedTrack(msgspec.Struct, frozen=True, omit_defaults=True):
    """One track's file and its quality; `sha256` is the file's.

    Earlier versions measured neither `level_dbfs` nor `silence_share`.
    """

    track: Track
    file: str
    samples: int
    duration_ms: float
    sha256: str
    chunks: ChunkCounts
    silence_ms: float
    gaps: tuple[TrackGap, ...]
    first_timestamp_ms: int | None
    drift_ppm: float | None
    level_dbfs: Level | None = None
    silence_share: float | None = None


class DtmfPress(msgspec.Struct, frozen=True):
    """A key press; `at_ms` is on the stream's clock."""

    at_ms: int
    digit: str
    duration_ms: int | None


class MarkPassed(msgspec.Struct, frozen=True):
    """A mark; `at_ms` is on the stream's clock."""

    at_ms: int
    name: str


class PausedSpan(msgspec.Struct, frozen=True):
    """A pause; `at_ms` is on the stream's clock, how long it lasted on the receiver's."""

    at_ms: int
    duration_ms: int
    reason: str
    end: PauseEnd


class RefusedPart(msgspec.Struct, frozen=True):
    """Payloads of one kind in `refused.raw`, back to back in the order in which they came.

    `label` is what their messages call the track or stream; arrivals count from the start.
    """

    code: str
    label: str
    chunks: int
    offset: int
    size: int
    first_arrival_ms: int
    last_arrival_ms: int


class RefusedAudio(msgspec.Struct, frozen=True):
    """Audio that is in no track: the file that has it as it came, and what is where in it."""

    file: str
    size: int
    sha256: str
    parts: tuple[RefusedPart, ...]


class PreviousRecording(msgspec.Struct, frozen=True):
    """The recording that has what came of the stream before, and what lies between the two."""

    id: str
    stream_sid: str
    gap_ms: int


class ErasedSpan(msgspec.Struct, frozen=True):
    """What was erased after publication: whole samples of some tracks, and who asked for it."""

    from_ms: float
    to_ms: float
    tracks: tuple[Track, ...]
    at: str
    by: str
    reason: str


class Recording(msgspec.Struct, frozen=True, omit_defaults=True):
    """The whole document. `byte_order` is there for L16 only, `stereo` where it was asked for.

    `refused` is there where audio came that could not be used or decoded, `previous` where the
    stream began in another recording, `erased` where some of it was erased since. Earlier versions
    have neither `peaks` nor `timeline`.
    """

    schema_version: int
    id: str
    provider: str
    account_sid: str
    call_sid: str
    stream_sid: str
    started_at: str
    ended_at: str
    end_reason: EndReason
    complete: bool
    findings: tuple[Finding, ...]
    parameters: dict[str, Any]
    media_format: MediaFormat
    duration_ms: float
    clock_rule: ClockRule
    tracks: tuple[RecordedTrack, ...]
    dtmf: tuple[DtmfPress, ...]
    marks: tuple[MarkPassed, ...]
    journal_sha256: str
    receiver_version: str
    byte_order: ByteOrder | None = None
    stereo: dict[str, str] | None = None  # {"file": "stereo.wav", "sha256": ...}
    refused: RefusedAudio | None = None
    previous: PreviousRecording | None = None
    peaks: dict[str, str] | None = None  # {"file": "peaks.dat", "sha256": ...}; with tracks only
    paused_ms: int = 0  # all pauses together
    pauses: tuple[PausedSpan, ...] = ()
    consent: dict[str, Any] | None = None  # parameters that were required, as they came
    timeline: dict[str, str] | None = None  # {"file": "timeline.json", "sha256": ...}
    erased: tuple[ErasedSpan, ...] = ()


_decoder = msgspec.json.Decoder(Recording)


_HASH_LINE: Final = b',\n  "document_sha256": "%s"\n}\n'
_HASHED: Final = re.compile(rb',\n  "document_sha256": "([0-9a-f]{64})"\n}\n\Z')
_HASH_LIKE: Final = re.compile(rb'document_sha256|:\s*"[0-9a-f]{64}"\s*}\s*\Z')
"""What only a document with a hash has in its last bytes, even where one of these has changed."""
_LAST_BYTES: Final = 120


def encode(recording: Recording) -> bytes:
    """Return the document as indented UTF-8 JSON with a final newline.

    What a terminal would obey or not show stands as `\\u202e`, which is the same to JSON. The last
    field is `document_sha256`, of the whole file with an empty text in place of the hash.
    """
    text = msgspec.json.format(msgspec.json.encode(recording), indent=2).decode()
    shown = "\n".join(visible(line, json_escape) for line in text.split("\n"))
    start = shown.encode().removesuffix(b"\n}")
    return start + _HASH_LINE % _hash_of(start)


def json_escape(character: str) -> str:
    """Return the escape of a character in a JSON string, in UTF-16 as RFC 8259 has it."""
    encoded = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{unit:04x}" for (unit,) in struct.iter_unpack(">H", encoded))


def _hash_of(start: bytes) -> bytes:
    """Return the hash of a document of which all before the last field is given."""
    return hashlib.sha256(start + _HASH_LINE % b"").hexdigest().encode()


def has_hash(document: bytes) -> bool:
    """Whether a document says its own hash; earlier ones do not."""
    return bool(_HASH_LIKE.search(document[-_LAST_BYTES:]))


def has_lost_hash(document: bytes, recording: Recording) -> bool:
    """Whether a document says no hash of its own, and whatever wrote it would have written one.

    Every version that names a time line writes the hash, so only a document without either may
    be of an earlier one.
    """
    return recording.timeline is not None and not has_hash(document)


def is_intact(document: bytes) -> bool:
    """Whether no byte of a document has changed, as far as it says its own hash."""
    if not has_hash(document):
        return True
    found = _HASHED.search(document[-_LAST_BYTES:])
    if found is None:
        return False
    start = document[: -len(found[0])]
    return _hash_of(start) == found[1]


def decode(document: bytes) -> Recording:
    """Return the recording that `document` describes.

    Raises:
        UnreadableError: it is not such a document.
    """
    try:
        return _decoder.decode(document)
    except (ValueError, RecursionError) as error:  # msgspec's errors, and bad UTF-8
        raise UnreadableError(f"not a recording.json: {error}") from error


TIMELINE_VERSION: Final = 1
SILENCE: Final = "silence"
DTMF: Final = "dtmf"
MARK: Final = "mark"
SHORTEST_SILENCE_MS: Final = 2000
"""Shorter ones are the pauses of ordinary speech."""


class TimelineEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something from `t_ms` to `end_ms` of the recording; both are the same for a moment in it.

    `kind` is that of a gap (`GapKind`; a pause has its `reason`), or `silence`, `dtmf` (with
    `digit`), `mark` (with `name`). Later versions add kinds. `track` is null for what is of the
    whole call.
    """

    t_ms: float
    end_ms: float
    track: Track | None
    kind: str
    digit: str | None = None
    name: str | None = None
    reason: str = ""


class Timeline(msgspec.Struct, frozen=True):
    """The whole file: events in the order in which they begin."""

    version: int = TIMELINE_VERSION
    events: tuple[TimelineEvent, ...] = ()


_timeline_decoder = msgspec.json.Decoder(Timeline)


def timeline_of(
    tracks: Sequence[RecordedTrack],
    silences: Iterable[tuple[Track, int, int]],
    keys: Iterable[DtmfPress],
    marks: Iterable[MarkPassed],
) -> Timeline:
    """Return the time line of a recording; `silences` are tracks with start and end in ms."""
    events = [*_gaps(tracks), *_silences(tracks, silences), *_keys(keys), *_marks(marks)]
    return Timeline(events=tuple(sorted(events, key=_position)))


def _position(event: TimelineEvent) -> tuple[float, float, str, str]:
    return event.t_ms, event.end_ms, event.track or "", event.kind


def _gaps(tracks: Sequence[RecordedTrack]) -> Iterator[TimelineEvent]:
    for track in tracks:
        for gap in track.gaps:
            end_ms = round(gap.start_ms + gap.duration_ms, 6)
            kind, reason = gap.kind.value, gap.reason
            yield TimelineEvent(gap.start_ms, end_ms, track.track, kind, reason=reason)


def _silences(
    tracks: Sequence[RecordedTrack], silences: Iterable[tuple[Track, int, int]]
) -> Iterator[TimelineEvent]:
    duration_ms = max((track.duration_ms for track in tracks), default=0)
    for track, start_ms, end_ms in silences:
        yield TimelineEvent(start_ms, min(end_ms, duration_ms), track, SILENCE)


def _keys(keys: Iterable[DtmfPress]) -> Iterator[TimelineEvent]:
    for key in keys:
        yield TimelineEvent(key.at_ms, key.at_ms + (key.duration_ms or 0), None, DTMF, key.digit)


def _marks(marks: Iterable[MarkPassed]) -> Iterator[TimelineEvent]:
    for mark in marks:
        yield TimelineEvent(mark.at_ms, mark.at_ms, None, MARK, name=mark.name)


def encode_timeline(timeline: Timeline) -> bytes:
    """Return the file: UTF-8 JSON, each event in a line of its own, escaped as the document is."""
    encoded = (msgspec.json.encode(event).decode() for event in timeline.events)
    lines = ",\n".join(visible(line, json_escape) for line in encoded)
    return f'{{"version":{timeline.version},"events":[\n{lines}\n]}}\n'.encode()


def decode_timeline(content: bytes) -> Timeline:
    """Return the time line that a file holds.

    Raises:
        UnreadableError: it is none.
    """
    try:
        return _timeline_decoder.decode(content)
    except (ValueError, RecursionError) as error:  # msgspec's errors, and bad UTF-8
        raise UnreadableError(f"not a timeline.json: {error}") from error


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A journal that was set aside; `journal` is where it is now."""

    journal: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Postponed:
    """A journal, or a worker's folder, that cannot be published now and stays where it is."""

    journal: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Published:
    """A recording that is on disk under its final name."""

    folder: Path
    recording: Recording
    quarantined: Quarantined | None = None  # its journal, where that holds more


@dataclass(frozen=True, slots=True)
class Empty:
    """A journal of no bytes at all, which was removed."""

    journal: Path


@dataclass(frozen=True, slots=True)
class Discarded:
    """A journal that was removed because nothing of it may be kept."""

    journal: Path
    reason: str


Outcome = Published | Quarantined | Empty | Discarded


@dataclass(frozen=True, slots=True)
class RenderOptions:
    """`byte_order` is for L16 payloads; `stereo` adds `stereo.wav` (left is inbound)."""

    byte_order: ByteOrder = ByteOrder.LITTLE
    stereo: bool = False
