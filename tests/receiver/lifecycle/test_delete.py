"""A recording goes in one step, and a tombstone stays of it."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from receiver.errors import (
    AnnotationError,
    ConfigurationError,
    NotFoundError,
    RemovalError,
    UnreadableError,
)
from receiver.lifecycle import tombstones
from receiver.lifecycle.acts import Acts
from receiver.lifecycle.delete import Remover, finish_alone
from receiver.lifecycle.ledger import Ledger
from receiver.recording import annotations as notes
from receiver.recording import publication_log, store
from receiver.recording.publication_log import DELETED, LogMark
from receiver.recording.store import Tombstone
from receiver.recording.verify import verify
from tests.bounds import at_most
from tests.receiver.helpers import recordings_builder as builder
from tests.receiver.lifecycle import removals


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Return the path of a recordings folder."""
    return tmp_path / "recordings"


@pytest.fixture
def folder(recordings: Path) -> Path:
    """Return the folder of a published recording of a second."""
    return builder.build(recordings)


@pytest.fixture
def ann(recordings: Path) -> Remover:
    """Return what Ann does in the console."""
    return Remover(recordings, recordings / ".spool", who="ann", via="console")


def test_it_is_gone_and_a_tombstone_stays(recordings: Path, folder: Path, ann: Remover) -> None:
    """With ids, hashes, who, when and why, and nothing of what was said or known of anybody."""
    document = store.read(folder).recording
    hashes = {name: builder.sha256(folder / name) for name in ("inbound.wav", "recording.json")}
    done = ann.delete(folder, "asked for", rule="")
    assert not folder.exists()
    assert [] == removals.hidden(recordings)
    assert [done] == list(store.tombstones(recordings))
    assert {builder.RECORDING_ID: done} == store.deletions(
        recordings, frozenset({builder.RECORDING_ID, "0" * 16})
    )
    assert hashes.items() <= done.before.items()
    assert (document.call_sid, document.started_at, 1000) == (
        *(done.call_sid, done.started_at, done.duration_ms),
    )
    entry = next(Ledger(recordings).read())
    assert ("deleted", "ann", "console", "asked for") == (
        *(entry.what, entry.who, entry.via, entry.details["reason"]),
    )
    assert [DELETED] == [e.what for e in publication_log.read(recordings, LogMark())[0]]
    assert b"Jane" not in removals.content(recordings)
    with pytest.raises(NotFoundError, match="it was deleted"):
        ann.delete(folder, "again")


@pytest.mark.parametrize(
    ("prepare", "error", "text"),
    [
        (lambda acts, f: acts.hold(f, "case 1"), RemovalError, "is held by bob .*: case 1"),
        (
            lambda acts, f: (f / "annotations.json").write_text("{"),
            UnreadableError,
            "not an annotations.json",
        ),
        (
            lambda acts, f: (f / "annotations.json").write_text('{"version": 2}'),
            AnnotationError,
            "later version",
        ),
        (
            lambda acts, f: (
                f.parents[3] / ".spool" / "worker-1" / f"{builder.RECORDING_ID}.journal"
            ).touch(),
            RemovalError,
            "it is being published",
        ),
        (
            lambda acts, f: (f.parents[3] / ".tombstones").touch(),
            ConfigurationError,
            "not a folder",
        ),
    ],
)
def test_what_is_refused_changes_nothing(
    recordings: Path,
    folder: Path,
    ann: Remover,
    prepare: Callable[[Acts, Path], object],
    error: type[Exception],
    text: str,
) -> None:
    """Not even the ledger has it; one error says why."""
    (recordings / ".spool" / "worker-1").mkdir(0o700, parents=True)
    prepare(Acts(recordings, who="bob", via="console"), folder)
    before = removals.content(folder)
    with pytest.raises(error, match=text):
        ann.delete(folder, "asked for")
    assert before == removals.content(folder)
    assert [] == [e for e in Ledger(recordings).read() if e.what == "deleted"]


def test_a_recording_that_cannot_be_read_can_be_deleted(
    recordings: Path, folder: Path, ann: Remover
) -> None:
    """Its id is in its name; what else was in it nobody knows."""
    (folder / "recording.json").write_text("{")
    done = ann.delete(folder, "damaged")
    assert (builder.RECORDING_ID, "") == (done.id, done.call_sid)
    assert not folder.exists()


def test_a_backup_by_hard_links_is_left_as_it_is(
    tmp_path: Path, folder: Path, ann: Remover
) -> None:
    """What has no other name is overwritten before it goes."""
    before = (folder / "inbound.wav").read_bytes()
    os.link(folder / "inbound.wav", tmp_path / "backup.wav")
    with open(folder / "outbound.wav", "rb") as heard:
        ann.delete(folder, "asked for")
        assert not heard.read().strip(b"\0")
    assert before == (tmp_path / "backup.wav").read_bytes()


@pytest.mark.integration
def test_killed_at_any_step_it_is_there_or_gone(tmp_path: Path) -> None:
    """And when the rest was finished, it is whole with all that people added, or nothing."""
    outcomes, number, is_killed = set(), 0, True
    while is_killed:
        recordings = tmp_path / str(number) / "recordings"
        folder = builder.build(recordings)
        Acts(recordings, who="bob", via="console").add_label(folder, "complaint")
        ann = Remover(recordings, recordings / ".spool", who="ann", via="console")
        is_killed = removals.killed_before(number, partial(ann.delete, folder, "asked for"))
        is_there = folder.exists()
        finish_alone(recordings, recordings / ".spool")
        assert is_there == folder.exists(), number
        if is_there:
            assert () == verify(folder, store.read(folder).recording), number
            assert ["complaint"] == [label.name for label in notes.read(folder).labels]
            (recordings / folder / ".annotations.json.new").unlink(missing_ok=True)
        assert ([] if is_there else ["deleted"]) == [t.what for t in store.tombstones(recordings)]
        assert [] == removals.hidden(recordings), number
        assert [] == list(tombstones.pending(recordings)), number
        outcomes.add(is_there)
        shutil.rmtree(recordings)
        number += 1
    assert {True, False} == outcomes
    assert number > 20


def test_who_waits_to_hold_it_learns_that_it_is_gone(
    recordings: Path, folder: Path, ann: Remover
) -> None:
    """A hold is on the recording, or it is an error; never on what was deleted or erased."""
    acts, found = Acts(recordings, who="bob", via="console"), list[str]()

    def hold() -> None:
        try:
            acts.hold(folder, "case 1")
            found.append("held")
        except NotFoundError:
            found.append("gone")

    waiting = [threading.Thread(target=hold) for _ in range(4)]
    try:
        with ann.allowed(folder):
            for thread in waiting:
                thread.start()
            folder.rename(folder.with_name(".gone"))
    finally:
        for thread in waiting:
            thread.join(at_most(10))
    assert ["gone"] * 4 == found


def test_what_a_crash_left_is_finished_by_whoever_comes_next(
    recordings: Path, folder: Path, ann: Remover
) -> None:
    """Also what is named by a file that is damaged is not done silently: it is an error."""
    other = builder.build(recordings, recording_id="ffff000011112222")
    tombstone: Tombstone = ann.tombstone_of(folder, "deleted", "asked for")
    tombstones.put_pending(recordings, tombstone)
    folder.rename(folder.with_name(f".{folder.name}.removed"))
    ann.delete(other, "asked for")
    assert ["00112233aabbccdd", "ffff000011112222"] == sorted(
        each.id for each in store.tombstones(recordings)
    )
    assert [] == removals.hidden(recordings)
    (recordings / ".tombstones" / "pending" / "x.json").write_text("{")
    with pytest.raises(UnreadableError, match=r"x\.json is no tombstone"):
        finish_alone(recordings, recordings / ".spool")


def test_there_is_nothing_to_finish_where_nothing_was_removed(recordings: Path) -> None:
    """And no folder is made for it."""
    recordings.mkdir()
    assert 0 == finish_alone(recordings, recordings / ".spool")
    assert [] == list(recordings.iterdir())
