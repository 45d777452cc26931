"""The G.711 encoder against libsndfile, for every sample there is."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from starter.simulator.g711 import encode_alaw, encode_mulaw

EVERY_SAMPLE = np.arange(-32768, 32768).astype(np.int16)


def stored(samples: np.ndarray, subtype: str, path: Path) -> bytes:
    """The bytes that libsndfile writes for these samples."""
    soundfile.write(path, samples, 8000, subtype=subtype, format="RAW")
    return path.read_bytes()


@pytest.mark.parametrize(("encode", "subtype"), [(encode_mulaw, "ULAW"), (encode_alaw, "ALAW")])
def test_every_sample_has_the_code_of_libsndfile(
    encode: Callable[[np.ndarray], bytes], subtype: str, tmp_path: Path
) -> None:
    """All 65 536 samples, against an independent implementation."""
    assert stored(EVERY_SAMPLE, subtype, tmp_path / "all.raw") == encode(EVERY_SAMPLE)


@pytest.mark.parametrize(("encode", "subtype"), [(encode_mulaw, "ULAW"), (encode_alaw, "ALAW")])
def test_a_decoded_code_is_encoded_to_itself(
    encode: Callable[[np.ndarray], bytes], subtype: str, tmp_path: Path
) -> None:
    """All 256 codes survive, but for the negative zero of mu-law, which becomes the positive."""
    path = tmp_path / "codes.raw"
    path.write_bytes(bytes(range(256)))
    samples, _ = soundfile.read(
        path, dtype="int16", samplerate=8000, channels=1, subtype=subtype, format="RAW"
    )
    expected = bytes(range(256))
    if subtype == "ULAW":
        expected = expected.replace(b"\x7f", b"\xff")

    assert expected == encode(samples)


@pytest.mark.parametrize(
    ("encode", "codes"),
    [(encode_mulaw, "ff807f00"), (encode_alaw, "d5aa552a")],
)
def test_the_landmarks(encode: Callable[[np.ndarray], bytes], codes: str) -> None:
    """Silence, full scale up, the least below zero, full scale down, as the tables give them."""
    assert codes == encode(np.array([0, 32767, -1, -32768], np.int16)).hex()
