"""Samples of every code, against decoders that are not ours."""

from __future__ import annotations

import importlib
import io
import sys
import warnings

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from receiver.audio import codec
from receiver.audio.codec import Samples
from receiver.media import ByteOrder, Encoding

ALL_CODES = bytes(range(256))
LITTLE, BIG = ByteOrder.LITTLE, ByteOrder.BIG
RATE = 8000


def sine(hertz: float, *, amplitude: float, seconds: float = 0.5) -> Samples:
    """Return a tone."""
    times = np.arange(int(RATE * seconds)) / RATE
    return (amplitude * np.sin(2 * np.pi * hertz * times)).astype(np.int16)


@pytest.mark.parametrize(
    ("encoding", "subtype"), [(Encoding.PCMU, "ULAW"), (Encoding.PCMA, "ALAW")]
)
def test_every_g711_code_is_that_of_libsndfile(encoding: Encoding, subtype: str) -> None:
    """All 256, exactly."""
    expected, _ = soundfile.read(
        io.BytesIO(ALL_CODES),
        samplerate=RATE,
        channels=1,
        format="RAW",
        subtype=subtype,
        dtype="int16",
    )
    decoded = codec.decode(ALL_CODES, encoding, byte_order=LITTLE)
    assert np.dtype(np.int16) == decoded.dtype
    assert expected.tolist() == decoded.tolist()


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="audioop left the standard library")
@pytest.mark.parametrize(
    ("encoding", "function"), [(Encoding.PCMU, "ulaw2lin"), (Encoding.PCMA, "alaw2lin")]
)
def test_every_g711_code_is_that_of_audioop(encoding: Encoding, function: str) -> None:
    """All 256, exactly."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        audioop = importlib.import_module("audioop")
    expected = np.frombuffer(getattr(audioop, function)(ALL_CODES, 2), np.int16)
    decoded = codec.decode(ALL_CODES, encoding, byte_order=LITTLE)
    assert expected.tolist() == decoded.tolist()


@pytest.mark.parametrize(
    ("encoding", "code", "sample"),
    [
        (Encoding.PCMU, 0xFF, 0),
        (Encoding.PCMU, 0x7F, 0),
        (Encoding.PCMU, 0x00, -32124),
        (Encoding.PCMU, 0x80, 32124),
        (Encoding.PCMA, 0xD5, 8),
        (Encoding.PCMA, 0x55, -8),
        (Encoding.PCMA, 0x2A, -32256),
        (Encoding.PCMA, 0xAA, 32256),
    ],
)
def test_silence_and_full_scale(encoding: Encoding, code: int, sample: int) -> None:
    """Zero-filled mu-law is the loudest there is, not silence; A-law has no zero at all."""
    assert [sample] == codec.decode(bytes([code]), encoding, byte_order=LITTLE).tolist()


@given(st.lists(st.integers(-(2**15), 2**15 - 1)))
def test_l16_is_read_in_both_byte_orders(samples: list[int]) -> None:
    """Every sample exactly, in the machine's own order afterwards."""
    for order, written in ((LITTLE, "<i2"), (BIG, ">i2")):
        payload = np.array(samples, written).tobytes()
        decoded = codec.decode(payload, Encoding.L16, byte_order=order)
        assert samples == decoded.tolist()
        assert np.dtype(np.int16) == decoded.dtype


@pytest.mark.parametrize("encoding", Encoding)
def test_nothing_decodes_to_nothing(encoding: Encoding) -> None:
    """An empty payload is no error."""
    assert [] == codec.decode(b"", encoding, byte_order=LITTLE).tolist()


TONES = [sine(hertz, amplitude=a) for hertz in (60, 440, 1000) for a in (300, 3000, 30_000)]


@pytest.mark.parametrize("order", [LITTLE, BIG])
@pytest.mark.parametrize("samples", TONES, ids=lambda tone: f"peak{tone.max()}")
def test_a_tone_is_smoother_in_its_own_byte_order(samples: Samples, order: ByteOrder) -> None:
    """Loud or soft, low or high."""
    payload = samples.astype("<i2" if order is LITTLE else ">i2").tobytes()
    assert order is codec.smoother_byte_order(payload)


@pytest.mark.parametrize("order", [LITTLE, BIG])
def test_a_noisy_tone_is_smoother_in_its_own_byte_order(order: ByteOrder) -> None:
    """A bad line hisses; an odd byte at the end changes nothing."""
    noise = np.random.default_rng(20_261_122).normal(0, 300, RATE // 2)
    samples = (sine(300, amplitude=4000) + noise).astype("<i2" if order is LITTLE else ">i2")
    assert order is codec.smoother_byte_order(samples.tobytes())
    assert order is codec.smoother_byte_order(samples.tobytes() + b"\x7f")


@pytest.mark.parametrize("order", [LITTLE, BIG])
def test_soft_hiss_is_smoother_in_its_own_byte_order(order: ByteOrder) -> None:
    """Between words there is nothing but the line's noise."""
    noise = np.random.default_rng(20_261_122).normal(0, 20, RATE // 2)
    payload = noise.astype("<i2" if order is LITTLE else ">i2").tobytes()
    assert order is codec.smoother_byte_order(payload)


@pytest.mark.parametrize(
    "payload",
    [b"", b"\x01", b"\x01\x02", bytes(32_000), b"\x11\x11" * 8000, b"\x12\x34" * 8000],
    ids=["none", "half", "one", "silence", "equal bytes", "constant"],
)
def test_a_tie_is_little_endian(payload: bytes) -> None:
    """Nothing to compare: the default stands."""
    assert LITTLE is codec.smoother_byte_order(payload)


@given(st.lists(st.tuples(*[st.integers(-(2**15), 2**15 - 1)] * 2)))
def test_two_tracks_become_one_stereo_row(pairs: list[tuple[int, int]]) -> None:
    """Left first, sample by sample."""
    left, right = (np.array([pair[side] for pair in pairs], np.int16) for side in (0, 1))
    interleaved = codec.interleave(left.tobytes(), right.tobytes())
    assert [sample for pair in pairs for sample in pair] == (
        np.frombuffer(interleaved, np.int16).tolist()
    )
