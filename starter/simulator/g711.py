"""G.711 encoding of 16-bit samples, exact to the decision values of ITU-T G.711.

A sample that lies on a decision value goes to the louder code on both sides of zero, as libsndfile
does; the Recommendation leaves that choice open.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

_Samples = npt.NDArray[np.int16]

_MULAW_BIAS = 33  # moves the segment borders of 14-bit magnitudes onto powers of two
_MULAW_CLIP = 8158  # the largest 14-bit magnitude that has a code
_ALAW_CLIP = 2047  # the largest magnitude of the 12 bits that A-law uses


def encode_mulaw(samples: _Samples) -> bytes:
    """Encode int16 samples to mu-law, one byte each."""
    return _encode(samples, _mulaw_codes())


def encode_alaw(samples: _Samples) -> bytes:
    """Encode int16 samples to A-law, one byte each."""
    return _encode(samples, _alaw_codes())


def _encode(samples: _Samples, codes: npt.NDArray[np.uint8]) -> bytes:
    return codes[samples.astype(np.int16, copy=False).view(np.uint16)].tobytes()


def _every_sample() -> npt.NDArray[np.int32]:
    """All 65 536 samples, in the order of their bits read as an unsigned number."""
    return np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.int32)


def _bit_length(values: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    return np.frexp(values.astype(np.float64))[1].astype(np.int32)


@cache
def _mulaw_codes() -> npt.NDArray[np.uint8]:
    samples = _every_sample()
    magnitudes = np.minimum(np.abs(samples) >> 2, _MULAW_CLIP) + _MULAW_BIAS
    segments = _bit_length(magnitudes) - 6
    steps = (magnitudes >> (segments + 1)) & 0x0F
    signs = np.where(samples < 0, 0x80, 0)
    # every bit is sent inverted, so that silence is full of ones
    codes: npt.NDArray[np.int32] = ~(signs | segments << 4 | steps) & 0xFF
    return codes.astype(np.uint8)


@cache
def _alaw_codes() -> npt.NDArray[np.uint8]:
    samples = _every_sample()
    magnitudes = np.minimum(np.abs(samples) >> 4, _ALAW_CLIP)
    # the first two segments share one step size: below 32 the magnitude is the code
    segments = np.maximum(_bit_length(magnitudes) - 4, 1)
    curved = segments << 4 | (magnitudes >> (segments - 1)) & 0x0F
    codes = np.where(magnitudes < 32, magnitudes, curved)
    signs = np.where(samples < 0, 0, 0x80)
    # every other bit is sent inverted
    inverted: npt.NDArray[np.int32] = (signs | codes) ^ 0x55
    return inverted.astype(np.uint8)
