"""Writing a WAV file: 16-bit PCM, LIST/INFO strings before the samples, an ID3 tag behind them.

The only module of the receiver that imports soundfile (libsndfile). Its arguments are
values: it depends on neither journals nor recordings.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator, Mapping
from io import FileIO
from typing import Any, Final

import soundfile

from receiver.audio import wav_tags
from receiver.disk.files import create_private, sha256, write_all

_LARGEST_RIFF_BYTES: Final = 2**32 - 2**20
"""Above this a WAV file needs 64-bit sizes (RF64); the rest is for the tags."""
_BYTES_PER_SAMPLE: Final = 2


def write_wav(
    folder: int,
    name: str,
    *,
    rate: int,
    channels: int,
    samples: int,
    blocks: Iterable[bytes],
    strings: Mapping[str, str],
    parameters: Mapping[str, Any],
) -> str:
    """Write one WAV file and sync it; return the SHA-256 of the file, which is read for it.

    Args:
        folder: The descriptor of the folder; nothing in it may have the name yet.
        name: The file's name, with its suffix.
        rate: Samples per second.
        channels: 1 or 2.
        samples: How many samples of each channel `blocks` make up.
        blocks: Interleaved int16 samples, little endian; a block ends with its last channel.
        strings: LIST/INFO strings by soundfile's names for them; see `wav_tags`.
        parameters: Custom parameters, each of which becomes an ID3 entry by its own name.

    Raises:
        OSError: the file cannot be created, or the disk did not take all of it.
    """
    size = samples * channels * _BYTES_PER_SAMPLE
    with create_private(name, within=folder) as file:
        with (
            _failures_as_os_errors(name),
            soundfile.SoundFile(
                file.fileno(),
                "w",
                samplerate=rate,
                channels=channels,
                subtype="PCM_16",
                format="WAV" if size <= _LARGEST_RIFF_BYTES else "RF64",
                closefd=False,
            ) as wav,
        ):
            for tag, text in strings.items():
                setattr(wav, tag, text)
            for block in blocks:
                wav.buffer_write(block, "int16")
        if file.seek(0, os.SEEK_END) < size:
            raise OSError(errno.EIO, f"{name} is shorter than its samples")
        _append_parameters(file, parameters)
        os.fsync(file.fileno())
        return sha256(file)


@contextlib.contextmanager
def _failures_as_os_errors(name: str) -> Iterator[None]:
    """Raise the error of a write that failed as every other one is raised.

    libsndfile keeps the reason to itself, and its wrapper asserts that all was written.
    """
    try:
        yield
    except (soundfile.SoundFileError, AssertionError) as error:
        raise OSError(errno.EIO, f"{name} cannot be written: {error}") from error


def _append_parameters(file: FileIO, parameters: Mapping[str, Any]) -> None:
    length = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(wav_tags.HEAD_BYTES)
    appended = wav_tags.appended(head, length, wav_tags.id3_chunk(parameters))
    for offset, content in ((length, appended.tail), *appended.patches):
        file.seek(offset)
        write_all(file, content)
