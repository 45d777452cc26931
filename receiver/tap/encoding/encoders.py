"""What listeners get: one stream's events as samples, as payloads, or in the provider's shape.

An encoder turns events into messages once for all listeners of a spec. It is pure: times
are those of the events, so that the past, read from a journal, is encoded as the live part is.
"""

from __future__ import annotations

import itertools
import math
from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import msgspec

from receiver.errors import PeerError
from receiver.media import ByteOrder, Chunk, Encoding, MediaFormat
from receiver.tap.encoding.format import (
    LONGEST_WAIT_MS,
    Encoder,
    Format,
    OutMessage,
    OutputSpec,
    json_text,
    start_ms,
)
from receiver.tap.hub import LiveChunk, LiveMessage, StreamEnded, StreamEvent, Subscribed
from receiver.wire import messages, parse

_FULL_SCALE: Final = 32768
_FULL_SQUARE: Final = 2**24
_MOST_MEASURED: Final = 160
"""Samples of a chunk that are measured: of longer ones the last 20 ms at 8 kHz."""


def power(payload: bytes, media: MediaFormat, byte_order: ByteOrder) -> float:
    """Return the mean square of the latest samples of a payload; full scale is 1, silence 0.

    Without numpy, which a process that nobody listens to has no use for.
    """
    if media.encoding is not Encoding.L16:
        latest = payload[-_MOST_MEASURED:]
        high, middle, low = (sum(latest.translate(t)) for t in _SQUARES[media.encoding])
        return ((high << 16) + (middle << 8) + low) / _FULL_SQUARE / (len(latest) or 1)
    samples = array("h")
    samples.frombytes(payload[len(payload) & 1 :][-2 * _MOST_MEASURED :])
    swapped = array("h", samples)
    swapped.byteswap()
    if byte_order is ByteOrder.BIG or (
        byte_order is ByteOrder.AUTO and _roughness(swapped) < _roughness(samples)
    ):
        samples = swapped
    return sum(each * each for each in samples) / (len(samples) or 1) / _FULL_SCALE**2


def dbfs(mean_square: float) -> float:
    """Return a power as dBFS, rounded to a tenth; digital silence is -96, the least there is."""
    return max(-96.0, round(10 * math.log10(mean_square), 1)) if mean_square > 0 else -96.0


def _mu_law(byte: int) -> int:
    """Return the magnitude of a sample (ITU-T G.711, table 2)."""
    inverted = ~byte & 0xFF
    return (((inverted & 0x0F) << 3) + 0x84 << (inverted >> 4 & 7)) - 0x84


def _a_law(byte: int) -> int:
    """Return the magnitude of a sample (ITU-T G.711, table 1)."""
    toggled = byte ^ 0x55
    segment, mantissa = toggled >> 4 & 7, (toggled & 0x0F) << 4
    return mantissa + 8 if segment == 0 else mantissa + 0x108 << segment - 1


def _squares(decode: Callable[[int], int]) -> tuple[bytes, bytes, bytes]:
    """Return tables with the square of the sample that each byte of G.711 stands for.

    It has 24 bits, eight in each table: to translate bytes and to sum them up is work for C, a
    third of what looking up numbers takes.
    """
    squares = [round((decode(byte) / _FULL_SCALE) ** 2 * _FULL_SQUARE) for byte in range(256)]
    high, middle, low = (bytes(each >> bits & 0xFF for each in squares) for bits in (16, 8, 0))
    return high, middle, low


_SQUARES: Final = {Encoding.PCMU: _squares(_mu_law), Encoding.PCMA: _squares(_a_law)}


def _roughness(samples: array[int]) -> int:
    """Return how far neighbouring samples are apart: noise, where the byte order is wrong."""
    return sum(abs(a - b) for a, b in itertools.pairwise(samples))


def encoder(
    spec: OutputSpec,
    subscribed: Subscribed,
    *,
    byte_order: ByteOrder,
    start_ms: float | None = None,
    longest_wait_ms: int = LONGEST_WAIT_MS,
) -> Encoder:
    """Return the encoder for listeners of `spec`; it starts now, or in the past at `start_ms`."""
    if spec.format is Format.MESSAGES:
        return MessageEncoder(subscribed, spec.track)
    # Only here: samples need numpy, which a process that nobody listens to has no use for.
    from receiver.tap.encoding.aligned import AlignedEncoder, SampleFormatter

    output = SampleFormatter(subscribed.live.media_format, spec.format, byte_order)
    return AlignedEncoder(subscribed, output, spec.track, start_ms, longest_wait_ms=longest_wait_ms)


class Blocks:
    """Audio in blocks of one size; what is left at the end is a shorter one.

    Texts are sent before the block in which they are, so that none of them waits.

        in     20 ms  key  20 ms  20 ms  end        blocks of 32 ms
        out    key  32 ms  28 ms  end

    Args:
        rate: samples per second of what is sent.
        frame_bytes: of one sample of all tracks.
    """

    def __init__(self, spec: OutputSpec, rate: int, frame_bytes: int) -> None:
        self._track = spec.track
        self._rate = rate
        self._frame_bytes = frame_bytes
        self._frames = rate * spec.block_ms // 1000  # of a block
        self._rest = bytearray()
        self._at_ms = 0.0  # where the rest starts

    def feed(self, items: Iterable[OutMessage], *, last: bool) -> Iterator[OutMessage]:
        """Yield whole blocks; where `last` holds, the rest before the last text."""
        items = list(items)
        for item in items:
            if isinstance(item.message, bytes):
                yield from self._audio(item.message, item.timestamp_ms, item.repeat)
                continue
            if last and item is items[-1]:
                yield from self._flush()
            yield item

    def _audio(self, message: bytes, at_ms: float, repeat: int) -> Iterator[OutMessage]:
        size = self._frames * self._frame_bytes
        self._at_ms = at_ms - self._ms(len(self._rest))
        if repeat == 1:
            self._rest += message
        else:  # silence fills a block, and is a length from there on
            filled = min(repeat, -len(self._rest) // self._frame_bytes % self._frames)
            self._rest += message * filled
            repeat -= filled
        while len(self._rest) >= size:
            yield self._block(size)
        if repeat > 1 and not self._rest:
            frames = repeat - repeat % self._frames
            if frames:
                length_ms = self._ms(frames * self._frame_bytes)
                yield OutMessage(message, self._track, self._at_ms, length_ms, frames, self._frames)
                self._at_ms += length_ms
            self._rest += message * (repeat - frames)

    def _flush(self) -> Iterator[OutMessage]:
        if self._rest:
            yield self._block(len(self._rest))

    def _block(self, size: int) -> OutMessage:
        content, at_ms = bytes(self._rest[:size]), self._at_ms
        del self._rest[:size]
        self._at_ms += self._ms(size)
        return OutMessage(content, self._track, at_ms, self._ms(size))

    def _ms(self, size: int) -> float:
        return size // self._frame_bytes * 1000 / self._rate


class MessageEncoder:
    """Both tracks, or one, in the provider's own shape.

    Of one track the messages are numbered anew: the provider's numbers would leave out
    each chunk of the other track, which reads as loss. Its chunk numbers stay, and show loss.
    """

    due_ms = None
    late_ms = 0.0
    left_out = 0

    def __init__(self, subscribed: Subscribed, track: str = "stereo") -> None:
        live = subscribed.live
        start = msgspec.json.decode(live.start_message) if live.start_message else {}
        # Twilio names the stream in every message, SignalWire in `start` only.
        named = "streamSid" in start
        self._identity = {"streamSid": live.stream_sid} if named else {}
        ids = {"accountSid": live.account_sid, "callSid": live.call_sid}
        self._stop_body = {"stop": ids} if named else {}
        self._bytes_per_ms = live.media_format.bytes_per_ms
        self._sequence = 0  # the highest so far: a stop of ours has the next
        self._count(_parsed(live.start_message))
        self._count(subscribed.position.latest)
        self._only = None if track == "stereo" else track
        self._stopped = False
        self.position_ms = start_ms(subscribed)

    def feed(self, event: StreamEvent) -> list[OutMessage]:
        """Return what follows from an event."""
        if type(event) is LiveChunk:
            hidden = self._only is not None and event.chunk.track.value != self._only
            return [] if hidden else [self._media(event.chunk)]
        if isinstance(event, LiveMessage):
            return self._verbatim(event.message)
        if isinstance(event, StreamEnded) and not self._stopped:
            stop = {"event": "stop", "sequenceNumber": str(self._sequence + 1)}
            return [OutMessage(json_text({**stop, **self._identity, **self._stop_body}))]
        return []

    def flush_due(self, now_ms: int) -> list[OutMessage]:
        """Return what has waited long enough."""
        return []

    def reach_present(self) -> None:
        """Do nothing: what comes is sent as it comes."""

    def _media(self, chunk: Chunk) -> OutMessage:
        media = {
            "track": chunk.track.value,
            "chunk": _number(chunk.chunk),
            "timestamp": _number(chunk.timestamp_ms),
            "payload": chunk.payload,  # msgspec writes bytes as base64
        }
        message: dict[str, Any] = {
            "event": "media",
            "sequenceNumber": _number(self._numbered(chunk.sequence_number)),
            "media": {name: value for name, value in media.items() if value is not None},
            **self._identity,
        }
        if chunk.sequence_number is None:
            del message["sequenceNumber"]
        length_ms = len(chunk.payload) / self._bytes_per_ms
        encoded = msgspec.json.encode(message).decode()
        return OutMessage(encoded, chunk.track.value, chunk.timestamp_ms or 0, length_ms)

    def _verbatim(self, message: bytes) -> list[OutMessage]:
        parsed = _parsed(message)
        if parsed is None or isinstance(parsed, messages.Connected | messages.Start):
            return []  # every listener got its own at the beginning
        if isinstance(parsed, messages.Unknown) and parsed.event == messages.OMITTED:
            return []
        self._stopped = self._stopped or isinstance(parsed, messages.Stop)
        number = self._numbered(parsed.sequence_number)
        if number != parsed.sequence_number:
            message = _with_number(message, number)
        return [OutMessage(message.decode("utf-8", "replace"))]

    def _numbered(self, sequence_number: int | None) -> int | None:
        """Count a message that is sent; return the sequence number to send it with."""
        if sequence_number is None:
            return None
        if self._only is not None:
            sequence_number = self._sequence + 1
        self._sequence = max(self._sequence, sequence_number)
        return sequence_number

    def _count(self, message: messages.Message | None) -> None:
        if message is not None and not isinstance(message, messages.Connected):
            self._sequence = max(self._sequence, message.sequence_number or 0)


def _parsed(message: bytes) -> messages.Message | None:
    try:
        return parse.parse(message)
    except PeerError:
        return None


def _with_number(message: bytes, number: int | None) -> bytes:
    """Return a message with another sequence number, written as its own one is."""
    fields = msgspec.json.decode(message)
    if "sequenceNumber" not in fields:
        return message
    as_text = isinstance(fields["sequenceNumber"], str)
    return msgspec.json.encode({**fields, "sequenceNumber": str(number) if as_text else number})


def _number(number: int | None) -> str | None:
    return None if number is None else str(number)
