"""Journals that wait: each is claimed once, by one, and disposed of in one place."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from pathlib import Path

import pytest

from receiver.disk import layout
from receiver.disk.folders import FolderLock
from receiver.errors import ConfigurationError, JournalError
from receiver.journal import backlog
from receiver.journal.backlog import Disposal
from receiver.media import EndReason
from tests.bounds import at_most
from tests.receiver.helpers.journals import chunk, records, write

WAIT_SECONDS = at_most(30)
ROWS = records([chunk(n, bytes(160), timestamp_ms=20 * n) for n in range(8)], reason=EndReason.STOP)


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """Return a spool with nothing in it."""
    folder = tmp_path / "spool"
    folder.mkdir(0o700)
    return folder


@pytest.fixture
def journal(spool: Path) -> Path:
    """Return a whole journal in the spool."""
    return write(spool / "x.journal", ROWS)


def files(folder: Path) -> dict[str, bytes]:
    """Return the files below a folder, without what is said of why they are there."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".txt")
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def claimed_bytes(journal: Path) -> bytes:
    """Return what a claim gives to read."""
    with backlog.claim(journal) as claimed:
        claimed.file.seek(0)
        assert journal == claimed.path
        return claimed.file.read()


# Claiming.


def test_a_claim_gives_the_file_and_keeps_others_waiting(journal: Path) -> None:
    """Until it ends; what is read does not depend on the name any more."""
    whole = journal.read_bytes()
    with backlog.claim(journal) as claimed, open(journal, "rb") as other:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        journal.unlink()
        assert whole == claimed.file.read()
        assert not claimed.is_empty


def test_two_claims_of_a_journal_follow_each_other(spool: Path, journal: Path) -> None:
    """The second waits for the first, then finds the journal gone, or what has its name then."""
    for takes_its_place in (True, False):
        found: list[object] = []

        def claim(found: list[object] = found) -> None:
            try:
                found.append(claimed_bytes(journal))
            except OSError as error:
                found.append(type(error))

        waiting = threading.Thread(target=claim)
        with open(journal, "rb") as first:
            fcntl.flock(first, fcntl.LOCK_EX)
            waiting.start()
            if takes_its_place:
                (spool / "new").write_bytes(b"new")
                (spool / "new").replace(journal)
            else:
                journal.unlink()
        waiting.join(WAIT_SECONDS)
        assert [b"new" if takes_its_place else FileNotFoundError] == found


@pytest.mark.parametrize("kind", ["link", "folder", "fifo"])
def test_what_is_no_file_cannot_be_claimed(spool: Path, journal: Path, kind: str) -> None:
    """And that will not change by itself: nobody waits, and somebody else's file is not read."""
    path = spool / "y.journal"
    if kind == "link":
        path.symlink_to(journal)
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    with pytest.raises(JournalError, match="cannot read journal"), backlog.claim(path):
        pass


def test_trouble_that_passes_is_no_verdict(journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many open files say nothing of a journal."""

    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError, match="Too many open files"), backlog.claim(journal):
        pass


@pytest.mark.parametrize("rewritten", [None, b"anything"])
def test_a_journal_is_empty_if_nothing_was_written_again_either(
    spool: Path, rewritten: bytes | None
) -> None:
    """What was being written when the process ended may hold what the journal lacks."""
    (spool / "y.journal").touch()
    if rewritten is not None:
        (spool / "y.rewritten").write_bytes(rewritten)
    with backlog.claim(spool / "y.journal") as claimed:
        assert claimed.is_empty == (rewritten is None)


# A journal that was being written again.


@pytest.mark.parametrize("lost", [bytes(700), b"\0" * 3 + b"?" * 90, b""])
def test_a_successor_that_goes_on_takes_the_journals_place(spool: Path, lost: bytes) -> None:
    """Pages that the disk did not take are behind what both hold."""
    live = write(spool / "y.journal", ROWS[:4])
    live.write_bytes(live.read_bytes() + lost)
    more = write(spool / "y.rewritten", ROWS).read_bytes()
    assert more == claimed_bytes(live)
    assert {"y.journal": more} == files(spool)


@pytest.mark.parametrize("count", [6, 3, 0])
def test_a_successor_that_holds_no_more_is_left(spool: Path, count: int) -> None:
    """It goes with the journal, when that goes."""
    live = write(spool / "y.journal", ROWS[:6])
    write(spool / "y.rewritten", ROWS[:count])
    whole = live.read_bytes()
    assert whole == claimed_bytes(live)
    backlog.dispose(live, Disposal.REMOVE)
    assert {} == files(spool)


def test_a_successor_of_something_else_is_set_aside(spool: Path) -> None:
    """It holds more, but not what the journal holds: both are kept."""
    live = write(spool / "y.journal", ROWS[:4])
    other = write(spool / "y.rewritten", [ROWS[0], *ROWS[2:]]).read_bytes()
    whole = live.read_bytes()
    assert whole == claimed_bytes(live)
    assert {"y.journal": whole, f"{layout.QUARANTINE}/y.rewritten": other} == files(spool)
    assert "does not go on" in (spool / layout.QUARANTINE / "y.txt").read_text()


# Disposing.


def test_a_journal_is_removed(spool: Path, journal: Path) -> None:
    """Nothing is left of it."""
    assert backlog.dispose(journal, Disposal.REMOVE) is None
    assert [] == list(spool.iterdir())


def test_a_journal_is_set_aside_with_its_reason(spool: Path, journal: Path) -> None:
    """A second one of its name overwrites neither."""
    whole = journal.read_bytes()
    first = backlog.dispose(journal, Disposal.QUARANTINE, "why")
    journal.write_bytes(b"another")
    second = backlog.dispose(journal, Disposal.QUARANTINE, "why not")
    folder = spool / layout.QUARANTINE
    assert (folder / "x.journal", folder / "x-1.journal") == (first, second)
    assert {"x.journal": whole, "x-1.journal": b"another"} == files(folder)
    assert ["why\n", "why not\n"] == [(folder / f"{n}.txt").read_text() for n in ("x", "x-1")]


def test_a_note_without_its_journal_is_not_overwritten(spool: Path, journal: Path) -> None:
    """Somebody may have taken the journal away to look at it."""
    (spool / layout.QUARANTINE).mkdir()
    (spool / layout.QUARANTINE / "x.txt").write_text("why the first one is here")
    moved_to = backlog.dispose(journal, Disposal.QUARANTINE, "another reason")
    assert spool / layout.QUARANTINE / "x-1.journal" == moved_to
    assert "first one" in (spool / layout.QUARANTINE / "x.txt").read_text()


def test_a_journal_is_never_set_aside_without_its_reason(
    spool: Path, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk it stays where it is, and nothing else is left."""
    sync, note = os.fsync, spool / layout.QUARANTINE / "x.txt"

    def fail(descriptor: int) -> None:
        if note.exists() and os.path.samestat(os.fstat(descriptor), note.stat()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        backlog.dispose(journal, Disposal.QUARANTINE, "why")
    assert ["x.journal"] == [path.name for path in spool.rglob("*") if path.is_file()]


# Waiting.


def test_journals_wait_in_the_order_of_their_last_change(spool: Path) -> None:
    """Only journals do: no folder, no text, nothing that was set aside."""
    for age, name in enumerate(["c", "a", "b"]):
        os.utime(write(spool / f"{name}.journal", ROWS), (age, age))
    (spool / "d.journal").mkdir()
    (spool / "lock").touch()
    (spool / "a.rewritten").touch()
    assert ["c", "a", "b"] == [path.stem for path in backlog.waiting(spool)]


def test_what_workers_left_is_gathered(spool: Path) -> None:
    """Unless one of them lives."""
    for number in (1, 2):
        (spool / f"worker-{number}").mkdir(0o700)
        write(spool / f"worker-{number}" / f"{number}.journal", ROWS)
    with FolderLock(spool / "worker-2"), pytest.raises(ConfigurationError, match="in use"):
        backlog.gather(spool)
    backlog.gather(spool)
    assert {"1", "2"} == {path.stem for path in backlog.waiting(spool)}


def test_a_folder_of_a_worker_that_cannot_be_used_holds_back_no_other(
    spool: Path, tmp_path: Path
) -> None:
    """A link is not followed, wherever it leads; each is left, and told with its reason."""
    elsewhere = tmp_path / "elsewhere"
    for folder in (elsewhere, spool / "worker-3", spool / "worker-4"):
        folder.mkdir(0o700)
        write(folder / f"{folder.name}.journal", ROWS)
    (spool / "worker-1").symlink_to(elsewhere)
    (spool / "worker-2").symlink_to(tmp_path / "nowhere")
    (spool / "worker-4").chmod(0o777)
    (spool / "worker-5").touch()
    left = backlog.gather(spool)
    assert [f"worker-{number}" for number in (1, 2, 4, 5)] == [folder.name for folder in left]
    assert "symbolic link" in left[spool / "worker-1"]
    assert "chmod 700" in left[spool / "worker-4"]
    assert [spool / "worker-3.journal"] == backlog.waiting(spool)
    assert {"elsewhere.journal"} == set(files(elsewhere))


def test_a_successor_travels_with_its_journal(spool: Path) -> None:
    """From workers to the spool, and from there to another worker: what it holds is published."""
    worker, other = spool / "worker-2", spool / "worker-1"
    worker.mkdir(0o700)
    other.mkdir(0o700)
    write(worker / "y.journal", ROWS[:4])
    whole = write(worker / "y.rewritten", ROWS).read_bytes()
    backlog.gather(spool)
    assert whole == claimed_bytes_of_copy(spool)
    backlog.hand_down(spool, other)
    assert [] == [path for path in spool.iterdir() if path.is_file()]
    assert whole == claimed_bytes(other / "y.journal")


def claimed_bytes_of_copy(spool: Path) -> bytes:
    """Return what a claim of `y` would give, and leave the spool as it is."""
    copy = spool.with_name("copy")
    copy.mkdir(0o700)
    for path in spool.glob("y.*"):
        (copy / path.name).write_bytes(path.read_bytes())
    return claimed_bytes(copy / "y.journal")


def test_a_crash_while_journals_are_moved_parts_none_from_its_successor(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever rename is the last one, the next start finds both."""
    (spool / "worker-1").mkdir(0o700)
    whole = write(spool / "worker-1" / "y.rewritten", ROWS).read_bytes()
    write(spool / "worker-1" / "y.journal", ROWS[:4])
    rename, renamed = Path.rename, list[Path]()

    def cut(path: Path, target: Path) -> Path:
        if renamed:
            raise KeyboardInterrupt
        renamed.append(path)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", cut)
    with pytest.raises(KeyboardInterrupt):
        backlog.gather(spool)
    monkeypatch.undo()
    backlog.gather(spool)
    assert whole == claimed_bytes(spool / "y.journal")


@pytest.mark.parametrize("folder", [".", "worker-1"])
def test_a_successor_whose_journal_has_no_name_is_the_journal(spool: Path, folder: str) -> None:
    """A power cut may take a name that was never synced."""
    (spool / folder).mkdir(0o700, exist_ok=True)
    whole = write(spool / folder / "y.rewritten", ROWS).read_bytes()
    backlog.gather(spool)
    assert [spool / "y.journal"] == backlog.waiting(spool)
    assert whole == claimed_bytes(spool / "y.journal")


def test_a_successor_is_set_aside_with_its_journal(spool: Path) -> None:
    """Whoever looks at the one has the other."""
    live = write(spool / "y.journal", ROWS[:6])
    write(spool / "y.rewritten", ROWS[:3])
    assert "y.journal" == (backlog.dispose(live, Disposal.QUARANTINE, "why") or spool).name
    assert {"y.journal", "y.rewritten"} == set(files(spool / layout.QUARANTINE))
    assert [spool / layout.QUARANTINE] == list(spool.iterdir())


def test_a_quarantine_that_is_a_link_leads_nowhere(spool: Path, journal: Path) -> None:
    """The journal stays, and nothing of it gets to a place of somebody else's choice."""
    elsewhere = spool.with_name("elsewhere")
    elsewhere.mkdir()
    (spool / layout.QUARANTINE).symlink_to(elsewhere)
    with pytest.raises(OSError, match="symbolic link"):
        backlog.dispose(journal, Disposal.QUARANTINE, "why")
    assert journal.exists()
    assert [] == list(elsewhere.iterdir())
