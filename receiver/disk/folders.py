"""Folders: made private, checked for who could put things in, opened step by step, locked.

One that is to be there as a whole or not at all is filled under a hidden name, synced, and renamed
(`create_filled`). A crash before the rename leaves a hidden folder, which the next attempt throws
away; a crash behind it leaves a finished one. There is nothing between the two. Every step is taken
from the descriptor of the folder above, so what was checked to be ours is what is used.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import Final, Self, TypeVar

from receiver.disk import layout
from receiver.disk.files import FILE_MODE, open_folder, sync_folder
from receiver.errors import ConfigurationError, FolderInUseError, UnsafeFolderError

PRIVATE: Final = 0o700
_ROOT: Final = 0

T = TypeVar("T")


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
        folder = stack.enter_context(open_folder(root, follow_links=True))
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


def create_filled(root: Path, name: PurePath, fill: Callable[[int], T]) -> T | None:
    """Create the folder `name` below `root`, filled by `fill`, or not at all.

    Args:
        root: The recordings folder.
        name: Year, month, day and the folder's own name.
        fill: Called with the descriptor of a folder that is new and hidden; it syncs its files.

    Returns:
        What `fill` returned, or `None`: a folder that is there already is left as it is.

    Raises:
        UnsafeFolderError: others could put things into one of the folders.
        OSError: the disk failed; nothing half written is left.
    """
    with folder_within(root, name.parent) as above:
        if _is_folder(name.name, above):
            return None
        hidden = layout.hidden_folder(name).name
        if _is_folder(hidden, above):
            shutil.rmtree(hidden, dir_fd=above)  # half rendered at a crash; the journal has it all
        os.mkdir(hidden, PRIVATE, dir_fd=above)
        try:
            with open_folder(hidden, within=above) as folder:
                filled = fill(folder)
                os.fsync(folder)
        except OSError:
            # Live journals may need the space.
            shutil.rmtree(hidden, ignore_errors=True, dir_fd=above)
            raise
        os.rename(hidden, name.name, src_dir_fd=above, dst_dir_fd=above)
        os.fsync(above)
        return filled


_NO_EXCHANGE: Final = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
_RENAME_EXCHANGE: Final = 2


def exchange(name: str, other: str, *, within: int) -> bool:
    """Exchange the names of two folders in another one, in one step (Linux: renameat2).

    Returns:
        Whether it is done: not every file system can, such as NFS.

    Raises:
        OSError: it failed, and nothing changed.
    """
    if _renameat2 is None:
        return False
    if _renameat2(within, os.fsencode(name), within, os.fsencode(other), _RENAME_EXCHANGE):
        number = ctypes.get_errno()
        if number in _NO_EXCHANGE:
            return False
        raise OSError(number, os.strerror(number), name)
    return True


_renameat2: Final = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
"""Of glibc since 2.28."""


def _is_folder(name: str, within: int) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=within, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def free_bytes(folder: Path) -> int:
    """Return how much an ordinary user can still write to the folder's file system."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


LOCK: Final = "lock"


class FolderLock:
    """Ownership of a folder by one living process, from construction until `close`.

    The folder is made if it is missing. The kernel releases the lock of a process that dies.
    `descriptor` is the lock file's: a descriptor on the disk that is older than all that the
    owner writes.

    Raises:
        FolderInUseError: another living process owns it.
        ConfigurationError: it cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        make_private_folder(folder)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self.descriptor = os.open(folder / LOCK, flags, FILE_MODE)
        except OSError as error:
            raise ConfigurationError(f"cannot lock {folder}: {error.strerror}") from error
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            raise FolderInUseError(f"{folder} is in use by another receiver") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the folder; idempotent."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
