"""`receiver label`, `note`, `hold`, `release`: what they change, print and refuse."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from receiver.cli import main
from receiver.recording import store
from receiver.recording.annotations import Annotations
from receiver.recording.annotations import read as read_annotations
from tests.receiver.helpers import recordings_builder as builder

ID = builder.RECORDING_ID
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Return a folder with one recording of a second."""
    builder.build(tmp_path / "recordings")
    return tmp_path / "recordings"


@pytest.fixture
def run(
    recordings: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Return what runs `receiver`, and returns exit code, stdout and stderr."""
    monkeypatch.delenv("TAPREEL_CONFIG", raising=False)
    monkeypatch.setenv("TAPREEL_RECORDINGS", str(recordings))

    def command(*arguments: str) -> tuple[int, str, str]:
        code = main.main(arguments)
        return (code, *capsys.readouterr())

    return command


def added(recordings: Path) -> Annotations:
    """Return what was added to the recording."""
    return read_annotations(store.find(recordings, ID))


def test_a_label_comes_and_goes(recordings: Path, run: Run) -> None:
    """All labels are printed each time; the system's account put it there, now."""
    assert (0, "labels: complaint\n", "") == run("label", ID[:4], "complaint")
    (label,) = added(recordings).labels
    assert pwd.getpwuid(os.getuid()).pw_name == label.by
    assert abs(datetime.now(UTC) - datetime.fromisoformat(label.at)) < timedelta(minutes=1)
    assert (0, "labels: complaint, b\n", "") == run("label", ID, "b")
    assert (0, "labels: b\n", "") == run("label", ID, "complaint", "--remove")
    assert (0, "labels: none\n", "") == run("label", ID, "b", "--remove")


@pytest.mark.parametrize(
    ("arguments", "t_ms"),
    [((), None), (("--at", "0"), 0), (("--at", "0.25"), 250), (("--at", "0:00:01"), 1000)],
)
def test_a_note_stands_where_it_was_put(
    recordings: Path, run: Run, arguments: tuple[str, ...], t_ms: int | None
) -> None:
    """Its id is printed, and removes it."""
    code, out, _ = run("note", ID, "promises a refund", *arguments)
    (note,) = added(recordings).notes
    assert (0, f"note {note.id}\n") == (code, out)
    assert ("promises a refund", t_ms) == (note.text, note.t_ms)
    assert (0, f"removed note {note.id}\n", "") == run("note", ID, "--remove", note.id)
    assert () == added(recordings).notes


def test_a_hold_comes_and_goes(recordings: Path, run: Run) -> None:
    """It is there when the command says so."""
    assert (0, "held: case 4711\n", "") == run("hold", ID, "--reason", "case 4711")
    assert added(recordings).hold is not None
    assert (0, "released\n", "") == run("release", ID)
    assert added(recordings).hold is None


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (("label", ID, " "), 6, "a label is empty"),
        (("label", ID, "missing", "--remove"), 5, "no label 'missing'"),
        (("label", "ffffffff", "a"), 5, "no recording 'ffffffff'"),
        (("note", ID), 2, "give TEXT"),
        (("note", ID, "text", "--remove", "0a"), 2, "give TEXT"),
        (("note", ID, "text", "--at", "soon"), 2, "give seconds"),
        (("note", ID, "text", "--at", "1.001"), 6, "the recording ends at 1 s"),
        (("note", ID, "--remove", "0a"), 5, "no note '0a'"),
        (("hold", ID), 2, "--reason"),
        (("hold", ID, "--reason", "a\nb"), 6, "U+000A"),
        (("release", ID), 5, "not held"),
    ],
)
def test_what_is_refused_is_one_line(
    recordings: Path, run: Run, arguments: tuple[str, ...], code: int, problem: str
) -> None:
    """And nothing is written."""
    found, out, err = run(*arguments)
    assert (code, "") == (found, out)
    assert 1 == len(err.splitlines())
    assert problem in err
    assert Annotations() == added(recordings)


def test_a_folder_that_cannot_be_written_is_one_line(recordings: Path, run: Run) -> None:
    """As on a disk that is mounted for reading."""
    folder = store.find(recordings, ID)
    (folder / ".annotations.json.new").mkdir()
    code, _, err = run("label", ID, "a")
    assert 3 == code
    assert f"the annotations in {folder} cannot be written" in err
    assert 1 == len(err.splitlines())


def test_show_has_all_of_it(recordings: Path, run: Run) -> None:
    """What a terminal would obey is escaped; what cannot be read is said on stderr."""
    run("label", ID, "com\u202eplaint")
    run("note", ID, "first\nsecond", "--at", "0.25")
    run("hold", ID, "--reason", "case 4711")
    lines = run("show", ID)[1].splitlines()
    name = pwd.getpwuid(os.getuid()).pw_name
    assert f"  com\\u202eplaint ({name})" == lines[lines.index("labels") + 1]
    assert f"0:00.25  first\\nsecond ({name})" in lines[lines.index("notes") + 1]
    assert lines[lines.index("held") + 1].startswith(f"  case 4711 ({name}, 20")
    (store.find(recordings, ID) / "annotations.json").write_bytes(b"{")
    code, out, err = run("show", ID)
    assert 0 == code
    assert "labels" not in out
    assert "not an annotations.json" in err
