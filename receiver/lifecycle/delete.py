"""Deleting a recording, and what deleting shares with erasing: who may, in which order, what stays.

    lock       one at a time erases or deletes; what a crash left is finished first
    allow      nobody can put a hold on it meanwhile; no hold, no journal that would bring it back
    enter      an entry in the ledger, before anything is done
    pending    the tombstone, in a file of its own: whoever comes after a crash knows what was begun
    rename     one step, and it is no recording any more (or the new rendition is it)
    tombstone  a line for ever
    log        a line in the publication log, for all who follow
    wipe       what is left of it is overwritten where that can be, and unlinked
    done       the pending file goes

Killed before the rename, nothing was done; the pending file is thrown away. Killed behind it, the
rest is done by the next `finish`: of the console, once an hour, of `receiver recover`, of anybody
who erases or deletes.

Everything here waits for the disk: no event loop calls it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import time
from collections.abc import Iterator
from io import FileIO
from pathlib import Path, PurePath
from typing import Final

import msgspec

from receiver.disk import layout
from receiver.disk.files import BLOCK_BYTES, names_in, open_folder, open_regular, sha256, write_at
from receiver.disk.folders import folder_within
from receiver.errors import (
    AnnotationError,
    ConfigurationError,
    NotFoundError,
    RemovalError,
    TapreelError,
    UnreadableError,
)
from receiver.lifecycle import tombstones
from receiver.lifecycle.ledger import Ledger
from receiver.media import timestamp
from receiver.recording import annotations as notes
from receiver.recording import publication_log, store
from receiver.recording.annotations import LONGEST_REASON
from receiver.recording.document import Recording
from receiver.recording.store import Tombstone

_TRIES: Final = 10
_ZEROS: Final = bytes(BLOCK_BYTES)


class Remover:
    """Erases and deletes, for one user, by one way.

    Args:
        recordings: The recordings folder.
        spool: The folder of journals, where one could bring back what is removed here.
        who: The user, or the system's account.
        via: Which way it comes, such as `console`, `api`, `command` or `retention`.
    """

    def __init__(self, recordings: Path, spool: Path, *, who: str, via: str) -> None:
        self.recordings = recordings
        self._spool = spool
        self._who = who
        self._via = via
        self._ledger = Ledger(recordings)

    def delete(self, folder: Path, reason: str, *, rule: str = "") -> Tombstone:
        """Delete a recording; return what is left of it.

        Args:
            folder: The recording's folder, below year, month and day in the recordings folder.
            reason: Why, one line of text.
            rule: The retention rule that asks for it, if it is one.

        Raises:
            RemovalError: it is held, or its journal still waits in the spool.
            NotFoundError: it is gone already.
            UnreadableError: nobody can say whether it is held.
            AnnotationError: the reason is no line of text.
            LedgerError: it cannot be entered into the ledger, so it is not done.
            ConfigurationError: the disk failed, or others could put things into a folder.
        """
        reason = notes.checked_text(reason, "a reason", LONGEST_REASON)
        with failures_named(folder), tombstones.locked(self.recordings):
            self.finish()
            with self.allowed(folder):
                tombstone = msgspec.structs.replace(
                    self.tombstone_of(folder, "deleted", reason), rule=rule
                )
                self.enter(tombstone, **({"rule": rule} if rule else {}))
                tombstones.put_pending(self.recordings, tombstone)
                _rename(folder, layout.removed_folder(folder).name)
            self.complete(tombstone)
        return tombstone

    def finish(self) -> None:
        """Finish what a crash left, before anything else is begun; see `finish`."""
        finish(self.recordings, self._spool)

    def complete(self, tombstone: Tombstone) -> None:
        """Do what is left to do behind the rename."""
        tombstones.append(self.recordings, tombstone)
        complete(self.recordings, self._spool, tombstone)

    @contextlib.contextmanager
    def allowed(self, folder: Path) -> Iterator[None]:
        """Keep all others from holding a recording during the block; refuse where one does."""
        with notes.locked(folder):
            refuse_held(folder)
            _refuse_unfinished(self._spool, layout.recording_id_of(folder) or "")
            yield

    def tombstone_of(self, folder: Path, what: str, reason: str) -> Tombstone:
        """Return the tombstone of what is about to be done; of damaged ones less is known."""
        recording_id = layout.recording_id_of(folder) or ""
        names = {"id": recording_id, "folder": PurePath(*folder.parts[-layout.LEVELS :]).as_posix()}
        known: dict[str, object] = {}
        with contextlib.suppress(UnreadableError):
            kept = store.read(folder)
            known = _facts(kept.recording) | {"before": hashes_of(kept.recording, kept.document)}
        at = timestamp(time.time_ns() // 1_000_000)
        by = {"at": at, "what": what, "who": self._who, "via": self._via, "reason": reason}
        return msgspec.convert({**known, **names, **by}, Tombstone)

    def enter(self, tombstone: Tombstone, **details: object) -> None:
        """Enter what is about to be done into the ledger.

        Raises:
            LedgerError: it cannot be entered, so it must not be done.
        """
        document = tombstone.before.get(layout.RECORDING_JSON, "")
        self._ledger.append(
            tombstone.what,
            who=self._who,
            via=self._via,
            recording=tombstone.id,
            reason=tombstone.reason,
            call=tombstone.call_sid,
            document_sha256=document,
            **details,
        )


def _facts(document: Recording) -> dict[str, object]:
    return {
        name: getattr(document, name)
        for name in (
            *("call_sid", "stream_sid", "account_sid", "provider"),
            *("started_at", "duration_ms"),
        )
    }


def hashes_of(document: Recording, encoded: bytes) -> dict[str, str]:
    """Return the SHA-256 of a recording's files, as its document has them, and its own."""
    derived = (document.stereo, document.peaks, document.timeline)
    return {
        **{track.file: track.sha256 for track in document.tracks},
        **{each["file"]: each["sha256"] for each in derived if each},
        **({document.refused.file: document.refused.sha256} if document.refused else {}),
        layout.RECORDING_JSON: hashlib.sha256(encoded).hexdigest(),
    }


@contextlib.contextmanager
def failures_named(folder: Path) -> Iterator[None]:
    """Raise errors of the disk as errors of ours, which say what could not be done."""
    try:
        yield
    except TapreelError:
        raise
    except FileNotFoundError as error:
        if folder.is_dir():
            raise ConfigurationError(f"{error.filename or folder} is missing") from error
        raise NotFoundError(f"no recording {folder.name}: it was deleted") from error
    except OSError as error:
        text = f"{folder} cannot be changed: {error.strerror or error}"
        raise ConfigurationError(text) from error


def refuse_held(folder: Path) -> None:
    """Refuse to remove anything of a recording that is held.

    Raises:
        RemovalError: it is.
        UnreadableError: nobody can say.
    """
    added = notes.read(folder)
    if added.version > notes.VERSION:
        text = f"{layout.ANNOTATIONS_JSON} is of a later version of tapreel: update this one"
        raise AnnotationError(text)
    if added.hold is not None:
        hold = added.hold
        raise RemovalError(
            f"{folder.name} is held by {hold.by} since {hold.at}: {hold.reason}; "
            "nothing of it may be erased or deleted until it is released"
        )


def _refuse_unfinished(spool: Path, recording_id: str) -> None:
    """Refuse to remove what would be published again from its journal.

    Raises:
        RemovalError: the journal is there.
    """
    for folder in (spool, *spool.glob(f"{layout.WORKER}*")):
        for suffix in (layout.JOURNAL_SUFFIX, layout.REWRITTEN_SUFFIX):
            if (folder / f"{recording_id}{suffix}").exists():
                raise RemovalError(
                    f"the journal of {recording_id} is still in {folder}: it is being published; "
                    "try again in a moment, or run 'receiver recover' where no receiver runs"
                )


def finish(recordings: Path, spool: Path) -> int:
    """Finish, or throw away, what a crash left of erasing and deleting; return how much it was.

    The caller has the lock of `tombstones.locked`.

    Raises:
        UnreadableError: what was written of it is damaged.
        OSError: the disk failed; it can be tried again.
    """
    count = 0
    for tombstone in tombstones.pending(recordings):
        count += 1
        if _is_renamed(recordings, tombstone):
            if not tombstones.has(recordings, tombstone):
                tombstones.append(recordings, tombstone)
            complete(recordings, spool, tombstone)
        else:
            _throw_away(recordings, tombstone)
    return count


def finish_alone(recordings: Path, spool: Path) -> int:
    """Finish what a crash left, when nobody else erases or deletes; return how much it was.

    Raises:
        TapreelError: it cannot be finished.
    """
    if not (recordings / layout.TOMBSTONES).is_dir():
        return 0
    with failures_named(recordings), tombstones.locked(recordings):
        return finish(recordings, spool)


def _is_renamed(recordings: Path, tombstone: Tombstone) -> bool:
    """Whether the one step that counts was taken; a step between two renames is taken here."""
    folder = recordings / tombstone.folder
    if tombstone.what == "deleted":
        return not folder.is_dir()
    staged = layout.erasing_folder(folder)
    if not folder.is_dir() and _document_sha256(staged) == _new_sha256(tombstone):
        _rename(staged, folder.name)
    return _document_sha256(folder) == _new_sha256(tombstone)


def _new_sha256(tombstone: Tombstone) -> str:
    return tombstone.after.get(layout.RECORDING_JSON, "nothing")


def _document_sha256(folder: Path) -> str:
    with contextlib.suppress(OSError), open_regular(folder / layout.RECORDING_JSON) as file:
        return sha256(file)
    return ""


def complete(recordings: Path, spool: Path, tombstone: Tombstone) -> None:
    """Do what is left to do behind the tombstone; doing it twice does no harm.

    Raises:
        OSError: the disk failed; the next `finish` goes on.
    """
    folder = recordings / tombstone.folder
    deleted = tombstone.what == "deleted"
    what = publication_log.DELETED if deleted else publication_log.CHANGED
    publication_log.append(recordings, PurePath(tombstone.folder), what)
    for name in (layout.erasing_folder(folder), layout.removed_folder(folder)):
        wipe(name)
    _wipe_quarantined(spool, tombstone.id)
    tombstones.remove_pending(recordings, tombstone.id)


def _throw_away(recordings: Path, tombstone: Tombstone) -> None:
    wipe(layout.erasing_folder(recordings / tombstone.folder))
    tombstones.remove_pending(recordings, tombstone.id)


def _rename(folder: Path, name: str) -> None:
    """Give a recording's folder another name in the same day, on disk when this returns."""
    with day_of(folder) as day:
        os.rename(folder.name, name, src_dir_fd=day, dst_dir_fd=day)
        os.fsync(day)


@contextlib.contextmanager
def day_of(folder: Path) -> Iterator[int]:
    """Open the folder of the day that a recording's folder is in; yield its descriptor."""
    above = folder.parents[layout.LEVELS - 1]
    inner = PurePath(*folder.parts[-layout.LEVELS : -1])
    with folder_within(above, inner, make=False) as day:
        yield day


def wipe(folder: Path) -> None:
    """Overwrite the files of a folder that is no recording any more, and remove all; idempotent.

    A file with other names, as backups by hard links make them, is not overwritten. Nor is one
    whose disk refuses it, as a full one that copies on write.

    Raises:
        OSError: something cannot be removed.
    """
    with contextlib.suppress(FileNotFoundError), day_of(folder) as day:
        for _ in range(_TRIES):
            if _is_wiped(folder.name, day):
                break
        os.fsync(day)


def _is_wiped(name: str, within: int) -> bool:
    """Wipe a folder; return whether it is gone.

    It is not where somebody who waited for its annotations has made a file meanwhile.
    """
    with open_folder(name, within=within) as inside:
        for file in names_in(inside):
            _wipe_file(file, inside)
    try:
        os.rmdir(name, dir_fd=within)
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:
            return False
        raise
    return True


def _wipe_file(name: str, within: int) -> None:
    with contextlib.suppress(OSError):
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        with open(os.open(name, flags, dir_fd=within), "r+b", buffering=0) as file:
            _overwrite(file)
    os.unlink(name, dir_fd=within)


def _overwrite(file: FileIO) -> None:
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        return
    position = 0
    while position < status.st_size:
        count = min(BLOCK_BYTES, status.st_size - position)
        position = write_at(file, _ZEROS[:count], position)
    os.fsync(file.fileno())


def _wipe_quarantined(spool: Path, recording_id: str) -> None:
    """Remove journals that were set aside: they have all that was recorded."""
    for folder in (spool, *spool.glob(f"{layout.WORKER}*")):
        quarantine = folder / layout.QUARANTINE
        found = [name for name in names_in(quarantine) if name.startswith(recording_id)]
        if not found:
            continue
        with open_folder(quarantine) as inside:
            for name in found:
                _wipe_file(name, inside)
            os.fsync(inside)
