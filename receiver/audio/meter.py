"""What is measured of a track's samples while they are written: peaks, level, silence.

A track is cut into pixels of 32 ms. One whose level (root mean square) is below -50 dBFS is
silent. That is above the noise of a quiet line, which is near -60, and below speech, which is
seldom under -40. All sums are of whole numbers, so every machine comes to the same result.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from receiver.audio import peaks

SILENT_DBFS: Final = -50
_FULL_SCALE: Final = 32768
_SILENT_POWER: Final = _FULL_SCALE**2 * 10 ** (SILENT_DBFS / 10)
_ENOUGH_BYTES: Final = 2**16
"""So much is measured at once: small blocks would cost more than what is in them."""
_SAMPLE_BYTES: Final = 2


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of a whole track.

    `pairs` has the lowest and highest sample of each pixel (int16, shape `(n, 2)`), `silent`
    whether it is silent (bool, shape `(n,)`). Levels are dBFS, 0 being the square of full scale;
    there is none where no pixel, or no sample, is anything but silent.
    """

    pairs: NDArray[np.int16]
    silent: NDArray[np.bool_]
    rms_dbfs: float | None
    peak_dbfs: float | None

    @property
    def silence_share(self) -> float:
        """Return how much of the track is silent, from 0 to 1; 1 where there is nothing at all."""
        return round(float(self.silent.mean()), 4) if len(self.silent) else 1.0

    def silences(self, shortest_ms: int) -> Iterator[tuple[int, int]]:
        """Yield where the track is silent for so long: milliseconds, as whole pixels."""
        edges = np.diff(self.silent, prepend=False, append=False).nonzero()[0]
        for first, last in edges.reshape(-1, 2).tolist():
            if (last - first) * peaks.PIXEL_MS >= shortest_ms:
                yield first * peaks.PIXEL_MS, last * peaks.PIXEL_MS


class Meter:
    """Measures one track's samples as they flow by."""

    def __init__(self, rate: int) -> None:
        self._pixel = peaks.samples_per_pixel(rate)
        self._waiting = bytearray()
        self._pairs: list[NDArray[np.int16]] = []
        self._silent: list[NDArray[np.bool_]] = []
        self._sound_power = 0  # the sum of squares of all samples that are not silent
        self._sound_samples = 0

    def passing(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield blocks of int16 samples, little endian, as they are; measure them on the way."""
        for block in blocks:
            self._waiting += block
            if len(self._waiting) >= _ENOUGH_BYTES:
                self._measure(len(self._waiting) // _SAMPLE_BYTES // self._pixel)
            yield block

    def finish(self) -> Measured:
        """Return what was measured, the last and perhaps shorter pixel included."""
        self._measure(len(self._waiting) // _SAMPLE_BYTES // self._pixel)
        if self._waiting:
            self._add(np.frombuffer(bytes(self._waiting), "<i2").reshape(1, -1))
        pairs = np.concatenate(self._pairs) if self._pairs else np.empty((0, 2), np.int16)
        silent = np.concatenate(self._silent) if self._silent else np.empty(0, np.bool_)
        rms = self._sound_power / self._sound_samples if self._sound_samples else 0
        peak = int(np.abs(pairs.astype(np.int32)).max(initial=0))
        return Measured(pairs, silent, _dbfs(rms), _dbfs(peak * peak))

    def _measure(self, pixels: int) -> None:
        """Measure so many whole pixels of what is waiting."""
        if pixels:
            size = pixels * self._pixel * _SAMPLE_BYTES
            self._add(np.frombuffer(bytes(self._waiting[:size]), "<i2").reshape(pixels, -1))
            del self._waiting[:size]

    def _add(self, rows: NDArray[np.int16]) -> None:
        """Add pixels, one in each row."""
        self._pairs.append(np.stack((rows.min(axis=1), rows.max(axis=1)), axis=1))
        squares = rows.astype(np.int32)
        squares *= squares
        power = squares.sum(axis=1, dtype=np.int64)
        silent = power < _SILENT_POWER * rows.shape[1]
        self._silent.append(silent)
        self._sound_power += int(power[~silent].sum())
        self._sound_samples += int((~silent).sum()) * rows.shape[1]


def _dbfs(power: float) -> float | None:
    """Return a mean square as a level; `None` where it is nothing."""
    return round(10 * math.log10(power / _FULL_SCALE**2), 1) if power else None


def interleaved(tracks: Iterable[Measured]) -> bytes:
    """Return the pairs of several tracks of one length as `peaks.dat` has them."""
    return np.stack([each.pairs for each in tracks], axis=1).astype("<i2").tobytes()
