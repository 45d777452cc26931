"""`annotations.json`: the labels, notes and hold that people add to a recording.

It stands beside `recording.json`, which never changes after publication, and it is the truth: a
database that has the same is made from it. A recording without the file has no annotations.

Who calls: commands and the console, in threads, because everything here waits for the disk. Any
number of writers may be at work, also in several processes: `change` lets them in one by one, so
that none takes back what another one has added.
"""

from __future__ import annotations

import contextlib
import os
import unicodedata
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path, PurePath
from typing import Final

import msgspec

from receiver.disk import layout
from receiver.disk.files import open_regular, replacing, write_all
from receiver.disk.folders import folder_within
from receiver.errors import AnnotationError, NotFoundError, UnreadableError
from receiver.recording import publication_log

VERSION: Final = 1
LONGEST_LABEL: Final = 64
LONGEST_NOTE: Final = 4000
LONGEST_REASON: Final = 1000
"""Characters, after white space at both ends was removed."""
MOST_LABELS: Final = 100
MOST_NOTES: Final = 1000
_CONTROL: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Categories of Unicode that no text here has: control, half a character, separators of lines."""


class Label(msgspec.Struct, frozen=True):
    """A word for a recording; `at` is RFC 3339 in UTC, as in all of these."""

    name: str
    by: str
    at: str


class Note(msgspec.Struct, frozen=True):
    """A text about a recording, or about the position `t_ms` of it.

    `id` tells it from the recording's other notes.
    """

    id: str
    text: str
    t_ms: int | None
    by: str
    at: str


class Hold(msgspec.Struct, frozen=True):
    """While a recording has one, nothing may erase or delete it, nor may it expire."""

    reason: str
    by: str
    at: str


class Annotations(msgspec.Struct, frozen=True):
    """All that people have added to a recording, each in the order in which it came."""

    version: int = VERSION
    labels: tuple[Label, ...] = ()
    notes: tuple[Note, ...] = ()
    hold: Hold | None = None


_decoder = msgspec.json.Decoder(Annotations)


def read(folder: Path) -> Annotations:
    """Return the annotations of the recording in `folder`; it may have none.

    Fields that this version does not know are passed over.

    Raises:
        UnreadableError: the file cannot be read, or is none. Then nobody knows whether the
            recording is held: whoever wants to remove anything of it must not.
    """
    try:
        with open_regular(folder / layout.ANNOTATIONS_JSON) as file:
            return _decoded(file.read())
    except FileNotFoundError:
        return Annotations()
    except OSError as error:
        text = f"{layout.ANNOTATIONS_JSON} cannot be read: {error.strerror}"
        raise UnreadableError(text) from error


def _decoded(document: bytes) -> Annotations:
    try:
        return _decoder.decode(document)
    except (ValueError, RecursionError) as error:  # msgspec's errors, and bad UTF-8
        raise UnreadableError(f"not an {layout.ANNOTATIONS_JSON}: {error}") from error


def change(folder: Path, edit: Callable[[Annotations], Annotations]) -> Annotations:
    """Change the annotations of the recording in `folder`; return them as they are then.

    It is on disk when this returns, and so is a line in the publication log for whoever follows.
    A crash leaves the old file or the new one, whole.

    Args:
        folder: The recording's folder, below year, month and day in the recordings folder.
        edit: Called with what stands there now, while no other writer is at work. Where it
            raises, or returns what it was given, nothing is written.

    Raises:
        FileNotFoundError: there is no such recording any more.
        UnreadableError: what stands there cannot be read; it is left as it is.
        AnnotationError: it is of a later version, of which parts would be lost.
        UnsafeFolderError: others could put things into one of the folders.
        OSError: the disk failed; what stood there still does, unless syncing its entry or
            the publication log failed.
    """
    with locked(folder) as file:
        before = read(folder)
        if before.version > VERSION:
            text = f"{layout.ANNOTATIONS_JSON} is of a later version of tapreel: update this one"
            raise AnnotationError(text)
        after = edit(before)
        if after != before:
            encoded = msgspec.json.format(msgspec.json.encode(after), indent=2)
            write_all(file, encoded + b"\n")
    if after != before:
        above = folder.parents[layout.LEVELS - 1]
        publication_log.append(above, folder, publication_log.CHANGED)  # the file is there by now
    return after


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[FileIO]:
    """Keep all others from changing annotations of a recording, or its folder, during the block.

    The file that is yielded takes their place if anything is written into it. While somebody
    waits here, the folder may be exchanged for another one, or renamed: then it is waited for
    the one that has the name by then.

    Raises:
        FileNotFoundError: there is no such recording any more.
        UnsafeFolderError: others could put things into one of the folders.
        OSError: the disk failed.
    """
    above = folder.parents[layout.LEVELS - 1]
    while True:
        with (
            folder_within(above, PurePath(*folder.parts[-layout.LEVELS :]), make=False) as entry,
            replacing(layout.ANNOTATIONS_JSON, within=entry) as file,
        ):
            if os.path.samestat(os.fstat(entry), folder.lstat()):
                yield file
                return


def add_label(annotations: Annotations, name: str, *, by: str, at: str) -> Annotations:
    """Return annotations with one more label; one that is there already stays as it is.

    Raises:
        AnnotationError: the name is empty, too long or no line of text, or there are too many.
    """
    name = checked_text(name, "a label", LONGEST_LABEL)
    if any(label.name == name for label in annotations.labels):
        return annotations
    if len(annotations.labels) >= MOST_LABELS:
        raise AnnotationError(f"it has {MOST_LABELS} labels already: remove one first")
    labels = (*annotations.labels, Label(name, by, at))
    return msgspec.structs.replace(annotations, labels=labels)


def remove_label(annotations: Annotations, name: str) -> Annotations:
    """Return annotations without one label.

    Raises:
        NotFoundError: there is no such label.
    """
    name = unicodedata.normalize("NFC", name.strip())
    left = tuple(label for label in annotations.labels if label.name != name)
    if len(left) == len(annotations.labels):
        raise NotFoundError(f"it has no label {name[:100]!r}")
    return msgspec.structs.replace(annotations, labels=left)


def add_note(
    annotations: Annotations, text: str, *, note_id: str, by: str, at: str, t_ms: int | None = None
) -> Annotations:
    """Return annotations with one more note, the last one, which may have several lines.

    Args:
        annotations: Those before.
        text: What it says.
        note_id: Tells it from the others; hexadecimal digits drawn by chance will do.
        by: Who says it.
        at: When, RFC 3339 in UTC.
        t_ms: Which position of the recording it is about.

    Raises:
        AnnotationError: the text is empty, too long or no text; or there are too many notes.
    """
    text = checked_text(text.replace("\r\n", "\n"), "a note", LONGEST_NOTE, allowed="\n\t")
    if t_ms is not None and t_ms < 0:
        raise AnnotationError("a note stands at a position of 0 or more")
    if len(annotations.notes) >= MOST_NOTES:
        raise AnnotationError(f"it has {MOST_NOTES} notes already: remove one first")
    if any(note.id == note_id for note in annotations.notes):
        raise AnnotationError(f"it has a note {note_id} already")
    notes = (*annotations.notes, Note(note_id, text, t_ms, by, at))
    return msgspec.structs.replace(annotations, notes=notes)


def remove_note(annotations: Annotations, note_id: str) -> Annotations:
    """Return annotations without one note.

    Raises:
        NotFoundError: there is no such note.
    """
    left = tuple(note for note in annotations.notes if note.id != note_id)
    if len(left) == len(annotations.notes):
        raise NotFoundError(f"it has no note {note_id[:100]!r}")
    return msgspec.structs.replace(annotations, notes=left)


def set_hold(annotations: Annotations, reason: str, *, by: str, at: str) -> Annotations:
    """Return annotations with a hold; one with the same reason stays as it is.

    Raises:
        AnnotationError: the reason is empty, too long or no line of text; or the recording is
            held for another one, and releasing either would release both.
    """
    reason = checked_text(reason, "a reason", LONGEST_REASON)
    held = annotations.hold
    if held is not None and held.reason != reason:
        text = f"it is held already, by {held.by} since {held.at}: {held.reason}"
        raise AnnotationError(text)
    return msgspec.structs.replace(annotations, hold=held or Hold(reason, by, at))


def release_hold(annotations: Annotations) -> Annotations:
    """Return annotations without a hold.

    Raises:
        NotFoundError: there is none.
    """
    if annotations.hold is None:
        raise NotFoundError("it is not held")
    return msgspec.structs.replace(annotations, hold=None)


def checked_text(text: str, what: str, longest: int, *, allowed: str = "") -> str:
    """Return a text as it is kept: composed (NFC), without white space around it.

    Raises:
        AnnotationError: it is empty or too long, or has characters that are not `allowed`.
    """
    kept = unicodedata.normalize("NFC", text.strip())
    if not kept:
        raise AnnotationError(f"{what} is empty")
    if len(kept) > longest:
        raise AnnotationError(f"{what} has at most {longest} characters, and this one {len(kept)}")
    for character in kept:
        if unicodedata.category(character) in _CONTROL and character not in allowed:
            raise AnnotationError(f"{what} cannot have the character U+{ord(character):04X}")
    return kept
