"""`peaks.dat`: the lowest and highest sample of every 32 ms, for drawing a waveform. Pure.

The format is that of the BBC's audiowaveform, version 2, with 16 bits, which its own library and
players read: https://github.com/bbc/audiowaveform/blob/master/doc/DataFormat.md. One channel for
each track of a recording, inbound first. An hour of two tracks is 0.9 MB.
"""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass
from typing import Final

from receiver.errors import UnreadableError

PIXEL_MS: Final = 32
"""What one pair of a lowest and a highest sample stands for: 256 samples at 8 kHz."""
_HEADER: Final = struct.Struct("<iIiiIi")  # version, flags, rate, samples a pixel, length, channels
_VERSION: Final = 2
_FLAGS: Final = 0  # 16 bits; bit 0 would say 8
_VALUE_BYTES: Final = 2


def samples_per_pixel(rate: int) -> int:
    """Return how many samples one pair stands for, at `rate` samples per second."""
    return rate * PIXEL_MS // 1000


def pixels_of(samples: int, rate: int) -> int:
    """Return how many pairs a track of so many samples has; the last may stand for fewer."""
    return -(-samples // samples_per_pixel(rate))


def header(*, rate: int, channels: int, length: int) -> bytes:
    """Return what stands before the pairs: for each pixel those of every channel, in order."""
    return _HEADER.pack(_VERSION, _FLAGS, rate, samples_per_pixel(rate), length, channels)


@dataclass(frozen=True, slots=True)
class Peaks:
    """What a `peaks.dat` holds: `length` pairs for each of `channels`."""

    sample_rate: int
    samples_per_pixel: int
    length: int
    channels: int
    values: array[int]

    def lowest(self, channel: int) -> array[int]:
        """Return the lowest sample of each pixel of a channel."""
        return self.values[2 * channel :: 2 * self.channels]

    def highest(self, channel: int) -> array[int]:
        """Return the highest sample of each pixel of a channel."""
        return self.values[2 * channel + 1 :: 2 * self.channels]


def decode(content: bytes) -> Peaks:
    """Return what a `peaks.dat` holds.

    Raises:
        UnreadableError: it is none, or not one of ours.
    """
    if len(content) < _HEADER.size:
        raise UnreadableError("it is too short for waveform data")
    version, flags, rate, per_pixel, length, channels = _HEADER.unpack_from(content)
    if (version, flags) != (_VERSION, _FLAGS) or rate < 1 or per_pixel < 1 or channels < 1:
        raise UnreadableError("it is no waveform data of version 2 with 16 bits")
    if len(content) != _HEADER.size + 2 * _VALUE_BYTES * length * channels:
        raise UnreadableError(f"it is not {length} pairs of {channels} channels long")
    values = array("h", struct.unpack_from(f"<{2 * length * channels}h", content, _HEADER.size))
    return Peaks(rate, per_pixel, length, channels, values)
