"""A journal in, WAV files and `recording.json` out: a pure function of the journal's bytes.

The same journal gives the same bytes, so recovery after a crash is rendering, and rendering
twice changes nothing. Samples flow through in small blocks; what grows with the length of a
call is only the index of its chunks.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from io import FileIO
from typing import Final

import msgspec

from receiver.audio import codec, peaks, wav_tags
from receiver.audio.meter import Measured, Meter, interleaved
from receiver.audio.wav_writer import write_wav
from receiver.disk import layout
from receiver.disk.files import BLOCK_BYTES, create_private, write_all, write_private
from receiver.media import ByteOrder, Encoding, MediaFormat, Track, timestamp
from receiver.recording import document as recording
from receiver.recording.document import (
    Level,
    RecordedTrack,
    Recording,
    RefusedAudio,
    RefusedPart,
    RenderOptions,
)
from receiver.recording.journal_scan import Joint, JournalScan, audio_aside
from receiver.recording.journal_scan import joint as joint_of
from receiver.recording.report import UNNAMED, Rendered, report
from receiver.timeline import clock, track_timeline
from receiver.timeline.track_timeline import Placement, Run

_CHUNKS_AT_ONCE: Final = 1024
_BYTE_ORDER_PROBE_BYTES: Final = 2**18
_WINDOW_BYTES: Final = 2**15  # chunks out of order start a new one: a larger one would cost more


class _PayloadReader:
    """Reads small pieces of a file, which mostly follow each other, with few calls."""

    def __init__(self, file: FileIO) -> None:
        self._descriptor = file.fileno()
        self._start = 0
        self._block = b""

    def read(self, start: int, size: int) -> bytes:
        """Return `size` bytes from byte `start` on."""
        first = start - self._start
        if first < 0 or first + size > len(self._block):
            self._block = os.pread(self._descriptor, max(_WINDOW_BYTES, size), start)
            self._start, first = start, 0
        return self._block[first : first + size]


@dataclass(frozen=True, slots=True)
class _Audio:
    """One stream's placed tracks, and how to read their samples."""

    journal: _PayloadReader
    scan: JournalScan
    placements: dict[Track, Placement]
    length: int  # of every track, in payload bytes
    byte_order: ByteOrder
    origin_ms: int  # the timestamp at which the time line starts
    joint: Joint | None = None  # with the recording before this one
    unclaimed: int | None = None  # messages that never came, and are of no track that has audio

    @property
    def media(self) -> MediaFormat:
        return self.scan.media_format

    def samples(self, track: Track) -> Iterator[bytes]:
        """Yield a track's int16 samples, silence included, in blocks of bounded size."""
        position = 0
        for start, payload in self.whole_samples(track):
            yield from _silence(start - position)
            block = codec.decode(payload, self.media.encoding, byte_order=self.byte_order)
            position = start + len(block)
            yield block.tobytes()
        yield from _silence(self.length // self.media.bytes_per_sample - position)

    def whole_samples(self, track: Track) -> Iterator[tuple[int, bytes]]:
        """Yield a track's audio, still encoded, and at which sample of the time line it starts.

        A sample that two chunks share is made whole where no byte is missing between them; where
        the chunk before is missing, the sound shows whether this one starts within a sample.
        """
        unit, half, position, reached = self.media.bytes_per_sample, b"", 0, 0
        shared = bool((self.scan.tracks[track].size % unit).any())  # some samples are
        for run in self.placements[track].runs:
            torn = run.start != reached
            if torn:  # what is left of a sample is silenced with what is missing
                half, position, reached = b"", run.start // unit, run.start
            for block in self._payload(track, run):
                starts_within = torn and shared and codec.starts_within(block, self.byte_order)
                payload = block[1:] if starts_within else half + block
                whole = len(payload) // unit * unit
                yield position, payload[:whole]
                half, torn = payload[whole:], False
                position, reached = position + whole // unit, reached + len(block)

    def _payload(self, track: Track, run: Run) -> Iterator[bytes]:
        """Yield a run's payload in blocks of bounded size."""
        index, chosen = self.scan.tracks[track], self.placements[track].order.chosen
        read, payload = self.journal.read, bytearray()
        for first in range(run.first, run.last, _CHUNKS_AT_ONCE):
            rows = chosen[first : min(first + _CHUNKS_AT_ONCE, run.last)]
            for end, size in zip(index.end[rows].tolist(), index.size[rows].tolist(), strict=True):
                payload += read(end - size, size)
                if len(payload) >= BLOCK_BYTES:
                    yield bytes(payload)
                    payload.clear()
        yield bytes(payload)


def _silence(samples: int) -> Iterator[bytes]:
    while samples > 0:
        block = min(samples, BLOCK_BYTES // 2)
        yield bytes(2 * block)
        samples -= block


def render(journal: FileIO, scanned: JournalScan, folder: int, options: RenderOptions) -> Recording:
    """Write the recording that a journal holds into an empty folder; sync every file.

    Args:
        journal: The journal, open; payloads are read from it.
        scanned: What `scan_file` returned for it. Its index is used up.
        folder: The folder's descriptor.
        options: How to render.

    Returns:
        The document that was written to `recording.json`.

    Raises:
        OSError: reading or writing failed.
    """
    audio = _place(journal, scanned, options)
    placements = tuple(audio.placements.values())
    positions = [position for position, _ in scanned.events]
    positions += [pause.at for pause in scanned.pauses]
    written = [_write_track(audio, track, folder) for track in audio.placements]
    rendered = Rendered(
        placements=placements,
        tracks=tuple(track for track, _ in written),
        length=audio.length,
        origin_ms=audio.origin_ms,
        events_at_ms=track_timeline.at_ms(positions, scanned.tracks, placements, audio.media),
        byte_order=audio.byte_order if audio.media.encoding is Encoding.L16 else None,
        byte_order_chosen=options.byte_order is ByteOrder.AUTO,
        stereo=_write_stereo(audio, folder) if options.stereo and audio.placements else None,
        refused=_write_refused(audio, folder),
        joint=audio.joint,
        unclaimed=audio.unclaimed,
        peaks=_write_peaks(audio, [measured for _, measured in written], folder),
    )
    for index in scanned.tracks.values():
        index.forget_payloads()  # by far the largest part, and not needed any more
    document = _with_timeline(report(scanned, rendered), written, folder)
    write_private(layout.RECORDING_JSON, recording.encode(document), within=folder)
    return document


def _place(source: FileIO, scanned: JournalScan, options: RenderOptions) -> _Audio:
    media = scanned.media_format
    present = [scanned.tracks[track] for track in Track if len(scanned.tracks.get(track, ()))]
    if scanned.refused_format:
        present = []  # nobody can say how long any of it is
    joint = joint_of(scanned)
    if scanned.previous is not None and joint is not None:
        for index in present:
            before = scanned.previous.tracks.get(index.track)
            index.number_before = before.number if before else None
    continued_ms = joint.origin_ms if joint else None
    origin_ms = clock.origin_ms(present) if continued_ms is None else continued_ms
    placed, unclaimed = track_timeline.place_tracks(
        present, media, origin_ms=origin_ms, messages=scanned.messages
    )
    placements = {placement.track: placement for placement in placed}
    for index in present:
        index.forget_counters()
    unit = media.bytes_per_sample
    length = max((placed.length for placed in placements.values()), default=0) // unit * unit
    if not length:  # chunks came, but not one whole sample: there is nothing to write
        placements = {}
    reader = _PayloadReader(source)
    audio = _Audio(
        *(reader, scanned, placements, length, options.byte_order, origin_ms, joint, unclaimed)
    )
    if options.byte_order is ByteOrder.AUTO:
        audio = replace(audio, byte_order=_smoother_byte_order(audio))
    return audio


def _smoother_byte_order(audio: _Audio) -> ByteOrder:
    probe = b""
    payloads = (payload for track in audio.placements for _, payload in audio.whole_samples(track))
    for payload in payloads:
        probe += payload
        if len(probe) >= _BYTE_ORDER_PROBE_BYTES:
            break
    return codec.smoother_byte_order(probe)


def _write_track(audio: _Audio, track: Track, folder: int) -> tuple[RecordedTrack, Measured]:
    placement, media = audio.placements[track], audio.media
    name, meter = f"{track.value}.wav", Meter(media.sample_rate)
    blocks = meter.passing(audio.samples(track))
    sha256 = _write(audio, folder, name, channels=1, blocks=blocks)
    gaps = track_timeline.gaps_in_ms(placement, audio.length, media)
    measured = meter.finish()
    recorded = RecordedTrack(
        track=track,
        file=name,
        samples=audio.length // media.bytes_per_sample,
        duration_ms=track_timeline.milliseconds(audio.length, media),
        sha256=sha256,
        chunks=placement.ledger,
        silence_ms=sum(gap.duration_ms for gap in gaps),
        gaps=gaps,
        first_timestamp_ms=placement.first_timestamp_ms,
        drift_ppm=placement.drift_ppm,
        level_dbfs=Level(measured.rms_dbfs, measured.peak_dbfs),
        silence_share=measured.silence_share,
    )
    return recorded, measured


def _write_peaks(audio: _Audio, tracks: list[Measured], folder: int) -> dict[str, str] | None:
    if not tracks:
        return None
    rate = audio.media.sample_rate
    header = peaks.header(rate=rate, channels=len(tracks), length=len(tracks[0].pairs))
    return _write_whole(layout.PEAKS_DAT, header + interleaved(tracks), folder)


def _with_timeline(
    document: Recording, written: list[tuple[RecordedTrack, Measured]], folder: int
) -> Recording:
    """Write the time line of a recording, and return its document with that."""
    silences = (
        (track.track, *silence)
        for track, measured in written
        for silence in measured.silences(recording.SHORTEST_SILENCE_MS)
    )
    timeline = recording.timeline_of(document.tracks, silences, document.dtmf, document.marks)
    content = recording.encode_timeline(timeline)
    named = _write_whole(layout.TIMELINE_JSON, content, folder)
    return msgspec.structs.replace(document, timeline=named)


def _write_whole(name: str, content: bytes, folder: int) -> dict[str, str]:
    """Write a small file, and return how the document names it; publishing reads it back."""
    write_private(name, content, within=folder)
    return {"file": name, "sha256": hashlib.sha256(content).hexdigest()}


def _write_stereo(audio: _Audio, folder: int) -> dict[str, str]:
    samples = audio.length // audio.media.bytes_per_sample
    left, right = (
        audio.samples(track) if track in audio.placements else _silence(samples)
        for track in (Track.INBOUND, Track.OUTBOUND)
    )
    pairs = zip(_even_blocks(left), _even_blocks(right), strict=True)
    blocks = (codec.interleave(*pair) for pair in pairs)
    sha256 = _write(audio, folder, layout.STEREO_WAV, channels=2, blocks=blocks)
    return {"file": layout.STEREO_WAV, "sha256": sha256}


def _write_refused(audio: _Audio, folder: int) -> RefusedAudio | None:
    """Write the payloads that are in no track, as they came: those of one kind back to back."""
    found = sorted(audio_aside(audio.scan).items())
    if not found:
        return None
    parts: list[RefusedPart] = []
    digest, written = hashlib.sha256(), 0
    with create_private(layout.REFUSED_RAW, within=folder) as file:
        for (code, label), kept in found:
            offset = written
            for end, size in zip(kept.end, kept.size, strict=True):
                payload = audio.journal.read(end - size, size)
                digest.update(payload)
                write_all(file, payload)
                written += size
            arrivals = (kept.first_arrival_ms, kept.last_arrival_ms)
            size = written - offset
            parts.append(RefusedPart(code, label, len(kept.end), offset, size, *arrivals))
        os.fsync(file.fileno())
    return RefusedAudio(layout.REFUSED_RAW, written, digest.hexdigest(), tuple(parts))


def _even_blocks(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the same bytes in blocks of exactly `BLOCK_BYTES`; the last one may be shorter."""
    waiting = bytearray()
    for block in blocks:
        waiting += block
        while len(waiting) >= BLOCK_BYTES:
            yield bytes(waiting[:BLOCK_BYTES])
            del waiting[:BLOCK_BYTES]
    yield bytes(waiting)


def _write(audio: _Audio, folder: int, name: str, *, channels: int, blocks: Iterable[bytes]) -> str:
    """Write one WAV file with its tags, and return its SHA-256."""
    start = audio.scan.start or UNNAMED
    tags = wav_tags.tags(
        name.removesuffix(".wav"),
        call_sid=start.call_sid,
        account_sid=start.account_sid,
        started_at=timestamp(audio.scan.header.started_at_ms),
        parameters=start.parameters,
    )
    return write_wav(
        folder,
        name,
        rate=audio.media.sample_rate,
        channels=channels,
        samples=audio.length // audio.media.bytes_per_sample,
        blocks=blocks,
        strings=tags.strings(),
        parameters=start.parameters,
    )
