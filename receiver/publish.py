"""From a journal to a finished recording, so that a finished name means a finished recording.

Everything is rendered into a hidden folder, synced, and renamed to its final name; the files
are read back, and only when they agree does the journal go. A crash anywhere in between is
mended by doing it again: what was half rendered is thrown away, what was renamed is recognised
by the journal's hash.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from receiver import archive, paths, recording
from receiver.errors import JournalError, UnreadableError
from receiver.folders import PRIVATE, sync_folder
from receiver.recording import Recording
from receiver.render import RenderOptions, identify, render
from receiver.survey import Survey


@dataclass(frozen=True, slots=True)
class Published:
    """A recording that is on disk under its final name."""

    folder: Path
    recording: Recording


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A journal that was set aside, and why."""

    journal: Path
    reason: str


Outcome = Published | Quarantined


def publish(journal: Path, recordings: Path, options: RenderOptions) -> Outcome:
    """Render `journal` below `recordings`, and remove it once the result was read back.

    A journal that cannot be read, is damaged, or does not agree with what was published is
    set aside in the spool's quarantine, after what can be trusted of it was published.

    Raises:
        OSError: reading or writing failed; the journal stays, and it can be tried again.
    """
    try:
        surveyed, digest = identify(journal)
    except JournalError as error:
        return quarantine(journal, str(error))
    header = surveyed.header
    folder = recordings / paths.recording_folder(header.recording_id, header.started_at_ms)
    if not folder.is_dir():
        _render_and_rename(journal, folder, options)
    return _settle(journal, folder, surveyed, digest)


def _render_and_rename(journal: Path, folder: Path, options: RenderOptions) -> None:
    hidden = folder.with_name(paths.hidden_folder(folder).name)
    _make_private_folders(folder.parent)
    if hidden.exists():
        shutil.rmtree(hidden)  # half rendered when the receiver ended; the journal has it all
    hidden.mkdir(PRIVATE)
    render(journal, hidden, options)
    sync_folder(hidden)
    hidden.rename(folder)
    sync_folder(folder.parent)


def _make_private_folders(folder: Path) -> None:
    """Create a folder and its parents, each of them private and on disk before its content."""
    if not folder.is_dir():
        _make_private_folders(folder.parent)
        folder.mkdir(PRIVATE, exist_ok=True)
        sync_folder(folder.parent)


def _settle(journal: Path, folder: Path, surveyed: Survey, digest: str) -> Outcome:
    """Read the published files back; only if they agree with the journal does it go."""
    try:
        document = recording.decode((folder / paths.RECORDING_JSON).read_bytes())
    except (OSError, UnreadableError) as error:
        return quarantine(journal, f"{folder.name} cannot be read back: {error}")
    problems = archive.verify(folder, document)
    if document.journal_sha256 != digest:
        problems = (*problems, "it was made from another journal")
    if problems:
        return quarantine(journal, f"{folder.name} does not agree: {'; '.join(problems)}")
    if surveyed.damage:
        quarantine(journal, f"published up to {surveyed.damage}")
    else:
        journal.unlink()
        sync_folder(journal.parent)
    return Published(folder, document)


def quarantine(journal: Path, reason: str) -> Quarantined:
    """Set a journal aside, with a text beside it that says why; nothing is overwritten."""
    folder = journal.parent / paths.QUARANTINE
    folder.mkdir(PRIVATE, exist_ok=True)
    target = folder / journal.name
    number = 0
    while target.exists():
        number += 1
        target = folder / f"{journal.stem}-{number}{journal.suffix}"
    journal.rename(target)
    descriptor = os.open(target.with_suffix(".txt"), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="utf-8") as note:
        note.write(reason + "\n")
    sync_folder(folder)
    sync_folder(journal.parent)
    return Quarantined(target, reason)


def waiting(spool: Path) -> list[Path]:
    """Return the journals that wait in a spool, oldest first. Its owner must be known dead."""
    journals = [path for path in spool.glob(f"*{paths.JOURNAL_SUFFIX}") if path.is_file()]
    return sorted(journals, key=lambda path: path.stat().st_mtime_ns)


def recover(spool: Path, recordings: Path, options: RenderOptions) -> Iterator[Outcome]:
    """Publish what a dead receiver left behind; the caller holds the spool's lock."""
    for journal in waiting(spool):
        yield publish(journal, recordings, options)
