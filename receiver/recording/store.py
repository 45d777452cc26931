"""The read side of the recordings folder: walk it, find one recording, verify its files.

Nothing here follows a symbolic link below the recordings folder, and a recording that cannot
be read never hides the others.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePath
from typing import Final

from receiver.audio import wav_reader
from receiver.audio.wav_tags import text_of
from receiver.disk import layout
from receiver.disk.files import FILE_MODE, open_regular
from receiver.errors import NotFoundError, UnreadableError
from receiver.media import SAMPLE_RATES, Gap, timestamp
from receiver.recording import document as recording
from receiver.recording.document import RecordedTrack, Recording

SHORTEST_PREFIX: Final = 4
"""Fewer characters of an id are not taken for one."""
FOLDER_MODE: Final = 0o700

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
class Wanted:
    """Which recordings are wanted: those that agree with everything that is set."""

    call_sid: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    since: datetime | None = None

    def accepts(self, candidate: Recording) -> bool:
        """Whether a recording agrees; a parameter that is no text is compared as JSON."""
        given = candidate.parameters
        return (
            self.call_sid in (None, candidate.call_sid)
            and all(k in given and text_of(given[k]) == v for k, v in self.parameters.items())
            # RFC 3339 in UTC of one length sorts as text.
            and (self.since is None or candidate.started_at >= _rfc3339(self.since))
        )

    def may_hold(self, folder: Path) -> bool:
        """Whether a folder's name, which says when it started, does not rule it out already."""
        if self.since is None:
            return True
        return folder.name >= f"{self.since.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def _rfc3339(moment: datetime) -> str:
    return timestamp((moment - datetime.fromtimestamp(0, UTC)) // timedelta(milliseconds=1))


def parse_since(text: str, now: datetime) -> datetime:
    """Return the moment that a date, an RFC 3339 time (UTC unless told) or an age names.

    Raises:
        ValueError: it is none of these.
    """
    age = _AGE.fullmatch(text)
    try:
        if age:
            return now - timedelta(**{_UNITS[age[2]]: int(age[1])})
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("not a date, an RFC 3339 time, or an age such as 2h or 3d") from None


def select(recordings: Path, wanted: Wanted) -> Iterator[Kept | Damaged]:
    """Yield the published recordings that are wanted, newest first, and what cannot be read."""
    for found in _walk(recordings, _LEVELS):
        if isinstance(found, Path) and not wanted.may_hold(found):
            continue
        entry = _read_or_tell(found) if isinstance(found, Path) else found
        if isinstance(entry, Damaged) or wanted.accepts(entry.recording):
            yield entry


def _walk(folder: Path, levels: tuple[Callable[[str], object], ...]) -> Iterator[Path | Damaged]:
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
    for name in sorted(links):  # somebody may look for recordings behind it
        yield Damaged(folder / name, "is a symbolic link, which is not followed")
    for name in sorted(names, reverse=True):
        if len(levels) == 1:
            yield folder / name
        else:
            yield from _walk(folder / name, levels[1:])


def _read_or_tell(folder: Path) -> Kept | Damaged:
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
    folders = [path for path in _walk(recordings, _LEVELS) if isinstance(path, Path)]
    found = [path for path in folders if (layout.recording_id_of(path) or "").startswith(asked)]
    if not found:
        raise NotFoundError(f"no recording {recording_id[:100]!r} in {recordings}")
    if len(found) > 1:
        raise NotFoundError(f"{recording_id!r} is ambiguous: {len(found)} recordings match")
    return found[0]


def verify(folder: Path, document: Recording) -> tuple[str, ...]:
    """Read a recording's files again; return what does not agree with its document, if anything.

    Files are read in blocks, whatever their length. What a later version added to the document
    is not looked at.
    """
    return tuple(_problems(folder, document))


def _problems(folder: Path, document: Recording) -> Iterator[str]:
    rate = document.media_format.sample_rate
    yield from _folder_problems(folder, document)
    if rate not in SAMPLE_RATES:
        yield f"an impossible sample rate of {rate}"
        return
    yield from _length_problems(document)
    for track in document.tracks:
        yield from (f"{track.track.value}: {text}" for text in _track_problems(track, rate))
        if track.file == f"{track.track.value}.wav":
            expected = wav_reader.Expected(
                track.sha256, rate, 1, track.samples, _holes(track, rate)
            )
            yield from wav_reader.problems(folder / track.file, expected)
    if document.stereo is not None and document.stereo.get("file") == layout.STEREO_WAV:
        samples = document.tracks[0].samples if document.tracks else 0
        expected = wav_reader.Expected(document.stereo.get("sha256", ""), rate, 2, samples)
        yield from wav_reader.problems(folder / layout.STEREO_WAV, expected)


def _folder_problems(folder: Path, document: Recording) -> Iterator[str]:
    if layout.recording_id_of(folder) not in (None, document.id):
        yield f"the document is of another recording, {document.id[:100]!r}"
    try:
        mode = folder.lstat().st_mode
        if not stat.S_ISDIR(mode):
            yield f"{folder.name} is not a folder"
            return
        present = {path.name for path in folder.iterdir()}
        document_mode = (folder / layout.RECORDING_JSON).lstat().st_mode
    except OSError as error:
        yield f"{PurePath(error.filename or folder).name} cannot be read: {error.strerror}"
        return
    permissions = stat.S_IMODE(mode) & ~stat.S_ISGID  # which folders have from the one above
    if permissions != FOLDER_MODE:
        yield f"the folder's mode is {permissions:04o}, not {FOLDER_MODE:04o}"
    if stat.S_IMODE(document_mode) != FILE_MODE:
        shown = stat.S_IMODE(document_mode)
        yield f"{layout.RECORDING_JSON}: its mode is {shown:04o}, not {FILE_MODE:04o}"
    yield from _name_problems(present, document)


def _name_problems(present: set[str], document: Recording) -> Iterator[str]:
    """Compare names, so that nothing outside the folder is ever opened."""
    named = [track.file for track in document.tracks]
    proper = [f"{track.track.value}.wav" for track in document.tracks]
    if document.stereo is not None:
        named.append(document.stereo.get("file", ""))
        proper.append(layout.STEREO_WAV)
    for name, wanted in zip(named, proper, strict=True):
        if name != wanted:
            yield f"the document names a file {name[:100]!r} instead of {wanted}"
    if len(set(named)) < len(named):
        yield "the document names a track twice"
    yield from (f"{name} is missing" for name in sorted(set(proper) - present))
    for name in sorted(present - {*proper, layout.RECORDING_JSON}):
        yield f"a stray file {name[:100]!r}"


def _length_problems(document: Recording) -> Iterator[str]:
    lengths = {track.samples for track in document.tracks}
    if len(lengths) > 1:
        yield "the tracks differ in length"
    rate = document.media_format.sample_rate
    if _samples(document.duration_ms, rate) not in (lengths or {0}):
        yield f"a duration of {document.duration_ms:g} ms is not that of the tracks"


def _track_problems(track: RecordedTrack, rate: int) -> Iterator[str]:
    """Check what the document says of a track against itself."""
    ledger = track.chunks
    if not ledger.balanced or ledger.late > ledger.written or min(_counts(track)) < 0:
        yield "the ledger does not balance"
    if _samples(track.duration_ms, rate) != track.samples:
        yield f"a duration of {track.duration_ms:g} ms is not {track.samples} samples"
    silence = _samples(track.silence_ms, rate)
    if silence is None or silence != sum(stop - start for start, stop in _holes(track, rate)):
        yield f"silence of {track.silence_ms:g} ms is not what the gaps add up to"
    elif silence > track.samples or (silence < track.samples and not ledger.written):
        yield f"{silence} samples of silence do not fit {ledger.written} chunks"
    yield from _gap_problems(track, rate)


def _counts(track: RecordedTrack) -> tuple[int, ...]:
    ledger = track.chunks
    counts = (ledger.received, ledger.written, ledger.duplicate, ledger.late)
    return (*counts, ledger.conflict, ledger.rejected, track.samples)


def _gap_problems(track: RecordedTrack, rate: int) -> Iterator[str]:
    """Yield the first gap that cannot be: one of many is enough to know."""
    end = 0
    for gap in track.gaps:
        start, length = _samples(gap.start_ms, rate), _samples(gap.duration_ms, rate)
        where = f"the gap at {gap.start_ms:g} ms"
        if start is None or length is None or length <= 0:
            yield f"{where} is no whole number of samples"
            return
        if start < end:
            yield f"{where} overlaps the one before"
            return
        end = start + length
        if end > track.samples:
            yield f"{where} goes beyond the end"
            return


def _samples(duration_ms: float, rate: int) -> int | None:
    """Return milliseconds as samples, or `None` where that is no whole number."""
    exact = duration_ms * rate / 1000
    whole = round(exact) if 0 <= exact < 2**53 else -1
    return whole if abs(exact - whole) < 0.01 else None


def _holes(track: RecordedTrack, rate: int) -> tuple[tuple[int, int], ...]:
    """Return the gaps as ranges of samples; those that cannot be are told of elsewhere."""
    return tuple(hole for gap in track.gaps if (hole := _hole(gap, rate)))


def _hole(gap: Gap, rate: int) -> tuple[int, int] | None:
    start, length = _samples(gap.start_ms, rate), _samples(gap.duration_ms, rate)
    return None if start is None or length is None else (start, start + length)
