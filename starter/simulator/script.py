"""The script of one call: every message in order, with its time and how it is delivered.

Pure: the same plan gives the same script. Sequence numbers, chunk numbers and timestamps are
assigned before anything is lost, so that what is missing leaves a gap the receiver can see.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from itertools import chain
from random import Random

from starter.simulator.dialects import Dialect, MediaPlace
from starter.simulator.stream_info import Keypress, MediaFormat, TrackAudio

_LATEST_BY = 3  # a chunk out of order arrives behind one to this many later ones


class Delivery(Enum):
    """How a message is delivered."""

    SENT = auto()
    LOST = auto()  # never sent; its numbers are not used again
    REORDERED = auto()  # sent, behind later chunks
    DUPLICATED = auto()  # the second copy of a chunk


@dataclass(frozen=True, slots=True)
class Step:
    """One message: due `at_ms` after the start of the stream, on `track` if it carries audio."""

    at_ms: float
    message: bytes
    sequence: int
    track: str | None = None
    delivery: Delivery = Delivery.SENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Faults of the network: probabilities per chunk from 0 to 1, and milliseconds of jitter."""

    loss: float = 0.0
    reorder: float = 0.0
    duplicate: float = 0.0
    jitter_ms: float = 0.0
    seed: str = "0"

    def random_for(self, fault: str) -> Random:
        """A random generator per fault, so that more of one does not change the others."""
        return Random(f"{self.seed}/{fault}")  # noqa: S311  repeatable on purpose, guards nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that makes up one call."""

    dialect: Dialect
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

    `stop` has the number after the highest of the steps before it, wherever the call ends.
    """
    yield Step(0, plan.dialect.connected(), 0)
    names = tuple(track.track for track in plan.tracks)
    start = plan.dialect.start(1, names, plan.media_format, plan.parameters)
    yield Step(0, start, 1)
    yield from _with_faults(_body(plan), plan.faults)


def _body(plan: Plan) -> Iterator[Step]:
    rows = [_chunks(track, plan) for track in plan.tracks]
    keys: Iterator[tuple[float, _Chunk | Keypress]]
    keys = ((key.at_ms, key) for key in sorted(plan.keypresses, key=lambda key: key.at_ms))
    timed = heapq.merge(*rows, keys, key=lambda row: row[0])
    for sequence, (at_ms, content) in enumerate(timed, 2):
        if isinstance(content, Keypress):
            yield Step(at_ms, plan.dialect.dtmf(sequence, content.digit), sequence)
        else:
            message = plan.dialect.media(sequence, content.place, content.payload)
            yield Step(at_ms, message, sequence, content.place.track)


def _chunks(track: TrackAudio, plan: Plan) -> Iterator[tuple[float, _Chunk | Keypress]]:
    """The chunks of one track, each due at the time of its last sample."""
    size = plan.media_format.chunk_bytes(plan.packet_ms)
    for index, start in enumerate(range(0, len(track.payload), size)):
        at_ms = index * plan.packet_ms
        place = MediaPlace(track.track, index + 1, plan.first_timestamp_ms + at_ms)
        payload = track.payload[start : start + size]
        yield at_ms + plan.packet_ms * len(payload) / size, _Chunk(place, payload)


def _with_faults(steps: Iterable[Step], faults: Faults) -> Iterator[Step]:
    steps = _lose(steps, faults)
    steps = _reorder(steps, faults)
    steps = _duplicate(steps, faults)
    return _delay(steps, faults)


def _lose(steps: Iterable[Step], faults: Faults) -> Iterator[Step]:
    dice = faults.random_for("loss")
    for step in steps:
        lost = step.track is not None and dice.random() < faults.loss
        yield replace(step, delivery=Delivery.LOST) if lost else step


def _reorder(steps: Iterable[Step], faults: Faults) -> Iterator[Step]:
    """Hold some chunks back until later ones have passed them."""
    dice = faults.random_for("reorder")
    held: list[_Held] = []
    for step in steps:
        chosen = step.track is not None and dice.random() < faults.reorder
        passing = step.track is not None and step.delivery is Delivery.SENT
        if passing and chosen:
            held.append(_Held(step, dice.randint(1, _LATEST_BY)))
            continue
        yield step
        if passing:
            yield from _overtake(held, step.at_ms)
    yield from chain.from_iterable(one.release() for one in held)


def _duplicate(steps: Iterable[Step], faults: Faults) -> Iterator[Step]:
    dice = faults.random_for("duplicate")
    for step in steps:
        yield step
        chosen = step.track is not None and dice.random() < faults.duplicate
        if chosen and step.delivery is not Delivery.LOST:
            yield replace(step, delivery=Delivery.DUPLICATED)


def _delay(steps: Iterable[Step], faults: Faults) -> Iterator[Step]:
    """Make chunks late without changing their order, as a TCP connection does."""
    dice = faults.random_for("jitter")
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
        yield replace(self.step, delivery=Delivery.REORDERED) if self.overtaken else self.step


def _overtake(held: list[_Held], at_ms: float) -> Iterator[Step]:
    for one in held:
        one.passes -= 1
        one.overtaken = True
        one.step = replace(one.step, at_ms=at_ms)
    released = [one for one in held if one.passes == 0]
    held[:] = [one for one in held if one.passes]
    yield from chain.from_iterable(one.release() for one in released)
