"""Files: every one that the receiver opens, creates, writes, syncs or hashes goes through here.

Who calls: the journal's writer thread, the rendering process, the commands, and the threads that
record used tokens and read a live call's journal for listeners. All of it may wait for the disk.
So the event loop calls nothing of it, but for secrets: at the start, and on SIGHUP.

What must never happen:

* A symbolic link is followed where a peer, or another user, could have put it.
* A file that others can read comes into being: a new one has mode 0600, and is new.
* A write ends early and is taken for a whole one.
* Opening waits: a FIFO that somebody left in a folder must not hold up the caller.

Files are unbuffered `FileIO` objects. Whatever would encrypt recordings or journals at rest has to
stand here: in what is opened, created and written, and in `pread`s of open files elsewhere.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import Final

from receiver.disk import layout

BLOCK_BYTES: Final = 2**17
"""How much is read, decoded, written, hashed or silenced at a time."""
FILE_MODE: Final = 0o600


def open_regular(
    path: Path | str, *, within: int | None = None, follow_links: bool = False
) -> FileIO:
    """Open a regular file for reading, by its name in the folder `within` where that is given.

    Args:
        path: The file. Its last part must be no symbolic link, unless `follow_links` is set.
        within: The descriptor of an open folder.
        follow_links: For paths that the operator wrote down, such as mounted secrets.

    Raises:
        OSError: it cannot be opened; `EISDIR` where it is a folder, `EINVAL` where it is
            anything else that is no regular file.
    """
    # Without O_NONBLOCK, opening a FIFO waits until somebody writes to it.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow_links else os.O_NOFOLLOW)
    descriptor = os.open(path, flags, dir_fd=within)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return open(descriptor, "rb", buffering=0)
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def create_private(path: Path | str, *, within: int | None = None) -> FileIO:
    """Create a file that only its owner can read, for reading and writing.

    Raises:
        OSError: it cannot be created; `FileExistsError` where anything has that name, also a link.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, FILE_MODE, dir_fd=within)
    return open(descriptor, "r+b", buffering=0)


def write_private(path: Path | str, content: bytes, *, within: int | None = None) -> None:
    """Create a private file, write all of `content` and sync it; on failure no file is left.

    The entry in its folder is not synced: `sync_folder` does that.

    Raises:
        OSError: as `create_private`; or the disk did not take all of it.
    """
    with create_private(path, within=within) as file:
        try:
            write_all(file, content)
            os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(path, dir_fd=within)
            raise


@contextlib.contextmanager
def replacing(name: str, *, within: int) -> Iterator[FileIO]:
    """Yield an empty private file that takes the place of `name` when the block ends.

    One writer at a time: another one, of any thread or process, waits here. So what the block
    reads under `name` is what it replaces. Where the block writes nothing, or raises, all stays as
    it is. A crash leaves either file, whole, and perhaps a hidden one that the next writer uses.

    Raises:
        OSError: the disk failed; `name` is as it was, unless only syncing the folder failed.
    """
    hidden = layout.replacement_name(name)
    file = _lock_alone(hidden, within)
    with file:
        try:
            file.truncate()
            yield file
            is_new = os.fstat(file.fileno()).st_size > 0
            if is_new:
                os.fsync(file.fileno())
                os.rename(hidden, name, src_dir_fd=within, dst_dir_fd=within)
        except BaseException:
            os.unlink(hidden, dir_fd=within)
            raise
        if is_new:
            os.fsync(within)
        else:
            os.unlink(hidden, dir_fd=within)


def _lock_alone(name: str, within: int) -> FileIO:
    """Open or create a private file, wait until nobody else has it locked, and lock it.

    The one before may have renamed or removed it meanwhile; then it is another one's turn, on the
    file that has the name now. A lock on the folder would need no file, but NFS has none.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    while True:
        with contextlib.ExitStack() as stack:
            descriptor = os.open(name, flags, FILE_MODE, dir_fd=within)
            file = stack.enter_context(open(descriptor, "r+b", buffering=0))
            fcntl.flock(file, fcntl.LOCK_EX)
            if _has_name(file, name, within):
                stack.pop_all()
                return file


def _has_name(file: FileIO, name: str, within: int) -> bool:
    """Whether an open file is the one that has the name now."""
    try:
        named = os.stat(name, dir_fd=within, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(file.fileno()), named)


def write_all(file: FileIO, content: bytes) -> None:
    """Write all of `content` where the file stands; a nearly full disk takes it in pieces.

    Raises:
        OSError: the disk did not take all of it.
    """
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


def write_at(file: FileIO, content: bytes, start: int) -> int:
    """Write all of `content` from byte `start` on, and return where it ends.

    Raises:
        OSError: the disk did not take all of it; writing it again from `start` mends that.
    """
    rest, descriptor = memoryview(content), file.fileno()
    while rest:
        count = os.pwrite(descriptor, rest, start)
        start, rest = start + count, rest[count:]
    return start


def append_line(name: str, line: bytes, *, within: int) -> None:
    """Append a line, given without its end, to a private file, which is made; sync it.

    One writer at a time. Half a line that a crash left before it stays, as a line of its own. The
    entry of a new file in its folder is not synced.

    Raises:
        OSError: the disk failed; nothing of the line is left, unless it fails again.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(name, flags, FILE_MODE, dir_fd=within), "r+b", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        starts_line = end == 0 or os.pread(file.fileno(), 1, end - 1) == b"\n"
        whole = (b"" if starts_line else b"\n") + line + b"\n"
        try:
            if file.write(whole) != len(whole):
                raise OSError(f"{name} took only a part of a line")
            os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(end)
            raise


def try_out(folder: Path, *, sync: bool = False) -> None:
    """Write a small file without a name, which leaves nothing: whether the disk takes one.

    That takes an inode, a block and the right to write, of which free bytes say nothing.

    Raises:
        OSError: the disk does not take it.
    """
    with tempfile.TemporaryFile(buffering=0, dir=folder) as file:
        write_at(file, _SMALL, 0)
        if sync:
            os.fsync(file.fileno())


_SMALL: Final = bytes(4096)


def blocks_of(file: FileIO) -> Iterator[bytes]:
    """Yield a file's content from where it stands, in blocks of at most `BLOCK_BYTES`."""
    return iter(lambda: file.read(BLOCK_BYTES), b"")


def sha256(file: FileIO, length: int | None = None) -> str:
    """Return the SHA-256 of a file, or of its first `length` bytes, as hexadecimal digits."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(BLOCK_BYTES))
    file.seek(0)
    rest = os.fstat(file.fileno()).st_size if length is None else length
    while rest and (size := file.readinto(buffer[:rest])):
        digest.update(buffer[:size])
        rest -= size
    return digest.hexdigest()


@contextlib.contextmanager
def open_folder(
    folder: Path | str, *, within: int | None = None, follow_links: bool = False
) -> Iterator[int]:
    """Open a folder, by its name in another one where `within` is given; yield its descriptor.

    Raises:
        OSError: it cannot be opened, is no folder, or is a link that is not to be followed.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if follow_links else os.O_NOFOLLOW)
    descriptor = os.open(folder, flags, dir_fd=within)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def names_in(folder: Path | int) -> list[str]:
    """Return the names of all that is in a folder, sorted; none where there is no folder.

    Raises:
        OSError: it cannot be read.
    """
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries)
    return []


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
