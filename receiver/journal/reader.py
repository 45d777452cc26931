"""A journal's bytes in, its records out, and how far they can be trusted.

A file that ends within a record has a torn tail: its process was killed in the midst of a write,
or the power went. That is no damage; what is before it counts. Zeros at the end are a torn tail
too: a file system may have grown the file before its bytes came. Anything else that is no record
ends trust there, and is damage. A damaged length looks like a torn tail, so what is behind it is
searched for a whole record of any kind:

    [header][start][chunk][chu                  torn tail: 3 records count
    [header][start][chunk][000000000            torn tail: 3 records count
    [header][start][chu?k][chunk][end]          damage: 2 records count (checksum)
    [header][start][len?, chunk][chunk][end]    damage: 2 records count (length)
"""

from __future__ import annotations

import hashlib
import itertools
import re
import zlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from receiver.disk.files import blocks_of
from receiver.journal.records import LONGEST_RECORD_BYTES, PREFIX, Header, Record, decode_body

if TYPE_CHECKING:
    from io import FileIO

_BODY_START: Final = re.compile(rb"[\x90-\x9f][\x00-\x06]")  # MessagePack: an array, and its kind
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


def _holds_record(rest: bytes) -> bool:
    """Whether a whole record lies in `rest`, behind the one that it starts with."""
    view, checked = memoryview(rest), 0
    for found in _BODY_START.finditer(rest, PREFIX.size + 1):
        body = found.start()
        length, checksum = PREFIX.unpack_from(rest, body - PREFIX.size)
        if not 0 < length <= len(rest) - body:
            continue
        checked += length
        if checked > _MOST_CHECKED_BYTES or zlib.crc32(view[body : body + length]) == checksum:
            return True
    return False
