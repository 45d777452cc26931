"""What a WAV file should be, and every way in which it may not be."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from receiver.audio import wav_reader
from receiver.audio.wav_reader import Expected, problems

RATE, SAMPLES = 8000, 400


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a file of samples from 1 on, but for 100 to 199, which are silence."""
    samples = np.arange(1, SAMPLES + 1, dtype=np.int16)
    samples[100:200] = 0
    return written(tmp_path / "a.wav", samples)


def written(path: Path, samples: object, *, container: str = "WAV") -> Path:
    """Write a WAV file as recordings have it."""
    soundfile.write(path, samples, RATE, "PCM_16", format=container)
    path.chmod(0o600)
    return path


def expected(path: Path, **changes: object) -> Expected:
    """Return what the file is, but for `changes`."""
    found: dict[str, object] = {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "sample_rate": RATE,
        "channels": 1,
        "samples": SAMPLES,
    }
    return Expected(**(found | changes))  # type: ignore[arg-type]  # as in the table above


def test_a_file_that_is_as_expected_has_no_problems(path: Path) -> None:
    """Its gap is silent, and its samples are counted."""
    assert [] == list(problems(path, expected(path, gaps=((100, 200),))))


def test_rf64_is_read_too(path: Path, tmp_path: Path) -> None:
    """Recordings of many hours have longer lengths, and say their format at more length."""
    large = written(tmp_path / "b.wav", np.zeros((SAMPLES, 2), np.int16), container="RF64")
    assert b"RF64" == large.read_bytes()[:4]
    assert [] == list(problems(large, expected(large, channels=2)))
    assert ["b.wav: it holds 400 samples, not 401"] == list(
        problems(large, expected(large, channels=2, samples=SAMPLES + 1))
    )


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"sha256": "0" * 64}, "its SHA-256 is not the document's"),
        ({"samples": 399}, "it holds 400 samples, not 399"),
        ({"channels": 2}, "it is not 16-bit PCM, 2 channels at 8000 Hz"),
        ({"sample_rate": 16000}, "it is not 16-bit PCM, 1 channels at 16000 Hz"),
        ({"gaps": ((100, 200), (199, 201))}, "there is sound in the gap at sample 199"),
        ({"gaps": ((99, 101),)}, "there is sound in the gap at sample 99"),
        ({"gaps": ((399, 401),)}, "there is sound in the gap at sample 399"),
    ],
)
def test_what_is_not_as_expected_is_reported(
    path: Path, changes: dict[str, object], problem: str
) -> None:
    """One line for each problem, with the file's name."""
    assert [f"a.wav: {problem}"] == list(problems(path, expected(path, **changes)))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o400])
def test_another_mode_is_reported(path: Path, mode: int) -> None:
    """Only its owner may read a call."""
    path.chmod(mode)
    assert [f"a.wav: its mode is {mode:04o}, not 0600"] == list(problems(path, expected(path)))


@pytest.mark.parametrize(
    ("at", "content", "problem"),
    [
        (0, b"RIFX", "it is no WAV file"),
        (8, b"AVI ", "its length is not what its header says"),
        (4, struct.pack("<I", 5), "its length is not what its header says"),
        (12, b"xxxx", "it has no format or no samples"),
        (36, b"xxxx", "it has no format or no samples"),
        (36, b"da\0a", "its chunk at byte 36 is damaged"),
        (40, struct.pack("<I", 2 * SAMPLES + 1), "its chunk at byte 36 is damaged"),
        (20, struct.pack("<H", 3), "it is not 16-bit PCM, 1 channels at 8000 Hz"),  # floats
        (34, struct.pack("<H", 8), "it is not 16-bit PCM, 1 channels at 8000 Hz"),
    ],
)
def test_a_damaged_header_is_reported(path: Path, at: int, content: bytes, problem: str) -> None:
    """Whatever it says, it is read to the end of the file at most."""
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(content)
    assert [f"a.wav: {problem}"] == list(problems(path, expected(path)))


def test_an_empty_file_is_no_wav_file(path: Path) -> None:
    """It is reported as such, and nothing else happens."""
    path.write_bytes(b"")
    assert ["a.wav: it is no WAV file"] == list(problems(path, expected(path)))


def test_a_missing_file_is_for_the_caller_to_report(tmp_path: Path) -> None:
    """The caller, which has the list of files."""
    missing = tmp_path / "a.wav"
    assert [] == list(problems(missing, Expected("", RATE, 1, SAMPLES)))


def test_gaps_are_read_in_blocks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sound behind the first block of a gap is found."""
    monkeypatch.setattr(wav_reader, "BLOCK_BYTES", 16)
    assert [] == list(problems(path, expected(path, gaps=((100, 200),))))
    found = list(problems(path, expected(path, gaps=((100, 201),))))
    assert ["a.wav: there is sound in the gap at sample 100"] == found
