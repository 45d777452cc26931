"""The records of a write-ahead journal: what is in one live stream's file, and its bytes.

Pure. A journal is a row of records, each of them

    length    4 bytes, little endian, of the body
    CRC-32    4 bytes, little endian, of the body
    body      one MessagePack array, whose first element is the record's kind

The payload of a chunk is the last element of its body, so it ends where its record ends: an index
of offsets is enough to read it later. `reader` says up to where a file of them can be trusted.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Final

import msgspec

from receiver.media import Chunk, EndReason, GapKind, RejectedChunk, Track

VERSION: Final = 1
CLAIMED_CALL: Final = "token_call"
"""Code of a note that opens the journal of a stream whose signed token names a call, as long as no
start message has named that call. Its detail is the call's id. Without such a start message the
journal is not published."""
PREVIOUS_PART: Final = "previous_part"
"""Code of a note that says which recording holds the stream's audio from before this one. Its
detail is a `PreviousPart`, as JSON."""
REPEATED_IDS: Final = "ids_repeated"
"""Code of a note of ids that the start message lacks and other messages have: JSON, an array of
the ids of stream, call and account."""
LONGEST_RECORD_BYTES: Final = 4 * 2**20
"""No record is longer (messages are bounded well below); a larger length is damage."""

MOST_APART: Final = 1000
"""Chunk numbers of neighbours in one row of dropped chunks are no further apart."""

PREFIX: Final = struct.Struct("<II")
"""Before each record's body: its length and its CRC-32."""
_encode = msgspec.msgpack.Encoder().encode
_CHUNK_KIND: Final = 2


class Header(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """The first record. `started_at_ms` is UTC, in milliseconds since 1970."""

    recording_id: str
    started_at_ms: int
    version: int
    receiver_version: str


class MessageRecord(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """A message other than media, verbatim. Arrival times count from the header's start."""

    arrival_ms: int
    message: bytes


class ChunkRecord(msgspec.Struct, frozen=True, array_like=True, tag=_CHUNK_KIND):
    """A chunk as it arrived; `payload` stays encoded."""

    track: Track
    sequence_number: int | None
    chunk: int | None
    timestamp_ms: int | None
    arrival_ms: int
    payload: bytes


class RejectedRecord(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """A message that could not be used; `chunk` is what is known of the chunk that it carried.

    `label` is what the message calls the track or stream of its audio.
    """

    arrival_ms: int
    code: str
    chunk: RejectedChunk | None
    label: str = ""
    audio: bytes = b""  # last, as a chunk's payload is


class EndRecord(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """The last record: why the recording ended. Its absence means a crash."""

    arrival_ms: int
    reason: EndReason
    detail: str


class NoteRecord(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """What happened to the journal itself. Notes become findings, but for `CLAIMED_CALL`."""

    arrival_ms: int
    code: str
    detail: str


class DroppedRecord(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """A row of chunks of one track that arrived but are not in this journal: only their bounds.

    Each chunk is near another one of its row; `dropped` says what near is. With the kind
    `SENDER_SILENCE` the chunks are in the recording before this one, of the same stream.
    """

    kind: GapKind
    track: Track
    chunks: int
    first_chunk: int | None
    last_chunk: int | None
    first_timestamp_ms: int | None
    last_timestamp_ms: int | None


class PartEnd(msgspec.Struct, frozen=True, omit_defaults=True):
    """The last chunk of one track in a part of a stream: its number, and the clock at its end."""

    number: int | None = None
    timestamp_ms: int | None = None
    end_ms: int | None = None


class PreviousPart(msgspec.Struct, frozen=True, omit_defaults=True):
    """The recording that holds a stream's audio from before, and where that ended."""

    id: str
    stream_sid: str
    latest_at_ms: int  # when its latest chunk came, UTC in milliseconds since 1970
    tracks: dict[Track, PartEnd]
    sequence_number: int | None = None  # the highest of its messages
    reason: EndReason | None = None  # none where it was still open
    same_socket: bool = False  # as this one


Record = (
    Header | MessageRecord | ChunkRecord | RejectedRecord | EndRecord | NoteRecord | DroppedRecord
)
decode_body: Final[Callable[[bytes | memoryview], Record]] = msgspec.msgpack.Decoder(Record).decode
"""Returns the record that has this body; raises ValueError or RecursionError for any other."""


def encode(record: Record) -> bytes:
    """Return the bytes of `record`, length and checksum among them."""
    body = _encode(record)
    return PREFIX.pack(len(body), zlib.crc32(body)) + body


def encode_chunk(chunk: Chunk, arrival_ms: int) -> bytes:
    """Return the bytes of a `ChunkRecord`. This is the hot path, so no struct is built."""
    body = _encode(
        (
            _CHUNK_KIND,
            chunk.track,
            chunk.sequence_number,
            chunk.chunk,
            chunk.timestamp_ms,
            arrival_ms,
            chunk.payload,
        )
    )
    return PREFIX.pack(len(body), zlib.crc32(body)) + body


def decode(record: bytes) -> Record:
    """Return the record whose bytes these are, as `encode` made them."""
    return decode_body(memoryview(record)[PREFIX.size :])
