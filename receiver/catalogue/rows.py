"""Rows: what the catalogue has of a recording, made of the files in its folder.

The same files give the same row, whenever and by whom it is made: so rebuilding gives what living
did, and a row whose files have another fingerprint is made again.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path, PurePath
from typing import Any, Final

import msgspec

from receiver.catalogue import tokens
from receiver.disk import layout
from receiver.errors import UnreadableError
from receiver.media import parameter_text
from receiver.recording import annotations as notes
from receiver.recording import store
from receiver.recording.annotations import Annotations
from receiver.recording.document import PreviousRecording, Recording
from receiver.recording.store import Tombstone
from receiver.recording.verdict import lost_and_paused_ms, verdict

PRESENT: Final = "present"
DELETED: Final = "deleted"
_SHIFT: Final = 10
_READ_FROM: Final = (layout.RECORDING_JSON, layout.ANNOTATIONS_JSON)
_NOTED: Final = "2:"
"""How a row is made of annotations; with another one, those that have some are made again."""
_FIRST_YEAR_MS: Final = 0
_LAST_YEAR_MS: Final = 1 << 43


class Row(msgspec.Struct, frozen=True):
    """A recording as lists have it; `folder` is relative to the recordings folder.

    Durations are in milliseconds. `notes` says how many there are.
    """

    id: str
    folder: str
    state: str
    call_sid: str
    stream_sid: str
    account_sid: str
    provider: str
    started_at: str
    duration_ms: float
    tracks: list[str]
    complete: bool
    findings: list[str]
    verdict: str
    lost_ms: float
    paused_ms: float
    parameters: dict[str, Any]
    labels: list[str]
    held: bool
    notes: int
    previous: PreviousRecording | None
    sha256: str

    def agrees(self, scope: Mapping[str, str]) -> bool:
        """Whether it has all parameters of a scope, which is how a person may be limited."""
        given = self.parameters
        return all(k in given and parameter_text(given[k]) == v for k, v in scope.items())


def of_tombstone(left: Tombstone) -> Row:
    """Return the row of a recording that was deleted, of which a tombstone is left."""
    return Row(
        id=left.id,
        folder=left.folder,
        state=DELETED,
        call_sid=left.call_sid,
        stream_sid=left.stream_sid,
        account_sid=left.account_sid,
        provider=left.provider,
        started_at=left.started_at,
        duration_ms=left.duration_ms,
        tracks=[],
        complete=False,
        findings=[],
        verdict=f"Deleted at {left.at} by {left.who}: {left.reason}.",
        lost_ms=0,
        paused_ms=0,
        parameters={},
        labels=[],
        held=False,
        notes=0,
        previous=None,
        sha256=left.before.get(layout.RECORDING_JSON, ""),
    )


JSON_COLUMNS: Final[dict[str, Any]] = {
    "tracks": list[str],
    "findings": list[str],
    "parameters": dict[str, Any],
    "labels": list[str],
    "previous": PreviousRecording | None,
}
"""Columns that are JSON text in the database, and what each of them is."""
_decoders: Final = {name: msgspec.json.Decoder(kind) for name, kind in JSON_COLUMNS.items()}


def decoded(columns: Mapping[str, Any]) -> Row:
    """Return the row of these columns of the database."""
    values = {name: columns[name] for name in Row.__struct_fields__}
    for name, decoder in _decoders.items():
        values[name] = decoder.decode(values[name])
    values["complete"], values["held"] = bool(values["complete"]), bool(values["held"])
    return Row(**values)


def decoded_column(name: str, text: str) -> Any:
    """Return the value of one column that is JSON."""
    return _decoders[name].decode(text)


def row_number(started_ms: int, recording_id: str) -> int:
    """Return the number of a row: the newest recording has the highest.

    Below 2**53, so that programs in other languages have it exactly. Recordings that started in
    the same millisecond differ by their ids; where they do not, whoever inserts takes the next.
    """
    return (started_ms << _SHIFT) | (int(recording_id[:8], 16) & ((1 << _SHIFT) - 1))


def first_number(started_ms: int) -> int:
    """Return the lowest number of what started at this time or later."""
    return min(max(started_ms, _FIRST_YEAR_MS), _LAST_YEAR_MS) << _SHIFT


def fingerprint(folder: Path) -> str:
    """Return what changes when the files change that a row is made of.

    Raises:
        OSError: the folder has no document, or cannot be read.
    """
    document = (folder / _READ_FROM[0]).lstat()
    parts = [f"{document.st_size}.{document.st_mtime_ns}"]
    with contextlib.suppress(FileNotFoundError):
        added = (folder / _READ_FROM[1]).lstat()
        parts.append(f"{_NOTED}{added.st_size}.{added.st_mtime_ns}")
    return " ".join(parts)


def read(recordings: Path, folder: PurePath) -> dict[str, Any]:
    """Return the columns of the recording in `folder`, which is relative to `recordings`.

    Raises:
        UnreadableError: it has no document, or one that is none.
    """
    path = recordings / folder
    try:
        seen = fingerprint(path)  # first: what changes meanwhile is another one
    except OSError as error:
        raise UnreadableError(f"{layout.RECORDING_JSON} cannot be read: {error.strerror}") from None
    kept = store.read(path)
    if layout.recording_id_of(folder) != kept.recording.id:
        text = f"{layout.RECORDING_JSON} is of another recording: {kept.recording.id}"
        raise UnreadableError(text)
    return columns(kept, _annotations(path), folder) | {"fingerprint": seen}


def columns(kept: store.Kept, added: Annotations | None, folder: PurePath) -> dict[str, Any]:
    """Return the columns of a recording, all but the fingerprint of its files.

    Args:
        kept: Its document.
        added: Its annotations; `None` where there are some that cannot be read.
        folder: Where it is, relative to the recordings folder.

    Raises:
        UnreadableError: it started at no time.
    """
    document = kept.recording
    lost_ms, paused_ms = lost_and_paused_ms(document)
    values = {
        "id": document.id,
        "folder": folder.as_posix(),
        "state": PRESENT,
        "call_sid": document.call_sid,
        "stream_sid": document.stream_sid,
        "account_sid": document.account_sid,
        "provider": document.provider,
        "started_at": document.started_at,
        "duration_ms": float(document.duration_ms),
        "tracks": [track.track.value for track in document.tracks],
        "complete": document.complete,
        "findings": list(dict.fromkeys(finding.code for finding in document.findings)),
        "verdict": verdict(document).text,
        "lost_ms": float(lost_ms),
        "paused_ms": float(paused_ms),
        "parameters": document.parameters,
        "labels": [] if added is None else [label.name for label in added.labels],
        "held": added is None or added.hold is not None,
        "notes": 0 if added is None else len(added.notes),
        "previous": document.previous,
        "sha256": hashlib.sha256(kept.document).hexdigest(),
    }
    found = _tokens(values, () if added is None else [note.text for note in added.notes])
    for name in JSON_COLUMNS:
        values[name] = msgspec.json.encode(values[name]).decode()
    number = row_number(_started_ms(document), document.id)
    clean = {name: _without_nul(value) for name, value in values.items()}
    return {"n": number, **clean, "tokens": " ".join(found)}


def _annotations(folder: Path) -> Annotations | None:
    """Return what people added; `None` where nobody can say, so that it counts as held."""
    try:
        return notes.read(folder)
    except UnreadableError:
        return None


def _tokens(values: Mapping[str, Any], notes: Sequence[str]) -> list[str]:
    return tokens.of_recording(
        recording_id=values["id"],
        notes=notes,
        **{
            name: values[name]
            for name in (
                *("call_sid", "stream_sid", "state", "duration_ms", "complete", "held"),
                *("tracks", "findings", "labels", "parameters"),
            )
        },
    )


def _started_ms(document: Recording) -> int:
    try:
        moment = datetime.fromisoformat(document.started_at)
        ms = round(moment.timestamp() * 1000)
    except (ValueError, OverflowError):
        raise UnreadableError(f"it started at no time: {document.started_at[:40]!r}") from None
    if not _FIRST_YEAR_MS <= ms < _LAST_YEAR_MS:
        raise UnreadableError(f"it started at no time of ours: {document.started_at[:40]!r}")
    return ms


def _without_nul(value: Any) -> Any:
    """Return a text as PostgreSQL has it, which knows no NUL."""
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}") if isinstance(value, str) else value
