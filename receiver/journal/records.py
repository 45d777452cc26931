"""The records of a write-ahead journal: what is in one live stream's file, and its bytes.

Pure. A journal is a row of records, each of them

    length    4 bytes, little endian, of the body
    CRC-32    4 bytes, little endian, of the body
    body      one MessagePack array, whose first element is the record's kind

The payload of a chunk is the last element of its body, so it ends where its record ends: an index
of offsets is enough to read it later. A record that the file ends within is a torn tail and is
ignored. Anything else that is wrong is damage: it ends what can be trusted, and is reported.
"""

from __future__ import annotations

import itertools
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from receiver.media import Chunk, EndReason, GapKind, RejectedChunk, Track

VERSION: Final = 1
CLAIMED_CALL: Final = "token_call"
"""Code of a note that opens the journal of a stream whose signed token names a call, as long as no
start message has named that call. Its detail is the call's id. Without such a start message the
journal is not published."""
LONGEST_RECORD_BYTES: Final = 4 * 2**20
"""No record is longer (messages are bounded well below); a larger length is damage."""

MOST_APART: Final = 1000
"""Chunk numbers of neighbours in one row of dropped chunks are no further apart."""

_PREFIX: Final = struct.Struct("<II")
_encode = msgspec.msgpack.Encoder().encode
_CHUNK_KIND: Final = 2
_BODY_START: Final = re.compile(rb"[\x90-\x9f][\x00-\x06]")  # MessagePack: an array, and its kind
_MOST_CHECKED_BYTES: Final = 2**27
"""Of a rest that was made to look like records: a tenth of a second, and it counts as damage."""


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
    """A message that could not be used; `chunk` is what is known of the chunk that it carried."""

    arrival_ms: int
    code: str
    chunk: RejectedChunk | None


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


Record = (
    Header | MessageRecord | ChunkRecord | RejectedRecord | EndRecord | NoteRecord | DroppedRecord
)
_decoder: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)


def encode(record: Record) -> bytes:
    """Return the bytes of `record`, length and checksum among them."""
    body = _encode(record)
    return _PREFIX.pack(len(body), zlib.crc32(body)) + body


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
    return _PREFIX.pack(len(body), zlib.crc32(body)) + body


def decode(record: bytes) -> Record:
    """Return the record whose bytes these are, as `encode` made them."""
    return _decoder.decode(memoryview(record)[_PREFIX.size :])


class Reader:
    """Iterates over the records of a journal, given as blocks of bytes of any size.

    Yields `(end, record)` where `end` is the offset behind the record. Afterwards
    `trusted_bytes` says up to where the journal can be trusted, and `damage` is `None`, or
    says in one sentence what ended the trust; a torn tail is no damage.
    """

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self._buffer = b""
        self._position = 0  # of the next record, within the buffer
        self.trusted_bytes = 0
        self.damage: str | None = None

    def __iter__(self) -> Iterator[tuple[int, Record]]:
        prefix = _PREFIX.size
        while self.damage is None and self._fill(prefix):
            length, checksum = _PREFIX.unpack_from(self._buffer, self._position)
            if not 0 < length <= LONGEST_RECORD_BYTES:
                self._distrust(f"a record of {length} bytes")
                return
            if not self._fill(prefix + length):
                self._end_within_record()
                return
            start = self._position + prefix
            record = self._checked(self._buffer[start : start + length], checksum)
            if record is None:
                return
            self._position = start + length
            self.trusted_bytes += prefix + length
            yield self.trusted_bytes, record

    def _fill(self, wanted: int) -> bool:
        """Read until `wanted` bytes lie behind the position; return `False` at the file's end."""
        while len(self._buffer) - self._position < wanted:
            block = next(self._blocks, b"")
            if not block:
                return False
            self._buffer = self._buffer[self._position :] + block
            self._position = 0
        return True

    def _checked(self, body: bytes, checksum: int) -> Record | None:
        if zlib.crc32(body) != checksum:
            self._distrust("a record that fails its checksum", body_bytes=len(body))
            return None
        try:
            return _decoder.decode(body)
        except (ValueError, RecursionError):  # msgspec's errors, and bad UTF-8
            self._distrust("a record of an unknown kind")
            return None

    def _end_within_record(self) -> None:
        """Record damage if a whole record follows: then it is a wrong length, not a torn tail."""
        if _holds_record(self._buffer[self._position :]):
            self.damage = f"a record of a wrong length at byte {self.trusted_bytes}"

    def _distrust(self, what: str, *, body_bytes: int = 0) -> None:
        """Record damage, unless all that follows is what a power cut leaves at the end.

        A file system may have grown the file before its bytes came: such a tail is zeros, or
        one bad record with nothing, or only zeros, behind it. A record that swallows other ones
        is none of that: its length is wrong.
        """
        end = _PREFIX.size + body_bytes if body_bytes else 0
        self._fill(end + LONGEST_RECORD_BYTES)  # what is swallowed may end among the zeros
        rest = self._buffer[self._position :]
        blocks = itertools.chain((rest[end:],), self._blocks)
        if any(block.strip(b"\0") for block in blocks) or _holds_record(rest):
            self.damage = f"{what} at byte {self.trusted_bytes}"


def _holds_record(rest: bytes) -> bool:
    """Whether a whole record lies in `rest`, behind the one that it begins with."""
    view, checked = memoryview(rest), 0
    for found in _BODY_START.finditer(rest, _PREFIX.size + 1):
        body = found.start()
        length, checksum = _PREFIX.unpack_from(rest, body - _PREFIX.size)
        if not 0 < length <= len(rest) - body:
            continue
        checked += length
        if checked > _MOST_CHECKED_BYTES or zlib.crc32(view[body : body + length]) == checksum:
            return True
    return False
