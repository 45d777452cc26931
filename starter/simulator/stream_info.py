"""Values of the simulator: media formats, tracks and ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from starter.models import Codec


class ByteOrder(StrEnum):
    """Order of the two bytes of an L16 sample; RTP says big, the provider's own samples little."""

    LITTLE = "little"
    BIG = "big"


@dataclass(frozen=True, slots=True)
class MediaFormat:
    """How a track is encoded: wire spelling, samples per second, bytes per sample (mono)."""

    encoding: str
    sample_rate: int
    sample_bytes: int

    def chunk_bytes(self, packet_ms: int) -> int:
        """Payload bytes of one full packet of `packet_ms` milliseconds."""
        return self.sample_rate * packet_ms // 1000 * self.sample_bytes


MEDIA_FORMATS: Mapping[Codec, MediaFormat] = MappingProxyType(
    {
        Codec.PCMU: MediaFormat("audio/x-mulaw", 8000, 1),
        Codec.PCMA: MediaFormat("audio/x-alaw", 8000, 1),
        Codec.L16: MediaFormat("audio/x-L16", 8000, 2),
        Codec.L16_16000: MediaFormat("audio/x-L16", 16000, 2),
        Codec.L16_24000: MediaFormat("audio/x-L16", 24000, 2),
    }
)


@dataclass(frozen=True, slots=True)
class TrackAudio:
    """One direction of a call, encoded: `track` is inbound or outbound."""

    track: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Identity:
    """The ids of a stream, its call and its account, as the messages carry them."""

    account_sid: str
    call_sid: str
    stream_sid: str


@dataclass(frozen=True, slots=True)
class Keypress:
    """One DTMF digit at its place on the stream's clock."""

    at_ms: int
    digit: str
