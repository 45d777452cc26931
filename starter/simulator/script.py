"""Writes the script of one call: every message in order, with its time and what befalls it.

Pure: the same plan gives the same script. Sequence numbers, chunk numbers and timestamps are dealt
out before anything is lost, so that what is missing leaves a hole the receiver can see.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from itertools import chain
from random import Random

from starter.simulator.dialects import MediaPlace, Shape
from starter.simulator.stream_info import Keypress, MediaFormat, TrackAudio

_LATEST_BY = 3  # a chunk out of order arrives behind one to this many later ones


class Fate(Enum):
    """What befalls a message on its way."""

    SENT = auto()
    LOST = auto()  # never sent; its numbers stay taken
    REORDERED = auto()  # sent, behind later chunks
    DUPLICATED = auto()  # the second copy of a chunk


@dataclass(frozen=True, slots=True)
class Step:
    """One message: due `at_ms` after the stream began, on `track` if it carries audio."""

    at_ms: float
    message: bytes
    sequence: int
    track: str | None = None
    fate: Fate = Fate.SENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How bad the way is: probabilities per chunk from 0 to 1, and milliseconds of jitter."""

    loss: float = 0.0
    reorder: float = 0.0
    duplicate: float = 0.0
    jitter_ms: float = 0.0
    seed: str = "0"

    def dice(self, fault: str) -> Random:
        """One row of chances per fault, so that more of one does not change the others."""
        return Random(f"{self.seed}/{fault}")  # noqa: S311  repeatable on purpose, guards nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that makes up one call."""

    shape: Shape
    media_format: MediaFormat
    tracks: tuple[TrackAudio, ...]
    parameters: Mapping[str, str] = field(default_factory=dict)
    keypresses: tuple[Keypress, ...] = ()
    packet_ms: int = 20
    first_timestamp_ms: int = 0
    with_stop: bool = True
    faults: Faults = field(default_factory=Faults)


@dataclass(frozen=True, slots=True)
class _Chunk:
    place: MediaPlace
    payload: bytes


def write_script(plan: Plan) -> Iterator[Step]:
    """All messages of the call in the order in which they are to be sent, except `stop`.

    `stop` takes the number after the highest of the steps gone by, wherever the call ends.
    """
    yield Step(0, plan.shape.connected(), 0)
    names = tuple(track.track for track in plan.tracks)
    start = plan.shape.start(1, names, plan.media_format, plan.parameters)
    yield Step(0, start, 1)
    yield from _befallen(_body(plan), plan.faults)


def _body(plan: Plan) -> Iterator[Step]:
    rows = [_chunks(track, plan) for track in plan.tracks]
    keys: Iterator[tuple[float, _Chunk | Keypress]]
    keys = ((key.at_ms, key) for key in sorted(plan.keypresses, key=lambda key: key.at_ms))
    timed = heapq.merge(*rows, keys, key=lambda row: row[0])
    for sequence, (at_ms, content) in enumerate(timed, 2):
        if isinstance(content, Keypress):
            yield Step(at_ms, plan.shape.dtmf(sequence, content.digit), sequence)
        else:
            message = plan.shape.media(sequence, content.place, content.payload)
            yield Step(at_ms, message, sequence, content.place.track)


def _chunks(track: TrackAudio, plan: Plan) -> Iterator[tuple[float, _Chunk | Keypress]]:
    """The chunks of one track, each due when its last sample has been spoken."""
    size = plan.media_format.chunk_bytes(plan.packet_ms)
    for index, begin in enumerate(range(0, len(track.payload), size)):
        at_ms = index * plan.packet_ms
        place = MediaPlace(track.track, index + 1, plan.first_timestamp_ms + at_ms)
        payload = track.payload[begin : begin + size]
        yield at_ms + plan.packet_ms * len(payload) / size, _Chunk(place, payload)


def _befallen(steps: Iterable[Step], faults: Faults) -> Iterator[Step]:
    steps = _lose(steps, faults)
    steps = _reorder(steps, faults)
    steps = _duplicate(steps, faults)
    return _delay(steps, faults)


def _lose(steps: Iterable[Step], faults: Faults) -> Iterator[Step]:
    dice = faults.dice("loss")
    for step in steps:
        lost = step.track is not None and dice.random() < faults.loss
        yield replace(step, fate=Fate.LOST) if lost else step


def _reorder(steps: Iterable[Step], faults: Faults) -> Iterator[Step]:
    """Hold some chunks back until later ones have passed them."""
    dice = faults.dice("reorder")
    held: list[_Held] = []
    for step in steps:
        chosen = step.track is not None and dice.random() < faults.reorder
        passing = step.track is not None and step.fate is Fate.SENT
        if passing and chosen:
            held.append(_Held(step, dice.randint(1, _LATEST_BY)))
            continue
        yield step
        if passing:
            yield from _overtake(held, step.at_ms)
    yield from chain.from_iterable(one.release() for one in held)


def _duplicate(steps: Iterable[Step], faults: Faults) -> Iterator[Step]:
    dice = faults.dice("duplicate")
    for step in steps:
        yield step
        chosen = step.track is not None and dice.random() < faults.duplicate
        if chosen and step.fate is not Fate.LOST:
            yield replace(step, fate=Fate.DUPLICATED)


def _delay(steps: Iterable[Step], faults: Faults) -> Iterator[Step]:
    """Make chunks late without changing their order, as a TCP connection does."""
    dice = faults.dice("jitter")
    latest = 0.0
    for step in steps:
        delay = dice.uniform(0, faults.jitter_ms) if step.track is not None else 0.0
        latest = max(latest, step.at_ms + delay)
        yield replace(step, at_ms=latest)


@dataclass(slots=True)
class _Held:
    """A chunk that waits until `passes` more chunks have gone by."""

    step: Step
    passes: int
    overtaken: bool = False

    def release(self) -> Iterator[Step]:
        yield replace(self.step, fate=Fate.REORDERED) if self.overtaken else self.step


def _overtake(held: list[_Held], at_ms: float) -> Iterator[Step]:
    for one in held:
        one.passes -= 1
        one.overtaken = True
        one.step = replace(one.step, at_ms=at_ms)
    released = [one for one in held if one.passes == 0]
    held[:] = [one for one in held if one.passes]
    yield from chain.from_iterable(one.release() for one in released)
