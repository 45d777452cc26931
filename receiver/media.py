"""The types that all packages share: tracks, chunks, media formats, gaps, findings.

Pure. The enumerations are closed sets; their values stand in `recording.json` and in tap messages.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec

SAMPLE_RATES: Final = range(8000, 48001, 1000)
"""Samples per second. All are whole samples per millisecond, so that placement is exact."""


class Track(enum.StrEnum):
    """Direction of the audio, as the provider sees it."""

    INBOUND = "inbound"  # what the provider receives from the call
    OUTBOUND = "outbound"  # what the provider plays to the call


class Encoding(enum.StrEnum):
    """How samples are encoded in a payload; the values are the provider's spelling."""

    PCMU = "audio/x-mulaw"
    PCMA = "audio/x-alaw"
    L16 = "audio/x-L16"


_SILENT_BYTE: Final = {Encoding.PCMU: b"\xff", Encoding.PCMA: b"\xd5", Encoding.L16: b"\0"}


class GapKind(enum.StrEnum):
    """Why samples are missing. A closed set: programs may match on it."""

    LOST = "lost"  # chunk numbers are missing
    SENDER_SILENCE = "sender_silence"  # numbers are contiguous, the clock jumped
    REJECTED = "rejected"  # the chunk came, but could not be used
    DISK = "disk"  # the disk was full for longer than memory could bridge
    PAUSED = "paused"  # recording was paused on request
    CRASH = "crash"  # the receiver was not running
    ERASED = "erased"  # it was recorded, and erased on request


class GapReason(enum.StrEnum):
    """Why a live listener gets silence, or nothing. A closed set: programs may match on it."""

    LOST = "lost"  # chunk numbers are missing, or nobody can say
    SENDER_SILENCE = "sender_silence"  # numbers are contiguous, the clock jumped
    LATE = "late"  # the chunk came after its place was filled with silence
    SLOW_LISTENER = "slow_listener"  # the listener did not read


class PauseEnd(enum.StrEnum):
    """What ended a pause of a recording."""

    RESUMED = "resumed"  # somebody asked for it
    EXPIRED = "expired"  # its time was over
    RENEWED = "renewed"  # another pause took its place
    STREAM_ENDED = "stream_ended"
    CRASH = "crash"  # the receiver ended without being asked


class EndReason(enum.StrEnum):
    """What ended a recording."""

    STOP = "stop"  # a stop message
    CLOSED = "closed"  # the socket closed without a stop message
    IDLE = "idle"  # no sign of life for too long
    SHUTDOWN = "shutdown"  # the receiver was asked to end
    CRASH = "crash"  # the receiver ended without being asked
    PROTOCOL_ERROR = "protocol_error"  # the peer misbehaved and was cut
    REPLACED = "replaced"  # another stream started on the same socket


class DtmfMode(enum.StrEnum):
    """What is kept of keys that are pressed during a call."""

    KEEP = "keep"  # which, when, how long
    COUNT = "count"  # how many and when
    DROP = "drop"  # nothing


WITHHELD_DIGIT: Final = "?"
"""In the place of a digit that is not kept."""


class ByteOrder(enum.StrEnum):
    """Order of the two bytes of an L16 sample; AUTO compares how smooth both readings are."""

    LITTLE = "little"
    BIG = "big"
    AUTO = "auto"


class ClockRule(enum.StrEnum):
    """What a recording's time line was built from."""

    TIMESTAMP = "timestamp"  # timestamps count milliseconds, as documented
    SAMPLES = "samples"  # timestamps count samples
    CHUNKS = "chunks"  # timestamps are missing or leave too little room: chunks are appended


class MediaFormat(msgspec.Struct, frozen=True):
    """Encoding, samples per second, and channels (always 1) of a stream's payloads."""

    encoding: Encoding = Encoding.PCMU
    sample_rate: int = 8000
    channels: int = 1

    @property
    def bytes_per_sample(self) -> int:
        """Return how many payload bytes one sample takes."""
        return 2 if self.encoding is Encoding.L16 else 1

    @property
    def bytes_per_ms(self) -> int:
        """Return how many payload bytes one millisecond takes."""
        return self.sample_rate // 1000 * self.bytes_per_sample

    def silence(self, size: int) -> bytes:
        """Return so many payload bytes of digital silence."""
        return _SILENT_BYTE[self.encoding] * size


class Chunk(msgspec.Struct, frozen=True, gc=False):  # it can be in no circle
    """One media payload. `None` stands for a counter that is missing or makes no sense."""

    track: Track
    sequence_number: int | None
    chunk: int | None
    timestamp_ms: int | None
    payload: bytes
    stream_sid: str | None = None  # where the provider repeats it in every message


class RejectedChunk(msgspec.Struct, frozen=True):
    """What is known of a media message that could not be used."""

    track: Track
    sequence_number: int | None = None
    chunk: int | None = None
    timestamp_ms: int | None = None


class TrackGap(msgspec.Struct, frozen=True, omit_defaults=True):
    """Silence put in the place of missing chunks, in milliseconds of the stream's clock."""

    start_ms: float
    duration_ms: float
    kind: GapKind
    reason: str = ""  # that was given for a pause


class ChunkCounts(msgspec.Struct, frozen=True):
    """What became of a track's chunks: received = written + duplicate + conflict + rejected.

    `late` chunks arrived out of order; they are among the written ones.
    """

    received: int
    written: int
    duplicate: int = 0
    late: int = 0
    conflict: int = 0
    rejected: int = 0

    @property
    def balanced(self) -> bool:
        """Whether every received chunk is accounted for."""
        return self.received == self.written + self.duplicate + self.conflict + self.rejected


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One fact about a recording's quality; `code` is stable, `detail` is for people."""

    code: str
    detail: str
    track: Track | None = None


LONGEST_TEXT_BYTES: Final = 4096
"""Of an id, a name or a digit from the wire so much is kept, outside of the journal."""


def clipped(text: str) -> str:
    """Return a text from the wire, cut where it is longer than anything meant for people."""
    if len(text) <= LONGEST_TEXT_BYTES // 4:
        return text
    return text.encode("utf-8", "replace")[:LONGEST_TEXT_BYTES].decode("utf-8", "ignore")


def json_text(value: object) -> str:
    """Return a value as JSON in its own script; one that is none becomes `"?"`."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (RecursionError, TypeError, ValueError):  # no JSON parser gives such a value
        return '"?"'
    return text.replace("\x7f", "\\u007f")


def parameter_text(value: object) -> str:
    """Return a custom parameter as text: tags show it so, filters and tokens compare it so.

    A text is itself, anything else is JSON: `true`, `null`, `5`, `["a", 1]`.
    """
    return value if isinstance(value, str) else json_text(value)


def lacking(required: Iterable[str], parameters: Mapping[str, object]) -> tuple[str, ...]:
    """Return which of the required parameters a stream lacks.

    Args:
        required: `NAME`, which must be there and not be an empty text, or `NAME=VALUE`.
        parameters: custom parameters, by name.
    """

    def has(wanted: str) -> bool:
        name, equals, value = wanted.partition("=")
        found = parameter_text(parameters[name]) if name in parameters else ""
        return found == value if equals else bool(found)

    return tuple(wanted for wanted in required if not has(wanted))


_INVISIBLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)
"""What Unicode takes for printable and nobody sees: fillers, joiners, variation selectors."""


def visible(text: str, escape: Callable[[str], str] | None = None) -> str:
    r"""Return a text with every character escaped that could control, reorder or hide something.

    Text from the wire may be anything. A terminal obeys control characters, shows a line in
    another order for bidirectional ones, and shows nothing at all for others. For example a line
    break becomes `\n`, an escape character `\x1b`, and a right-to-left override `\u202e`.

    Args:
        text: Any text, also with lone surrogates.
        escape: Returns what stands for one such character; by default as in Python's strings.
    """
    if text.isprintable() and (text.isascii() or not _INVISIBLE.search(text)):
        return text
    escaped = escape or _python_escape
    return "".join(c if c.isprintable() and not _INVISIBLE.match(c) else escaped(c) for c in text)


def _python_escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def timestamp(milliseconds: int) -> str:
    """Return milliseconds since 1970 as RFC 3339 in UTC, to the millisecond."""
    moment = datetime.fromtimestamp(milliseconds // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03d}Z"
