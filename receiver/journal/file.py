"""A finished journal as a file: opened through no link, read in blocks and in small pieces."""

from __future__ import annotations

import os
from io import FileIO
from pathlib import Path
from typing import Final

from receiver.disk.files import open_regular
from receiver.errors import JournalError

_WINDOW_BYTES: Final = 2**15  # chunks out of order begin a new one: a larger one would cost more


def open_journal(journal: Path) -> FileIO:
    """Open a journal for reading; a symbolic link is not followed.

    Raises:
        JournalError: it cannot be opened, or is no regular file.
    """
    try:
        return open_regular(journal)
    except OSError as error:
        raise JournalError(f"cannot read journal {journal}: {error.strerror}") from error


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
