"""G.711 mu-law by the book, one code at a time: independent of the receiver's tables."""

from __future__ import annotations


def _mulaw(code: int) -> int:
    """ITU-T G.711, table 2: invert, then sign, segment and step; bias 33, scaled to 16 bits."""
    inverted = code ^ 0xFF
    segment, step = inverted >> 4 & 7, inverted & 15
    magnitude = (((2 * step + 33) << segment) - 33) * 4
    return -magnitude if inverted & 0x80 else magnitude


MULAW = tuple(_mulaw(code) for code in range(256))
"""The sample of every code."""
