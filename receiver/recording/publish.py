"""From a journal to a recording, as a transaction: a finished name is a finished recording.

    claim      the journal is opened, once, for this process alone      journal/backlog.py
    scan       everything it says, but for the samples; its SHA-256     journal_scan.py
    render     into a hidden folder, synced, then renamed               render.py, disk/folders.py
    read back  the published files are compared with their document     verify.py
    enter      an entry in the ledger, by whoever calls                 lifecycle/ledger.py
    log        a line for all who follow what is published              publication_log.py
    dispose    the journal is removed, or set aside with a reason       journal/backlog.py

A crash anywhere in between is mended by doing it again: what was half rendered is thrown away,
and what was renamed is recognised by the journal's SHA-256. `publish` does the three steps in
the middle and touches no journal; only `publish_journal` has all seven.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from receiver.disk.folders import create_filled
from receiver.errors import JournalError, UnprovenError, UnreadableError
from receiver.journal import backlog
from receiver.journal.backlog import ClaimedJournal, Disposal
from receiver.recording import publication_log, store
from receiver.recording.document import (
    Discarded,
    Empty,
    Outcome,
    Postponed,
    Published,
    Quarantined,
    Recording,
    RenderOptions,
    encode,
)
from receiver.recording.journal_scan import JournalScan, scan_file
from receiver.recording.render import render
from receiver.recording.verify import verify

Enter = Callable[[Published], None]


@dataclass(frozen=True, slots=True)
class PublishResult:
    """What was published of a journal, and what is to become of the journal."""

    disposal: Disposal
    reason: str = ""
    published: Published | None = None


def recover(
    spool: Path, recordings: Path, options: RenderOptions, enter: Enter = lambda _: None
) -> Iterator[Outcome | Postponed]:
    """Publish what a dead receiver left behind; the caller holds the spool's lock.

    The trouble of one journal, or of one worker's folder, is no other's. `enter` is called as by
    `publish_journal`.
    """
    for folder, reason in backlog.gather(spool).items():
        yield Postponed(folder, reason)
    for journal in backlog.waiting(spool):
        try:
            outcome = publish_journal(journal, recordings, options, enter)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not journal.exists():
                continue  # published by the rendering process of a killed receiver
            yield Postponed(journal, str(error))
        else:
            yield outcome


def publish_journal(
    journal: Path, recordings: Path, options: RenderOptions, enter: Enter = lambda _: None
) -> Outcome:
    """Publish the journal at this path below `recordings`, and dispose of it.

    A journal that cannot be read, is damaged, holds audio that cannot be decoded, or does not
    agree with what was published is set aside in the spool's quarantine, after what can be
    trusted of it was published. One of no bytes is removed: its receiver ended before anything
    came. So is one of a stream that no start message showed to be the call of its token.

    Args:
        journal: The journal.
        recordings: The recordings folder.
        options: How to render.
        enter: Called with what was published, before the journal goes. Where it raises an
            `OSError` the journal stays, so it is called at least once for each recording.

    Raises:
        FileNotFoundError: the journal is gone; another process has published it.
        OSError: reading or writing failed; the journal stays, and it can be tried again.
    """
    try:
        with backlog.claim(journal) as claimed:
            result = publish(claimed, recordings, options)
            if result.published is not None:
                enter(result.published)
                publication_log.append(recordings, result.published.folder)
            return _disposed(journal, result)
    except JournalError as error:  # it cannot be opened
        return _disposed(journal, PublishResult(Disposal.QUARANTINE, str(error)))


def publish(journal: ClaimedJournal, recordings: Path, options: RenderOptions) -> PublishResult:
    """Publish below `recordings` what can be trusted of a journal, and read it back.

    Raises:
        OSError: reading or writing failed; nothing half published is left.
    """
    if journal.is_empty:
        return PublishResult(Disposal.REMOVE)
    try:
        scanned = scan_file(journal.file)
        name = backlog.recording_folder(scanned.header)
    except UnprovenError as error:
        return PublishResult(Disposal.REMOVE, str(error))
    except JournalError as error:
        return PublishResult(Disposal.QUARANTINE, str(error))
    rendered = create_filled(
        recordings, name, lambda folder: render(journal.file, scanned, folder, options)
    )
    return _read_back(recordings / name, scanned, rendered)


def _read_back(folder: Path, scanned: JournalScan, rendered: Recording | None) -> PublishResult:
    """Return the result of a journal whose recording is in `folder`.

    Only if the files agree with the journal does it go. Of a recording that was `rendered` just
    now, the document must be as it was written. The SHA-256 of the other files in it came from
    reading them, after they were synced; that is not done twice.
    """
    try:
        kept = store.read(folder)
    except UnreadableError as error:
        return PublishResult(Disposal.QUARANTINE, f"{folder.name} cannot be read back: {error}")
    document = kept.recording
    problems = verify(folder, document, hashes=rendered is None)
    if rendered is not None and kept.document != encode(rendered):
        problems = (*problems, "its document is not as it was written")
    if document.journal_sha256 != scanned.sha256:
        problems = (*problems, "it was made from another journal")
    if problems:
        return PublishResult(
            Disposal.QUARANTINE, f"{folder.name} does not agree: {'; '.join(problems)}"
        )
    published = Published(folder, document)
    if reason := _why_kept(scanned):
        return PublishResult(Disposal.QUARANTINE, reason, published)
    return PublishResult(Disposal.REMOVE, published=published)


def _why_kept(scanned: JournalScan) -> str:
    """Return why a journal holds more than what was published of it, if it does."""
    if scanned.damage:
        return f"published up to {scanned.damage}"
    if scanned.refused_format:
        return f"its payloads were published as they came: {scanned.refused_format}"
    if scanned.assumed_format:
        return f"its payloads were published as a guess: {scanned.assumed_format}"
    return ""


def _disposed(journal: Path, result: PublishResult) -> Outcome:
    """Dispose of a journal, and return what became of it."""
    moved_to = backlog.dispose(journal, result.disposal, result.reason)
    quarantined = None if moved_to is None else Quarantined(moved_to, result.reason)
    if result.published is not None:
        published = result.published
        return Published(published.folder, published.recording, quarantined)
    if quarantined is not None:
        return quarantined
    return Discarded(journal, result.reason) if result.reason else Empty(journal)
