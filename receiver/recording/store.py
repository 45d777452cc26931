"""The read side of the recordings folder: list recordings, find one, read its document.

This is the seam for all that reads recordings: the commands today, and later a catalogue, a
console, an uploader. Recordings are published beside it by `publish`, and are complete as soon as
they have a name.

- Called in any thread or process, also while a receiver publishes: nothing is locked or cached.
- Everything here waits for the disk, and `select` reads one document for each recording, so the
  event loop calls none of it: a thread does.
- Nothing here writes, creates or removes anything.
- No symbolic link below the recordings folder is followed, and nothing is opened by a name from
  a document: folders are those whose names are years, months, days and recordings.
- A recording that cannot be read is yielded as `Damaged`, and never hides the others.
- However many there are, memory holds one folder's names and one document.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import BufferedReader
from pathlib import Path, PurePath
from typing import Final, Literal

import msgspec

from receiver.disk import layout
from receiver.disk.files import names_in, open_regular
from receiver.errors import NotFoundError, UnreadableError
from receiver.media import Track, parameter_text, timestamp
from receiver.recording import document as recording
from receiver.recording.document import Recording

REMEMBERED_SECONDS: Final = 3600.0
"""For how long a stream that has ended can go on as another recording."""
SHORTEST_PREFIX: Final = 4
"""Fewer characters are no prefix of an id."""

_LEVELS: Final[tuple[Callable[[str], object], ...]] = (
    re.compile(r"[0-9]{4}").fullmatch,  # the year
    re.compile(r"[0-9]{2}").fullmatch,
    re.compile(r"[0-9]{2}").fullmatch,
    lambda name: layout.recording_id_of(PurePath(name)),
)
_AGE: Final = re.compile(r"([0-9]{1,6})([smhdw])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, slots=True)
class Kept:
    """A published recording; `document` is its `recording.json` as it is on disk."""

    folder: Path
    recording: Recording
    document: bytes


@dataclass(frozen=True, slots=True)
class Damaged:
    """A folder that should be a recording, or should hold some, and why it cannot be read."""

    folder: Path
    problem: str


@dataclass(frozen=True, slots=True)
class RecordingFilter:
    """Which recordings are wanted: those that agree with everything that is set."""

    call_sid: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    since: datetime | None = None

    def accepts(self, candidate: Recording) -> bool:
        """Whether a recording agrees; a parameter that is no text is compared as JSON."""
        given = candidate.parameters
        return (
            self.call_sid in (None, candidate.call_sid)
            and all(
                k in given and parameter_text(given[k]) == v for k, v in self.parameters.items()
            )
            # RFC 3339 in UTC of one length sorts as text.
            and (self.since is None or candidate.started_at >= rfc3339(self.since))
        )

    def may_hold(self, folder: Path) -> bool:
        """Whether a folder's name, which says when it started, does not rule it out already."""
        if self.since is None:
            return True
        return folder.name >= f"{self.since.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def rfc3339(time: datetime) -> str:
    """Return a time as recordings have it: in UTC with milliseconds."""
    return timestamp((time - datetime.fromtimestamp(0, UTC)) // timedelta(milliseconds=1))


def parse_since(text: str, now: datetime) -> datetime:
    """Return the time that a date, an RFC 3339 time (UTC where it names no zone) or an age means.

    Raises:
        ValueError: it is none of these.
    """
    age = _AGE.fullmatch(text)
    try:
        if age:
            return now - timedelta(**{_UNITS[age[2]]: int(age[1])})
        time = datetime.fromisoformat(text)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("not a date, an RFC 3339 time, or an age such as 2h or 3d") from None


def select(recordings: Path, wanted: RecordingFilter) -> Iterator[Kept | Damaged]:
    """Yield the published recordings that are wanted, newest first, and what cannot be read."""
    for found in folders(recordings):
        if isinstance(found, Path) and not wanted.may_hold(found):
            continue
        entry = _read_or_damaged(found) if isinstance(found, Path) else found
        if isinstance(entry, Damaged) or wanted.accepts(entry.recording):
            yield entry


def folders(recordings: Path) -> Iterator[Path | Damaged]:
    """Yield the folders of all published recordings, newest first, and what cannot be read."""
    yield from _folders(recordings, _LEVELS)


def next_part(recordings: Path, before: Recording) -> Recording | None:
    """Return the recording in which the stream of another one goes on, if it has been published.

    Only it names the other one: a document never changes. It began while that one was open, or
    within the time for which a receiver remembers streams, so no more is read.
    """
    first = datetime.fromisoformat(before.started_at)
    last = datetime.fromisoformat(before.ended_at) + timedelta(seconds=REMEMBERED_SECONDS)
    names = f"{first:%Y%m%dT%H%M%S}", f"{last:%Y%m%dT%H%M%S}~"
    parts = []
    for day in range((last.date() - first.date()).days + 1):
        folder = recordings / f"{first + timedelta(days=day):%Y/%m/%d}"
        for found in _folders(folder, _LEVELS[-1:]):
            if isinstance(found, Path) and names[0] <= found.name <= names[1]:
                entry = _read_or_damaged(found)
                parts += [entry.recording] if isinstance(entry, Kept) else []
    following = [part for part in parts if part.previous and part.previous.id == before.id]
    return min(following, key=lambda part: part.started_at, default=None)


def _folders(folder: Path, levels: tuple[Callable[[str], object], ...]) -> Iterator[Path | Damaged]:
    try:
        with os.scandir(folder) as entries:
            named = [entry for entry in entries if levels[0](entry.name)]
            names = [entry.name for entry in named if entry.is_dir(follow_symlinks=False)]
            links = [entry.name for entry in named if entry.is_symlink()]
    except FileNotFoundError:
        return
    except OSError as error:
        yield Damaged(folder, f"cannot be read: {error.strerror}")
        return
    for name in sorted(links):  # recordings may be expected behind it
        yield Damaged(folder / name, "is a symbolic link, which is not followed")
    for name in sorted(names, reverse=True):
        if len(levels) == 1:
            yield folder / name
        else:
            yield from _folders(folder / name, levels[1:])


def _read_or_damaged(folder: Path) -> Kept | Damaged:
    try:
        return read(folder)
    except UnreadableError as error:
        return Damaged(folder, str(error))


def read(folder: Path) -> Kept:
    """Return the recording in `folder`.

    Raises:
        UnreadableError: its document is missing, cannot be read, or is not one.
    """
    try:
        with open_regular(folder / layout.RECORDING_JSON) as file:
            document = file.read()
    except OSError as error:
        raise UnreadableError(
            f"{layout.RECORDING_JSON} cannot be read: {error.strerror}"
        ) from error
    return Kept(folder, recording.decode(document), document)


def find(recordings: Path, recording_id: str) -> Path:
    """Return the folder of the recording with this id, prefix of an id, or folder name.

    Raises:
        NotFoundError: there is none, or more than one; or the prefix is too short.
    """
    asked = recording_id.rpartition("-")[2].lower()
    if len(asked) < SHORTEST_PREFIX:
        raise NotFoundError(f"{recording_id!r} is too short: give {SHORTEST_PREFIX} characters")
    every = [path for path in folders(recordings) if isinstance(path, Path)]
    found = [path for path in every if (layout.recording_id_of(path) or "").startswith(asked)]
    if not found:
        raise NotFoundError(f"no recording {recording_id[:100]!r} in {recordings}")
    if len(found) > 1:
        raise NotFoundError(f"{recording_id!r} is ambiguous: {len(found)} recordings match")
    return found[0]


class Tombstone(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line. Times are RFC 3339 in UTC; `folder` is relative to the recordings folder.

    `before` and `after` are the SHA-256 of the files, by name; after a deletion there are none.
    `rule` is the retention rule that asked for it, if it was one.
    """

    at: str
    what: Literal["erased", "deleted"]
    who: str
    via: str
    reason: str
    id: str
    folder: str
    call_sid: str = ""
    stream_sid: str = ""
    account_sid: str = ""
    provider: str = ""
    started_at: str = ""
    duration_ms: float = 0
    from_ms: float | None = None
    to_ms: float | None = None
    tracks: tuple[Track, ...] = ()  # of which something was erased
    rule: str = ""
    before: dict[str, str] = {}  # msgspec copies it
    after: dict[str, str] = {}


def tombstones(recordings: Path, *, newest_first: bool = False) -> Iterator[Tombstone]:
    """Yield what is left of what was erased and deleted; what is none is passed over.

    Months are in order, and within a month what was done first comes first.

    Raises:
        OSError: it cannot be read.
    """
    folder = recordings / layout.TOMBSTONES
    months = list(filter(_MONTH.fullmatch, names_in(folder)))
    for name in reversed(months) if newest_first else months:
        with open_regular(folder / name) as file, BufferedReader(file) as lines:
            yield from filter(None, map(_tombstone, lines))


def deletions(recordings: Path, recording_ids: Container[str]) -> dict[str, Tombstone]:
    """Return the tombstones of those of some recordings that were deleted, by their ids.

    Raises:
        OSError: they cannot be read.
    """
    return {
        each.id: each
        for each in tombstones(recordings)
        if each.what == "deleted" and each.id in recording_ids
    }


def _tombstone(line: bytes) -> Tombstone | None:
    try:
        found = _tombstone_decoder.decode(line)
    except (ValueError, RecursionError):  # msgspec's errors, and bad UTF-8
        return None
    return found if layout.is_recording_folder(PurePath(found.folder)) else None


_MONTH: Final = re.compile(r"[0-9]{4}-[0-9]{2}\.jsonl")
_tombstone_decoder: Final = msgspec.json.Decoder(Tombstone)
