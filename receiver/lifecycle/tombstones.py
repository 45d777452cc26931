"""Tombstones: what is left of recordings that were deleted, or of which a part was erased.

`<recordings>/.tombstones/YYYY-MM.jsonl` has one in each line, by the month in which it was done:
ids, times, hashes, who, when, why; nothing that was said, and no parameter. `store.tombstones`
reads them.

What is being done has a file of its own in `pending/`, from before the first step until behind the
last one, so that whoever comes after a crash knows what to finish. A lock lets one at a time erase
or delete anything. What is done with pending ones is in `lifecycle.delete`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Final

import msgspec

from receiver.disk import layout
from receiver.disk.files import (
    FILE_MODE,
    append_line,
    names_in,
    open_regular,
    replacing,
    write_all,
)
from receiver.disk.folders import folder_within
from receiver.errors import UnreadableError
from receiver.recording import store
from receiver.recording.store import Tombstone

PENDING: Final = "pending"
_LOCK: Final = "lock"
_PLACE: Final = PurePath(layout.TOMBSTONES)

_decoder: Final = msgspec.json.Decoder(Tombstone)


@contextlib.contextmanager
def locked(recordings: Path) -> Iterator[int]:
    """Keep all others from erasing and deleting during the block; yield the folder's descriptor.

    Raises:
        UnsafeFolderError: others could put things into the folder.
        OSError: the disk failed.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with folder_within(recordings, _PLACE) as folder:
        lock = os.open(_LOCK, flags, FILE_MODE, dir_fd=folder)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
        finally:
            os.close(lock)


def append(recordings: Path, tombstone: Tombstone) -> None:
    """Append a tombstone, and sync it. The caller has the lock.

    Raises:
        UnsafeFolderError: others could put things into the folder.
        OSError: the disk failed.
    """
    name = f"{tombstone.at[: len('2026-12')]}.jsonl"
    with folder_within(recordings, _PLACE) as folder:
        is_new = name not in names_in(folder)
        append_line(name, msgspec.json.encode(tombstone), within=folder)
        if is_new:
            os.fsync(folder)


def has(recordings: Path, tombstone: Tombstone) -> bool:
    """Whether a tombstone was appended already.

    Raises:
        OSError: they cannot be read.
    """
    return any(each == tombstone for each in store.tombstones(recordings))


def put_pending(recordings: Path, tombstone: Tombstone) -> None:
    """Write what is being done, in the place of what was written of it before; it is synced.

    Raises:
        UnsafeFolderError: others could put things into the folder.
        OSError: the disk failed.
    """
    with (
        folder_within(recordings, _PLACE / PENDING) as folder,
        replacing(f"{tombstone.id}.json", within=folder) as file,
    ):
        write_all(file, msgspec.json.encode(tombstone))


def pending(recordings: Path) -> Iterator[Tombstone]:
    """Yield what was begun and not finished.

    Raises:
        UnreadableError: a file there is none of ours.
        OSError: they cannot be read.
    """
    folder = recordings / layout.TOMBSTONES / PENDING
    for name in names_in(folder):
        if name.startswith("."):
            continue  # it was never written whole, so nothing was done
        with open_regular(folder / name) as file:
            content = file.read()
        try:
            yield _decoder.decode(content)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise UnreadableError(f"{folder / name} is no tombstone: {error}") from error


def remove_pending(recordings: Path, recording_id: str) -> None:
    """Remove what was written of something that is finished now; idempotent.

    Raises:
        OSError: the disk failed.
    """
    with folder_within(recordings, _PLACE / PENDING) as folder:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{recording_id}.json", dir_fd=folder)
        os.fsync(folder)
