"""What became of every chunk that was sent: kept once, in a listed gap, in flight, or a bug.

The files are judged by their audio alone; `recording.json` only names the silence that it
has listed, and for what reason.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from receiver.disk import layout
from receiver.media import GapKind, Track, TrackGap
from receiver.recording.document import RecordedTrack
from tests.bounds import at_most
from tests.end_to_end.receiver_process import read_document
from tests.faults.payloads import CHUNK_BYTES, CHUNK_MS, SILENCE, Name, codes_of, names_in, payload

MOST_IN_FLIGHT_SECONDS = at_most(0.7)
"""How much audio before a crash or a power cut may be missing."""
_SAMPLES_PER_MS = 8


@dataclass(slots=True)
class Sent:
    """One stream as it was sent; `chunks` has the time at which each was handed to the socket."""

    number: int
    chunks: dict[Name, float] = field(default_factory=dict)
    skipped: set[Name] = field(default_factory=set)  # counted, but never sent

    @property
    def stream_sid(self) -> str:
        """Return the name that the start message gives."""
        return f"stream-{self.number:04d}"


@dataclass(slots=True)
class Tally:
    """Sums over all chunks; only what is kept, listed or in flight passes."""

    sent: int = 0
    kept: int = 0
    listed: int = 0
    in_flight: int = 0
    lost: int = 0
    doubled: int = 0
    misplaced: int = 0
    foreign: int = 0
    worst_seconds: float = 0.0  # the age of the oldest chunk in flight at a cut
    problems: list[str] = field(default_factory=list)  # what no chunk can be blamed for
    figures: list[str] = field(default_factory=list)  # measured on the way, without a bound

    @property
    def passed(self) -> bool:
        """Whether nothing is lost, doubled, misplaced, foreign or wrongly described."""
        return not (self.lost or self.doubled or self.misplaced or self.foreign or self.problems)

    def expect(self, condition: bool, problem: str) -> None:
        """Record a problem unless a condition holds."""
        if not condition:
            self.problems.append(problem)

    def add(self, other: Tally) -> None:
        """Sum another one up."""
        worst = max(self.worst_seconds, other.worst_seconds)
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.worst_seconds = worst


@dataclass(slots=True)
class Allowance:
    """What a fault may cost: kinds of gaps, and chunks in flight at a cut."""

    kinds: frozenset[GapKind] = frozenset()
    cut_at: float | None = None  # on the clock of `Sent.chunks`
    seconds: float = MOST_IN_FLIGHT_SECONDS
    later_cuts: dict[str, float] = field(default_factory=dict)  # by stream, where not `cut_at`

    def age(self, sent: Sent, name: Name) -> float:
        """Return how long before its stream's cut a chunk was sent; endless without a cut."""
        cut_at = self.later_cuts.get(sent.stream_sid, self.cut_at)
        return math.inf if cut_at is None else cut_at - sent.chunks[name]


@dataclass(slots=True)
class _Lane:
    """One track of one recording: its sound as mu-law codes, and the silence it lists."""

    codes: bytearray
    gaps: tuple[TrackGap, ...]

    def holds(self, name: Name) -> bool:
        return self.codes[name.place : name.place + CHUNK_BYTES] == payload(name)

    def blank(self, name: Name) -> None:
        self.codes[name.place : name.place + CHUNK_BYTES] = bytes([SILENCE]) * CHUNK_BYTES

    def listed_gap(self, name: Name) -> GapKind | None:
        """Return the kind of the listed gap that a chunk's place lies in."""
        start = name.place / _SAMPLES_PER_MS
        for gap in self.gaps:
            if gap.start_ms <= start and start + CHUNK_MS <= gap.start_ms + gap.duration_ms:
                return gap.kind
        return None

    def misstated(self) -> bool:
        """Whether the listed gaps are anything but exactly the silence there is."""
        silent = np.frombuffer(self.codes, np.uint8) == SILENCE
        listed = np.zeros(len(silent) + 1, bool)
        for gap in self.gaps:
            stop = gap.start_ms + gap.duration_ms
            listed[round(gap.start_ms * _SAMPLES_PER_MS) : round(stop * _SAMPLES_PER_MS)] = True
        return not np.array_equal(silent, listed[:-1])


Lanes = dict[Track, list[_Lane]]


def recording_folders(recordings: Path) -> list[Path]:
    """Return every published folder, found without the receiver's own code."""
    documents = recordings.glob(f"[0-9]*/*/*/[0-9]*/{layout.RECORDING_JSON}")
    return sorted(document.parent for document in documents)


def account(streams: Iterable[Sent], recordings: Path, allowance: Allowance) -> Tally:
    """Return what became of everything that was sent."""
    tally = Tally()
    by_sid: dict[str, Lanes] = {sent.stream_sid: {} for sent in streams}
    for folder in recording_folders(recordings):
        document = read_document(folder)
        lanes = by_sid.get(document.stream_sid)
        if lanes is None:
            tally.problems.append(f"a recording of {document.stream_sid!r}, who never called")
            continue
        for track in document.tracks:
            lanes.setdefault(track.track, []).append(_lane(folder, track, tally))
    for sent in streams:
        tally.add(_account_stream(sent, by_sid[sent.stream_sid], allowance))
    return tally


def _lane(folder: Path, track: RecordedTrack, tally: Tally) -> _Lane:
    lane = _Lane(bytearray(codes_of(str(folder / track.file))), track.gaps)
    if lane.misstated():
        tally.problems.append(f"{folder.name} {track.track}: its gaps are not its silence")
    if not track.chunks.balanced:
        tally.problems.append(f"{folder.name} {track.track}: chunks do not add up")
    return lane


def _account_stream(sent: Sent, lanes: Lanes, allowance: Allowance) -> Tally:
    tally = Tally(sent=len(sent.chunks))
    kept = {name for name in sent.chunks if _take(name, lanes, tally)}
    tally.kept = len(kept)
    elsewhere = _strays(sent, lanes, kept, tally)
    last = {track: max((n.chunk for n in kept if n.track is track), default=0) for track in Track}
    for name in sent.chunks.keys() - kept - elsewhere:
        _blame(name, sent, lanes, allowance, tally, at_end=name.chunk > last[name.track])
    known = {
        GapKind.LOST,
        *allowance.kinds,
    }  # within a row of dropped chunks their order is unknown
    for name in sent.skipped:
        if name.chunk < last[name.track] and not _listed_gaps(name, lanes) & known:
            tally.problems.append(f"{name} was never sent, but is not listed as lost")
    return tally


def _take(name: Name, lanes: Lanes, tally: Tally) -> bool:
    """Whether a chunk is at its place; what is taken is blanked, so that strays remain."""
    holders = [lane for lane in lanes.get(name.track, ()) if lane.holds(name)]
    for lane in holders:
        lane.blank(name)
    tally.doubled += len(holders) > 1
    return bool(holders)


def _strays(sent: Sent, lanes: Lanes, kept: set[Name], tally: Tally) -> set[Name]:
    """Count sound that is not at its place, and return which chunks it is."""
    found: set[Name] = set()
    for track, lane in [(track, lane) for track, row in lanes.items() for lane in row]:
        for name in names_in(bytes(lane.codes)):
            if name is None or name.stream != sent.number or name not in sent.chunks:
                tally.foreign += 1
            elif name in kept and name.track is track:
                tally.doubled += 1
            else:
                tally.misplaced += 1
                found.add(name)
    return found - kept


def _blame(
    name: Name,
    sent: Sent,
    lanes: Lanes,
    allowance: Allowance,
    tally: Tally,
    *,
    at_end: bool,
) -> None:
    """Find a reason for a chunk that is nowhere."""
    if _listed_gaps(name, lanes) & allowance.kinds:
        tally.listed += 1
    elif at_end and allowance.age(sent, name) <= allowance.seconds:
        tally.in_flight += 1
        tally.worst_seconds = max(tally.worst_seconds, allowance.age(sent, name))
    else:
        tally.lost += 1


def _listed_gaps(name: Name, lanes: Lanes) -> set[GapKind | None]:
    return {lane.listed_gap(name) for lane in lanes.get(name.track, ())}


def summed(tallies: Sequence[Tally]) -> Tally:
    """Return one tally for several runs."""
    total = Tally()
    for tally in tallies:
        total.add(tally)
    return total
