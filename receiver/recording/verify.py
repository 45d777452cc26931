"""Whether a recording is what its document says: names, modes, lengths, silence and SHA-256.

Everything that is said twice must agree: the document with itself, and with the files. A
recording is read to its end, in blocks, whatever its length.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import Final

from receiver.audio import peaks, wav_reader
from receiver.audio.wav_reader import Expected
from receiver.disk import layout
from receiver.disk.files import FILE_MODE, open_regular, sha256
from receiver.errors import UnreadableError
from receiver.media import SAMPLE_RATES, TrackGap
from receiver.recording.annotations import read as read_annotations
from receiver.recording.document import (
    RecordedTrack,
    Recording,
    RefusedAudio,
    decode_timeline,
    has_lost_hash,
    is_intact,
)

FOLDER_MODE: Final = 0o700
_NEVER_STRAY: Final = frozenset(
    {
        layout.RECORDING_JSON,
        layout.ANNOTATIONS_JSON,
        layout.replacement_name(layout.ANNOTATIONS_JSON),  # a writer is at work, or was killed
    }
)


def verify(folder: Path, document: Recording, *, hashes: bool = True) -> tuple[str, ...]:
    """Return what of a recording's files does not agree with its document, one text each.

    Args:
        folder: The recording's folder. Nothing outside of it is opened.
        document: What `recording.json` says; what a later version added is not compared.
        hashes: Whether WAV files are read whole for their SHA-256. Without it, their headers,
            their lengths and the silence in their gaps are still compared, and small files whole.
    """
    return tuple(_problems(folder, document, hashes=hashes))


def _problems(folder: Path, document: Recording, *, hashes: bool) -> Iterator[str]:
    rate = document.media_format.sample_rate
    yield from _folder_problems(folder, document)
    if rate not in SAMPLE_RATES:
        yield f"an impossible sample rate of {rate}"
        return
    yield from _length_problems(document)
    for track in document.tracks:
        yield from (f"{track.track.value}: {text}" for text in _track_problems(track, rate))
        if track.file == f"{track.track.value}.wav":
            sha256, gaps = track.sha256 if hashes else None, _gap_ranges(track, rate)
            expected = Expected(sha256, rate, 1, track.samples, gaps)
            yield from wav_reader.problems(folder / track.file, expected)
    if document.stereo is not None and document.stereo.get("file") == layout.STEREO_WAV:
        samples = document.tracks[0].samples if document.tracks else 0
        sha256 = document.stereo.get("sha256", "") if hashes else None
        expected = Expected(sha256, rate, 2, samples)
        yield from wav_reader.problems(folder / layout.STEREO_WAV, expected)
    if document.refused is not None and document.refused.file == layout.REFUSED_RAW:
        yield from _refused_problems(folder / layout.REFUSED_RAW, document.refused, hashes=hashes)
    if document.peaks is not None and document.peaks.get("file") == layout.PEAKS_DAT:
        yield from _peaks_problems(folder, document)
    if document.timeline is not None and document.timeline.get("file") == layout.TIMELINE_JSON:
        yield from _derived_problems(
            folder / layout.TIMELINE_JSON, document.timeline, decode_timeline
        )


def _peaks_problems(folder: Path, document: Recording) -> Iterator[str]:
    """Yield what is wrong with the waveform: its content, or that it is of other tracks."""

    def agreeing(content: bytes) -> None:
        found = peaks.decode(content)
        rate = document.media_format.sample_rate
        samples = document.tracks[0].samples if document.tracks else 0
        wanted = (rate, len(document.tracks), peaks.pixels_of(samples, rate))
        if (found.sample_rate, found.channels, found.length) != wanted:
            raise UnreadableError("it is not as long, or not of as many tracks, as the audio")

    yield from _derived_problems(folder / layout.PEAKS_DAT, document.peaks or {}, agreeing)


def _derived_problems(
    path: Path, named: dict[str, str], decode: Callable[[bytes], object]
) -> Iterator[str]:
    """Yield what is wrong with a small file made from the audio, which is always read whole."""
    try:
        with open_regular(path) as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read()
    except FileNotFoundError:
        return
    except OSError as error:
        yield f"{path.name}: {error.strerror or error}"
        return
    if mode != FILE_MODE:
        yield f"{path.name}: its mode is {mode:04o}, not {FILE_MODE:04o}"
    if hashlib.sha256(content).hexdigest() != named.get("sha256"):
        yield f"{path.name}: its SHA-256 is not the document's"
    try:
        decode(content)
    except UnreadableError as error:
        yield f"{path.name}: {error}"


def _refused_problems(path: Path, refused: RefusedAudio, *, hashes: bool) -> Iterator[str]:
    """Yield what is wrong with the audio that is in no track; that it is missing is said."""
    reached = 0
    for part in refused.parts:
        if part.offset != reached or part.size < 0 or part.chunks < 0:
            yield f"{path.name}: its parts do not follow each other"
            return
        reached += part.size
    if reached != refused.size:
        yield f"{path.name}: its parts are not the whole of it"
    try:
        with open_regular(path) as file:
            found = os.fstat(file.fileno())
            sha = sha256(file) if hashes and found.st_size == refused.size else refused.sha256
    except FileNotFoundError:
        return
    except OSError as error:
        yield f"{path.name}: {error.strerror or error}"
        return
    if stat.S_IMODE(found.st_mode) != FILE_MODE:
        yield f"{path.name}: its mode is {stat.S_IMODE(found.st_mode):04o}, not {FILE_MODE:04o}"
    if found.st_size != refused.size:
        yield f"{path.name}: {found.st_size} bytes instead of {refused.size}"
    if sha != refused.sha256:
        yield f"{path.name}: its SHA-256 is not the document's"


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
        with open_regular(folder / layout.RECORDING_JSON) as file:
            content = file.read()
    except OSError as error:
        yield f"{PurePath(error.filename or folder).name} cannot be read: {error.strerror}"
        return
    permissions = stat.S_IMODE(mode) & ~stat.S_ISGID  # which folders have from the one above
    if permissions != FOLDER_MODE:
        yield f"the folder's mode is {permissions:04o}, not {FOLDER_MODE:04o}"
    if stat.S_IMODE(document_mode) != FILE_MODE:
        shown = stat.S_IMODE(document_mode)
        yield f"{layout.RECORDING_JSON}: its mode is {shown:04o}, not {FILE_MODE:04o}"
    if not is_intact(content):
        yield f"{layout.RECORDING_JSON}: its SHA-256 is not the one it says"
    if has_lost_hash(content, document):
        yield f"{layout.RECORDING_JSON}: its own SHA-256 is missing"
    yield from _name_problems(present, document)
    if layout.ANNOTATIONS_JSON in present:
        yield from _annotation_problems(folder)


def _annotation_problems(folder: Path) -> Iterator[str]:
    """Yield why nobody can say what people have added to the recording, if that is so."""
    try:
        read_annotations(folder)
        mode = stat.S_IMODE((folder / layout.ANNOTATIONS_JSON).lstat().st_mode)
    except UnreadableError as error:
        yield str(error)
    except FileNotFoundError:
        return
    else:
        if mode != FILE_MODE:
            yield f"{layout.ANNOTATIONS_JSON}: its mode is {mode:04o}, not {FILE_MODE:04o}"


def _name_problems(present: set[str], document: Recording) -> Iterator[str]:
    """Compare names, so that nothing outside the folder is ever opened."""
    named = [track.file for track in document.tracks]
    proper = [f"{track.track.value}.wav" for track in document.tracks]
    for entry, name in (
        (document.stereo, layout.STEREO_WAV),
        (document.peaks, layout.PEAKS_DAT),
        (document.timeline, layout.TIMELINE_JSON),
    ):
        if entry is not None:
            named.append(entry.get("file", ""))
            proper.append(name)
    if document.refused is not None:
        named.append(document.refused.file)
        proper.append(layout.REFUSED_RAW)
    for name, wanted in zip(named, proper, strict=True):
        if name != wanted:
            yield f"the document names a file {name[:100]!r} instead of {wanted}"
    if len(set(named)) < len(named):
        yield "the document names a track twice"
    yield from (f"{name} is missing" for name in sorted(set(proper) - present))
    for name in sorted(present - {*proper, *_NEVER_STRAY}):
        yield f"a stray file {name[:100]!r}"


def _length_problems(document: Recording) -> Iterator[str]:
    lengths = {track.samples for track in document.tracks}
    if len(lengths) > 1:
        yield "the tracks differ in length"
    rate = document.media_format.sample_rate
    if _samples(document.duration_ms, rate) not in (lengths or {0}):
        yield f"a duration of {document.duration_ms:g} ms is not that of the tracks"


def _track_problems(track: RecordedTrack, rate: int) -> Iterator[str]:
    """Yield what the document says of a track and does not agree with the rest of it."""
    ledger = track.chunks
    if not ledger.balanced or ledger.late > ledger.written or min(_counts(track)) < 0:
        yield "the ledger does not balance"
    if _samples(track.duration_ms, rate) != track.samples:
        yield f"a duration of {track.duration_ms:g} ms is not {track.samples} samples"
    silence = _samples(track.silence_ms, rate)
    if silence is None or silence != sum(stop - start for start, stop in _gap_ranges(track, rate)):
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


def _gap_ranges(track: RecordedTrack, rate: int) -> tuple[tuple[int, int], ...]:
    """Return the gaps as ranges of samples; `_gap_problems` reports those that cannot be."""
    return tuple(found for gap in track.gaps if (found := _gap_range(gap, rate)))


def _gap_range(gap: TrackGap, rate: int) -> tuple[int, int] | None:
    start, length = _samples(gap.start_ms, rate), _samples(gap.duration_ms, rate)
    return None if start is None or length is None else (start, start + length)
