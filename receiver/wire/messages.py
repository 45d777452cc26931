"""The messages of a media stream, typed, and what can be wrong with them.

`receiver.wire.parse` makes them: of one message, or of the whole stream, it can also say why not.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from receiver.errors import PeerError
from receiver.media import Chunk, MediaFormat, RejectedChunk

OTHER_STREAM: Final = "other_stream"
"""The code with which a chunk is refused that names another stream than the one it came on."""
UNKNOWN_TRACK: Final = "unknown_track"
"""The code with which a chunk is refused that is of neither track: it has no place of its own."""


class MessageRejected(PeerError):
    """One message cannot be used; it is counted and the stream lives on.

    `code` is a stable word for counters. `chunk` is what is known of the chunk that the
    message carried, where it carried one.
    """

    def __init__(self, code: str, detail: str, *, chunk: RejectedChunk | None = None) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.chunk = chunk


class ProtocolViolation(PeerError):
    """The stream cannot go on; the socket is closed with `close_code` and this text."""

    def __init__(self, detail: str, *, close_code: int = 1008) -> None:
        super().__init__(detail)
        self.detail = detail
        self.close_code = close_code


class Connected(msgspec.Struct, frozen=True):
    """The socket speaks the media-stream protocol."""

    protocol: str
    version: str


class Start(msgspec.Struct, frozen=True):
    """A stream begins: its ids, what it carries, and the caller's own parameters."""

    stream_sid: str
    account_sid: str
    call_sid: str
    tracks: tuple[str, ...]
    parameters: dict[str, Any]
    media_format: MediaFormat
    sequence_number: int | None = None
    outer_sid: str = ""  # what the message around `start` calls the stream, where that differs

    @property
    def names(self) -> frozenset[str]:
        """Return what chunks of this stream may call it."""
        return frozenset((self.stream_sid, self.outer_sid)) - {""}

    def is_of(self, other: Start) -> bool:
        """Whether both name the same stream of the same call."""
        return (self.stream_sid, self.call_sid) == (other.stream_sid, other.call_sid)


class DtmfMessage(msgspec.Struct, frozen=True):
    """A key was pressed; `duration_ms` is how long, where the provider says so."""

    digit: str
    duration_ms: int | None = None
    sequence_number: int | None = None


class MarkMessage(msgspec.Struct, frozen=True):
    """A named position in a bidirectional stream."""

    name: str
    sequence_number: int | None = None


class Stop(msgspec.Struct, frozen=True):
    """The stream ended."""

    sequence_number: int | None = None


class Unknown(msgspec.Struct, frozen=True):
    """An event this version does not know; it is kept in the journal and counted."""

    event: str
    sequence_number: int | None = None


Message = Connected | Start | Chunk | DtmfMessage | MarkMessage | Stop | Unknown
"""What one WebSocket message can be; a media message is a `Chunk`."""


class FormatRefused(ProtocolViolation):
    """A start message names a media format that cannot be decoded.

    `start` is what else it says; its own format stands for none.
    """

    def __init__(self, violation: ProtocolViolation, start: Start) -> None:
        super().__init__(violation.detail, close_code=violation.close_code)
        self.start = start
