"""What people add to a recording: kept whole, bounded, and lost by no second writer."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.disk import layout
from receiver.errors import AnnotationError, NotFoundError, UnreadableError, UnsafeFolderError
from receiver.recording import store
from receiver.recording.annotations import (
    LONGEST_LABEL,
    LONGEST_NOTE,
    LONGEST_REASON,
    MOST_LABELS,
    MOST_NOTES,
    Annotations,
    Label,
    Note,
    add_label,
    add_note,
    change,
    read,
    release_hold,
    remove_label,
    remove_note,
    set_hold,
)
from receiver.recording.verify import verify
from tests.bounds import at_most
from tests.receiver.helpers import recordings_builder as builder

AT = "2026-12-01T10:00:00.000Z"
WRITER = """
import sys
from pathlib import Path
from receiver.recording.annotations import add_label, change
for name in sys.argv[2:]:
    change(Path(sys.argv[1]), lambda before: add_label(before, name, by="x", at="now"))
    print(name, flush=True)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of a published recording."""
    return builder.build(tmp_path / "recordings")


def with_label(name: str) -> Callable[[Annotations], Annotations]:
    """Return the edit that adds a label."""
    return lambda before: add_label(before, name, by="ann", at=AT)


def names(annotations: Annotations) -> list[str]:
    """Return the labels' names, in order."""
    return [label.name for label in annotations.labels]


def test_a_recording_without_the_file_has_no_annotations(folder: Path) -> None:
    """As every one that was just published."""
    assert Annotations() == read(folder)


def test_all_that_is_added_is_read_again(folder: Path) -> None:
    """The file is private, its fields are those of the contract, and verify takes it."""

    def edit(before: Annotations) -> Annotations:
        labelled = add_label(before, "complaint", by="ann", at=AT)
        noted = add_note(labelled, "first\r\n\tsecond", note_id="0a", t_ms=250, by="bob", at=AT)
        noted = add_note(noted, "of all of it", note_id="0b", by="bob", at=AT)
        return set_hold(noted, "case 1", by="ann", at=AT)

    changed = change(folder, edit)
    assert changed == read(folder)
    path = folder / "annotations.json"
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert {
        "version": 1,
        "labels": [{"name": "complaint", "by": "ann", "at": AT}],
        "notes": [
            {"id": "0a", "text": "first\n\tsecond", "t_ms": 250, "by": "bob", "at": AT},
            {"id": "0b", "text": "of all of it", "t_ms": None, "by": "bob", "at": AT},
        ],
        "hold": {"reason": "case 1", "by": "ann", "at": AT},
    } == json.loads(path.read_bytes())
    assert path.read_bytes().endswith(b"}\n")
    assert () == verify(folder, store.read(folder).recording)


def test_all_that_was_added_can_be_taken_away(folder: Path) -> None:
    """Each by its name, and nothing but it."""
    two = add_label(add_label(Annotations(), "a", by="x", at=AT), "b", by="x", at=AT)
    assert ["b"] == names(remove_label(two, " a "))
    noted = add_note(Annotations(), "text", note_id="0a", by="x", at=AT)
    assert Annotations() == remove_note(noted, "0a")
    held = set_hold(Annotations(), "why", by="x", at=AT)
    assert Annotations() == release_hold(held)


@pytest.mark.parametrize(
    "edit",
    [
        lambda before: remove_label(before, "missing"),
        lambda before: remove_note(before, "missing"),
        release_hold,
    ],
)
def test_what_is_not_there_cannot_be_taken_away(
    folder: Path, edit: Callable[[Annotations], Annotations]
) -> None:
    """It is said, and nothing is written."""
    with pytest.raises(NotFoundError):
        change(folder, edit)
    assert not list(folder.glob(".*"))
    assert not (folder / "annotations.json").exists()


def test_a_label_twice_is_one(folder: Path) -> None:
    """Who put it there first stays known; composed and decomposed letters are one name."""
    once = change(folder, with_label("Qualität"))
    written = (folder / "annotations.json").stat()
    again = change(folder, lambda b: add_label(b, " Qualita\u0308t ", by="bob", at="later"))
    assert once == again
    assert os.path.samestat(written, (folder / "annotations.json").stat())


def test_a_hold_for_another_reason_is_refused() -> None:
    """Otherwise releasing one would release both; the same one again changes nothing."""
    held = set_hold(Annotations(), "case 1", by="ann", at=AT)
    assert held == set_hold(held, "case 1", by="bob", at="later")
    with pytest.raises(AnnotationError, match="held already, by ann"):
        set_hold(held, "case 2", by="bob", at=AT)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is empty"),
        (" \t\n", "is empty"),
        ("a\0b", r"U\+0000"),
        ("a\x1b[31m", r"U\+001B"),
        ("half \ud800", r"U\+D800"),
        ("a\u2028b", r"U\+2028"),
    ],
)
def test_what_is_no_text_is_refused(text: str, problem: str) -> None:
    """Of labels, notes and reasons alike."""
    with pytest.raises(AnnotationError, match=problem):
        add_label(Annotations(), text, by="x", at=AT)
    with pytest.raises(AnnotationError, match=problem):
        add_note(Annotations(), text, note_id="0a", by="x", at=AT)
    with pytest.raises(AnnotationError, match=problem):
        set_hold(Annotations(), text, by="x", at=AT)


def test_only_notes_have_lines() -> None:
    """A label or a reason stands in one line of a list."""
    add_note(Annotations(), "a\nb", note_id="0a", by="x", at=AT)
    for refused in (add_label, set_hold):
        with pytest.raises(AnnotationError, match=r"U\+000A"):
            refused(Annotations(), "a\nb", by="x", at=AT)


def test_texts_have_a_longest_length() -> None:
    """The longest fits, one more does not."""
    add_label(Annotations(), "x" * LONGEST_LABEL, by="x", at=AT)
    with pytest.raises(AnnotationError, match=f"at most {LONGEST_LABEL}"):
        add_label(Annotations(), "x" * (LONGEST_LABEL + 1), by="x", at=AT)
    add_note(Annotations(), "x" * LONGEST_NOTE, note_id="0a", by="x", at=AT)
    with pytest.raises(AnnotationError, match=f"at most {LONGEST_NOTE}"):
        add_note(Annotations(), "x" * (LONGEST_NOTE + 1), note_id="0a", by="x", at=AT)
    set_hold(Annotations(), "x" * LONGEST_REASON, by="x", at=AT)
    with pytest.raises(AnnotationError, match=f"at most {LONGEST_REASON}"):
        set_hold(Annotations(), "x" * (LONGEST_REASON + 1), by="x", at=AT)


def test_there_is_a_largest_number_of_each() -> None:
    """A program gone wild fills no disk."""
    labels = tuple(Label(str(number), "x", AT) for number in range(MOST_LABELS))
    with pytest.raises(AnnotationError, match="remove one first"):
        add_label(Annotations(labels=labels), "more", by="x", at=AT)
    notes = tuple(Note(f"{number:x}", "text", None, "x", AT) for number in range(MOST_NOTES))
    with pytest.raises(AnnotationError, match="remove one first"):
        add_note(Annotations(notes=notes), "more", note_id="fff", by="x", at=AT)


def test_a_note_is_told_from_the_others_and_stands_in_the_recording() -> None:
    """Its id is its own, and its position is not before the beginning."""
    noted = add_note(Annotations(), "text", note_id="0a", by="x", at=AT)
    with pytest.raises(AnnotationError, match="0a already"):
        add_note(noted, "other", note_id="0a", by="x", at=AT)
    with pytest.raises(AnnotationError, match="0 or more"):
        add_note(Annotations(), "text", note_id="0a", t_ms=-1, by="x", at=AT)


@given(st.text())
def test_any_text_is_kept_as_shown_or_refused(text: str) -> None:
    """And what is kept can be encoded, and is the same label when it comes again."""
    try:
        once = add_label(Annotations(), text, by="x", at=AT)
    except AnnotationError:
        return
    assert msgspec.json.decode(msgspec.json.encode(once), type=Annotations) == once
    assert once == add_label(once, once.labels[0].name, by="y", at=AT)
    assert Annotations() == remove_label(once, text)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff", b'{"labels": 5}', b"[" * 5000, b'{"hold": {}}', b"null"]
)
def test_what_cannot_be_read_is_never_overwritten(folder: Path, content: bytes) -> None:
    """It may have held a hold; verify reports it."""
    path = folder / "annotations.json"
    path.touch(0o600)
    path.write_bytes(content)
    with pytest.raises(UnreadableError, match=r"annotations\.json"):
        change(folder, with_label("a"))
    assert content == path.read_bytes()
    assert not list(folder.glob(".*"))
    (problem,) = verify(folder, store.read(folder).recording)
    assert "annotations.json" in problem


def test_a_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    """Neither in the place of the file, nor of its folder."""
    (tmp_path / "elsewhere").write_text("{}")
    (folder / "annotations.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnreadableError):
        read(folder)
    (folder / "annotations.json").unlink()
    moved = folder.rename(tmp_path / "moved")
    folder.symlink_to(moved)
    with pytest.raises(UnsafeFolderError):
        change(folder, with_label("a"))


def test_fields_of_a_later_version_are_read_past_and_kept(folder: Path) -> None:
    """They would be lost if this version wrote the file."""
    path = folder / "annotations.json"
    path.write_text('{"version": 2, "labels": [{"name": "a", "by": "x", "at": "t", "colour": 1}]}')
    assert ["a"] == names(read(folder))
    before = path.read_bytes()
    with pytest.raises(AnnotationError, match="later version"):
        change(folder, with_label("b"))
    assert before == path.read_bytes()


def test_a_mode_that_lets_others_read_is_reported(folder: Path) -> None:
    """Notes say as much as the audio does."""
    change(folder, with_label("a"))
    (folder / "annotations.json").chmod(0o644)
    (problem,) = verify(folder, store.read(folder).recording)
    assert "annotations.json: its mode is 0644, not 0600" == problem


def test_threads_take_nothing_from_each_other(folder: Path) -> None:
    """Whoever comes second adds to what the first one wrote."""
    wanted = [f"{writer}-{number}" for writer in range(4) for number in range(10)]

    def write(writer: int) -> None:
        for number in range(10):
            change(folder, with_label(f"{writer}-{number}"))

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(at_most(60))
    assert wanted == sorted(names(read(folder)))


@pytest.mark.integration
def test_processes_take_nothing_from_each_other(folder: Path) -> None:
    """Also when one of them is killed in the middle: what it reported is there."""
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, folder, *(f"{writer}-{n}" for n in range(30))],
            stdout=subprocess.PIPE,
        )
        for writer in range(3)
    ]
    victim = writers[0]
    assert victim.stdout is not None
    first = victim.stdout.readline()
    victim.send_signal(signal.SIGKILL)
    reported = [first, *victim.stdout.readlines()]
    for writer in writers[1:]:
        out, _ = writer.communicate(timeout=at_most(60))
        assert 0 == writer.returncode
        reported += out.splitlines()
    victim.wait(at_most(10))
    victim.stdout.close()
    added = names(read(folder))
    assert {line.decode().strip() for line in reported} <= set(added)
    assert len(set(added)) == len(added)
    assert () == verify(folder, store.read(folder).recording)


def test_what_a_killed_writer_left_is_in_nobodys_way(folder: Path) -> None:
    """Half a file under the hidden name is no annotation, and no stray file."""
    change(folder, with_label("a"))
    hidden = folder / layout.replacement_name(layout.ANNOTATIONS_JSON)
    hidden.touch(0o600)
    hidden.write_bytes(b'{"labels": [' + b" " * 9999)
    assert ["a"] == names(read(folder))
    assert () == verify(folder, store.read(folder).recording)
    assert ["a", "b"] == names(change(folder, with_label("b")))
    assert not hidden.exists()
