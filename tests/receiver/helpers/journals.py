"""Journals for tests: what a stream would have left in the spool, without a socket."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from receiver.disk.files import open_folder
from receiver.journal import records as journal
from receiver.journal.backlog import open_journal
from receiver.journal.records import ChunkRecord, EndRecord, Header, MessageRecord, Record
from receiver.media import EndReason, Track
from receiver.recording import render as renderer
from receiver.recording.document import Recording, RenderOptions
from receiver.recording.journal_scan import scan_file

STARTED_AT_MS = 1_795_379_400_000  # 2026-11-22T20:30:00Z
HEADER = Header("00112233aabbccdd", STARTED_AT_MS, journal.VERSION, "0.1.0")


def start_message(
    *, encoding: str = "audio/x-mulaw", sample_rate: int = 8000, **parameters: object
) -> bytes:
    """Return a start message as SignalWire writes it."""
    return msgspec.json.encode(
        {
            "event": "start",
            "sequenceNumber": "1",
            "start": {
                "streamSid": "7d56cc11-0a3c-4a3e-9df2-6f0e9c0c1d2e",
                "accountSid": "b08dacad-1111-4222-8333-444455556666",
                "callSid": "76ac3c36-aaaa-4bbb-8ccc-ddddeeeeffff",
                "tracks": ["inbound", "outbound"],
                "customParameters": parameters,
                "mediaFormat": {"encoding": encoding, "sampleRate": sample_rate, "channels": 1},
            },
        }
    )


def chunk(
    number: int | None,
    payload: bytes,
    *,
    track: Track = Track.INBOUND,
    timestamp_ms: int | None = None,
    sequence_number: int | None = None,
    arrival_ms: int | None = None,
) -> ChunkRecord:
    """Return a chunk that arrives when its timestamp says, or at `arrival_ms`."""
    if arrival_ms is None:
        arrival_ms = timestamp_ms or 0
    return ChunkRecord(track, sequence_number, number, timestamp_ms, arrival_ms, payload)


def records(
    chunks: Iterable[Record], *, start: bytes | None = None, reason: EndReason | None = None
) -> list[Record]:
    """Return a whole journal's records; no `reason` is a crash."""
    found: list[Record] = [HEADER, MessageRecord(0, start or start_message()), *chunks]
    if reason is not None:
        found.append(EndRecord(10_000, reason, ""))
    return found


def write(path: Path, content: Sequence[Record]) -> Path:
    """Write a journal file and return its path."""
    path.write_bytes(b"".join(map(journal.encode, content)))
    return path


def render(journal: Path, folder: Path, options: RenderOptions | None = None) -> Recording:
    """Render a journal into an existing, empty folder, as `receiver render` does."""
    with open_journal(journal) as file, open_folder(folder) as descriptor:
        return renderer.render(file, scan_file(file), descriptor, options or RenderOptions())
