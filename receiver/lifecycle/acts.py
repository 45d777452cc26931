"""What people do with a recording: in the ledger first, then done.

The console, the API and the commands go this way, so that none of them forgets a part of it.
Everything here waits for the disk: no event loop calls it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from receiver.disk import layout
from receiver.errors import (
    AnnotationError,
    ConfigurationError,
    NotFoundError,
    TapreelError,
)
from receiver.lifecycle.ledger import Act, Ledger
from receiver.media import timestamp
from receiver.recording import store
from receiver.recording.annotations import (
    Annotations,
    Note,
    add_label,
    add_note,
    change,
    release_hold,
    remove_label,
    remove_note,
    set_hold,
)

_NOTE_ID_BYTES: Final = 4


class Acts:
    """What one user does, by one way.

    Every method takes a recording's folder, below year, month and day in the recordings folder,
    and raises what `annotations.change` and its edits raise, and besides:

        LedgerError: it cannot be entered into the ledger, so it is not done.
        ConfigurationError: the disk failed, or others could put things into a folder.

    Args:
        recordings: The recordings folder.
        who: The user, or the system's account.
        via: Which way it comes, such as `console`, `api` or `command`.
    """

    def __init__(self, recordings: Path, *, who: str, via: str) -> None:
        self._ledger = Ledger(recordings)
        self._who = who
        self._via = via

    def add_label(self, folder: Path, name: str) -> Annotations:
        """Put a label on a recording; one that is there already stays as it is."""
        return self._change(
            folder, "labelled", lambda old: add_label(old, name, **self._author()), label=name
        )

    def remove_label(self, folder: Path, name: str) -> Annotations:
        """Remove a label from a recording."""
        return self._change(folder, "unlabelled", lambda old: remove_label(old, name), label=name)

    def add_note(self, folder: Path, text: str, *, t_ms: int | None = None) -> Note:
        """Write a note about a recording, or about one position of it; return it.

        Its text is not in the ledger, from where nothing could ever be removed.

        Raises:
            AnnotationError: also where the recording ends before that position.
            UnreadableError: also where the recording's document cannot be read.
        """
        if t_ms is not None and t_ms > (length := store.read(folder).recording.duration_ms):
            raise AnnotationError(f"the recording ends at {length / 1000:g} s")
        note_id = secrets.token_hex(_NOTE_ID_BYTES)

        def edit(old: Annotations) -> Annotations:
            return add_note(old, text, note_id=note_id, t_ms=t_ms, **self._author())

        changed = self._change(folder, "noted", edit, note=note_id, t_ms=t_ms)
        return changed.notes[-1]

    def remove_note(self, folder: Path, note_id: str) -> Annotations:
        """Remove a note."""
        return self._change(
            folder, "note_removed", lambda old: remove_note(old, note_id), note=note_id
        )

    def hold(self, folder: Path, reason: str) -> Annotations:
        """Keep a recording from being deleted or erased."""
        return self._change(
            folder, "held", lambda old: set_hold(old, reason, **self._author()), reason=reason
        )

    def release(self, folder: Path) -> Annotations:
        """End the hold of a recording."""
        return self._change(folder, "released", release_hold)

    def _author(self) -> dict[str, str]:
        return {"by": self._who, "at": timestamp(time.time_ns() // 1_000_000)}

    def _change(
        self, folder: Path, act: Act, edit: Callable[[Annotations], Annotations], **details: Any
    ) -> Annotations:
        """Change annotations, entered while no other writer is at work and if anything changes."""
        recording = layout.recording_id_of(folder) or ""

        def entered(old: Annotations) -> Annotations:
            new = edit(old)
            if new != old:
                who, via = self._who, self._via
                self._ledger.append(act, who=who, via=via, recording=recording, **details)
            return new

        try:
            return change(folder, entered)
        except TapreelError:
            raise
        except FileNotFoundError as error:
            if not folder.is_dir():
                raise NotFoundError(f"no recording {folder.name}: it was deleted") from error
            raise ConfigurationError(f"the annotations in {folder} cannot be written") from error
        except OSError as error:
            text = f"the annotations in {folder} cannot be written: {error.strerror or error}"
            raise ConfigurationError(text) from error
