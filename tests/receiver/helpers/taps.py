"""Streams for tests of the tap: their events, and what encoders make of these."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from receiver.journal.records import ChunkRecord
from receiver.media import ByteOrder, Chunk, Encoding, EndReason, MediaFormat, Track
from receiver.tap.encoding import encoders
from receiver.tap.encoding.format import Encoder, Format, OutMessage, OutputSpec
from receiver.tap.hub import LiveChunk, LiveStream, StreamEnded, StreamPosition, Subscribed
from tests.receiver.helpers.journals import start_message

BEGINNING = StreamPosition(0, 0, 0, None)


@dataclass
class ManualScheduler:
    """An event loop that runs what is scheduled when the test says so."""

    callbacks: list[Callable[[], object]] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)  # of those that were to run later

    def call_soon(self, callback: Callable[[], object]) -> None:
        self.callbacks.append(callback)

    def call_later(self, delay: float, callback: Callable[[], object]) -> None:
        self.delays.append(delay)
        self.callbacks.append(callback)

    def run(self) -> int:
        """Run what is scheduled, and return how much that was."""
        callbacks, self.callbacks = self.callbacks, []
        for callback in callbacks:
            callback()
        return len(callbacks)


def live_stream(
    encoding: Encoding = Encoding.PCMU, rate: int = 8000, **parameters: object
) -> LiveStream:
    """Return a stream as its session describes it."""
    return LiveStream(
        recording_id="00112233aabbccdd",
        account_sid="b08dacad-1111-4222-8333-444455556666",
        call_sid="76ac3c36-aaaa-4bbb-8ccc-ddddeeeeffff",
        stream_sid="7d56cc11-0a3c-4a3e-9df2-6f0e9c0c1d2e",
        parameters=dict(parameters),
        media_format=MediaFormat(encoding, rate),
        tracks=("inbound", "outbound"),
        started_at="2026-11-22T20:30:00.000Z",
        start_message=start_message(encoding=encoding.value, sample_rate=rate, **parameters),
    )


def live_chunk(
    number: int | None,
    payload: bytes,
    *,
    track: Track = Track.INBOUND,
    at_ms: int | None = None,
    arrival_ms: int | None = None,
    sequence: int | None = None,
) -> LiveChunk:
    """Return chunk `number` (from 1, 20 ms each), which arrives when its timestamp says."""
    if at_ms is None and number is not None:
        at_ms = (number - 1) * 20
    arrived = arrival_ms if arrival_ms is not None else at_ms or 0
    return LiveChunk(Chunk(track, sequence, number, at_ms, payload), arrived)


def recorded_chunk(record: ChunkRecord) -> LiveChunk:
    """Return the live event of a chunk that a journal holds."""
    chunk = Chunk(
        record.track, record.sequence_number, record.chunk, record.timestamp_ms, record.payload
    )
    return LiveChunk(chunk, record.arrival_ms)


def stream_ended(arrival_ms: int = 0) -> StreamEnded:
    """Return the end of a stream."""
    return StreamEnded(EndReason.STOP, arrival_ms)


def make_encoder(
    spec: OutputSpec,
    live: LiveStream | None = None,
    *,
    position: StreamPosition = BEGINNING,
    byte_order: ByteOrder = ByteOrder.LITTLE,
    since_ms: float | None = None,
    longest_wait_ms: int = 60,
) -> Encoder:
    """Return an encoder for a listener that subscribed at a position; it waits for 60 ms."""
    return encoders.encoder(
        spec,
        Subscribed(live or live_stream(), position),
        byte_order=byte_order,
        start_ms=since_ms,
        longest_wait_ms=longest_wait_ms,
    )


def pcm(track: str) -> OutputSpec:
    """Return the spec of listeners that get samples."""
    return OutputSpec(Format.PCM16, track)


def audio_bytes(items: Iterable[OutMessage]) -> bytes:
    """Return all binary messages, one behind the other."""
    return b"".join(
        message for item in items for message in item.messages() if isinstance(message, bytes)
    )


def samples(items: Iterable[OutMessage]) -> list[int]:
    """Return all samples."""
    return [int(sample) for sample in np.frombuffer(audio_bytes(items), "<i2")]


def gaps(items: Iterable[OutMessage]) -> list[tuple[str, str, float, float]]:
    """Return reason, track, start and length of all notices of gaps."""
    names = ("reason", "track", "timestamp_ms", "duration_ms")
    return [
        (event[names[0]], event[names[1]], event[names[2]], event[names[3]])
        for event in texts(items)
        if event["event"] == "gap"
    ]


def texts(items: Iterable[OutMessage]) -> list[dict[str, Any]]:
    """Return all texts."""
    return [msgspec.json.decode(item.message) for item in items if isinstance(item.message, str)]
