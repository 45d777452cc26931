"""Payload bytes to int16 samples: G.711 mu-law and A-law, and linear PCM of either byte order.

The G.711 tables follow ITU-T G.711 as every reference decoder does: mu-law spans +-32124,
A-law +-32256. Decoding is one table look-up per payload, whole arrays at a time.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from receiver.media import ByteOrder, Encoding

Samples = NDArray[np.int16]


def _mulaw_table() -> Samples:
    code = ~np.arange(256, dtype=np.int32) & 0xFF
    magnitude = (((code & 0x0F) << 3) + 0x84 << ((code & 0x70) >> 4)) - 0x84
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _alaw_table() -> Samples:
    code = np.arange(256, dtype=np.int32) ^ 0x55
    exponent = (code & 0x70) >> 4
    mantissa = ((code & 0x0F) << 4) + 8
    magnitude = np.where(exponent > 0, mantissa + 0x100 << np.maximum(exponent - 1, 0), mantissa)
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


_TABLES: Final = {Encoding.PCMU: _mulaw_table(), Encoding.PCMA: _alaw_table()}

_FAR_SMOOTHER: Final = 4


def decode(payload: bytes, encoding: Encoding, *, byte_order: ByteOrder) -> Samples:
    """Return the samples (int16, shape `(n,)`) that `payload` encodes.

    For L16, `payload` must hold whole samples (an even number of bytes) and `byte_order` must
    not be AUTO; for G.711 `byte_order` has no meaning.
    """
    if encoding is Encoding.L16:
        wire_type = ">i2" if byte_order is ByteOrder.BIG else "<i2"
        return np.frombuffer(payload, wire_type).astype(np.int16)
    return _TABLES[encoding][np.frombuffer(payload, np.uint8)]


def smoother_byte_order(payload: bytes) -> ByteOrder:
    """Return the byte order in which L16 `payload` is the smoother signal.

    Speech changes little from one sample to the next; with its bytes swapped it is noise. The
    measure is the mean absolute step. A tie (silence) is LITTLE, the default.
    """
    whole = payload[: len(payload) // 2 * 2]
    steps = {
        order: float(np.abs(np.diff(np.frombuffer(whole, kind).astype(np.int32))).sum())
        for order, kind in ((ByteOrder.LITTLE, "<i2"), (ByteOrder.BIG, ">i2"))
    }
    return ByteOrder.BIG if steps[ByteOrder.BIG] < steps[ByteOrder.LITTLE] else ByteOrder.LITTLE


def starts_within(payload: bytes, byte_order: ByteOrder) -> bool:
    """Whether L16 `payload` clearly starts with the second half of a sample.

    It does where it is a far smoother signal without its first byte: read across the borders of
    samples, speech is noise.
    """
    kind = ">i2" if byte_order is ByteOrder.BIG else "<i2"
    size = (len(payload) - 1) // 2 * 2
    within, here = (
        float(np.abs(np.diff(np.frombuffer(payload[first:][:size], kind).astype(np.int32))).sum())
        for first in (1, 0)
    )
    return _FAR_SMOOTHER * within < here


def interleave(left: bytes, right: bytes) -> bytes:
    """Return two equally long rows of int16 samples as one row of stereo samples."""
    return np.stack((np.frombuffer(left, np.int16), np.frombuffer(right, np.int16)), 1).tobytes()


def rows(message: bytes, channels: int) -> Samples:
    """Return int16 samples of one message: shape `(n,)`, or `(n, 2)` for stereo."""
    samples = np.frombuffer(message, "<i2").astype(np.int16)
    return samples if channels == 1 else samples.reshape(-1, channels)
