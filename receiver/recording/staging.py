"""A recording's folder comes into being at once: filled under a hidden name, synced, renamed.

A crash before the rename leaves a hidden folder, which the next attempt throws away; a crash
behind it leaves a finished recording. There is nothing between the two. Every step is taken from
the descriptor of the day's folder, so what was checked to be ours is what is used.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import TypeVar

from receiver.disk import layout
from receiver.disk.files import blocks_of, open_folder
from receiver.disk.folders import PRIVATE, folder_within
from receiver.errors import JournalError
from receiver.journal.backlog import open_journal
from receiver.journal.records import Header, Reader

T = TypeVar("T")


def folder_name(header: Header) -> PurePath:
    """Return where a journal's recording belongs, relative to the recordings folder.

    Raises:
        JournalError: its header names a time that there is not.
    """
    try:
        return layout.recording_folder(header.recording_id, header.started_at_ms)
    except (ValueError, OverflowError, OSError) as error:
        raise JournalError(f"it started at no time that there is: {error}") from None


def create_filled(recordings: Path, name: PurePath, fill: Callable[[int], T]) -> T | None:
    """Create the folder `name` below `recordings`, filled by `fill`, or not at all.

    Args:
        recordings: The recordings folder.
        name: Year, month, day and the folder's own name.
        fill: Called with the descriptor of a folder that is new and hidden; it syncs its files.

    Returns:
        What `fill` returned, or `None`: a folder that is there already is left as it is.

    Raises:
        UnsafeFolderError: others could put things into one of the folders.
        OSError: the disk failed; nothing half written is left.
    """
    with folder_within(recordings, name.parent) as day:
        if _is_folder(name.name, day):
            return None
        hidden = layout.hidden_folder(name).name
        if _is_folder(hidden, day):
            shutil.rmtree(hidden, dir_fd=day)  # half rendered at a crash; the journal has it all
        os.mkdir(hidden, PRIVATE, dir_fd=day)
        try:
            with open_folder(hidden, within=day) as folder:
                filled = fill(folder)
                os.fsync(folder)
        except OSError:
            # Live journals may need the space.
            shutil.rmtree(hidden, ignore_errors=True, dir_fd=day)
            raise
        os.rename(hidden, name.name, src_dir_fd=day, dst_dir_fd=day)
        os.fsync(day)
        return filled


def discard_half_rendered(journal: Path, recordings: Path) -> None:
    """Remove what a process that was killed has rendered of a journal, and make no folder for it.

    The next start would do it too, so whatever stands in the way of doing it now is ignored.
    """
    with contextlib.suppress(OSError, JournalError, ValueError, OverflowError, StopIteration):
        with open_journal(journal) as file:
            _, header = next(iter(Reader(blocks_of(file))))
        if not isinstance(header, Header):
            return
        name = folder_name(header)
        with folder_within(recordings, name.parent, make=False) as day:
            shutil.rmtree(layout.hidden_folder(name).name, dir_fd=day)


def _is_folder(name: str, within: int) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=within, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False
