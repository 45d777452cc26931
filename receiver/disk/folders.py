"""Folders on disk: private ones, locked ones, and having the disk hold what was written."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import Final, Self

from receiver.errors import ConfigurationError

PRIVATE: Final = 0o700
LOCK: Final = "lock"
_ROOT: Final = 0
_SYNCFS_TELLS_ERRORS: Final = (5, 8)
"""Since this Linux; before it, syncfs said yes whatever became of the writes (its man page)."""


class UnsafeFolderError(OSError):
    """Others made a folder, or could put things into it; nothing is written there."""


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


def make_recordings_folder(folder: Path) -> None:
    """Like `make_folder`; nobody but us, root, and a group of ours may put anything into it.

    The folder may be a symbolic link, which is how a recordings folder moves to a larger disk.

    Raises:
        ConfigurationError: it cannot be created or used, or others could plant things there.
    """
    make_folder(folder)
    if danger := _danger(folder.stat()):
        raise ConfigurationError(f"folder {folder} {danger}")


def _danger(status: os.stat_result) -> str:
    """Return what lets others put things into a folder; nothing where that is as it should be.

    The group may write: with Ubuntu's umask of 002 every folder of a user is like that, and
    whoever opens a folder to a group has chosen the group.
    """
    if not stat.S_ISDIR(status.st_mode):
        return "is a symbolic link" if stat.S_ISLNK(status.st_mode) else "is not a folder"
    if status.st_uid not in (os.geteuid(), _ROOT):
        return "belongs to another user"
    if status.st_mode & stat.S_IWOTH:
        return "can be written to by everybody: chmod o-w"
    return ""


@contextlib.contextmanager
def folder_within(root: Path, inner: PurePath, *, make: bool = True) -> Iterator[int]:
    """Open `inner` in `root`, by default made private where missing; yield its descriptor.

    Every step is taken from the descriptor of the one before, so that what was checked is what
    is used, whoever renames things meanwhile. Below `root` no symbolic link is followed.

    Raises:
        UnsafeFolderError: others made one of the folders, or could put things into it.
        OSError: they cannot be made or opened, or are missing where none is made.
    """
    if make:
        _make_with_parents(root)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(open_folder(root, follow=True))
        _refuse(root, os.fstat(folder))
        for name in inner.parts:
            root /= name
            if make:
                _make_within(folder, name)
            _refuse(root, os.stat(name, dir_fd=folder, follow_symlinks=False))
            folder = stack.enter_context(open_folder(name, within=folder))
            _refuse(root, os.fstat(folder))  # it may have been another one a moment ago
        yield folder


def _make_with_parents(folder: Path) -> None:
    """Create a folder and its parents, each of them private and on disk before its content."""
    if not folder.is_dir():
        _make_with_parents(folder.parent)
        folder.mkdir(PRIVATE, exist_ok=True)
        sync_folder(folder.parent)


def _make_within(folder: int, name: str) -> None:
    """Create a folder in another one, on disk before it holds anything."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, PRIVATE, dir_fd=folder)
        os.fsync(folder)


def _refuse(folder: Path, status: os.stat_result) -> None:
    if danger := _danger(status):
        raise UnsafeFolderError(f"nothing is written through {folder}: it {danger}")


@contextlib.contextmanager
def open_folder(
    folder: Path | str, *, within: int | None = None, follow: bool = False
) -> Iterator[int]:
    """Open a folder, by its name in another one where `within` is given."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    descriptor = os.open(folder, flags, dir_fd=within)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Have the disk hold the folder's entries."""
    with open_folder(folder, follow=True) as descriptor:
        os.fsync(descriptor)


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
