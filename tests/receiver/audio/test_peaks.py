"""`peaks.dat`: the bytes that players of waveforms read, and nothing else taken for them."""

from __future__ import annotations

import pytest

from receiver.audio import peaks
from receiver.errors import UnreadableError

TWO_CHANNELS = (
    b"\x02\0\0\0"  # version
    b"\0\0\0\0"  # 16 bits
    b"\x40\x1f\0\0"  # 8000 samples per second
    b"\0\x01\0\0"  # 256 samples per pixel
    b"\x02\0\0\0"  # 2 pixels
    b"\x02\0\0\0"  # 2 channels
    b"\xff\xff\x01\0"  # pixel 0, channel 0: -1 and 1
    b"\xfe\xff\x02\0"  # pixel 0, channel 1: -2 and 2
    b"\x00\x80\xff\x7f"  # pixel 1, channel 0: -32768 and 32767
    b"\0\0\0\0"
)
"""By the description of audiowaveform's format, version 2."""


def test_the_format_is_that_of_its_description() -> None:
    """Byte by byte, in both directions."""
    assert TWO_CHANNELS[:24] == peaks.header(rate=8000, channels=2, length=2)
    found = peaks.decode(TWO_CHANNELS)
    assert (8000, 256, 2, 2) == (
        found.sample_rate,
        found.samples_per_pixel,
        found.length,
        found.channels,
    )
    assert [-1, -32768] == list(found.lowest(0))
    assert [1, 32767] == list(found.highest(0))
    assert [-2, 0] == list(found.lowest(1))
    assert [2, 0] == list(found.highest(1))


@pytest.mark.parametrize(
    ("rate", "samples", "pixels"),
    [(8000, 0, 0), (8000, 1, 1), (8000, 256, 1), (8000, 257, 2), (48000, 1536, 1), (11000, 353, 2)],
)
def test_a_pixel_is_32_ms_at_every_rate(rate: int, samples: int, pixels: int) -> None:
    """The last one may be shorter."""
    assert pixels == peaks.pixels_of(samples, rate)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        TWO_CHANNELS[:23],
        TWO_CHANNELS[:-1],
        TWO_CHANNELS + b"\0",
        b"\x01" + TWO_CHANNELS[1:],  # version 1 has one channel
        TWO_CHANNELS[:4] + b"\x01" + TWO_CHANNELS[5:],  # 8 bits
        TWO_CHANNELS[:20] + b"\0" + TWO_CHANNELS[21:],  # no channel
        TWO_CHANNELS[:8] + bytes(4) + TWO_CHANNELS[12:],  # no rate
        TWO_CHANNELS[:16] + b"\xff\xff\xff\xff" + TWO_CHANNELS[20:],
    ],
)
def test_what_is_none_is_refused(content: bytes) -> None:
    """Whatever a disk has made of it."""
    with pytest.raises(UnreadableError):
        peaks.decode(content)
