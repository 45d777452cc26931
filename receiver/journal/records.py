"""The records of a write-ahead journal: their bytes, and how far a file of them can be trusted.

Pure. A journal is a row of records, each of them

    length    4 bytes, little endian, of the body
    CRC-32    4 bytes, little endian, of the body
    body      one MessagePack array, whose first element is the record's kind

The payload of a chunk is the last element of its body, so it ends where its record ends: an index
of offsets is enough to read it later.

`Reader` says up to where a file can be trusted. One that ends within a record has a torn tail: its
process was killed in the midst of a write, or the power went. That is no damage; what is before it
counts. Zeros at the end are a torn tail too: a file system may have grown the file before its bytes
came. Anything else that is no record ends trust there, and is damage. A damaged length looks like a
torn tail, so what is behind it is searched for a whole record of any kind:

    [header][start][chunk][chu                  torn tail: 3 records count
    [header][start][chunk][000000000            torn tail: 3 records count
    [header][start][chu?k][chunk][end]          damage: 2 records count (checksum)
    [header][start][len?, chunk][chunk][end]    damage: 2 records count (length)
"""

from __future__ import annotations

import hashlib
import itertools
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

import msgspec

from receiver.disk.files import blocks_of
from receiver.media import Chunk, EndReason, GapKind, PauseEnd, RejectedChunk, Track

if TYPE_CHECKING:
    from io import FileIO

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
REQUIRED_PARAMETERS: Final = "params_required"
"""Code of a note that opens the journal where streams must have custom parameters. Its detail is a
JSON array of them, as `NAME` or `NAME=VALUE`. Without a start message that has them all, the
journal is not published."""
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
    """What happened to the journal itself. Notes become findings, but for the codes above."""

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


class PauseRecord(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """From here on nothing that comes is kept, but for starts and stops: somebody asked for it.

    It ends with a `ResumeRecord`, another one of these, or the journal. Rows of dropped chunks of
    the kind `PAUSED` say what came; a message that is not media leaves its sequence number.
    """

    arrival_ms: int
    reason: str
    until_ms: int  # when it ends by itself, UTC in milliseconds since 1970


class ResumeRecord(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """A pause has ended; what came meanwhile is counted."""

    arrival_ms: int
    end: PauseEnd
    chunks: int
    messages: int  # other than media


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
    Header
    | MessageRecord
    | ChunkRecord
    | RejectedRecord
    | EndRecord
    | NoteRecord
    | DroppedRecord
    | PauseRecord
    | ResumeRecord
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


_BODY_START: Final = re.compile(rb"[\x90-\x9f][\x00-\x08]")  # MessagePack: an array, and its kind
_MOST_CHECKED_BYTES: Final = 2**27
"""A rest that was made to look like records costs a tenth of a second, and counts as damage."""


class Reader:
    """Iterates over the records of a journal, given as blocks of bytes of any size.

    Yields `(end, record)` where `end` is the offset behind the record. Afterwards
    `trusted_bytes` says up to where the journal can be trusted, and `damage` is `None`, or
    says in one sentence what ended the trust; a torn tail is no damage.

    Args:
        blocks: The journal's content from its beginning.
        hashing: Whether `sha256` is wanted: it costs as much as all the rest.
    """

    def __init__(self, blocks: Iterable[bytes], *, hashing: bool = False) -> None:
        self._blocks = iter(blocks)
        self._buffer = b""
        self._position = 0  # of the next record, within the buffer
        self._digest = hashlib.sha256() if hashing else None  # of what left the buffer
        self.trusted_bytes = 0
        self.damage: str | None = None

    @property
    def sha256(self) -> str:
        """Return the SHA-256 of the trusted bytes so far; "" where it was not asked for."""
        if self._digest is None:
            return ""
        digest = self._digest.copy()
        digest.update(memoryview(self._buffer)[: self._position])
        return digest.hexdigest()

    def __iter__(self) -> Iterator[tuple[int, Record]]:
        prefix = PREFIX.size
        while self.damage is None and self._fill(prefix):
            length, checksum = PREFIX.unpack_from(self._buffer, self._position)
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
        """Read until `wanted` bytes are behind the position; `False` at the end of the file."""
        while len(self._buffer) - self._position < wanted:
            block = next(self._blocks, b"")
            if not block:
                return False
            if self._digest is not None:
                self._digest.update(memoryview(self._buffer)[: self._position])
            self._buffer = self._buffer[self._position :] + block
            self._position = 0
        return True

    def _checked(self, body: bytes, checksum: int) -> Record | None:
        if zlib.crc32(body) != checksum:
            self._distrust("a record that fails its checksum", body_bytes=len(body))
            return None
        try:
            return decode_body(body)
        except (ValueError, RecursionError):  # msgspec's errors, and bad UTF-8
            self._distrust("a record of an unknown kind")
            return None

    def _end_within_record(self) -> None:
        """Record damage if a whole record follows: the length is wrong, and the tail not torn."""
        if _holds_record(self._buffer[self._position :]):
            self.damage = f"a record of a wrong length at byte {self.trusted_bytes}"

    def _distrust(self, what: str, *, body_bytes: int = 0) -> None:
        """Record damage, unless all that follows is what a power cut leaves at the end.

        A file system may have grown the file before its bytes came: such a tail is zeros, or
        one bad record with nothing, or only zeros, behind it. A record that swallows other ones
        is none of that: its length is wrong.
        """
        end = PREFIX.size + body_bytes if body_bytes else 0
        self._fill(end + LONGEST_RECORD_BYTES)  # what is swallowed may end among the zeros
        rest = self._buffer[self._position :]
        blocks = itertools.chain((rest[end:],), self._blocks)
        if any(block.strip(b"\0") for block in blocks) or _holds_record(rest):
            self.damage = f"{what} at byte {self.trusted_bytes}"


def trusted(file: FileIO) -> tuple[int, str]:
    """Return how many bytes of a journal can be trusted, and their SHA-256.

    A file that does not start with a header is no journal, and nothing of it is trusted.
    """
    file.seek(0)
    reader = Reader(blocks_of(file), hashing=True)
    records = iter(reader)
    _, first = next(records, (0, None))
    if not isinstance(first, Header):
        return 0, hashlib.sha256().hexdigest()
    for _ in records:
        pass
    return reader.trusted_bytes, reader.sha256


def whole_records(piece: bytes) -> Iterator[Record]:
    """Yield the records of a piece of a journal, which may begin and end within one."""
    first = _find_record(piece, 0)
    if first is not None:
        yield from (record for _, record in Reader([piece[first:]]))


def _holds_record(rest: bytes) -> bool:
    """Whether a whole record lies in `rest`, behind the one that it starts with."""
    return _find_record(rest, 1) is not None


def _find_record(rest: bytes, start: int) -> int | None:
    """Return where the first whole record begins that begins at `start` or later, if any."""
    view, checked = memoryview(rest), 0
    for found in _BODY_START.finditer(rest, PREFIX.size + start):
        body = found.start()
        length, checksum = PREFIX.unpack_from(rest, body - PREFIX.size)
        if not 0 < length <= len(rest) - body:
            continue
        checked += length
        if checked > _MOST_CHECKED_BYTES or zlib.crc32(view[body : body + length]) == checksum:
            return body - PREFIX.size
    return None
