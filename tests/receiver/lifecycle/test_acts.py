"""What people do: entered, then done, then told to followers; or none of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from receiver.errors import AnnotationError, ConfigurationError, LedgerError, NotFoundError
from receiver.lifecycle.acts import Acts
from receiver.lifecycle.ledger import Ledger
from receiver.recording import publication_log
from receiver.recording.annotations import Annotations
from receiver.recording.annotations import read as read_annotations
from receiver.recording.publication_log import CHANGED, LogMark
from tests.receiver.helpers import recordings_builder as builder


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Return the path of a recordings folder."""
    return tmp_path / "recordings"


@pytest.fixture
def folder(recordings: Path) -> Path:
    """Return the folder of a published recording of a second."""
    return builder.build(recordings)


@pytest.fixture
def ann(recordings: Path) -> Acts:
    """Return what Ann does in the console."""
    return Acts(recordings, who="ann", via="console")


def entered(recordings: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return what is in the ledger, the oldest first, all of it by Ann about the recording."""
    entries = list(Ledger(recordings).read())[::-1]
    assert {("ann", "console", builder.RECORDING_ID)} >= {
        (entry.who, entry.via, entry.recording) for entry in entries
    }
    return [(entry.what, entry.details) for entry in entries]


def followed(recordings: Path) -> list[str]:
    """Return what followers of the publication log get."""
    return [entry.what for entry in publication_log.read(recordings, LogMark())[0]]


def test_each_act_is_entered_done_and_told(recordings: Path, folder: Path, ann: Acts) -> None:
    """By whom, with what is needed to know which; a note's text is not in the ledger."""
    ann.add_label(folder, "complaint")
    note = ann.add_note(folder, "secret", t_ms=250)
    ann.hold(folder, "case 1")
    found = read_annotations(folder)
    assert ["complaint"] == [label.name for label in found.labels]
    assert (note,) == found.notes
    assert ("secret", 250, "ann") == (note.text, note.t_ms, note.by)
    assert found.hold is not None
    ann.remove_label(folder, "complaint")
    ann.remove_note(folder, note.id)
    ann.release(folder)
    assert Annotations() == read_annotations(folder)
    assert [
        ("labelled", {"label": "complaint"}),
        ("noted", {"note": note.id, "t_ms": 250}),
        ("held", {"reason": "case 1"}),
        ("unlabelled", {"label": "complaint"}),
        ("note_removed", {"note": note.id}),
        ("released", {}),
    ] == entered(recordings)
    assert [CHANGED] * 6 == followed(recordings)


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (lambda ann, folder: ann.add_label(folder, ""), AnnotationError),
        (lambda ann, folder: ann.add_note(folder, "late", t_ms=1001), AnnotationError),
        (lambda ann, folder: ann.remove_label(folder, "missing"), NotFoundError),
        (lambda ann, folder: ann.remove_note(folder, "missing"), NotFoundError),
        (lambda ann, folder: ann.hold(folder, "\n"), AnnotationError),
        (lambda ann, folder: ann.release(folder), NotFoundError),
    ],
)
def test_what_is_refused_is_not_entered(
    recordings: Path,
    folder: Path,
    ann: Acts,
    act: Callable[[Acts, Path], object],
    error: type[Exception],
) -> None:
    """Nor told to anybody."""
    with pytest.raises(error):
        act(ann, folder)
    assert [] == entered(recordings)
    assert [] == followed(recordings)


def test_what_changes_nothing_is_not_entered(recordings: Path, folder: Path, ann: Acts) -> None:
    """The same label, the same hold again."""
    for _ in range(2):
        ann.add_label(folder, "complaint")
        ann.hold(folder, "case 1")
    assert ["labelled", "held"] == [what for what, _ in entered(recordings)]
    assert [CHANGED] * 2 == followed(recordings)


def test_what_cannot_be_entered_is_not_done(recordings: Path, folder: Path, ann: Acts) -> None:
    """As where the disk is full: here something else is in the ledger's place."""
    (recordings / ".ledger").mkdir(0o700)
    (recordings / ".ledger" / "head").mkdir()
    with pytest.raises(LedgerError, match="nothing was done"):
        ann.hold(folder, "case 1")
    assert Annotations() == read_annotations(folder)
    assert [] == followed(recordings)
    assert not list(folder.glob(".*"))


def test_what_cannot_be_written_is_one_error(recordings: Path, folder: Path, ann: Acts) -> None:
    """It names the folder; nothing is entered that could not even begin."""
    (folder / ".annotations.json.new").mkdir()
    with pytest.raises(ConfigurationError, match=f"annotations in {folder} cannot be written"):
        ann.add_label(folder, "a")
    assert [] == entered(recordings)
