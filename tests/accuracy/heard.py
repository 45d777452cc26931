"""What a live listener gets of a modelled call: the feed's encoder, driven by arrival times."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from receiver.audio import codec
from receiver.media import ByteOrder, Chunk, Encoding, EndReason, Track
from receiver.tap.encoding import encoders
from receiver.tap.encoding.format import Format, OutMessage, OutputSpec
from receiver.tap.hub import LiveChunk, LiveMessage, StreamEnded, StreamPosition, Subscribed
from receiver.wire.parse import parse
from tests.accuracy.senders import BYTES_PER_MS, Call
from tests.receiver.helpers.taps import gaps, live_stream, texts


@dataclass(slots=True)
class Heard:
    """What one listener got. Times are milliseconds; signs mean `heard - true`."""

    from_ms: float = 0.0  # where the listener was on the stream's clock
    items: list[OutMessage] = field(default_factory=list)
    sent_ms: list[float] = field(default_factory=list)  # when each item was sent
    left_out: int = 0
    missing: int = 0  # chunks that came, and were not heard whole
    errors_ms: dict[Track, list[float]] = field(default_factory=dict)
    latency_ms: list[float] = field(default_factory=list)  # of chunks, from arrival to sending

    @property
    def gaps(self) -> list[tuple[str, str, float, float]]:
        """Return the notices of gaps."""
        return gaps(self.items)

    @property
    def events(self) -> list[str]:
        """Return the names of all texts."""
        return [text["event"] for text in texts(self.items)]


def heard(
    call: Call,
    track: str = "stereo",
    *,
    in_the_past: bool = False,
    joins_ms: float = 0,
    ticks_per_ms: int = 1,
) -> Heard:
    """Play a call to a listener who was there from its beginning, or came behind its end.

    One who joins later gets the position of the stream, with what its timestamps count.
    """
    before = [(at, parse(msgspec.json.encode(m))) for at, m in call.messages if at < joins_ms]
    latest = {chunk.track: chunk for _, chunk in before if isinstance(chunk, Chunk)}
    ordered = sorted(latest.values(), key=lambda chunk: chunk.sequence_number or 0)
    position = StreamPosition(
        chunks=len(before),
        messages=0,
        arrival_ms=int(joins_ms),
        latest=ordered[-1] if ordered else None,
        others=tuple(ordered[:-1]),
        ticks_per_ms=ticks_per_ms,
    )
    subscribed = Subscribed(live_stream(), position)
    spec, start_ms = OutputSpec(Format.PCM16, track), 0 if in_the_past else None
    encoder = encoders.encoder(spec, subscribed, byte_order=ByteOrder.LITTLE, start_ms=start_ms)
    result = Heard(from_ms=encoder.position_ms if joins_ms else 0.0)

    def add(items: list[OutMessage], now_ms: float) -> None:
        result.items += items
        result.sent_ms += [now_ms] * len(items)

    for arrival_ms, message in call.messages[len(before) :]:
        now = int(arrival_ms)
        while not in_the_past and (due := encoder.due_ms) is not None and due < now:
            add(encoder.flush_due(due), due)
            assert encoder.due_ms != due
        text = msgspec.json.encode(message)
        parsed = parse(text)
        event = LiveChunk(parsed, now) if isinstance(parsed, Chunk) else LiveMessage(text, now)
        add(encoder.feed(event), now)
    add(encoder.feed(StreamEnded(EndReason.STOP, now)), now)
    result.left_out = encoder.left_out
    _search(call, track, result)
    return result


def _search(call: Call, track: str, result: Heard) -> None:
    """Find each chunk in what was heard."""
    channels = 2 if track == "stereo" else 1
    parts, sent, at = [], [], 0
    for item, when in zip(result.items, result.sent_ms, strict=True):
        content = b"".join(m for m in item.messages() if isinstance(m, bytes))
        parts.append(content)
        at += len(content) // channels
        sent.append((at, when))
    both = b"".join(parts)
    for number, name in enumerate(Track):
        if track not in ("stereo", name.value):
            continue
        line = _channel(both, number, channels) if channels > 1 else both
        errors = result.errors_ms[name] = []
        behind = piece = 0
        for chunk in call.of(name):
            if chunk.lost or (result.from_ms and chunk.at_ms < result.from_ms):
                continue
            samples = codec.decode(chunk.payload, Encoding.PCMU, byte_order=ByteOrder.LITTLE)
            wanted = samples.tobytes()
            place = line.find(wanted, behind)
            place = line.find(wanted) if place < 0 else place
            if place < 0:
                result.missing += 1
                continue
            behind = place + len(wanted)
            errors.append(result.from_ms + place / (2 * BYTES_PER_MS) - chunk.at_ms)
            piece = 0 if piece and sent[piece - 1][0] >= behind else piece
            while sent[piece][0] < behind:
                piece += 1
            result.latency_ms.append(sent[piece][1] - int(chunk.arrival_ms))


def _channel(both: bytes, number: int, channels: int) -> bytes:
    return codec.rows(both, channels)[:, number].tobytes()
