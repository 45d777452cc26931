"""Senders of media streams as a model: what was spoken, what its chunks say, when they arrive.

A `Sender` says how one provider counts and stamps, a `Network` what happens on the way. `call`
plays both over what the parties say and returns a `Call`: messages with their times of arrival,
and for every chunk where its audio truly was. All of it is a function of the seed.

    speech of each track -> packets -> numbers, stamps (Sender) -> loss, delay (Network) -> messages
"""

from __future__ import annotations

import base64
import enum
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from receiver.media import Track

BYTES_PER_MS: Final = 8  # mu-law at 8000 Hz
_DELAY_MS: Final = 50  # of every chunk, from its last sample to our socket
_WRAP: Final = 65_536

Spurt = tuple[int, int]
"""From when to when, in milliseconds of the call, one party's track brings audio."""


class Numbers(enum.Enum):
    """What `chunk` counts."""

    TRACK = "a counter per track"
    SHARED = "one counter for both tracks"
    MILLISECONDS = "milliseconds of the call"
    BYTES_SENT = "bytes that the track has sent"
    NONE = "no chunk numbers"


class Stamps(enum.Enum):
    """What `timestamp` counts."""

    CALL = "milliseconds of the call"
    OWN = "milliseconds since the track's first chunk"
    SENT = "milliseconds of what the track has sent"
    SAMPLES = "samples since the call began"
    SAMPLES_SENT = "samples that the track has sent"
    NOW = "milliseconds of the call at which the chunk was sent"
    NONE = "no timestamps"


@dataclass(frozen=True, slots=True)
class Sender:
    """How one provider counts and stamps."""

    numbers: Numbers = Numbers.TRACK
    first_number: int = 1
    wraps: bool = False  # chunk numbers have 16 bits
    restarts_at_ms: tuple[int, ...] = ()  # chunk numbers begin anew
    stamps: Stamps = Stamps.CALL
    stamp_jitter_ms: int = 0  # at most, in either direction
    drift_ppm: float = 0.0  # stamps run ahead of the audio
    epoch_ms: int = 0  # what stamps begin with
    stamps_restart: bool = False  # stamps begin anew, too, where chunk numbers do
    sequence: bool = True
    packets_ms: tuple[int, ...] = (20,)  # sizes; more than one is drawn anew for each packet
    ahead: bool = False  # a spurt is sent whole when it begins, as speech synthesis does
    stop: bool = True  # a stop message with a sequence number


@dataclass(frozen=True, slots=True)
class Network:
    """What happens on the way."""

    jitter_ms: int = 0  # mean of an exponential delay; the order stays (TCP)
    stalls: tuple[Spurt, ...] = ()  # nothing arrives in between; all of it comes at the end
    lost: tuple[tuple[Track, int, int], ...] = ()  # what was spoken in `[from, to)` ms never comes
    swapped: float = 0.0  # share of neighbours of one track that the sender emits in wrong order
    skew_ms: dict[Track, int] = field(default_factory=dict)  # by which a track always comes later


@dataclass(slots=True)
class Spoken:
    """One chunk: where its audio was, in milliseconds of the call, and what became of it."""

    track: Track
    at_ms: int
    length_ms: int
    payload: bytes
    lost: bool = False
    arrival_ms: float = 0.0
    number: int | None = None
    stamp: int | None = None
    sequence: int | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """What was spoken, and the messages that told it, with their times of arrival."""

    spoken: Sequence[Spoken]
    messages: Sequence[tuple[float, dict[str, Any]]]
    length_ms: int

    def of(self, track: Track) -> list[Spoken]:
        """Return one track's chunks in the order in which they were spoken."""
        return [chunk for chunk in self.spoken if chunk.track is track]


def call(
    speech: dict[Track, Sequence[Spurt]],
    sender: Sender = Sender(),
    network: Network = Network(),
    *,
    seed: int = 0,
) -> Call:
    """Play one call: `speech` are the spurts of each track that brings audio."""
    dice = random.Random(seed)
    spoken = [
        chunk for track, spurts in speech.items() for chunk in _packets(track, spurts, sender, dice)
    ]
    order = sorted(spoken, key=lambda chunk: (_sent_at(chunk, speech, sender), chunk.track.value))
    order = _swapped(order, network, dice)
    _count(order, sender)
    _stamp(order, speech, sender, dice)
    _lose(order, network)
    _arrive(order, speech, sender, network, dice)
    length = max(spurt[1] for spurts in speech.values() for spurt in spurts)
    return Call(spoken, list(_messages(order, sender)), length)


def _packets(
    track: Track, spurts: Sequence[Spurt], sender: Sender, dice: random.Random
) -> Iterator[Spoken]:
    for start, end in spurts:
        at = start
        while at < end:
            length = min(dice.choice(sender.packets_ms), end - at)
            yield Spoken(track, at, length, dice.randbytes(length * BYTES_PER_MS))
            at += length


def _sent_at(chunk: Spoken, speech: dict[Track, Sequence[Spurt]], sender: Sender) -> int:
    """Return when the provider sends a chunk: when its last sample was spoken, or at once."""
    if sender.ahead:
        return next(a for a, b in speech[chunk.track] if a <= chunk.at_ms < b)
    return chunk.at_ms + chunk.length_ms


def _swapped(order: list[Spoken], network: Network, dice: random.Random) -> list[Spoken]:
    latest: dict[Track, int] = {}
    for at, chunk in enumerate(order):
        before = latest.get(chunk.track)
        if before is not None and dice.random() < network.swapped:
            order[before], order[at] = order[at], order[before]
            latest.pop(chunk.track)
        else:
            latest[chunk.track] = at
    return order


def _count(order: Sequence[Spoken], sender: Sender) -> None:
    """Number chunks as they were spoken, and messages as they are sent."""
    in_time = sorted(order, key=lambda chunk: (chunk.at_ms, chunk.track.value))
    counters: dict[tuple[Track, int], int] = {}
    for chunk in in_time if sender.numbers is not Numbers.NONE else ():
        shared = sender.numbers is Numbers.SHARED
        anew_ms = _restarted_at(chunk, sender)
        key = Track.INBOUND if shared else chunk.track, anew_ms
        number = counters.setdefault(key, sender.first_number)
        is_bytes = sender.numbers is Numbers.BYTES_SENT
        counters[key] += chunk.length_ms * BYTES_PER_MS if is_bytes else 1
        if sender.numbers is Numbers.MILLISECONDS:
            number = sender.first_number + chunk.at_ms - anew_ms
        chunk.number = number % _WRAP if sender.wraps else number
    for sequence, chunk in enumerate(order, 2):
        chunk.sequence = sequence if sender.sequence else None


def _restarted_at(chunk: Spoken, sender: Sender) -> int:
    """Return since when in the call the sender's counters count at a chunk."""
    return max((at for at in sender.restarts_at_ms if at <= chunk.at_ms), default=0)


def _stamp(
    order: Sequence[Spoken],
    speech: dict[Track, Sequence[Spurt]],
    sender: Sender,
    dice: random.Random,
) -> None:
    sent_ms = dict.fromkeys(Track, 0)
    first = {track: spurts[0][0] for track, spurts in speech.items()}
    for chunk in sorted(order, key=lambda chunk: chunk.at_ms):
        exact = {
            Stamps.CALL: chunk.at_ms,
            Stamps.OWN: chunk.at_ms - first[chunk.track],
            Stamps.SENT: sent_ms[chunk.track],
            Stamps.SAMPLES: chunk.at_ms * BYTES_PER_MS,
            Stamps.SAMPLES_SENT: sent_ms[chunk.track] * BYTES_PER_MS,
            Stamps.NOW: _sent_at(chunk, speech, sender),
        }.get(sender.stamps)
        sent_ms[chunk.track] += chunk.length_ms
        if exact is None:
            continue
        if sender.stamps_restart:
            exact -= _restarted_at(chunk, sender)
        jitter = dice.randint(-sender.stamp_jitter_ms, sender.stamp_jitter_ms)
        drifted = exact * (1 + sender.drift_ppm / 1e6)
        chunk.stamp = max(0, round(drifted) + jitter) + sender.epoch_ms


def _lose(order: Sequence[Spoken], network: Network) -> None:
    for track, start, end in network.lost:
        for chunk in order:
            chunk.lost |= chunk.track is track and start <= chunk.at_ms < end


def _arrive(
    order: Sequence[Spoken],
    speech: dict[Track, Sequence[Spurt]],
    sender: Sender,
    network: Network,
    dice: random.Random,
) -> None:
    newest = 0.0
    for chunk in order:
        at = (
            float(_sent_at(chunk, speech, sender)) + _DELAY_MS + network.skew_ms.get(chunk.track, 0)
        )
        if network.jitter_ms:
            at += dice.expovariate(1 / network.jitter_ms)
        for start, end in network.stalls:
            at = max(at, end) if start <= at < end else at
        chunk.arrival_ms = at
    if not network.skew_ms:  # one connection keeps its order; tracks that lag are sent later
        for chunk in order:
            newest = chunk.arrival_ms = max(newest, chunk.arrival_ms)


def _messages(order: Sequence[Spoken], sender: Sender) -> Iterator[tuple[float, dict[str, Any]]]:
    media = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
    tracks = sorted({chunk.track.value for chunk in order})
    ids = {"streamSid": "s1", "accountSid": "a1", "callSid": "c1"}
    start = {**ids, "tracks": tracks, "mediaFormat": media}
    yield 0.0, _numbered({"event": "start", "start": start}, 1 if sender.sequence else None)
    arrived = sorted((c for c in order if not c.lost), key=lambda chunk: chunk.arrival_ms)
    for chunk in arrived:
        fields = {"chunk": chunk.number, "timestamp": chunk.stamp}
        body = {name: str(value) for name, value in fields.items() if value is not None}
        body |= {
            "track": chunk.track.value,
            "payload": base64.b64encode(chunk.payload).decode(),
        }
        yield chunk.arrival_ms, _numbered({"event": "media", "media": body}, chunk.sequence)
    end = max((chunk.arrival_ms for chunk in order), default=0.0) + 20
    if sender.stop:
        yield end, _numbered({"event": "stop"}, len(order) + 2 if sender.sequence else None)


def _numbered(message: dict[str, Any], sequence: int | None) -> dict[str, Any]:
    return message if sequence is None else message | {"sequenceNumber": str(sequence)}
