"""Audio that identifies itself: every chunk's bytes hold its stream, track and number.

A payload is one label ten times over. A label is a marker and fifteen digits, each of them a
mu-law code of its own, so a WAV file can be read back to names at any offset, and no byte of a
payload decodes to silence.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import soundfile

from receiver.media import Track
from tests.receiver.helpers.g711 import MULAW

CHUNK_BYTES = 160
CHUNK_MS = 20
LABEL_BYTES = 16
SILENCE = 0xFF
_MARKER = bytes([0x30])
_DIGITS = bytes(range(0x20, 0x2A))
_WRITE = bytes.maketrans(b"0123456789", _DIGITS)
_READ = bytes.maketrans(_DIGITS, b"0123456789")
_TRACKS = tuple(Track)


class Name(NamedTuple):
    """Which chunk some bytes are; `chunk` counts from 1 on each track."""

    stream: int
    track: Track
    chunk: int

    @property
    def place(self) -> int:
        """Return where the chunk belongs, in samples from the start of the recording."""
        return (self.chunk - 1) * CHUNK_BYTES


def payload(name: Name) -> bytes:
    """Return the payload of the chunk `name`."""
    digits = b"%04d%d%07d" % (name.stream, _TRACKS.index(name.track), name.chunk)
    checked = digits + b"%03d" % (zlib.crc32(digits) % 1000)
    return (_MARKER + checked.translate(_WRITE)) * (CHUNK_BYTES // LABEL_BYTES)


def names_in(codes: bytes) -> Iterator[Name | None]:
    """Yield the names found in some bytes, in order and once each; `None` is unreadable sound."""
    position, latest = 0, None
    while position < len(codes):
        if codes[position] == SILENCE:
            position, latest = position + 1, None
            continue
        name = _label_at(codes, position)
        if name is None:
            stop = codes.find(_MARKER, position + 1)
            position = stop if stop != -1 else len(codes)
        else:
            position += LABEL_BYTES
        if name != latest or name is None:
            yield name
        latest = name


def _label_at(codes: bytes, position: int) -> Name | None:
    label = codes[position : position + LABEL_BYTES]
    digits = label[1:].translate(_READ)
    if label[:1] != _MARKER or not digits.isdigit() or len(digits) != LABEL_BYTES - 1:
        return None
    if zlib.crc32(digits[:12]) % 1000 != int(digits[12:]) or int(digits[4:5]) >= len(_TRACKS):
        return None
    return Name(int(digits[:4]), _TRACKS[int(digits[4:5])], int(digits[5:12]))


def _inverse() -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    table = np.zeros(2**16, np.uint8)  # 0: a sample that no code of ours decodes to
    for code in (*_MARKER, *_DIGITS, SILENCE):
        table[MULAW[code]] = code
    return table


_INVERSE = _inverse()


def codes_of(file: str) -> bytes:
    """Return the samples of a WAV file as mu-law codes."""
    samples, _ = soundfile.read(file, dtype="int16")
    return bytes(_INVERSE[samples])
