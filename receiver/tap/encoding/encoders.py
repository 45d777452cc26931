"""What listeners get: one stream's events as samples, as payloads, or in the provider's shape.

An encoder turns events into messages once for all listeners of a spec. It is pure: times
are those of the events, so that the past, read from a journal, is encoded as the live part is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from receiver.errors import PeerError
from receiver.media import ByteOrder, Chunk
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
