"""Erasing a span of a recording: a new rendition, with silence there, takes the old one's place.

Files are copied, with zeros in the place of the span's samples; what is measured of them, the
waveform, the time line and the document are made anew. The folders change places in one step, so
there is always one recording of that name, the old one or the new one, whole. `lifecycle.delete`
has the order of all steps, and what becomes of them after a crash.

Beside the samples go the keys that the caller pressed in the span, which are on the inbound
track, and the marks of the outbound one. Audio that was in no track (`refused.raw`) goes whole:
nobody can say which part of it is of the span. So does a journal in the quarantine.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, Final

import msgspec

from receiver.audio import peaks, wav_reader
from receiver.audio.meter import Measured, Meter, interleaved
from receiver.disk import layout
from receiver.disk.files import (
    BLOCK_BYTES,
    create_private,
    open_folder,
    open_regular,
    sha256,
    write_all,
    write_private,
)
from receiver.disk.folders import PRIVATE, exchange
from receiver.errors import RemovalError, UnreadableError
from receiver.lifecycle import delete, tombstones
from receiver.lifecycle.delete import Remover
from receiver.media import GapKind, Track, TrackGap
from receiver.recording import annotations as notes
from receiver.recording import document as recording
from receiver.recording import store
from receiver.recording.annotations import LONGEST_REASON
from receiver.recording.document import ErasedSpan, Level, RecordedTrack, Recording
from receiver.recording.store import Kept, Tombstone
from receiver.recording.verify import verify

_SAMPLE_BYTES: Final = 2


@dataclass(frozen=True, slots=True)
class Span:
    """What is to be erased: samples `first` up to `last` of some tracks."""

    first: int
    last: int
    rate: int
    tracks: tuple[Track, ...]

    @property
    def from_ms(self) -> float:
        """Return where it begins."""
        return _ms(self.first, self.rate)

    @property
    def to_ms(self) -> float:
        """Return where it ends."""
        return _ms(self.last, self.rate)


def span_of(
    document: Recording, from_ms: float, to_ms: float, tracks: Sequence[Track] = ()
) -> Span:
    """Return the whole samples of a span, up to the end of the recording where it goes beyond.

    Raises:
        RemovalError: there is no such span, or no such track.
    """
    rate = document.media_format.sample_rate
    there = tuple(track.track for track in document.tracks)
    if missing := [track.value for track in tracks if track not in there]:
        raise RemovalError(f"it has no {' and no '.join(missing)} track")
    if not there:
        raise RemovalError("it has no audio in a track; 'receiver delete' removes all of it")
    if not 0 <= from_ms < to_ms:
        raise RemovalError("give a span that begins at 0 or later, and ends behind its beginning")
    samples = document.tracks[0].samples
    first = math.floor(from_ms * rate / 1000)
    last = min(math.ceil(to_ms * rate / 1000), samples)
    if first >= samples:
        raise RemovalError(f"it ends at {document.duration_ms / 1000:g} s")
    return Span(first, last, rate, tuple(tracks) or there)


def with_gaps(gaps: Sequence[TrackGap], span: Span) -> tuple[TrackGap, ...]:
    """Return gaps, and of a span what was in none of them, in order.

    A gap stays what it is: that audio was lost there is true whatever was erased around it.
    """
    found, reached = list(gaps), span.first
    for gap in gaps:
        start = round(gap.start_ms * span.rate / 1000)
        end = start + round(gap.duration_ms * span.rate / 1000)
        if end <= span.first or start >= span.last:
            continue
        found += _erased(reached, start, span.rate)
        reached = max(reached, end)
    found += _erased(reached, span.last, span.rate)
    return tuple(sorted(found, key=lambda gap: gap.start_ms))


def _erased(first: int, last: int, rate: int) -> list[TrackGap]:
    if first >= last:
        return []
    return [TrackGap(_ms(first, rate), _ms(last - first, rate), GapKind.ERASED)]


def _ms(samples: int, rate: int) -> float:
    whole, rest = divmod(samples * 1000, rate)
    return whole if not rest else samples * 1000 / rate


def without(document: Recording, span: Span, erased: ErasedSpan) -> Recording:
    """Return a document in which the span is silence; hashes and levels are those of before."""
    tracks = tuple(
        _with_erased(track, span) if track.track in span.tracks else track
        for track in document.tracks
    )
    keys, marks = document.dtmf, document.marks
    if Track.INBOUND in span.tracks:
        keys = tuple(key for key in keys if not _overlaps(key.at_ms, key.duration_ms or 0, span))
    if Track.OUTBOUND in span.tracks:
        marks = tuple(mark for mark in marks if not _overlaps(mark.at_ms, 0, span))
    return msgspec.structs.replace(
        document,
        tracks=tracks,
        dtmf=keys,
        marks=marks,
        refused=None,
        erased=(*document.erased, erased),
    )


def _with_erased(track: RecordedTrack, span: Span) -> RecordedTrack:
    gaps = with_gaps(track.gaps, span)
    silence_ms = sum(gap.duration_ms for gap in gaps)
    return msgspec.structs.replace(track, gaps=gaps, silence_ms=silence_ms)


def _overlaps(at_ms: int, length_ms: int, span: Span) -> bool:
    return at_ms + length_ms >= span.from_ms and at_ms < span.to_ms


def erase(
    remover: Remover,
    folder: Path,
    from_ms: float,
    to_ms: float,
    reason: str,
    *,
    tracks: Sequence[Track] = (),
) -> Tombstone:
    """Erase a span of a recording; return what was done.

    Args:
        remover: Who does it.
        folder: The recording's folder, below year, month and day in the recordings folder.
        from_ms: Where the span begins; it is widened to whole samples.
        to_ms: Where it ends.
        reason: Why, one line of text.
        tracks: Of which tracks; none given are all.

    Raises:
        RemovalError: it is held, has no such span or track, its journal still waits in the spool,
            or it does not agree with its document.
        Other errors: as those of `Remover.delete`.
    """
    reason = notes.checked_text(reason, "a reason", LONGEST_REASON)
    with delete.failures_named(folder), tombstones.locked(remover.recordings):
        remover.finish()
        with remover.allowed(folder):
            kept = store.read(folder)
            span = span_of(kept.recording, from_ms, to_ms, tracks)
            if problems := verify(folder, kept.recording):
                raise RemovalError(
                    f"{folder.name} does not agree with its document, so nothing is made from it: "
                    + "; ".join(problems)
                )
            tombstone = _exchange(remover, kept, span, reason)
        remover.complete(tombstone)
    return tombstone


def _exchange(remover: Remover, kept: Kept, span: Span, reason: str) -> Tombstone:
    """Make the new rendition, and give it the recording's name."""
    folder, staged = kept.folder, layout.erasing_folder(kept.folder)
    tombstone = msgspec.structs.replace(
        remover.tombstone_of(folder, "erased", reason),
        from_ms=span.from_ms,
        to_ms=span.to_ms,
        tracks=span.tracks,
    )
    remover.enter(
        tombstone,
        from_s=span.from_ms / 1000,
        to_s=span.to_ms / 1000,
        tracks=[track.value for track in span.tracks],
    )
    tombstones.put_pending(remover.recordings, tombstone)
    erased = ErasedSpan(
        span.from_ms, span.to_ms, span.tracks, tombstone.at, tombstone.who, tombstone.reason
    )
    try:
        document, encoded = _stage(kept, staged, span, erased)
        if problems := verify(staged, document):
            raise RemovalError(f"the new rendition does not agree: {'; '.join(problems)}")
    except (OSError, RemovalError, UnreadableError):
        delete.wipe(staged)
        tombstones.remove_pending(remover.recordings, tombstone.id)
        raise
    after = delete.hashes_of(document, encoded)
    tombstone = msgspec.structs.replace(tombstone, after=after)
    tombstones.put_pending(remover.recordings, tombstone)
    _change_places(folder, staged)
    return tombstone


def _change_places(folder: Path, staged: Path) -> None:
    """Give the new rendition the name: in one step, or in two where the file system has none.

    Between the two there is no recording; the next `finish` takes the second one after a crash.
    """
    with delete.day_of(folder) as day:
        if not exchange(folder.name, staged.name, within=day):
            aside = layout.removed_folder(folder).name
            os.rename(folder.name, aside, src_dir_fd=day, dst_dir_fd=day)
            os.rename(staged.name, folder.name, src_dir_fd=day, dst_dir_fd=day)
        os.fsync(day)


def _stage(kept: Kept, staged: Path, span: Span, erased: ErasedSpan) -> tuple[Recording, bytes]:
    """Write the new rendition into a hidden folder, synced; return its document."""
    with delete.day_of(kept.folder) as day:
        shutil.rmtree(staged.name, ignore_errors=True, dir_fd=day)
        os.mkdir(staged.name, PRIVATE, dir_fd=day)
        with (
            open_folder(kept.folder.name, within=day) as old,
            open_folder(staged.name, within=day) as new,
        ):
            document = _write_audio(without(kept.recording, span, erased), span, old, new)
            _copy_annotations(old, new)
            encoded = recording.encode(document)
            write_private(layout.RECORDING_JSON, encoded, within=new)
            _keep_age(old, new)
            os.fsync(new)
        os.fsync(day)
    return document, encoded


def _write_audio(document: Recording, span: Span, old: int, new: int) -> Recording:
    """Write all files but the document; return it with their hashes, and what was measured."""
    tracks, measured = [], []
    for track in document.tracks:
        meter = Meter(span.rate)
        silent = [0] if track.track in span.tracks else []
        digest = _copy_wav(track.file, old, new, span, silent, 1, meter)
        measured.append(meter.finish())
        tracks.append(_measured(track, digest, measured[-1]))
    document = msgspec.structs.replace(document, tracks=tuple(tracks))
    if document.stereo is not None:
        sides = [n for n, track in enumerate(Track) if track in span.tracks]
        digest = _copy_wav(layout.STEREO_WAV, old, new, span, sides, 2)
        document = msgspec.structs.replace(
            document, stereo={"file": layout.STEREO_WAV, "sha256": digest}
        )
    return _write_derived(document, measured, span.rate, new)


def _measured(track: RecordedTrack, digest: str, measured: Measured) -> RecordedTrack:
    track = msgspec.structs.replace(track, sha256=digest)
    if track.level_dbfs is None:  # of a version that did not measure it
        return track
    level = Level(measured.rms_dbfs, measured.peak_dbfs)
    return msgspec.structs.replace(track, level_dbfs=level, silence_share=measured.silence_share)


def _write_derived(
    document: Recording, measured: Sequence[Measured], rate: int, new: int
) -> Recording:
    """Write the waveform and the time line, where the recording had them."""
    changed: dict[str, Any] = {}
    if document.peaks is not None:
        header = peaks.header(rate=rate, channels=len(measured), length=len(measured[0].pairs))
        changed["peaks"] = _write(layout.PEAKS_DAT, header + interleaved(measured), new)
    if document.timeline is not None:
        silences = [
            (track.track, *silence)
            for track, each in zip(document.tracks, measured, strict=True)
            for silence in each.silences(recording.SHORTEST_SILENCE_MS)
        ]
        made = recording.timeline_of(document.tracks, silences, document.dtmf, document.marks)
        content = recording.encode_timeline(made)
        changed["timeline"] = _write(layout.TIMELINE_JSON, content, new)
    return msgspec.structs.replace(document, **changed)


def _write(name: str, content: bytes, new: int) -> dict[str, str]:
    write_private(name, content, within=new)
    return {"file": name, "sha256": hashlib.sha256(content).hexdigest()}


def _copy_wav(
    name: str,
    old: int,
    new: int,
    span: Span,
    silent: Sequence[int],
    channels: int,
    meter: Meter | None = None,
) -> str:
    """Copy a WAV file, with silence in some channels of the span; return its SHA-256.

    Raises:
        UnreadableError: it is no WAV file.
        OSError: the disk failed.
    """
    with open_regular(name, within=old) as source, create_private(name, within=new) as target:
        start, length = wav_reader.samples_in(source)
        for block in _part(source, 0, start):
            write_all(target, block)
        blocks = _silenced(_part(source, start, start + length), span, silent, channels)
        for block in blocks if meter is None else meter.passing(blocks):
            write_all(target, block)
        for block in _part(source, start + length, os.fstat(source.fileno()).st_size):
            write_all(target, block)
        os.fsync(target.fileno())
        return sha256(target)


def _part(file: FileIO, start: int, end: int) -> Iterator[bytes]:
    """Yield a part of a file, in blocks of whole samples of two channels."""
    while start < end:
        block = os.pread(file.fileno(), min(BLOCK_BYTES, end - start), start)
        if not block:
            raise UnreadableError("it is shorter than it was a moment ago")
        start += len(block)
        yield block


def _silenced(
    blocks: Iterator[bytes], span: Span, silent: Sequence[int], channels: int
) -> Iterator[bytes]:
    """Yield interleaved samples, with zeros for the span in some channels."""
    frame, position = _SAMPLE_BYTES * channels, 0
    for block in blocks:
        first = max(span.first * frame - position, 0)
        last = min(span.last * frame - position, len(block))
        position += len(block)
        if first >= last or not silent:
            yield block
            continue
        changed = bytearray(block)
        zeros = bytes((last - first) // frame)
        for byte in (_SAMPLE_BYTES * n + half for n in silent for half in range(_SAMPLE_BYTES)):
            changed[first + byte : last : frame] = zeros
        yield bytes(changed)


def _copy_annotations(old: int, new: int) -> None:
    """Copy what people have added; nobody changes it meanwhile."""
    try:
        with open_regular(layout.ANNOTATIONS_JSON, within=old) as file:
            content = file.read()
    except FileNotFoundError:
        return
    write_private(layout.ANNOTATIONS_JSON, content, within=new)


def _keep_age(old: int, new: int) -> None:
    """Give the new document the age of the one before: rules about age count from that."""
    status = os.stat(layout.RECORDING_JSON, dir_fd=old, follow_symlinks=False)
    times = (status.st_atime_ns, status.st_mtime_ns)
    os.utime(layout.RECORDING_JSON, ns=times, dir_fd=new, follow_symlinks=False)
