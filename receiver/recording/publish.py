"""From a journal to a finished recording, so that a finished name means a finished recording.

Everything is rendered into a hidden folder, synced, and renamed to its final name; the files
are read back, and only when they agree does the journal go. A crash anywhere in between is
mended by doing it again: what was half rendered is thrown away, what was renamed is recognised
by the journal's hash.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Final

from receiver.disk import layout
from receiver.disk.files import blocks_of, open_folder, sha256, write_private
from receiver.disk.folders import PRIVATE, folder_within
from receiver.disk.lock import FolderLock
from receiver.disk.sync import sync_folder
from receiver.errors import JournalError, UnprovenError, UnreadableError
from receiver.journal.file import open_journal
from receiver.journal.records import Header, Reader
from receiver.recording import document as recording
from receiver.recording import store
from receiver.recording.document import Recording
from receiver.recording.journal_scan import JournalScan
from receiver.recording.render import RenderOptions, ScannedJournal, identify, render_scanned

_UNREADABLE: Final = frozenset({errno.ELOOP, errno.EACCES, errno.EPERM, errno.EISDIR, errno.EINVAL})
"""What will not get better by itself: a journal that cannot be opened for this is set aside."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A journal that was set aside, and why."""

    journal: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Postponed:
    """A journal that cannot be published now and stays where it is, and why."""

    journal: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Published:
    """A recording that is on disk under its final name."""

    folder: Path
    recording: Recording
    set_aside: Quarantined | None = None  # its journal, where that holds more


@dataclass(frozen=True, slots=True)
class Empty:
    """A journal of no bytes at all, which was removed."""

    journal: Path


@dataclass(frozen=True, slots=True)
class Discarded:
    """A journal that was removed because nothing of it may be kept, and why."""

    journal: Path
    reason: str


Outcome = Published | Quarantined | Empty | Discarded


def publish(journal: Path, recordings: Path, options: RenderOptions) -> Outcome:
    """Render `journal` below `recordings`, and remove it once the result was read back.

    A journal that cannot be read, is damaged, holds audio that nobody here can decode, or does
    not agree with what was published is set aside in the spool's quarantine, after what can be
    trusted of it was published. One of no bytes is removed: its receiver ended before anything
    came. So is one whose stream nobody showed to be the call of its token.

    Raises:
        FileNotFoundError: the journal is gone; another process has published it.
        OSError: reading or writing failed; the journal stays, and it can be tried again.
    """
    try:
        with _claimed(journal):
            _go_on_with_successor(journal)
            if _holds_nothing(journal):
                _remove(journal)
                return Empty(journal)
            try:
                return _publish(journal, recordings, options)
            except UnprovenError as error:
                _remove(journal)
                return Discarded(journal, str(error))
    except JournalError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno not in _UNREADABLE:
            raise cause from None
        return quarantine(journal, str(error))


@contextlib.contextmanager
def _claimed(journal: Path) -> Iterator[None]:
    """Wait for whoever publishes the journal at this moment.

    The rendering process of a receiver that was killed may outlive it by a moment, in which
    the next receiver finds the same journal.
    """
    with open_journal(journal) as claim:
        fcntl.flock(claim, fcntl.LOCK_EX)
        journal.lstat()
        yield


def _go_on_with_successor(journal: Path) -> None:
    """Let the one take a journal's place that was about to when we ended, if it holds more.

    It was written because a sync had failed, after which the disk may have lost what was
    written last. One that was not written to its end holds less, and goes with the journal.
    """
    successor = journal.with_suffix(layout.REWRITTEN_SUFFIX)
    if not _taken(successor):
        return
    held, digest = _trusted(journal)
    more, _ = _trusted(successor)
    if more <= held:
        return
    with open_journal(successor) as source:
        goes_on = not held or sha256(source, held) == digest
    if goes_on:
        successor.replace(journal)
        sync_folder(journal.parent)
    else:
        quarantine(successor, f"it does not go on with {journal.name}, but holds more")


def _trusted(journal: Path) -> tuple[int, str]:
    """Return how much of a journal can be trusted, and its SHA-256."""
    try:
        identified = identify(journal)
    except JournalError:
        return 0, ""
    return identified.scan.trusted_bytes, identified.sha256


def _publish(journal: Path, recordings: Path, options: RenderOptions) -> Outcome:
    identified = identify(journal)
    name = _recording_name(identified.scan.header)
    with folder_within(recordings, name.parent) as day:
        if not _is_folder(name.name, day):
            _render_and_rename(journal, identified, name, day=day, options=options)
    return _settle(journal, recordings / name, identified)


def _recording_name(header: Header) -> PurePath:
    try:
        return layout.recording_folder(header.recording_id, header.started_at_ms)
    except (ValueError, OverflowError, OSError) as error:
        raise JournalError(f"it began at no time that there is: {error}") from None


def _is_folder(name: str, within: int) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=within, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _render_and_rename(
    journal: Path, identified: ScannedJournal, name: PurePath, *, day: int, options: RenderOptions
) -> None:
    hidden = layout.hidden_folder(name).name
    if _is_folder(hidden, day):
        shutil.rmtree(hidden, dir_fd=day)  # half rendered when we ended; the journal has it all
    os.mkdir(hidden, PRIVATE, dir_fd=day)
    try:
        with open_folder(hidden, within=day) as folder:
            render_scanned(journal, identified, folder, options)
            os.fsync(folder)
    except OSError:
        # Live journals may need the space.
        shutil.rmtree(hidden, ignore_errors=True, dir_fd=day)
        raise
    os.rename(hidden, name.name, src_dir_fd=day, dst_dir_fd=day)
    os.fsync(day)


def forget_rendering(journal: Path, recordings: Path) -> None:
    """Remove what was rendered of a journal by a process that was killed meanwhile.

    The next start would do it too; whatever stands in the way of doing it now may stand.
    """
    with contextlib.suppress(OSError, JournalError, ValueError, OverflowError):
        with open_journal(journal) as source:
            _, header = next(iter(Reader(blocks_of(source))))
        assert isinstance(header, Header)  # noqa: S101  somebody has begun to render it
        name = _recording_name(header)
        with folder_within(recordings, name.parent, make=False) as day:
            shutil.rmtree(layout.hidden_folder(name).name, dir_fd=day)


def _settle(journal: Path, folder: Path, identified: ScannedJournal) -> Outcome:
    """Read the published files back; only if they agree with the journal does it go."""
    try:
        document = recording.decode((folder / layout.RECORDING_JSON).read_bytes())
    except (OSError, UnreadableError) as error:
        return quarantine(journal, f"{folder.name} cannot be read back: {error}")
    problems = store.verify(folder, document)
    if document.journal_sha256 != identified.sha256:
        problems = (*problems, "it was made from another journal")
    if problems:
        return quarantine(journal, f"{folder.name} does not agree: {'; '.join(problems)}")
    if reason := _why_kept(identified.scan):
        return Published(folder, document, quarantine(journal, reason))
    _remove(journal)
    return Published(folder, document)


def _why_kept(scanned: JournalScan) -> str:
    """Return why a journal holds more than what was published of it, if it does."""
    if scanned.damage:
        return f"published up to {scanned.damage}"
    if scanned.refused_format:
        return f"its payloads were published as a guess: {scanned.refused_format}"
    return ""


def _holds_nothing(journal: Path) -> bool:
    """Whether a journal has no byte, nor a successor that was being written when we ended."""
    rewritten = journal.with_suffix(layout.REWRITTEN_SUFFIX)
    return not journal.lstat().st_size and not _taken(rewritten)


def _remove(journal: Path) -> None:
    journal.unlink()
    # Left by a crash while the journal was begun anew; it never took the journal's place.
    journal.with_suffix(layout.REWRITTEN_SUFFIX).unlink(missing_ok=True)
    sync_folder(journal.parent)


def quarantine(journal: Path, reason: str) -> Quarantined:
    """Set a journal aside, with a text beside it that says why; nothing is overwritten.

    Raises:
        OSError: the disk takes no text; the journal stays where it is.
    """
    folder = journal.parent / layout.QUARANTINE
    folder.mkdir(PRIVATE, exist_ok=True)
    target = folder / journal.name
    number = 0
    while _taken(target) or _taken(target.with_suffix(".txt")):
        number += 1
        target = folder / f"{journal.stem}-{number}{journal.suffix}"
    note = target.with_suffix(".txt")
    write_private(note, f"{reason}\n".encode())  # first: no journal is there without a reason
    try:
        journal.rename(target)
    except OSError:
        note.unlink()
        raise
    sync_folder(folder)
    sync_folder(journal.parent)
    return Quarantined(target, reason)


def _taken(path: Path) -> bool:
    return path.exists() or path.is_symlink()


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


def recover(spool: Path, recordings: Path, options: RenderOptions) -> Iterator[Outcome | Postponed]:
    """Publish what a dead receiver left behind; the caller holds the spool's lock.

    The trouble of one journal is no other's.
    """
    gather(spool)
    for journal in waiting(spool):
        try:
            outcome = publish(journal, recordings, options)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not journal.exists():
                continue  # the renderer of a killed receiver was faster
            yield Postponed(journal, str(error))
        else:
            yield outcome
