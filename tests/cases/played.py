"""Reads cases, and finds in recordings and in what was heard the chunks that they sent."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import soundfile

from receiver.audio import codec
from receiver.media import ByteOrder, Encoding, Track, TrackGap
from receiver.recording.document import RecordedTrack, Recording

FOLDER: Final = Path(__file__).parent
NAMES: Final = tuple(sorted(path.stem for path in FOLDER.glob("*.jsonl")))

Samples = npt.NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Step:
    """One line of a case: when, and what."""

    at_ms: float
    message: dict[str, Any] | None
    binary: bytes | None
    end: str | None

    @property
    def sent(self) -> bytes:
        """Return the message as it is on the wire."""
        if self.message is None:
            return self.binary or b""
        return json.dumps(self.message, separators=(",", ":"), ensure_ascii=False).encode()


@dataclass(frozen=True, slots=True)
class Sent:
    """A chunk of a case, as its track's file has it."""

    track: Track
    at_ms: float
    stamp_ms: int
    samples: bytes


def steps(name: str) -> list[Step]:
    """Read a case, with all payloads in full."""
    lines = (FOLDER / f"{name}.jsonl").read_text().splitlines()
    return [_step(json.loads(line)) for line in lines]


def _step(line: dict[str, Any]) -> Step:
    message, binary = line.get("msg"), line.get("binary")
    media = message.get("media") if isinstance(message, dict) else None
    if isinstance(media, dict) and str(media.get("payload")).startswith("@p:"):
        media["payload"] = base64.b64encode(_noise(media["payload"])).decode()
    sent = None if binary is None else base64.b64decode(binary)
    return Step(line["t"], message, sent, line.get("end"))


def _noise(short: str) -> bytes:
    size, seed = map(int, short.removeprefix("@p:").split(":"))
    return bytes((seed * 37 + at * 11) & 255 for at in range(size))


def chunks(name: str, encoding: Encoding = Encoding.PCMU) -> Iterator[Sent]:
    """Return a case's chunks in the order in which they are sent."""
    for step in steps(name):
        media = (step.message or {}).get("media")
        if not isinstance(media, dict):
            continue
        payload = base64.b64decode(media["payload"])
        samples = codec.decode(payload, encoding, byte_order=ByteOrder.LITTLE).tobytes()
        track = Track(str(media.get("track", "inbound")).removesuffix("_track"))
        yield Sent(track, step.at_ms, int(media.get("timestamp", 0)), samples)


@dataclass(frozen=True, slots=True)
class Published:
    """A recording as it was published: its document, and each track's samples."""

    document: Recording
    samples: dict[Track, Samples]

    def track(self, track: Track) -> RecordedTrack:
        """Return what the document says of one track."""
        return next(one for one in self.document.tracks if one.track is track)

    @property
    def findings(self) -> set[str]:
        """Return the codes of all findings."""
        return {str(finding.code) for finding in self.document.findings}

    def gaps(self, track: Track) -> Sequence[TrackGap]:
        """Return the gaps of one track."""
        return self.track(track).gaps

    def places_ms(self, sent: Sequence[Sent]) -> list[float | None]:
        """Return where each chunk of one track stands, in milliseconds; `None` for nowhere."""
        line = self.samples.get(sent[0].track, np.zeros(0, np.int16)).tobytes()
        unit = 2 * self.document.media_format.sample_rate / 1000
        return [at if at is None else at / unit for at in find_all(line, sent)]


def read(folder: Path, document: Recording) -> Published:
    """Read what a folder holds beside its document."""
    published = Published(document, {})
    for track in published.document.tracks:
        samples, _ = soundfile.read(folder / track.file, dtype="int16")
        published.samples[track.track] = np.asarray(samples)
    return published


def find_all(line: bytes, sent: Sequence[Sent]) -> list[int | None]:
    """Return the byte at which each chunk stands, searched for behind the one before first."""
    found: list[int | None] = []
    behind = 0
    for chunk in sent:
        at = line.find(chunk.samples, behind)
        at = at if at >= 0 else line.find(chunk.samples)
        found.append(at if at >= 0 else None)
        behind = at + len(chunk.samples) if at >= 0 else behind
    return found


@dataclass(slots=True)
class Heard:
    """What a listener to both tracks got: binary messages, one behind the other, and texts."""

    audio: bytearray = field(default_factory=bytearray)
    texts: list[dict[str, Any]] = field(default_factory=list)

    def line(self, track: Track) -> bytes:
        """Return one side."""
        both = np.frombuffer(bytes(self.audio), "<i2").reshape(-1, 2)
        return both[:, 0 if track is Track.INBOUND else 1].tobytes()

    def missed(self, sent: Sequence[Sent]) -> list[float]:
        """Return when those chunks of one track were sent that were not heard."""
        places = find_all(self.line(sent[0].track), sent)
        return [chunk.at_ms for chunk, at in zip(sent, places, strict=True) if at is None]

    @property
    def gaps(self) -> list[dict[str, Any]]:
        """Return all notices of gaps."""
        return [text for text in self.texts if text["event"] == "gap"]


@dataclass(slots=True)
class Played:
    """All that came of a case."""

    name: str
    published: list[Published] = field(default_factory=list)
    heard: Heard | None = None
    closings: list[tuple[int, str]] = field(default_factory=list)  # by the receiver
    raw: list[Path] = field(default_factory=list)  # files with what could not be decoded
    log: Sequence[Mapping[str, Any]] = field(default_factory=list)

    def only(self) -> Published:
        """Return the one recording."""
        (published,) = self.published
        return published

    def sent(self, track: Track, encoding: Encoding = Encoding.PCMU) -> list[Sent]:
        """Return one track's chunks."""
        return [chunk for chunk in chunks(self.name, encoding) if chunk.track is track]


def tone_hz(samples: Samples, rate: int) -> tuple[float, float]:
    """Return the strongest frequency, and which share of the energy is within 30 Hz of it."""
    power = np.abs(np.fft.rfft(samples.astype(float) * np.hanning(len(samples)))) ** 2
    frequencies = np.fft.rfftfreq(len(samples), 1 / rate)
    strongest = float(frequencies[power.argmax()])
    near = np.abs(frequencies - strongest) <= 30
    return strongest, float(power[near].sum() / max(power.sum(), 1e-9))
