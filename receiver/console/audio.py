"""What a recording sounds like, as bytes: tracks, both as stereo, other formats, all as a zip.

A `ByteSource` is something of known length that can be read from any place: a file as it is on
disk, or two mono tracks woven into stereo while they are read. FLAC and Opus are encoded once into
a temporary file without a name, which a cache keeps, so that players can seek in them.

Called in threads: everything here waits for the disk, and encoding takes seconds.
"""

from __future__ import annotations

import contextlib
import os
import struct
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import IO, Final, Protocol

from receiver.audio.wav_reader import samples_in
from receiver.catalogue.rows import Row
from receiver.console.problems import Problem, not_found
from receiver.disk import layout
from receiver.disk.files import BLOCK_BYTES, FILE_MODE, blocks_of, open_regular
from receiver.errors import UnreadableError
from receiver.media import Track
from receiver.recording import store
from receiver.recording.document import Recording

MEDIA_TYPES: Final = {"wav": "audio/wav", "flac": "audio/flac", "opus": "audio/ogg; codecs=opus"}
_FORMATS: Final = {"flac": ("FLAC", "PCM_16"), "opus": ("OGG", "OPUS")}
_OPUS_RATES: Final = frozenset({8000, 12000, 16000, 24000, 48000})
MOST_CACHED_BYTES: Final = 2**28
_SAMPLE_BYTES: Final = 2
_EARLIEST_IN_ZIP: Final = (1980, 1, 1, 0, 0, 0)
_HEADER: Final = struct.Struct("<4sI4s4sIHHIIHH4sI")
_LARGEST_RIFF: Final = 2**32 - 64
_LATELY_SECONDS: Final = 60.0
_MOST_REMEMBERED: Final = 16_384


class ByteSource(Protocol):
    """Bytes that can be read from any place."""

    size: int
    etag: str

    def read(self, start: int, length: int) -> bytes:
        """Return at most so many bytes from `start` on; none only at the end."""
        ...

    def close(self) -> None:
        """Close what it reads from; idempotent."""
        ...


class FileSource:
    """A file as it is."""

    def __init__(self, file: IO[bytes], etag: str) -> None:
        self._file = file
        self.size = os.fstat(file.fileno()).st_size
        self.etag = etag

    def read(self, start: int, length: int) -> bytes:
        """Return bytes of the file."""
        return os.pread(self._file.fileno(), length, start)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class StereoSource:
    """A WAV file of two mono ones, left and right; a track that is missing is silence."""

    def __init__(self, left: FileIO | None, right: FileIO | None, rate: int, etag: str) -> None:
        self._files = (left, right)
        self.etag = etag
        self._places = [samples_in(file) if file else (0, 0) for file in self._files]
        self.samples = max(length for _, length in self._places) // _SAMPLE_BYTES
        content = self.samples * 2 * _SAMPLE_BYTES
        if content > _LARGEST_RIFF:
            raise Problem(422, "It is too long for a stereo file: fetch the two tracks.")
        self._header = _HEADER.pack(
            *(b"RIFF", content + _HEADER.size - 8, b"WAVE", b"fmt ", 16, 1, 2),
            *(rate, rate * 2 * _SAMPLE_BYTES, 2 * _SAMPLE_BYTES, 16, b"data", content),
        )
        self.size = _HEADER.size + content

    def read(self, start: int, length: int) -> bytes:
        """Return bytes of the file that both make."""
        if start < _HEADER.size:
            return self._header[start : start + length]
        offset, frame = start - _HEADER.size, 2 * _SAMPLE_BYTES
        first = offset // frame
        last = min(self.samples, -(-(offset + length) // frame))
        if last <= first:
            return b""
        woven = bytearray((last - first) * frame)
        for side, (file, place) in enumerate(zip(self._files, self._places, strict=True)):
            self._weave(woven, side, file, place, (first, last))
        skipped = offset - first * frame
        return bytes(woven[skipped : skipped + length])

    def _weave(
        self,
        woven: bytearray,
        side: int,
        file: FileIO | None,
        place: tuple[int, int],
        part: tuple[int, int],
    ) -> None:
        begin, length = place
        first, last = part[0] * _SAMPLE_BYTES, min(part[1] * _SAMPLE_BYTES, length)
        if file is None or last <= first:
            return
        samples = os.pread(file.fileno(), last - first, begin + first)
        for byte in range(_SAMPLE_BYTES):
            mine = samples[byte::_SAMPLE_BYTES]
            start = side * _SAMPLE_BYTES + byte
            woven[start : start + 4 * len(mine) : 4] = mine

    def close(self) -> None:
        """Close both tracks."""
        for file in self._files:
            if file is not None:
                file.close()


class EncodedFiles:
    """Encoded recordings in temporary files, the last used `MOST_CACHED_BYTES` of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[str, tuple[int, int, str]] = {}  # key -> descriptor, size, etag
        self._busy: dict[str, threading.Lock] = {}

    def source(self, key: str, make: Callable[[IO[bytes]], None]) -> FileSource:
        """Return an encoded file by its key; `make` writes it where it is not there yet."""
        with self._lock:
            busy = self._busy.setdefault(key, threading.Lock())
        with busy:  # who asks for the same at the same time waits for it, and makes none
            with self._lock:
                found = self._made.pop(key, None)
            if found is None:
                found = self._encode(make)
            with self._lock:
                self._made[key] = found
                copy = os.dup(found[0])
                self._forget()
        return FileSource(open(copy, "rb", buffering=0), found[2])

    @staticmethod
    def _encode(make: Callable[[IO[bytes]], None]) -> tuple[int, int, str]:
        with tempfile.TemporaryFile() as file:
            make(file)
            file.flush()
            size = file.seek(0, os.SEEK_END)
            # Ogg draws a number for each encoding: another file, although it sounds the same.
            return os.dup(file.fileno()), size, f'"{os.urandom(8).hex()}"'

    def _forget(self) -> None:
        """Close what was used least lately; who still reads one has a descriptor of their own."""
        while len(self._made) > 1 and sum(s for _, s, _ in self._made.values()) > MOST_CACHED_BYTES:
            descriptor, _, _ = self._made.pop(next(iter(self._made)))
            os.close(descriptor)
        self._busy = {key: lock for key, lock in self._busy.items() if lock.locked()}

    def close(self) -> None:
        """Close all; idempotent."""
        with self._lock:
            for descriptor, _, _ in self._made.values():
                os.close(descriptor)
            self._made = {}


class LoadedMinutes:
    """Which minutes of what a page loads were entered lately: each is entered once a minute.

    A player asks for a few seconds at a time. What it asks for again later is entered again.
    """

    def __init__(self) -> None:
        self._entered: dict[tuple[str, ...], float] = {}

    def is_new(self, key: tuple[str, ...], minutes: range, now: float) -> bool:
        """Return whether some of these minutes were not entered within the last one.

        Args:
            key: who loads what.
            minutes: of the recording.
            now: a monotonic time.
        """
        return any(
            now - self._entered.get((*key, str(minute)), now - _LATELY_SECONDS) >= _LATELY_SECONDS
            for minute in minutes
        )

    def add(self, key: tuple[str, ...], minutes: range, now: float) -> None:
        """Remember that these minutes are entered; the oldest are forgotten where they are many."""
        for minute in minutes:
            self._entered.pop((*key, str(minute)), None)
            self._entered[*key, str(minute)] = now
        while len(self._entered) > _MOST_REMEMBERED:
            del self._entered[next(iter(self._entered))]


def open_source(encoded: EncodedFiles, folder: Path, row: Row, name: str, kind: str) -> ByteSource:
    """Return a track, or `stereo`, as `wav`, `flac` or `opus`.

    Raises:
        Problem: 404, there is no such track; 422, it cannot be in that format; 503.
        UnreadableError: the recording's document cannot be read.
    """
    document = store.read(folder).recording
    if kind == "wav":
        return _wav_source(folder, document, row, name)
    rate = document.media_format.sample_rate
    if kind == "opus" and rate not in _OPUS_RATES:
        raise Problem(422, f"Opus knows no {rate} samples a second: fetch it as flac or wav.")
    wav = _wav_source(folder, document, row, name)

    def make(file: IO[bytes]) -> None:
        _encode(wav, file, kind, rate, channels=2 if name == layout.STEREO else 1)

    try:
        return encoded.source(f"{row.sha256} {row.id} {name} {kind}", make)
    finally:
        wav.close()


def _wav_source(folder: Path, document: Recording, row: Row, name: str) -> ByteSource:
    try:
        if name != layout.STEREO:
            return _track_source(folder, document, name)
        if document.stereo is not None:
            etag = f'"{document.stereo.get("sha256", "")}"'
            return FileSource(open_regular(folder / layout.STEREO_WAV), etag)
        files = {
            track.track: open_regular(folder / f"{track.track}.wav") for track in document.tracks
        }
        if not files:
            raise not_found()
        etag = f'"stereo-{row.sha256}"'
        left, right = files.get(Track.INBOUND), files.get(Track.OUTBOUND)
        return StereoSource(left, right, document.media_format.sample_rate, etag)
    except FileNotFoundError:
        raise not_found() from None
    except (OSError, UnreadableError) as error:
        raise Problem(503, f"The recording cannot be read: {error}") from error


def _track_source(folder: Path, document: Recording, name: str) -> ByteSource:
    for track in document.tracks:
        if track.track == name:
            return FileSource(open_regular(folder / f"{track.track}.wav"), f'"{track.sha256}"')
    raise not_found()


def _encode(wav: ByteSource, file: IO[bytes], kind: str, rate: int, *, channels: int) -> None:
    import soundfile  # only here: with numpy, it is a quarter of what the console would map

    container, subtype = _FORMATS[kind]
    start = _start_of_samples(wav)
    with soundfile.SoundFile(
        file, "w", samplerate=rate, channels=channels, format=container, subtype=subtype
    ) as encoder:
        place, end = start[0], sum(start)
        while place < end and (block := wav.read(place, min(BLOCK_BYTES, end - place))):
            encoder.buffer_write(block, "int16")
            place += len(block)


def _start_of_samples(wav: ByteSource) -> tuple[int, int]:
    if isinstance(wav, StereoSource):
        return _HEADER.size, wav.size - _HEADER.size
    assert isinstance(wav, FileSource)  # noqa: S101  there is no third kind of WAV
    return samples_in(wav._file)  # type: ignore[arg-type]


def names_of(document: Recording) -> tuple[str, ...]:
    """Return the names that a recording's files may have; none comes from the document's texts."""
    tracks = [f"{track.track.value}.wav" for track in document.tracks]
    fixed = (layout.STEREO_WAV, layout.PEAKS_DAT, layout.TIMELINE_JSON, layout.ANNOTATIONS_JSON)
    return (layout.RECORDING_JSON, *tracks, *fixed, layout.REFUSED_RAW)


@dataclass(frozen=True, slots=True)
class ZipFolder:
    """What an archive has of one recording: files of its folder, and contents that are in no file.

    Of `names` those are in it that are there; one that is in `contents`, too, is not read.
    """

    folder: Path
    names: Sequence[str] = ()
    contents: Mapping[str, bytes] = field(default_factory=dict)


def zip_blocks(folders: Iterable[ZipFolder]) -> Generator[bytes, None, None]:
    """Yield a zip archive of files of some folders, block by block.

    A folder is asked for when those before it are packed. Every block has something in it.
    """
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for each in folders:
            yield from _folder_blocks(archive, sink, each)
    yield sink.drain()


def _folder_blocks(
    archive: zipfile.ZipFile, sink: _Sink, packed: ZipFolder
) -> Generator[bytes, None, None]:
    for name in packed.names:
        if name not in packed.contents:
            with contextlib.suppress(FileNotFoundError):
                yield from _file_blocks(archive, sink, packed.folder, name)
    for name, content in packed.contents.items():
        entry = zipfile.ZipInfo(f"{packed.folder.name}/{name}", time.gmtime()[:6])
        entry.external_attr = FILE_MODE << 16
        archive.writestr(entry, content)
        yield sink.drain()


def _file_blocks(
    archive: zipfile.ZipFile, sink: _Sink, folder: Path, name: str
) -> Generator[bytes, None, None]:
    with open_regular(folder / name) as file:
        when = time.gmtime(os.fstat(file.fileno()).st_mtime)[:6]
        entry = zipfile.ZipInfo(f"{folder.name}/{name}", max(when, _EARLIEST_IN_ZIP))
        entry.external_attr = FILE_MODE << 16
        with archive.open(entry, "w", force_zip64=True) as member:
            for block in blocks_of(file):
                member.write(block)
                yield sink.drain()


class BlockStream:
    """BlockStream that one thread after the other asks for, and an end that waits for none of them.

    Whoever gets them may be gone while a thread makes the next one: then that thread closes what
    they are made of, behind it, so that no file is closed while it is read.

    Args:
        blocks: is asked for the next one at a time.
        close: closes what they are made of; is called once.
    """

    def __init__(self, blocks: Iterator[bytes], close: Callable[[], object]) -> None:
        self._blocks = blocks
        self._close = close
        self._lock = threading.Lock()
        self._is_closing = self._is_closed = False

    def next(self) -> bytes:
        """Return the next block, or none at the end and once it is closed. Waits for the disk."""
        try:
            with self._lock:
                return b"" if self._is_closing else next(self._blocks, b"")
        finally:
            if self._is_closing:
                self.close()

    def close(self) -> None:
        """Close when no block is being made; idempotent, and does not wait."""
        self._is_closing = True
        if self._lock.acquire(blocking=False):
            try:
                if not self._is_closed:
                    self._is_closed = True
                    self._close()
            finally:
                self._lock.release()


class _Sink:
    """A file that cannot be sought in, of which what was written is drained block by block."""

    def __init__(self) -> None:
        self._written = bytearray()

    def write(self, content: bytes) -> int:
        """Keep what an archive writes."""
        self._written += content
        return len(content)

    def flush(self) -> None:
        """All is there already."""

    def close(self) -> None:
        """Nothing is open."""

    def drain(self) -> bytes:
        """Return what was written since the last time."""
        content = bytes(self._written)
        self._written.clear()
        return content
