"""Syncs: they return once the disk holds what was written, and say so when it does not."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from receiver.disk.files import open_folder

_SYNCFS_REPORTS_ERRORS: Final = (5, 8)
"""Since this Linux. Before it, syncfs succeeded whatever became of the writes (its man page)."""


def sync_folder(folder: Path) -> None:
    """Sync a folder's entries: the names of what was created, renamed or removed in it.

    Raises:
        OSError: the folder cannot be opened, or the disk failed.
    """
    with open_folder(folder, follow_links=True) as descriptor:
        os.fsync(descriptor)


def sync_file_system(descriptor: int) -> None:
    """Sync all that was written to the file system of an open file (Linux: syncfs).

    Errors are those since the last call with this descriptor, or since it was opened.

    Raises:
        OSError: it failed for some file of that file system, or there is no such call.
    """
    if _syncfs is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if _syncfs(descriptor):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _find_syncfs() -> Callable[[int], int] | None:
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    if not release or (int(release[1]), int(release[2])) < _SYNCFS_REPORTS_ERRORS:
        return None
    with contextlib.suppress(AttributeError, OSError):
        found: Callable[[int], int] = ctypes.CDLL(None, use_errno=True).syncfs
        return found
    return None


_syncfs: Final = _find_syncfs()
