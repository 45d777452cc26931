"""The messages of a media stream, typed, and what can be wrong with them.

`receiver.wire.parse` makes them: of one message, or of the whole stream, it can also say why not.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from receiver.errors import PeerError
from receiver.media import Chunk, Finding, MediaFormat, RejectedChunk

OTHER_STREAM: Final = "other_stream"
"""The code with which a chunk is refused that names another stream than the one it came on."""
UNKNOWN_TRACK: Final = "unknown_track"
"""The code with which a chunk is refused that is of neither track: it has no place of its own."""


OMITTED: Final = "tapreel:omitted"
"""The event of what we keep in the place of a message that is not kept: its sequence number."""

FORMAT_ASSUMED: Final = "format_assumed"
"""The finding that a start message does not say, or only in part, how audio is encoded."""
FORMAT_REFUSED: Final = "format_refused"
"""The finding that audio is kept as it came, because it cannot be decoded."""


class MessageRejected(PeerError):
    """One message cannot be used; it is counted and the stream lives on.

    `code` is a stable word for counters. `chunk` is what is known of the chunk that the
    message carried, where it carried one. `audio` is that chunk's payload, as far as it can be
    read, and `label` what the message calls the track or stream that it is of.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        chunk: RejectedChunk | None = None,
        audio: bytes = b"",
        label: str = "",
    ) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.chunk = chunk
        self.audio = audio
        self.label = label


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


class UntrackedChunk(Chunk, frozen=True, gc=False):
    """A chunk whose message names no track: it is of the only one that `start` names.

    Until that is known, its track stands as inbound.
    """


class Start(msgspec.Struct, frozen=True):
    """A stream begins: its ids, what it carries, and the caller's own parameters.

    `findings` are what of the message was not read as it stands there. Where `refused_format`
    says why the audio cannot be decoded, `media_format` stands for none.
    """

    stream_sid: str
    account_sid: str
    call_sid: str
    tracks: tuple[str, ...]
    parameters: dict[str, Any]
    media_format: MediaFormat
    sequence_number: int | None = None
    outer_sid: str = ""  # what the message around `start` calls the stream, where that differs
    refused_format: str = ""
    findings: tuple[Finding, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """Return what chunks of this stream may call it."""
        return frozenset((self.stream_sid, self.outer_sid)) - {""}

    @property
    def has_assumed_format(self) -> bool:
        """Whether the message leaves open in part how its audio is to be decoded."""
        return any(finding.code == FORMAT_ASSUMED for finding in self.findings)

    def is_of(self, other: Start) -> bool:
        """Whether both name the same stream of the same call."""
        return (self.stream_sid, self.call_sid) == (other.stream_sid, other.call_sid)

    def goes_on(self, other: Start) -> bool:
        """Whether both name the same stream, and its audio is decoded as by `other`."""
        same = (self.media_format, self.refused_format) == (
            other.media_format,
            other.refused_format,
        )
        return self.is_of(other) and (same or self.has_assumed_format)


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
