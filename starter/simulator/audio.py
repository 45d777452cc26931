"""Reads a WAV file as the payload bytes of one track."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from starter.errors import AudioError, ConfigError
from starter.models import Codec
from starter.simulator.g711 import encode_alaw, encode_mulaw
from starter.simulator.stream_info import MEDIA_FORMATS, ByteOrder

_UNTOUCHED = {Codec.PCMU: "ULAW", Codec.PCMA: "ALAW"}
_FLOATS = ("FLOAT", "DOUBLE")
_OPEN = 2**32 - 1
_WAV_FORMATS = ("WAV", "WAVEX")


def read_payload(
    path: Path,
    codec: Codec,
    *,
    byte_order: ByteOrder = ByteOrder.LITTLE,
    resample: bool = False,
) -> bytes:
    """Encode the sound in `path` for the wire; a file already in that code is passed untouched.

    Sizes that its writer left open, as programs that write into a pipe do, are taken from the
    file. With `resample` a file of another rate than the codec's is converted.

    Raises AudioError if the file is no WAV file, has no samples, is not mono, or has another rate
    than the codec without `resample`; ConfigError if what resamples is not installed.
    """
    try:
        content = with_sizes(path.read_bytes())
        with soundfile.SoundFile(BytesIO(content)) as sound:
            _check(sound, path, codec, resample=resample)
            rate = sound.samplerate
            if sound.subtype == _UNTOUCHED.get(codec) and rate == MEDIA_FORMATS[codec].sample_rate:
                return _stored_bytes(content)
            samples = _int16_samples(sound)
    except (soundfile.SoundFileError, OSError) as error:
        raise AudioError(f"{path} cannot be read as a WAV file") from error
    samples = _at_rate(samples, rate, MEDIA_FORMATS[codec].sample_rate)
    return encode(samples, codec, byte_order=byte_order)


def with_sizes(content: bytes) -> bytes:
    """Return a WAV file with the sizes that its writer left open filled in.

    A writer that cannot go back writes a data size of 0, or of more than there is. A size of 0 is
    the truth where nothing, or nothing but whole chunks, stands behind it.
    """
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        return content
    at, size = next(((at, n) for name, at, n in _chunks(content) if name == b"data"), (0, 1))
    rest = len(content) - at
    if size == 0 and not _only_chunks(content, at):
        content = content[: at - 4] + struct.pack("<I", min(rest, _OPEN)) + content[at:]
    return b"RIFF" + struct.pack("<I", min(len(content) - 8, _OPEN)) + content[8:]


def _only_chunks(content: bytes, place: int) -> bool:
    """Whether nothing but whole chunks stands behind `place`; silence is none."""
    for name, at, size in _chunks(content, place):
        if not name.isascii() or not name.decode("ascii").isprintable():
            return False
        place = at + size + size % 2
    return place == len(content)


def _chunks(content: bytes, place: int = len(b"RIFF....WAVE")) -> Iterator[tuple[bytes, int, int]]:
    """Return name, place and size of each chunk from `place` on; a size may be too large."""
    while place + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, place)
        yield name, place + 8, size
        place += 8 + size + size % 2  # chunks start at even places


def _at_rate(samples: npt.NDArray[np.int16], rate: int, wanted: int) -> npt.NDArray[np.int16]:
    if rate == wanted:
        return samples
    try:
        import soxr  # an extra, and only where it is asked for
    except ImportError as error:
        raise ConfigError(
            "--resample needs soxr, which comes with the extra: pip install 'tapreel[dsp]'"
        ) from error
    resampled: npt.NDArray[np.int16] = soxr.resample(samples, rate, wanted)
    return resampled


def _int16_samples(sound: soundfile.SoundFile) -> npt.NDArray[np.int16]:
    """The samples; those of a float file, where 1 is full scale, would all be rounded to 0."""
    if sound.subtype not in _FLOATS:
        narrow: npt.NDArray[np.int16] = sound.read(dtype="int16")
        return narrow
    full_scale = np.clip(np.nan_to_num(sound.read(dtype="float64")), -1, 1)
    samples: npt.NDArray[np.int16] = np.rint(full_scale * 2**15).clip(max=2**15 - 1).astype("i2")
    return samples


def encode(
    samples: npt.NDArray[np.int16], codec: Codec, *, byte_order: ByteOrder = ByteOrder.LITTLE
) -> bytes:
    """Encode int16 samples as the codec's payload bytes; `byte_order` matters to L16 only."""
    if codec is Codec.PCMU:
        return encode_mulaw(samples)
    if codec is Codec.PCMA:
        return encode_alaw(samples)
    return samples.astype("<i2" if byte_order is ByteOrder.LITTLE else ">i2").tobytes()


def _check(sound: soundfile.SoundFile, path: Path, codec: Codec, *, resample: bool) -> None:
    if sound.format not in _WAV_FORMATS:
        raise AudioError(f"{path} is no WAV file but {sound.format}")
    if sound.channels != 1:
        raise AudioError(f"{path} has {sound.channels} channels; a track is mono")
    if sound.frames == 0:
        raise AudioError(f"{path} has no samples: there is nothing to play")
    rate = MEDIA_FORMATS[codec].sample_rate
    if sound.samplerate != rate and not resample:
        raise AudioError(
            f"{path} has {sound.samplerate} samples/s; {codec} needs {rate}:"
            " --resample converts them"
        )


def _stored_bytes(content: bytes) -> bytes:
    """The bytes of the data chunk: decoding and encoding again would merge the two zeros."""
    at, size = next((at, size) for name, at, size in _chunks(content) if name == b"data")
    return content[at : at + size]
