"""Whether a recording's WAV file is what it should be: read to its end, in blocks.

PCM_16 is its own decoding, so counting the bytes of the samples and reading them is decoding
to the end; that keeps libsndfile out of the read side. The standard library's `wave` knows
neither RF64 nor what follows the samples, so RIFF chunks are read here.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Final

from receiver.disk.files import BLOCK_BYTES, FILE_MODE, open_regular, sha256
from receiver.errors import UnreadableError

_CHUNK: Final = struct.Struct("<4sI")
_FORMAT: Final = struct.Struct("<HHIIHH")
_DS64: Final = struct.Struct("<QQ")
_PCM: Final = 1
_EXTENSIBLE: Final = 0xFFFE  # what soundfile writes into RF64; the real format follows
_IN_DS64: Final = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Expected:
    """What a WAV file should be; `gaps` are ranges of samples that are silence.

    Without a `sha256` the file is not read whole, only its header and its gaps.
    """

    sha256: str | None
    sample_rate: int
    channels: int
    samples: int
    gaps: tuple[tuple[int, int], ...] = ()


def problems(path: Path, expected: Expected) -> Iterator[str]:
    """Yield what is wrong with the file at `path`; that it is missing is for others to say."""
    try:
        with open_regular(path) as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_IMODE(mode) != FILE_MODE:
                yield f"{path.name}: its mode is {stat.S_IMODE(mode):04o}, not {FILE_MODE:04o}"
            if expected.sha256 is not None and sha256(file) != expected.sha256:
                yield f"{path.name}: its SHA-256 is not the document's"
            yield from (f"{path.name}: {text}" for text in _wav_problems(file, expected))
    except FileNotFoundError:
        return
    except (OSError, UnreadableError) as error:
        yield f"{path.name}: {getattr(error, 'strerror', None) or error}"


def _wav_problems(file: FileIO, expected: Expected) -> Iterator[str]:
    chunks = dict(_chunks(file))
    if b"fmt " not in chunks or b"data" not in chunks:
        raise UnreadableError("it has no format or no samples")
    found = _read_format(file, chunks[b"fmt "])
    if found != (_PCM, expected.channels, expected.sample_rate, 2 * expected.channels, 16):
        yield f"it is not 16-bit PCM, {expected.channels} channels at {expected.sample_rate} Hz"
        return
    start, length = chunks[b"data"]
    if length != expected.samples * expected.channels * 2:
        yield f"it holds {length // (2 * expected.channels)} samples, not {expected.samples}"
        return
    for first, last in expected.gaps:
        if not _silent(file, start + 2 * first, 2 * (last - first)):
            yield f"there is sound in the gap at sample {first}"
            return


def samples_in(file: FileIO) -> tuple[int, int]:
    """Return where the samples of an open WAV file begin, and how many bytes they are.

    Raises:
        UnreadableError: it is no WAV file, or has none.
    """
    found = dict(_chunks(file)).get(b"data")
    if found is None:
        raise UnreadableError("it has no samples")
    return found


def _chunks(file: FileIO) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Yield each RIFF chunk's name and (start, length); they fill the file to its end."""
    descriptor, size = file.fileno(), os.fstat(file.fileno()).st_size
    head = os.pread(descriptor, 36, 0).ljust(36, b"\0")
    _, whole = _CHUNK.unpack_from(head)
    data_length = _IN_DS64
    if head[:4] == b"RF64" and head[12:16] == b"ds64":
        whole, data_length = _DS64.unpack_from(head, 20)
    elif head[:4] != b"RIFF":
        raise UnreadableError("it is no WAV file")
    if head[8:12] != b"WAVE" or whole + 8 != size:
        raise UnreadableError("its length is not what its header says")
    position = 12
    while position < size:
        name, length = _CHUNK.unpack(os.pread(descriptor, _CHUNK.size, position).ljust(8, b"\0"))
        if name == b"data" and length == _IN_DS64:
            length = data_length
        if not name.isascii() or b"\0" in name or position + _CHUNK.size + length > size:
            raise UnreadableError(f"its chunk at byte {position} is damaged")
        yield name, (position + _CHUNK.size, length)
        position += _CHUNK.size + length + length % 2


def _read_format(file: FileIO, chunk: tuple[int, int]) -> tuple[int, int, int, int, int]:
    """Return encoding, channels, samples per second, bytes per sample of all, bits per one."""
    content = os.pread(file.fileno(), min(chunk[1], 40), chunk[0]).ljust(40, b"\0")
    encoding, channels, rate, _, block, bits = _FORMAT.unpack_from(content)
    if encoding == _EXTENSIBLE:
        (encoding,) = struct.unpack_from("<H", content, 24)
    return encoding, channels, rate, block, bits


def _silent(file: FileIO, start: int, length: int) -> bool:
    while length > 0:
        block = os.pread(file.fileno(), min(length, BLOCK_BYTES), start)
        if not block or block.strip(b"\0"):
            return False
        start, length = start + len(block), length - len(block)
    return True
