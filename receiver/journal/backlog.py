"""The journals that wait in a spool: which they are, claiming one, and disposing of it.

A finished journal is claimed and opened once. Publishing reads from that descriptor and never
by its name, so that no other file can take its place meanwhile. `dispose` is the one
place that removes a journal or sets it aside; what is neither stays and is tried again.

Three things a crash or a failing disk leaves are resolved here, before anybody reads:

- Another process may be publishing the same journal: the rendering process of a receiver that
  was killed may outlive it for a second. `claim` waits for its lock, then finds the journal gone.
- A journal that was being written again after a failed sync (`.rewritten`) takes the place of
  the first one if it holds more and goes on with it: the disk may have lost what was written
  last. One that does not go on with it is set aside; one that holds no more goes with it.
- Workers that are no longer wanted leave journals in folders of their own: see `gather`.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Final

from receiver.disk import layout
from receiver.disk.files import open_regular, sha256, sync_folder, write_private
from receiver.disk.folders import PRIVATE, FolderLock
from receiver.errors import JournalError
from receiver.journal.reader import trusted

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
    path.unlink()
    _successor(path).unlink(missing_ok=True)  # it was never written to its end
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


def gather(spool: Path) -> None:
    """Move what workers left in their folders into the spool, whose lock the caller holds.

    Raises:
        ConfigurationError: a worker lives.
    """
    for folder in sorted(spool.glob(f"{layout.WORKER}*")):
        with FolderLock(folder):
            for journal in waiting(folder):
                _fetch(journal, spool)
            sync_folder(spool)
            sync_folder(folder)


def _fetch(journal: Path, spool: Path) -> None:
    with contextlib.suppress(FileNotFoundError):  # published by now
        journal.rename(spool / journal.name)


def open_journal(path: Path) -> FileIO:
    """Open a journal for reading, which claims nothing; a symbolic link is not followed.

    Raises:
        JournalError: it cannot be opened.
    """
    try:
        return open_regular(path)
    except OSError as error:
        raise JournalError(f"cannot read journal {path}: {error.strerror}") from error


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
        held, digest = trusted(file)
        more, _ = trusted(source)
        if more <= held:
            return None
        if sha256(source, held) == digest:
            stack.pop_all()
            return source
    _set_aside(successor, f"it does not go on with {path.name}, but holds more")
    return None


def _set_aside(path: Path, reason: str) -> Path:
    """Move a journal into the quarantine, behind a text that says why; overwrite nothing."""
    folder = path.parent / layout.QUARANTINE
    folder.mkdir(PRIVATE, exist_ok=True)
    target = folder / path.name
    number = 0
    while _exists(target) or _exists(target.with_suffix(".txt")):
        number += 1
        target = folder / f"{path.stem}-{number}{path.suffix}"
    note = target.with_suffix(".txt")
    write_private(note, f"{reason}\n".encode())  # first: no journal is there without a reason
    try:
        path.rename(target)
    except OSError:
        note.unlink()
        raise
    sync_folder(folder)
    sync_folder(path.parent)
    return target


def _successor(path: Path) -> Path:
    return path.with_suffix(layout.REWRITTEN_SUFFIX)


def _exists(path: Path) -> bool:
    return path.exists() or path.is_symlink()
