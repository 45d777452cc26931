"""What can be wrong with what a provider sends: with one message, or with the whole stream."""

from __future__ import annotations

from typing import Final

from receiver.errors import PeerError
from receiver.media import RejectedChunk

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
