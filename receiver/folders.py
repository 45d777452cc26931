"""Folders on disk: private ones, locked ones, and having the disk hold what was written."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from receiver.errors import ConfigurationError

PRIVATE: Final = 0o700
LOCK: Final = "lock"
_SYNCFS_TELLS_ERRORS: Final = (5, 8)
"""Since this Linux; before it, syncfs said yes whatever became of the writes (its man page)."""


def make_folder(folder: Path) -> None:
    """Create a folder with its parents, or check that an existing one can be written to.

    Raises:
        ConfigurationError: it cannot be created or used.
    """
    try:
        folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot use folder {folder}: {error.strerror}") from error
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise ConfigurationError(f"folder {folder} is not writable")


def make_private_folder(folder: Path) -> None:
    """Like `make_folder`; what is there already must be ours alone, and no symbolic link.

    Raises:
        ConfigurationError: it cannot be created, belongs to somebody else, or others can write.
    """
    make_folder(folder)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise ConfigurationError(f"{folder} is a symbolic link; name the folder itself")
    if status.st_uid != os.geteuid():
        raise ConfigurationError(f"folder {folder} belongs to another user")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigurationError(f"others can write to folder {folder}: chmod 700 {folder}")


def sync_folder(folder: Path) -> None:
    """Have the disk hold the folder's entries."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def free_bytes(folder: Path) -> int:
    """Return how much an ordinary user can still write to the folder's file system."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def _find_syncfs() -> Callable[[int], int] | None:
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    if not release or (int(release[1]), int(release[2])) < _SYNCFS_TELLS_ERRORS:
        return None
    with contextlib.suppress(AttributeError, OSError):
        found: Callable[[int], int] = ctypes.CDLL(None, use_errno=True).syncfs
        return found
    return None


_syncfs: Final = _find_syncfs()


def sync_file_system(descriptor: int) -> None:
    """Have the disk hold all that was written to a file's file system (Linux: syncfs).

    Errors are those since the last call with this descriptor, or since it was opened.

    Raises:
        OSError: it failed for some file of that file system, or there is no such call.
    """
    if _syncfs is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if _syncfs(descriptor):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class FolderLock:
    """Ownership of a folder by one living process, from construction until `close`.

    Raises:
        ConfigurationError: another living process owns it, or it cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        make_private_folder(folder)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self.descriptor = os.open(folder / LOCK, flags, 0o600)
        except OSError as error:
            raise ConfigurationError(f"cannot lock {folder}: {error.strerror}") from error
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            raise ConfigurationError(f"{folder} is in use by another receiver") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the folder up; idempotent."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
