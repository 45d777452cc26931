"""Recordings to look at and to hear: speech, with gaps, keys and notes; and an hour of it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import soundfile

from receiver.audio import peaks
from receiver.audio.meter import Meter
from receiver.media import ChunkCounts, Finding, GapKind, Track, TrackGap
from receiver.recording import annotations as notes
from receiver.recording import store
from receiver.recording.annotations import Annotations
from receiver.recording.document import DtmfPress, MarkPassed
from tests.receiver.helpers import recordings_builder
from tests.receiver.helpers.recordings_builder import RATE, Samples

SPEECH: Final = Path(__file__).parents[2] / "starter" / "simulator" / "demo"
RAMP_STEP, RAMP_END = 7, 20_011
LOST, PAUSED = TrackGap(7400, 320, GapKind.LOST), TrackGap(12_200, 2100, GapKind.PAUSED)


def speech(track: Track, seconds: int = 20) -> Samples:
    """Return what one side of the demo call says, again and again for so long."""
    sound: Samples = soundfile.read(SPEECH / f"{track.value}.wav", dtype="int16")[0]
    return np.resize(sound, seconds * RATE)


def ramp(seconds: int) -> Samples:
    """Return samples of which each is known by its neighbour: steps of 7 up to 20,011."""
    return (np.arange(seconds * RATE, dtype=np.int64) * RAMP_STEP % RAMP_END).astype(np.int16)


def call_sid(number: int) -> str:
    """Return the id of a sample's call."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"call {number}"))


def publish(
    recordings: Path,
    number: int,
    parameters: Mapping[str, Any],
    *,
    sounds: Mapping[Track, Samples] | None = None,
    hours_ago: float = 1,
    **fields: Any,
) -> str:
    """Publish a recording with its waveform; return its id."""
    recording_id = hashlib.sha256(b"%d" % number).hexdigest()[:16]
    sounds = sounds or {track: speech(track) for track in Track}
    given: dict[str, Any] = {"complete": True, "findings": (), "gaps": (), "dtmf": (), "marks": ()}
    given |= {"call_sid": call_sid(number)} | fields
    for gap in given["gaps"]:
        for track in Track if gap.kind is GapKind.PAUSED else (Track.INBOUND,):
            sounds[track][_samples(gap.start_ms) : _samples(gap.start_ms + gap.duration_ms)] = 0
    folder = recordings_builder.build(
        recordings,
        recording_id=recording_id,
        started_at_ms=round((time.time() - hours_ago * 3600) * 1000),
        parameters=parameters,
        sounds=sounds,
        **given,
    )
    _describe_both(folder)
    measured = [_measured(sounds[track]) for track in Track]
    header = peaks.header(rate=RATE, channels=2, length=len(measured[0]))
    content = np.concatenate(measured, axis=1).astype("<i2").tobytes()
    (folder / "peaks.dat").write_bytes(header + content)
    return recording_id


def _describe_both(folder: Path) -> None:
    """Give both sides what was paused, and no loss of packets that no gap stands for."""
    paused = [
        gap for gap in store.read(folder).recording.tracks[0].gaps if gap.kind is GapKind.PAUSED
    ]
    tracks = []
    for track in store.read(folder).recording.tracks:
        gaps = track.gaps if track.track is Track.INBOUND else tuple(paused)
        missing = sum(round(gap.duration_ms / 20) for gap in gaps)
        came = round(track.duration_ms / 20) - missing
        found = msgspec.structs.replace(track, gaps=gaps, chunks=ChunkCounts(came, came))
        tracks.append(msgspec.structs.replace(found, silence_share=0.59, drift_ppm=74.0))
    recordings_builder.change_document(folder, tracks=tuple(tracks))


def _samples(ms: float) -> int:
    return round(ms * RATE / 1000)


def _measured(sound: Samples) -> Samples:
    meter = Meter(RATE)
    for _ in meter.passing([sound.astype("<i2").tobytes()]):
        pass
    return meter.finish().pairs


def annotate(recordings: Path, recording_id: str, texts: Sequence[tuple[int | None, str]]) -> None:
    """Put a label and notes on a recording."""

    def edit(before: Annotations) -> Annotations:
        by = {"by": "jane", "at": "2026-12-01T08:00:00.000Z"}
        after = notes.add_label(before, "training", **by)
        for number, (t_ms, text) in enumerate(texts):
            after = notes.add_note(after, text, note_id=f"{number:08x}", t_ms=t_ms, **by)
        return after

    notes.change(store.find(recordings, recording_id), edit)


def publish_all(recordings: Path) -> dict[str, str]:
    """Publish what the tests look at; return ids by name."""
    found = {
        "gaps": publish(
            recordings,
            1,
            {"queue": "sales", "agent": "Jane", "case": "4711", "客户": "王小明"},
            gaps=(LOST, PAUSED),
            complete=False,
            findings=(
                Finding("audio_lost", "320 ms in 1 gaps", Track.INBOUND),
                *(Finding("audio_paused", "2100 ms in 1 gaps", track) for track in Track),
                Finding("clock_origin", "stream time was counted from 80 ms on"),
            ),
            dtmf=(DtmfPress(2300, "5", 80), DtmfPress(2800, "1", 80)),
            marks=(MarkPassed(15_000, "greeting"),),
        )
    }
    annotate(
        recordings, found["gaps"], [(8200, "asks for the invoice number"), (None, "call back")]
    )
    hour = {track: speech(track, 3600) for track in Track}
    found["hour"] = publish(recordings, 2, {"queue": "support", "agent": "Ida"}, sounds=hour)
    both = {track: ramp(30) for track in Track}
    found["ramp"] = publish(recordings, 3, {"queue": "test"}, sounds=both, hours_ago=30)
    for number, agent in enumerate(["Amir", "Lea", "Noor", "Tom", "Lea", "Amir"]):
        queue = ["support", "billing", "sales"][number % 3]
        broken = (Finding("connection_lost", "no close frame"),) if number == 2 else ()
        publish(
            recordings,
            10 + number,
            {"queue": queue, "agent": agent, "case": str(4700 + number)},
            sounds={track: speech(track, 35 + 47 * number) for track in Track},
            hours_ago=1.1 + number / 7,
            complete=not broken,
            findings=broken,
        )
    return found | {"call": call_sid(1)}


def copied(shared: Path, recordings: Path) -> dict[str, str]:
    """Put what the tests look at below `recordings`; return ids by name.

    It is made once, in `shared`, for all processes of a test run, since it takes seconds and
    140 MB. Nothing writes to a WAV file that is published: links do for those.
    """
    shared.mkdir(0o700, exist_ok=True)
    names = shared / "names.json"
    with open(shared / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not names.exists():
            (shared / "recordings").mkdir(0o700)
            names.write_text(json.dumps(publish_all(shared / "recordings")))
    shutil.copytree(shared / "recordings", recordings, copy_function=_copy)
    found: dict[str, str] = json.loads(names.read_text())
    return found


def _copy(source: str, target: str) -> None:
    if source.endswith(".wav"):
        os.link(source, target)
    else:
        shutil.copy2(source, target)
