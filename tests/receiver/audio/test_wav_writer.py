"""Writing WAV files: what readers find is what was given, and what is not whole is an error."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from receiver.audio import wav_reader, wav_writer
from receiver.audio.wav_reader import Expected
from receiver.audio.wav_writer import write_wav
from receiver.disk.files import open_folder

SAMPLES = np.arange(-400, 400, dtype="<i2")
GIVEN: dict[str, Any] = {"rate": 8000, "channels": 1, "samples": 800, "strings": {}}


def written(folder: Path, **changes: Any) -> str:
    """Write `a.wav` with these samples, and return its hash."""
    whole = SAMPLES.tobytes()
    blocks = [whole[at : at + 252] for at in range(0, len(whole), 252)]
    with open_folder(folder) as descriptor:
        given = {"blocks": blocks, "parameters": {}} | GIVEN | changes
        return write_wav(descriptor, "a.wav", **given)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("parameters", [{}, {"agent": "Jörg", "n": 5}])
def test_a_file_is_what_was_given_and_hashed(
    tmp_path: Path, channels: int, parameters: dict[str, object]
) -> None:
    """Block by block; only its owner can read it."""
    digest = written(tmp_path, channels=channels, samples=800 // channels, parameters=parameters)
    path = tmp_path / "a.wav"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
    expected = Expected(digest, 8000, channels, 800 // channels)
    assert [] == list(wav_reader.problems(path, expected))
    assert SAMPLES.tolist() == soundfile.read(path, dtype="int16")[0].reshape(-1).tolist()
    assert (b"id3 " in path.read_bytes()) == bool(parameters)


def test_strings_are_where_readers_look(tmp_path: Path) -> None:
    """In LIST/INFO, before the samples."""
    written(tmp_path, strings={"title": "a call", "comment": "{}"})
    with soundfile.SoundFile(tmp_path / "a.wav") as wav:
        assert {"title": "a call", "comment": "{}"} == wav.copy_metadata()
    content = (tmp_path / "a.wav").read_bytes()
    assert content.index(b"LIST") < content.index(b"data")


def test_a_file_too_long_for_32_bits_gets_64(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tags and all: above 4 GiB it is an RF64 file."""
    monkeypatch.setattr(wav_writer, "_LARGEST_RIFF_BYTES", 1000)
    digest = written(tmp_path, parameters={"a": "b"})
    assert b"RF64" == (tmp_path / "a.wav").read_bytes()[:4]
    assert [] == list(wav_reader.problems(tmp_path / "a.wav", Expected(digest, 8000, 1, 800)))


def test_fewer_samples_than_were_announced_are_an_error(tmp_path: Path) -> None:
    """The document would say something else than the file."""
    with pytest.raises(OSError, match="shorter than its samples"):
        written(tmp_path, samples=900)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """Also not through a link that somebody has put there."""
    (tmp_path / "other").write_bytes(b"mine")
    (tmp_path / "a.wav").symlink_to("other")
    with pytest.raises(FileExistsError):
        written(tmp_path)
    assert b"mine" == (tmp_path / "other").read_bytes()


def test_a_write_that_fails_is_an_error_of_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As every other one, though libsndfile keeps the reason to itself."""
    (tmp_path / "full").symlink_to("/dev/full")

    def create(*_: object, **__: object) -> object:
        return open("/dev/full", "r+b", buffering=0)

    monkeypatch.setattr(wav_writer, "create_private", create)
    with pytest.raises(OSError, match=r"a\.wav"):
        written(tmp_path, samples=800, blocks=[os.urandom(2**17)] * 10)
