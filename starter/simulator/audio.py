"""Reads a WAV file as the payload bytes of one track."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from starter.errors import AudioError
from starter.models import Codec
from starter.simulator.g711 import encode_alaw, encode_mulaw
from starter.simulator.stream_info import MEDIA_FORMATS, ByteOrder

_UNTOUCHED = {Codec.PCMU: "ULAW", Codec.PCMA: "ALAW"}
_FLOATS = ("FLOAT", "DOUBLE")
_WAV_FORMATS = ("WAV", "WAVEX")


def read_payload(path: Path, codec: Codec, *, byte_order: ByteOrder = ByteOrder.LITTLE) -> bytes:
    """Encode the sound in `path` for the wire; a file already in that code is passed untouched.

    Raises AudioError if the file is no WAV file, not mono, or has another rate than the codec.
    """
    try:
        with soundfile.SoundFile(path) as sound:
            _check(sound, path, codec)
            if sound.subtype == _UNTOUCHED.get(codec):
                return _stored_bytes(path)
            samples = _int16_samples(sound)
    except (soundfile.SoundFileError, OSError, TypeError) as error:  # TypeError: named .raw
        raise AudioError(f"{path} cannot be read as a WAV file") from error
    return encode(samples, codec, byte_order=byte_order)


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


def _check(sound: soundfile.SoundFile, path: Path, codec: Codec) -> None:
    if sound.format not in _WAV_FORMATS:
        raise AudioError(f"{path} is no WAV file but {sound.format}")
    if sound.channels != 1:
        raise AudioError(f"{path} has {sound.channels} channels; a track is mono")
    rate = MEDIA_FORMATS[codec].sample_rate
    if sound.samplerate != rate:
        raise AudioError(f"{path} has {sound.samplerate} samples/s; {codec} needs {rate}")


def _stored_bytes(path: Path) -> bytes:
    """The bytes of the data chunk: decoding and encoding again would merge the two zeros."""
    content = path.read_bytes()
    place = len(b"RIFF....WAVE")
    while place + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, place)
        place += 8
        if name == b"data":
            return content[place : place + size]
        place += size + size % 2  # chunks start at even places
    raise AudioError(f"{path} has no data chunk")
