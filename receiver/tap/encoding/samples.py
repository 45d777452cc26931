"""Samples or payloads: how audio and silence are written, and notices of it."""

from __future__ import annotations

from typing import Final

from receiver.audio import codec
from receiver.media import ByteOrder, Encoding, MediaFormat
from receiver.tap.encoding.notices import LONGEST_CLOCK_MS, Format, begin_ms, gap_notice
from receiver.tap.events import Subscribed
from receiver.tap.queue import OutMessage
from receiver.timeline.live_placement import LivePlacer, SilencePiece

_PROBE_BYTES: Final = 32_000
_SILENCE: Final = {Encoding.PCMU: b"\xff", Encoding.PCMA: b"\xd5", Encoding.L16: b"\0\0"}


class SampleFormatter:
    """Samples or payloads: how encoded audio and silence are written."""

    def __init__(self, media: MediaFormat, shape: Format, byte_order: ByteOrder) -> None:
        self.media = media
        self.decodes = shape is Format.PCM16
        self.silence = b"\0\0" if self.decodes else _SILENCE[media.encoding]
        self._byte_order = byte_order
        self._probe = b"" if byte_order is ByteOrder.AUTO else None

    def audio(self, payload: bytes) -> bytes:
        """Return whole samples as they are sent."""
        if not self.decodes:
            return payload
        encoding = self.media.encoding
        if self._probe is not None and encoding is Encoding.L16:
            self._listen(payload)
        order = ByteOrder.LITTLE if self._byte_order is ByteOrder.AUTO else self._byte_order
        return codec.decode(payload, encoding, byte_order=order).astype("<i2").tobytes()

    def _listen(self, payload: bytes) -> None:
        """Choose the smoother byte order, until enough was heard to be sure."""
        assert self._probe is not None  # noqa: S101  the caller looked
        self._probe += payload
        self._byte_order = codec.smoother_byte_order(self._probe)
        if len(self._probe) >= _PROBE_BYTES:
            self._probe = None

    def milliseconds(self, size: int) -> float:
        """Return a position or length in payload bytes as milliseconds."""
        return size / self.media.bytes_per_ms

    def silent(self, track: str, start: int, size: int, channels: int) -> OutMessage:
        """Return silence of `size` payload bytes."""
        return OutMessage(
            self.silence * channels,
            track,
            self.milliseconds(start),
            self.milliseconds(size),
            size // self.media.bytes_per_sample,
        )

    def interleave(self, left: bytes, right: bytes) -> bytes:
        """Return two tracks as one, sample by sample."""
        if len(self.silence) == 2:
            return codec.interleave(left, right)
        both = bytearray(2 * len(left))
        both[::2], both[1::2] = left, right
        return bytes(both)


def live_placer(joined: Subscribed, media: MediaFormat, begin: float | None) -> LivePlacer:
    """Return a placer that begins at `begin` milliseconds, or where the stream stands now."""
    standing = joined.position
    at_ms = begin_ms(joined) if begin is None else begin
    place = int(at_ms * media.bytes_per_ms) // media.bytes_per_sample * media.bytes_per_sample
    placer = LivePlacer(
        media, begin=place, arrival_ms=0 if begin is not None else standing.arrival_ms
    )
    placer.set_origin(standing.origin_ms)
    latest = standing.latest
    stamp = latest.timestamp_ms if latest else None
    if latest and stamp is not None and not 0 <= stamp - standing.origin_ms < LONGEST_CLOCK_MS:
        placer.follow_clock(latest)
    return placer


def hole_notice(output: SampleFormatter, track: str, hole: SilencePiece) -> str:
    """Return the notice of a hole in a track."""
    start, length = hole.gap_start, hole.end - hole.gap_start
    return gap_notice(hole.reason, track, output.milliseconds(start), output.milliseconds(length))
