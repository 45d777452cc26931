"""What the receiver makes of a modelled call, and how far that is from the truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import soundfile

from receiver.audio import codec
from receiver.journal import records
from receiver.journal.records import EndRecord, Header, MessageRecord
from receiver.media import ByteOrder, Chunk, Encoding, EndReason, GapKind, Track
from receiver.recording.document import Recording
from receiver.wire.parse import parse
from tests.accuracy.senders import BYTES_PER_MS, Call
from tests.receiver.helpers.journals import render

STARTED_AT_MS: Final = 1_795_379_400_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """A recording beside the truth. Times are milliseconds; signs mean `recorded - true`."""

    recording: Recording
    missing: int  # chunks that arrived and are nowhere in the file
    errors_ms: dict[Track, list[float]]  # of every chunk that arrived, in the order spoken
    duration_error_ms: float
    told_lost_ms: dict[Track, float]  # by gaps that are `lost`
    truly_lost_ms: dict[Track, float]

    @property
    def worst_ms(self) -> float:
        """Return the largest distance of a chunk from where it was spoken."""
        return max((abs(e) for errors in self.errors_ms.values() for e in errors), default=0.0)

    @property
    def apart_ms(self) -> float:
        """Return how far the tracks are apart at the most, by the medians of their errors."""
        medians = [float(np.median(errors)) for errors in self.errors_ms.values() if errors]
        return max(medians, default=0.0) - min(medians, default=0.0)


def journal_of(call: Call) -> bytes:
    """Return the journal that a receiver would have written of a call."""
    written = [records.encode(Header("00112233aabbccdd", STARTED_AT_MS, records.VERSION, "0.1.0"))]
    arrival_ms = 0.0
    for arrival_ms, message in call.messages:
        text = msgspec.json.encode(message)
        parsed = parse(text)
        if isinstance(parsed, Chunk):
            written.append(records.encode_chunk(parsed, int(arrival_ms)))
        else:
            written.append(records.encode(MessageRecord(int(arrival_ms), text)))
    written.append(records.encode(EndRecord(int(arrival_ms), EndReason.STOP, "")))
    return b"".join(written)


def outcome(call: Call, folder: Path) -> Outcome:
    """Render a call into `folder`, which must be empty, and hold it to the truth."""
    journal = folder / "call.journal"
    journal.write_bytes(journal_of(call))
    files = folder / "recording"
    files.mkdir()
    recording = render(journal, files)
    errors: dict[Track, list[float]] = {}
    missing = 0
    for track in recording.tracks:
        samples, _ = soundfile.read(files / track.file, dtype="int16")
        found = places(call, track.track, samples.tobytes())
        missing += sum(at is None for at, _ in found)
        errors[track.track] = [at - true for at, true in found if at is not None]
    present = {track.track for track in recording.tracks}
    missing += sum(not c.lost for c in call.spoken if c.track not in present)
    return Outcome(
        recording=recording,
        missing=missing,
        errors_ms=errors,
        duration_error_ms=recording.duration_ms - call.length_ms,
        told_lost_ms={
            track.track: sum(gap.duration_ms for gap in track.gaps if gap.kind is GapKind.LOST)
            for track in recording.tracks
        },
        truly_lost_ms={
            track: float(sum(c.length_ms for c in call.of(track) if c.lost)) for track in Track
        },
    )


def places(call: Call, track: Track, line: bytes) -> list[tuple[float | None, int]]:
    """Return where each chunk that arrived is in the file, and where it was spoken, in ms."""
    unit = 2 * BYTES_PER_MS
    found: list[tuple[float | None, int]] = []
    behind = 0  # where the chunk before ended: the next is searched from here first
    for chunk in call.of(track):
        if chunk.lost:
            continue
        samples = codec.decode(chunk.payload, Encoding.PCMU, byte_order=ByteOrder.LITTLE).tobytes()
        place = line.find(samples, behind)
        if place < 0:
            place = line.find(samples)
        if place >= 0:
            behind = place + len(samples)
        found.append((place / unit if place >= 0 else None, chunk.at_ms))
    return found
