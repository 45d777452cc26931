"""`receiver label`, `note`, `hold`, `release`: what people add to a recording."""

from __future__ import annotations

import os
import pwd
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from receiver.cli.options import recordings_folder
from receiver.errors import AnnotationError, ConfigurationError
from receiver.media import timestamp, visible
from receiver.recording import store
from receiver.recording.annotations import (
    Annotations,
    add_label,
    add_note,
    change,
    release_hold,
    remove_label,
    remove_note,
    set_hold,
)

Edit = Callable[[Annotations], Annotations]
_POSITION: Final = re.compile(r"(?:(?:([0-9]{1,3}):)?([0-9]{1,2}):)?([0-9]{1,7}(?:\.[0-9]{1,3})?)")
_NOTE_ID_BYTES: Final = 4


class _Position(click.ParamType[int]):
    """A position in a recording: seconds, or minutes and hours before them; milliseconds then."""

    name = "position"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the milliseconds that a text means."""
        found = _POSITION.fullmatch(value)
        if found is None:
            self.fail("give seconds as in 73.2, or 1:13.2, or 1:02:13", param, ctx)
        hours, minutes, seconds = int(found[1] or 0), int(found[2] or 0), float(found[3])
        return round((hours * 3600 + minutes * 60 + seconds) * 1000)


def _change(recordings: Path, recording_id: str, edit: Edit) -> Annotations:
    """Change what people have added to a recording, and return all of it.

    Raises:
        TapreelError: there is no such recording, or the change is refused.
    """
    folder = store.find(recordings, recording_id)
    try:
        return change(folder, edit)
    except ConfigurationError:
        raise
    except OSError as error:
        text = f"the annotations in {folder} cannot be written: {error.strerror or error}"
        raise ConfigurationError(text) from error


def _author() -> dict[str, str]:
    """Return who is at work and when, as annotations have it: the name of the system's account."""
    user = os.getuid()
    try:
        name = pwd.getpwuid(user).pw_name
    except KeyError:  # as in containers
        name = str(user)
    return {"by": name, "at": timestamp(time.time_ns() // 1_000_000)}


@click.command()
@click.argument("recording_id", metavar="ID")
@click.argument("name")
@click.option("--remove", is_flag=True, help="take this label off instead")
@recordings_folder
def label(recordings: Path, recording_id: str, name: str, *, remove: bool) -> None:
    """Put the label NAME on a recording. ID may be the first characters of an id, 4 at least."""

    def edit(before: Annotations) -> Annotations:
        if remove:
            return remove_label(before, name)
        return add_label(before, name, **_author())

    labels = _change(recordings, recording_id, edit).labels
    click.echo(visible("labels: " + (", ".join(each.name for each in labels) or "none")))


@click.command()
@click.argument("recording_id", metavar="ID")
@click.argument("text", required=False)
@click.option(
    "--at", "t_ms", type=_Position(), metavar="S", help="position: seconds, M:SS or H:MM:SS"
)
@click.option("--remove", "removed", metavar="NOTE", help="remove the note with this id instead")
@recordings_folder
def note(
    recordings: Path, recording_id: str, text: str | None, t_ms: int | None, removed: str | None
) -> None:
    """Write the note TEXT about a recording, or with --at about one position of it.

    ID may be the first characters of an id, 4 at least.
    """
    if (text is None) == (removed is None):
        raise click.UsageError("give TEXT, or --remove NOTE")
    if removed is not None:
        note_id = removed
        _change(recordings, recording_id, lambda before: remove_note(before, note_id))
        click.echo(visible(f"removed note {note_id}"))
        return
    note_id, content = secrets.token_hex(_NOTE_ID_BYTES), text or ""
    duration_ms = store.read(store.find(recordings, recording_id)).recording.duration_ms
    if t_ms is not None and t_ms > duration_ms:
        raise AnnotationError(f"the recording ends at {duration_ms / 1000:g} s")

    def edit(before: Annotations) -> Annotations:
        return add_note(before, content, note_id=note_id, t_ms=t_ms, **_author())

    _change(recordings, recording_id, edit)
    click.echo(f"note {note_id}")


@click.command()
@click.argument("recording_id", metavar="ID")
@click.option("--reason", required=True, metavar="TEXT", help="why it must be kept")
@recordings_folder
def hold(recordings: Path, recording_id: str, *, reason: str) -> None:
    """Keep a recording from being deleted or erased. ID may be the first characters of an id."""
    changed = _change(
        recordings, recording_id, lambda before: set_hold(before, reason, **_author())
    )
    if changed.hold is not None:
        click.echo(visible(f"held: {changed.hold.reason}"))


@click.command()
@click.argument("recording_id", metavar="ID")
@recordings_folder
def release(recordings: Path, recording_id: str) -> None:
    """End the hold of a recording. ID may be the first characters of an id, 4 at least."""
    _change(recordings, recording_id, release_hold)
    click.echo("released")
