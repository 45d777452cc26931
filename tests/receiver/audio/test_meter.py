"""What is measured of samples, compared with the same rules written down plainly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.audio import meter, peaks
from receiver.audio.meter import Measured, Meter

SECOND = 8000
LOUD = [10_000, -10_000]  # -10.3 dBFS
QUIET = [90, -90]  # -51.2 dBFS
SAMPLES = st.lists(
    st.tuples(st.sampled_from([0, 1, 90, 103, 104, 500, 32767, -32768]), st.integers(1, 700)),
    max_size=12,
).map(lambda runs: [sample for sample, count in runs for _ in range(count)])


def as_bytes(samples: Sequence[int]) -> bytes:
    """Return samples as they are written."""
    return np.array(samples, "<i2").tobytes()


def measured(samples: Sequence[int], *, cuts: Sequence[int] = (), rate: int = 8000) -> Measured:
    """Return what is measured of samples that come in blocks."""
    track = Meter(rate)
    content = as_bytes(samples)
    borders = sorted({0, len(content), *(2 * cut % (len(content) + 2) for cut in cuts)})
    blocks = [content[first:last] for first, last in pairwise(borders)]
    assert content == b"".join(track.passing(blocks))
    return track.finish()


def pixels(samples: Sequence[int], size: int) -> list[tuple[int, ...]]:
    """Return samples in pixels."""
    return [tuple(samples[first : first + size]) for first in range(0, len(samples), size)]


@given(SAMPLES, st.lists(st.integers(0, 9000), max_size=5), st.sampled_from([8000, 11000, 16000]))
def test_all_is_as_the_rules_say(samples: list[int], cuts: list[int], rate: int) -> None:
    """However the samples are cut into blocks."""
    found = measured(samples, cuts=cuts, rate=rate)
    parts = pixels(samples, rate * 32 // 1000)
    powers = [sum(s * s for s in part) / len(part) for part in parts]
    silent = [power < 32768**2 * 1e-5 for power in powers]
    assert [(min(part), max(part)) for part in parts] == [tuple(p) for p in found.pairs.tolist()]
    assert silent == found.silent.tolist()
    loud = [s for part, is_silent in zip(parts, silent, strict=True) if not is_silent for s in part]
    rms = 10 * math.log10(sum(s * s for s in loud) / len(loud) / 32768**2) if loud else None
    assert (None if rms is None else pytest.approx(rms, abs=0.051)) == found.rms_dbfs
    peak = max(map(abs, samples), default=0)
    level = 20 * math.log10(peak / 32768) if peak else None
    assert (None if level is None else pytest.approx(level, abs=0.051)) == found.peak_dbfs
    share = sum(silent) / len(silent) if silent else 1
    assert pytest.approx(share, abs=0.00006) == found.silence_share


def test_many_blocks_are_measured_as_one() -> None:
    """Also where much more flows by than is measured at once."""
    samples = [int(20_000 * math.sin(number / 9)) for number in range(100_003)]
    whole = measured(samples)
    pieces = measured(samples, cuts=range(7, 100_003, 61))
    assert whole.pairs.tolist() == pieces.pairs.tolist()
    assert (whole.rms_dbfs, whole.peak_dbfs) == (pieces.rms_dbfs, pieces.peak_dbfs)
    assert -7.3 == whole.rms_dbfs  # 3 dB less than the peak of a sine
    assert -4.3 == whole.peak_dbfs


def test_silence_lowers_no_level() -> None:
    """A track that is silent for most of a call is as loud as what is said on it."""
    said = measured(LOUD * 12_800)  # 100 pixels
    waited = measured(LOUD * 12_800 + QUIET * 9 * 12_800)
    assert -10.3 == said.rms_dbfs == waited.rms_dbfs
    assert 0 == said.silence_share
    assert 0.9 == waited.silence_share


def test_nothing_but_silence_has_no_level() -> None:
    """A highest sample has it, where there is one that is not 0."""
    assert (None, None, 1) == (
        measured([0] * SECOND).rms_dbfs,
        measured([0] * SECOND).peak_dbfs,
        measured([]).silence_share,
    )
    assert (None, -51.2) == (
        measured(QUIET * SECOND).rms_dbfs,
        measured(QUIET * SECOND).peak_dbfs,
    )


def test_long_silences_are_found() -> None:
    """Those at least so long; at the ends, too; their borders are those of pixels."""
    silence, sound = [0] * 256, [5000] * 256
    samples = silence * 63 + sound + silence * 62 + sound * 2 + silence * 70
    found = list(measured(samples).silences(2000))
    assert [(0, 63 * 32), (128 * 32, 198 * 32)] == found


def test_two_tracks_are_interleaved_pixel_by_pixel() -> None:
    """As the format of `peaks.dat` has it."""
    first, second = measured([1] * 256 + [2] * 256), measured([-3] * 256 + [-4] * 256)
    content = peaks.header(rate=8000, channels=2, length=2) + meter.interleaved([first, second])
    found = peaks.decode(content)
    assert [1, 2] == list(found.lowest(0)) == list(found.highest(0))
    assert [-3, -4] == list(found.lowest(1)) == list(found.highest(1))
