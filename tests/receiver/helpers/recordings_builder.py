"""Published recordings for tests: real folders with real WAV files, without a journal."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import soundfile

from receiver.audio import wav_tags
from receiver.disk import layout
from receiver.media import (
    ByteOrder,
    ChunkCounts,
    ClockRule,
    Encoding,
    EndReason,
    Finding,
    GapKind,
    MediaFormat,
    Track,
    TrackGap,
    timestamp,
)
from receiver.recording import document as recording
from receiver.recording import store
from receiver.recording.document import DtmfPress, MarkPassed, RecordedTrack, Recording

Samples = np.ndarray[Any, np.dtype[np.int16]]
STARTED_AT_MS = 1_795_379_400_000  # 2026-11-22T20:30:00Z
RECORDING_ID = "00112233aabbccdd"
CALL_SID = "76ac3c36-aaaa-4bbb-8ccc-ddddeeeeffff"
ACCOUNT_SID = "b08dacad-1111-4222-8333-444455556666"
RATE = 8000
SAMPLES = 8000
GAP = TrackGap(100, 20, GapKind.LOST)
FINDING = Finding("audio_lost", "20 ms in 1 gaps", Track.INBOUND)


def build(
    recordings: Path,
    *,
    recording_id: str = RECORDING_ID,
    started_at_ms: int = STARTED_AT_MS,
    tracks: Sequence[Track] = tuple(Track),
    gaps: Sequence[TrackGap] = (GAP,),
    stereo: bool = False,
    sounds: Mapping[Track, Samples] | None = None,
    **fields: Any,
) -> Path:
    """Publish one second of two tracks below `recordings`; return the folder.

    The inbound track has `gaps`. `sounds` are what tracks hold instead of a ramp, all of one
    length. `fields` replace those of the document: call_sid,
    parameters, findings, …
    """
    folder = recordings / layout.recording_folder(recording_id, started_at_ms)
    folder.mkdir(0o700, parents=True)
    document = a_document(recording_id, started_at_ms, fields.pop("parameters", {"Name": "Jane"}))
    document = msgspec.structs.replace(document, **fields)
    heard = sounds or {track: _sound(1) for track in tracks}
    written = tuple(
        _track(folder, track, tuple(gaps) if track is Track.INBOUND else (), document, heard[track])
        for track in tracks
    )
    duration_ms = written[0].duration_ms if written else 0
    document = msgspec.structs.replace(document, tracks=written, duration_ms=duration_ms)
    if stereo:
        path = write_wav(folder / layout.STEREO_WAV, _sound(2), document, channels=2)
        document = msgspec.structs.replace(
            document, stereo={"file": path.name, "sha256": sha256(path)}
        )
    write_document(folder, document)
    return folder


def put(
    recordings: Path,
    recording_id: str,
    *,
    started_at_ms: int = STARTED_AT_MS,
    parameters: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Path:
    """Put a folder with nothing but a document below `recordings`; return the folder."""
    folder = recordings / layout.recording_folder(recording_id, started_at_ms)
    folder.mkdir(0o700, parents=True)
    made = a_document(recording_id, started_at_ms, parameters or {})
    write_document(folder, msgspec.structs.replace(made, **fields))
    return folder


def a_document(recording_id: str, started_at_ms: int, parameters: Mapping[str, Any]) -> Recording:
    """Return a document of no tracks."""
    return Recording(
        schema_version=recording.SCHEMA_VERSION,
        id=recording_id,
        provider="signalwire",
        account_sid=ACCOUNT_SID,
        call_sid=CALL_SID,
        stream_sid="7d56cc11-0a3c-4a3e-9df2-6f0e9c0c1d2e",
        started_at=timestamp(started_at_ms),
        ended_at=timestamp(started_at_ms + 1000),
        end_reason=EndReason.STOP,
        complete=False,
        findings=(FINDING,),
        parameters=dict(parameters),
        media_format=MediaFormat(Encoding.PCMU, RATE, 1),
        duration_ms=0,
        clock_rule=ClockRule.TIMESTAMP,
        tracks=(),
        dtmf=(DtmfPress(250, "5", 80),),
        marks=(MarkPassed(500, "greeting"),),
        journal_sha256="0" * 64,
        receiver_version="0.1.0",
        byte_order=None,
    )


def as_l16(document: Recording) -> Recording:
    """Return a document that says its audio came as big-endian L16."""
    media = MediaFormat(Encoding.L16, RATE, 1)
    return msgspec.structs.replace(document, media_format=media, byte_order=ByteOrder.BIG)


def _sound(channels: int) -> Samples:
    ramp = np.arange(1, SAMPLES + 1, dtype=np.int16)
    return ramp if channels == 1 else np.stack([ramp] * channels, 1)


def _track(
    folder: Path, track: Track, gaps: tuple[TrackGap, ...], document: Recording, sound: Samples
) -> RecordedTrack:
    samples = sound.copy()
    for gap in gaps:
        start = round(gap.start_ms * RATE / 1000)
        samples[start : start + round(gap.duration_ms * RATE / 1000)] = 0
    path = write_wav(folder / f"{track.value}.wav", samples, document, name=track.value)
    return RecordedTrack(
        track=track,
        file=path.name,
        samples=len(samples),
        duration_ms=len(samples) * 1000 / RATE,
        sha256=sha256(path),
        chunks=ChunkCounts(received=52, written=49, duplicate=1, late=2, conflict=1, rejected=1),
        silence_ms=sum(gap.duration_ms for gap in gaps),
        gaps=gaps,
        first_timestamp_ms=0,
        drift_ppm=None,
    )


def write_wav(
    path: Path,
    samples: Samples,
    document: Recording,
    *,
    name: str = "stereo",
    channels: int = 1,
    container: str = "WAV",
) -> Path:
    """Write a WAV file as a recording has it, tags and all; return its path."""
    tags = wav_tags.tags(
        name,
        call_sid=document.call_sid,
        account_sid=document.account_sid,
        started_at=document.started_at,
        parameters=document.parameters,
    )
    with soundfile.SoundFile(path, "w", RATE, channels, "PCM_16", format=container) as wav:
        for tag, text in tags.strings().items():
            setattr(wav, tag, text)
        wav.write(samples)
    append(path, wav_tags.id3_chunk(document.parameters))
    path.chmod(0o600)
    return path


def append(path: Path, chunk: bytes) -> None:
    """Append a RIFF chunk to a WAV file as `tags.appended` says."""
    with open(path, "r+b") as file:
        head = file.read(wav_tags.HEAD_BYTES)
        todo = wav_tags.appended(head, file.seek(0, 2), chunk)
        file.write(todo.tail)
        for offset, patch in todo.patches:
            file.seek(offset)
            file.write(patch)


def write_document(folder: Path, document: Recording) -> None:
    """Write `recording.json`, over an older one if there is one."""
    path = folder / layout.RECORDING_JSON
    path.touch(0o600)
    path.write_bytes(recording.encode(document))


def sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def change_document(folder: Path, **fields: Any) -> None:
    """Replace fields of the document."""
    document = store.read(folder).recording
    write_document(folder, msgspec.structs.replace(document, **fields))


def change_track(folder: Path, **fields: Any) -> None:
    """Replace fields of the inbound track in the document."""
    first, *others = store.read(folder).recording.tracks
    changed = msgspec.structs.replace(first, **fields)
    change_document(folder, tracks=(changed, *others))


def change_wav(folder: Path, edit: Callable[[bytearray], None], name: str = "inbound.wav") -> None:
    """Change bytes of a WAV file and let the document agree with its new hash."""
    path = folder / name
    content = bytearray(path.read_bytes())
    edit(content)
    path.write_bytes(content)
    change_track(folder, sha256=sha256(path))
