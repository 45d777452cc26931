"""A finished journal as a file: opened through no link, read in blocks and in small pieces."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Final

from receiver.errors import JournalError

BLOCK_BYTES: Final = 2**17
"""How much is read, decoded, written, hashed or silenced at a time."""
_WINDOW_BYTES: Final = 2**15  # chunks out of order begin a new one: a larger one would cost more


def blocks_of(file: FileIO) -> Iterator[bytes]:
    """Yield a file's content in blocks."""
    return iter(lambda: file.read(BLOCK_BYTES), b"")


def open_journal(journal: Path) -> FileIO:
    """Open a journal for reading; a symbolic link is not followed.

    Raises:
        JournalError: it cannot be opened, or is no file.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe must not hold us up
    try:
        descriptor = os.open(journal, flags)
    except OSError as error:
        raise JournalError(f"cannot read journal {journal}: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise JournalError(f"cannot read journal {journal}: it is not a file")
    return open(descriptor, "rb", buffering=0)


def sha256(file: FileIO, length: int | None = None) -> str:
    """Return the SHA-256 of a file, or of its first `length` bytes."""
    digest = hashlib.sha256()
    file.seek(0)
    rest = os.fstat(file.fileno()).st_size if length is None else length
    while rest and (block := file.read(min(rest, BLOCK_BYTES))):
        digest.update(block)
        rest -= len(block)
    return digest.hexdigest()


class PayloadReader:
    """Reads small pieces of a file that mostly follow each other with few calls."""

    def __init__(self, file: FileIO) -> None:
        self._descriptor = file.fileno()
        self._start = 0
        self._block = b""

    def cut(self, start: int, size: int) -> bytes:
        """Return `size` bytes from byte `start` on."""
        first = start - self._start
        if first < 0 or first + size > len(self._block):
            self._block = os.pread(self._descriptor, max(_WINDOW_BYTES, size), start)
            self._start, first = start, 0
        return self._block[first : first + size]
