"""The journals that wait in a spool: which they are, claiming one, and disposing of it.

A finished journal is claimed and opened once. Publishing reads from that descriptor and never
by its name, so that no other file can take its place meanwhile. `dispose` is the one
place that removes a journal or sets it aside; what is neither stays and is tried again.

Three things a crash or a failing disk leaves are resolved here, before anybody reads:

- Another process may be publishing the same journal: the rendering process of a receiver that
  was killed may outlive it for a second. `claim` waits for its lock, then finds the journal gone.
- A journal that was being written again after a failed sync (`.rewritten`) takes the place of
  the first one if it holds more and goes on with it: the disk may have lost what was written
  last. One that does not go on with it is set aside; one that holds no more goes with it. So it
  goes wherever its journal goes. Where a power cut has left it alone, it is the journal.
- Workers that are no longer wanted leave journals in folders of their own: see `gather`.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import fcntl
import itertools
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path, PurePath
from typing import Final

from receiver.disk import layout
from receiver.disk.files import (
    blocks_of,
    open_folder,
    open_regular,
    sha256,
    sync_folder,
    write_private,
)
from receiver.disk.folders import FolderLock, folder_within
from receiver.errors import ConfigurationError, FolderInUseError, JournalError
from receiver.journal.records import Header, Reader, trusted

_STAYS_UNREADABLE: Final = frozenset(
    {errno.ELOOP, errno.EACCES, errno.EPERM, errno.EINVAL, errno.EISDIR}
)
"""What will not get better by itself: a link, missing rights, something that is no file."""


class Disposal(enum.Enum):
    """What becomes of a journal that was dealt with."""

    REMOVE = "remove"  # nothing in it is needed any more
    QUARANTINE = "quarantine"  # it is kept, to be looked at


@dataclass(frozen=True, slots=True)
class ClaimedJournal:
    """A journal that this process alone deals with, open for reading until the claim ends."""

    path: Path
    file: FileIO

    @property
    def is_empty(self) -> bool:
        """Whether it holds no byte, and none was being written again: nothing ever came."""
        return not os.fstat(self.file.fileno()).st_size and not _exists(_successor(self.path))


@contextlib.contextmanager
def claim(path: Path) -> Iterator[ClaimedJournal]:
    """Open the journal at `path` for this process alone; wait while another has it.

    Raises:
        FileNotFoundError: it is gone; another process has published it.
        JournalError: it cannot be opened, and that will not change by itself.
        OSError: it cannot be opened now.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(_open_locked(path))
        better = _better_successor(path, file)
        if better is not None:
            file = stack.enter_context(better)
            fcntl.flock(file, fcntl.LOCK_EX)
            _successor(path).replace(path)
            sync_folder(path.parent)
        yield ClaimedJournal(path, file)


def dispose(path: Path, disposal: Disposal, reason: str = "") -> Path | None:
    """Remove a journal, or set it aside with `reason` beside it.

    Args:
        path: The journal, as it was claimed, or one that cannot be claimed.
        disposal: What becomes of it.
        reason: One sentence, written next to a journal that is set aside.

    Returns:
        Where the journal is from now on, or `None` where it was removed.

    Raises:
        OSError: the disk failed; the journal is where it was, or is removed and may come back
            after a power cut.
    """
    if disposal is Disposal.QUARANTINE:
        return _set_aside(path, reason)
    with contextlib.suppress(FileNotFoundError):
        _successor(path).unlink()  # it was never written to its end
        sync_folder(path.parent)  # left alone it would count as a journal
    path.unlink()
    sync_folder(path.parent)
    return None


def waiting(spool: Path) -> list[Path]:
    """Return the journals that wait in a spool, oldest first. Its owner must be known dead."""
    found = []
    for path in spool.glob(f"*{layout.JOURNAL_SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):  # the owner's renderer may outlive it
            if path.is_file():
                found.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(found)]


def gather(spool: Path) -> dict[Path, str]:
    """Make every journal that was left one that waits in the spool; the caller holds its lock.

    They may be in the folders of workers. Of some only the successor may be there.

    Returns:
        What has the name of a worker's folder and cannot be used, such as a symbolic link, and
        why. It is left as it is, and holds back no other.

    Raises:
        FolderInUseError: a worker lives.
    """
    left = {}
    for folder in sorted(spool.glob(f"{layout.WORKER}*")):
        try:
            with FolderLock(folder):
                hand_down(folder, spool)
        except FolderInUseError:
            raise
        except ConfigurationError as error:
            left[folder] = str(error)
    _adopt_successors(spool)
    return left


def hand_down(folder: Path, target: Path) -> None:
    """Move the journals of one folder into another one; the caller holds the lock of the first.

    Successors go first: at a crash in between, the journal that is left behind follows them.
    """
    for successor in folder.glob(f"*{layout.REWRITTEN_SUFFIX}"):
        _move(successor, target)
    for journal in waiting(folder):
        _move(journal, target)
    sync_folder(target)
    sync_folder(folder)


def _move(path: Path, folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):  # published by now
        path.rename(folder / path.name)


def _adopt_successors(spool: Path) -> None:
    """Put successors in the place of journals that are not there: their names were never synced."""
    for successor in spool.glob(f"*{layout.REWRITTEN_SUFFIX}"):
        journal = successor.with_suffix(layout.JOURNAL_SUFFIX)
        if not _exists(journal):
            with contextlib.suppress(FileNotFoundError):  # both are published by now
                successor.rename(journal)


def open_journal(path: Path) -> FileIO:
    """Open a journal for reading, which claims nothing; a symbolic link is not followed.

    Raises:
        JournalError: it cannot be opened.
    """
    try:
        return open_regular(path)
    except OSError as error:
        raise JournalError(f"cannot read journal {path}: {error.strerror}") from error


def open_whole(path: Path) -> FileIO:
    """Like `open_journal`; opens the successor where that holds all of the journal, and more.

    Neither is moved. One that does not go on with the journal is left to whoever claims it.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open_journal(path))
        if path.suffix == layout.JOURNAL_SUFFIX and _successor(path).is_file():
            source = stack.enter_context(open_journal(_successor(path)))
            if _goes_on(source, file):
                file, source = source, file
            source.close()
        stack.pop_all()
        return file


def _open(path: Path) -> FileIO:
    try:
        return open_journal(path)
    except JournalError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno not in _STAYS_UNREADABLE:
            raise cause from None
        raise


def _open_locked(path: Path) -> FileIO:
    """Return the file that has the name `path` once no other process has claimed it."""
    while True:
        file = _open(path)
        with contextlib.ExitStack() as stack:
            stack.push(file)
            fcntl.flock(file, fcntl.LOCK_EX)
            # While we waited, it may have been published, or a successor has taken its place.
            if os.path.samestat(os.fstat(file.fileno()), path.lstat()):
                stack.pop_all()
                return file


def _better_successor(path: Path, file: FileIO) -> FileIO | None:
    """Return the successor, open, if it is to take the journal's place."""
    successor = _successor(path)
    if not _exists(successor):
        return None
    with contextlib.ExitStack() as stack:
        try:
            source = stack.enter_context(_open(successor))
        except JournalError:
            return None
        goes_on = _goes_on(source, file)
        if goes_on is None:
            return None
        if goes_on:
            stack.pop_all()
            return source
    _set_aside(successor, f"it does not go on with {path.name}, but holds more")
    return None


def _goes_on(source: FileIO, file: FileIO) -> bool | None:
    """Return whether a successor goes on with its journal; `None` where it holds no more."""
    held, digest = trusted(file)
    more, _ = trusted(source)
    return sha256(source, held) == digest if more > held else None


def _set_aside(path: Path, reason: str) -> Path:
    """Move a journal into the quarantine, behind a text that says why; overwrite nothing.

    A successor that it has goes with it. The quarantine is our own folder in the spool: where
    that name is a link, nothing leaves the spool through it.

    Raises:
        UnsafeFolderError: others made the quarantine; the journal stays.
        OSError: the disk failed; the journal stays, its successor may have been moved.
    """
    quarantine = path.parent / layout.QUARANTINE
    with (
        folder_within(path.parent, PurePath(layout.QUARANTINE)) as folder,
        open_folder(path.parent, follow_links=True) as spool,
    ):
        stem = _unused_stem(path.stem, quarantine)
        note = f"{stem}.txt"
        text = f"{reason}\n".encode(errors="backslashreplace")
        write_private(note, text, within=folder)  # first: no journal is there without a reason
        try:
            if path != _successor(path) and _exists(_successor(path)):
                _rename(_successor(path).name, stem, spool, folder)
            _rename(path.name, stem, spool, folder)
        except OSError:
            os.unlink(note, dir_fd=folder)
            raise
        os.fsync(folder)
        os.fsync(spool)
    return quarantine / (stem + path.suffix)


def _rename(name: str, stem: str, source: int, target: int) -> None:
    """Move a file from one open folder to another one, under another stem."""
    os.rename(name, stem + PurePath(name).suffix, src_dir_fd=source, dst_dir_fd=target)


def _unused_stem(stem: str, folder: Path) -> str:
    """Return a name, without its suffix, that nothing in the folder has."""
    suffixes = (layout.JOURNAL_SUFFIX, layout.REWRITTEN_SUFFIX, ".txt")
    names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(1)))
    return next(
        name
        for name in names
        if not any(_exists(folder / f"{name}{suffix}") for suffix in suffixes)
    )


def _successor(path: Path) -> Path:
    return path.with_suffix(layout.REWRITTEN_SUFFIX)


def _exists(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def recording_folder(header: Header) -> PurePath:
    """Return where a journal's recording belongs, relative to the recordings folder.

    Raises:
        JournalError: its header names a time that there is not.
    """
    try:
        return layout.recording_folder(header.recording_id, header.started_at_ms)
    except (ValueError, OverflowError, OSError) as error:
        raise JournalError(f"it started at no time that there is: {error}") from None


def discard_half_rendered(journal: Path, recordings: Path) -> None:
    """Remove what a process that was killed has rendered of a journal, and make no folder for it.

    The next start would do it too, so whatever stands in the way of doing it now is ignored.
    """
    with contextlib.suppress(OSError, JournalError, ValueError, OverflowError, StopIteration):
        with open_journal(journal) as file:
            _, header = next(iter(Reader(blocks_of(file))))
        if not isinstance(header, Header):
            return
        name = recording_folder(header)
        with folder_within(recordings, name.parent, make=False) as day:
            shutil.rmtree(layout.hidden_folder(name).name, dir_fd=day)
