"""A journal in, WAV files and `recording.json` out: a pure function of the journal's bytes.

The same journal gives the same bytes, so recovery after a crash is rendering, and rendering
twice changes nothing. Samples flow through in small blocks; what grows with the length of a
call is only the index of its chunks.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from typing import Final, NoReturn

import soundfile

from receiver.audio import codec, wav_tags
from receiver.disk import layout
from receiver.disk.files import (
    BLOCK_BYTES,
    blocks_of,
    create_private,
    open_folder,
    sha256,
    write_all,
    write_private,
)
from receiver.errors import JournalError, UnprovenError
from receiver.journal.file import PayloadReader, open_journal
from receiver.media import ByteOrder, Encoding, MediaFormat, Track, timestamp
from receiver.recording import document as recording
from receiver.recording.document import RecordedTrack, Recording
from receiver.recording.journal_scan import JournalScan, scan
from receiver.recording.report import UNNAMED, Rendered, report
from receiver.timeline import clock, event_positions, track_timeline
from receiver.timeline.track_timeline import Placement, Run

_CHUNKS_AT_ONCE: Final = 1024
_LARGEST_RIFF_BYTES: Final = 2**32 - 2**20
"""Above this a WAV file needs 64-bit sizes (RF64); the rest is room for the tags."""
_BYTE_ORDER_PROBE_BYTES: Final = 2**18


@dataclass(frozen=True, slots=True)
class RenderOptions:
    """`byte_order` is for L16 payloads; `stereo` adds `stereo.wav` (left is inbound)."""

    byte_order: ByteOrder = ByteOrder.LITTLE
    stereo: bool = False


@dataclass(frozen=True, slots=True)
class ScannedJournal:
    """What a journal says, and the SHA-256 of what can be trusted of it."""

    scan: JournalScan
    sha256: str


@dataclass(frozen=True, slots=True)
class _Audio:
    """One stream's placed tracks, and how to read their samples."""

    journal: PayloadReader
    scan: JournalScan
    placements: dict[Track, Placement]
    length: int  # of every track, in payload bytes
    byte_order: ByteOrder
    origin_ms: int  # the timestamp at which the time line begins

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
        """Yield a track's audio, still encoded, and at which sample of the time line it begins.

        A sample that two chunks share is made whole where no byte is missing between them; where
        the chunk before is missing, the sound tells whether this one begins within a sample.
        """
        unit, half, position, reached = self.media.bytes_per_sample, b"", 0, 0
        shared = bool((self.scan.tracks[track].size % unit).any())  # some samples are
        for run in self.placements[track].runs:
            torn = run.start != reached
            if torn:  # what is left of a sample is silenced with what is missing
                half, position, reached = b"", run.start // unit, run.start
            for block in self._payload(track, run):
                begins_within = torn and shared and codec.begins_within(block, self.byte_order)
                payload = block[1:] if begins_within else half + block
                whole = len(payload) // unit * unit
                yield position, payload[:whole]
                half, torn = payload[whole:], False
                position, reached = position + whole // unit, reached + len(block)

    def _payload(self, track: Track, run: Run) -> Iterator[bytes]:
        """Yield a run's payload in blocks of bounded size."""
        index, chosen = self.scan.tracks[track], self.placements[track].order.chosen
        cut, payload = self.journal.cut, bytearray()
        for first in range(run.first, run.last, _CHUNKS_AT_ONCE):
            rows = chosen[first : min(first + _CHUNKS_AT_ONCE, run.last)]
            for end, size in zip(index.end[rows].tolist(), index.size[rows].tolist(), strict=True):
                payload += cut(end - size, size)
                if len(payload) >= BLOCK_BYTES:
                    yield bytes(payload)
                    payload.clear()
        yield bytes(payload)


def _silence(samples: int) -> Iterator[bytes]:
    while samples > 0:
        block = min(samples, BLOCK_BYTES // 2)
        yield bytes(2 * block)
        samples -= block


def render(journal: Path, folder: Path, options: RenderOptions) -> Recording:
    """Write the recording that `journal` holds into the existing, empty `folder`.

    Every file is synced. Returns the document that was written to `recording.json`.

    Raises:
        JournalError: the file is no journal.
        OSError: reading or writing failed.
    """
    with open_folder(folder) as descriptor:
        return render_scanned(journal, identify(journal), descriptor, options)


def render_scanned(
    journal: Path, identified: ScannedJournal, folder: int, options: RenderOptions
) -> Recording:
    """Like `render`, for a journal that was read, into a folder that is open; uses the index up.

    Raises:
        JournalError: the file is no journal.
        OSError: reading or writing failed.
    """
    scanned = identified.scan
    with open_journal(journal) as source:
        audio = _place(source, scanned, options)
        placements = tuple(audio.placements.values())
        said_when = (moment for moment, _ in scanned.said)
        rendered = Rendered(
            placements=placements,
            tracks=tuple(_write_track(audio, track, folder) for track in audio.placements),
            length=audio.length,
            origin_ms=audio.origin_ms,
            said_at_ms=event_positions.at_ms(said_when, scanned.tracks, placements, audio.media),
            journal_sha256=identified.sha256,
            byte_order=audio.byte_order if audio.media.encoding is Encoding.L16 else None,
            byte_order_chosen=options.byte_order is ByteOrder.AUTO,
            stereo=_write_stereo(audio, folder) if options.stereo and audio.placements else None,
        )
    for index in scanned.tracks.values():
        index.forget_payloads()  # by far the largest part, and nobody asks for them any more
    document = report(scanned, rendered)
    write_private(layout.RECORDING_JSON, recording.encode(document), within=folder)
    return document


def identify(journal: Path) -> ScannedJournal:
    """Read a journal.

    Raises:
        UnprovenError: nothing of it may be kept.
        JournalError: the file is no journal.
    """
    with open_journal(journal) as source:
        scanned = scan(blocks_of(source))
        if scanned.unproven:
            _refuse(scanned)
        return ScannedJournal(scanned, sha256(source, scanned.trusted_bytes))


def _refuse(scanned: JournalScan) -> NoReturn:
    """Give out nothing of a stream that may not be the call of its token."""
    text = "no start message named the call of the token"
    if scanned.damage:  # it may stand behind
        raise JournalError(f"{text} up to {scanned.damage}")
    raise UnprovenError(text)


def _place(source: FileIO, scanned: JournalScan, options: RenderOptions) -> _Audio:
    media = scanned.media_format
    heard = [scanned.tracks[track] for track in Track if len(scanned.tracks.get(track, ()))]
    origin_ms = clock.origin_ms(heard)
    placements = {}
    for index in heard:
        placements[index.track] = track_timeline.place(index, media, origin_ms=origin_ms)
        index.forget_counters()
    unit = media.bytes_per_sample
    length = max((placed.length for placed in placements.values()), default=0) // unit * unit
    if not length:  # chunks came, but not one whole sample: there is nothing to write
        placements = {}
    audio = _Audio(
        PayloadReader(source), scanned, placements, length, options.byte_order, origin_ms
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


def _write_track(audio: _Audio, track: Track, folder: int) -> RecordedTrack:
    placement, media = audio.placements[track], audio.media
    samples = audio.length // media.bytes_per_sample
    blocks = audio.samples(track)
    written = _write_wav(audio, folder, track.value, channels=1, blocks=blocks)
    gaps = track_timeline.gaps_in_ms(placement, audio.length, media)
    return RecordedTrack(
        track=track,
        file=written["file"],
        samples=samples,
        duration_ms=track_timeline.milliseconds(audio.length, media),
        sha256=written["sha256"],
        chunks=placement.ledger,
        silence_ms=sum(gap.duration_ms for gap in gaps),
        gaps=gaps,
        first_timestamp_ms=placement.first_timestamp_ms,
        drift_ppm=placement.drift_ppm,
    )


def _write_stereo(audio: _Audio, folder: int) -> dict[str, str]:
    samples = audio.length // audio.media.bytes_per_sample
    left, right = (
        audio.samples(track) if track in audio.placements else _silence(samples)
        for track in (Track.INBOUND, Track.OUTBOUND)
    )
    pairs = zip(_even_blocks(left), _even_blocks(right), strict=True)
    blocks = (codec.interleave(*pair) for pair in pairs)
    return _write_wav(audio, folder, layout.STEREO, channels=2, blocks=blocks)


def _even_blocks(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the same bytes in blocks of exactly `BLOCK_BYTES`; the last one may be shorter."""
    waiting = bytearray()
    for block in blocks:
        waiting += block
        while len(waiting) >= BLOCK_BYTES:
            yield bytes(waiting[:BLOCK_BYTES])
            del waiting[:BLOCK_BYTES]
    yield bytes(waiting)


def _write_wav(
    audio: _Audio, folder: int, title: str, *, channels: int, blocks: Iterable[bytes]
) -> dict[str, str]:
    """Write one 16-bit PCM file with its tags: LIST/INFO before the samples, ID3 behind them.

    Returns its name and SHA-256.
    """
    name = f"{title}.wav"
    scanned, media = audio.scan, audio.media
    size = audio.length // media.bytes_per_sample * 2 * channels
    container = "WAV" if size <= _LARGEST_RIFF_BYTES else "RF64"
    with create_private(name, within=folder) as file:
        with (
            _told_as_os_errors(name),
            soundfile.SoundFile(
                file.fileno(),
                "w",
                samplerate=media.sample_rate,
                channels=channels,
                subtype="PCM_16",
                format=container,
                closefd=False,
            ) as wav,
        ):
            for tag, text in _tags(scanned, title).strings().items():
                setattr(wav, tag, text)
            for block in blocks:
                wav.buffer_write(block, "int16")
        if file.seek(0, os.SEEK_END) < size:
            raise OSError(errno.EIO, f"{name} is shorter than its samples")
        _append_parameters(file, scanned)
        os.fsync(file.fileno())
        return {"file": name, "sha256": sha256(file)}


@contextlib.contextmanager
def _told_as_os_errors(name: str) -> Iterator[None]:
    """Have a write that fails say so as every other one does.

    libsndfile keeps the reason to itself, and its wrapper asserts that all was written.
    """
    try:
        yield
    except (soundfile.SoundFileError, AssertionError) as error:
        raise OSError(errno.EIO, f"{name} cannot be written: {error}") from error


def _tags(scanned: JournalScan, name: str) -> wav_tags.Tags:
    start = scanned.start or UNNAMED
    return wav_tags.tags(
        name,
        call_sid=start.call_sid,
        account_sid=start.account_sid,
        started_at=timestamp(scanned.header.started_at_ms),
        parameters=start.parameters,
    )


def _append_parameters(file: FileIO, scanned: JournalScan) -> None:
    """Add every custom parameter by its own name behind the samples."""
    chunk = wav_tags.id3_chunk(scanned.start.parameters if scanned.start else {})
    length = file.seek(0, os.SEEK_END)
    file.seek(0)
    appended = wav_tags.appended(file.read(wav_tags.HEAD_BYTES), length, chunk)
    for offset, content in ((length, appended.tail), *appended.patches):
        file.seek(offset)
        write_all(file, content)
