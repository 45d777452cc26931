"""Cuts what a client sends into frames (RFC 6455, section 5.2), so that few need the library.

Nearly all traffic is whole messages of a few hundred bytes, each in one frame. The websockets
library reads every frame through a chain of generators, which was half of what a chunk cost
with it. So these messages are unmasked here, in one step. Every other frame goes to the library
as it came: all that is unusual is judged there, so the protocol is in one place.

    0x81 0xFE len len mask mask mask mask payload...   text, masked, 126 to 65,535 bytes: ours
    0x82 0x85 mask mask mask mask payload...           binary, masked, 5 bytes: ours
    0x01 ... 0x00 ... 0x80 ...                         a message in three fragments: the library's
    0x88, 0x89, 0x8A ...                               close, ping, pong: the library's
    0x81 0xFF (8 bytes of length) ...                  longer: the library's, as is all behind it
    0x81 0x05 payload...                               not masked: the library's, as is all behind
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from websockets.speedups import apply_mask

_WHOLE_MESSAGE: Final = (0x81, 0x82)  # FIN and the opcode of text or binary
_FIN: Final = 0x80
_CONTROL: Final = 0x08
_MASKED: Final = 0x80  # and a length of 0 to 125, which ends the head
_TWO_BYTES_OF_LENGTH: Final = 0xFE  # masked, and 126
_SHORTEST_BYTES: Final = 6  # two bytes of head and the mask
_MASK_BYTES: Final = 4


class FrameReader:
    """Splits received bytes into frames; does no input or output.

    Args:
        on_message: called with the payload, unmasked, of each message in one frame.
        on_other: called with every other frame, as it came, or with bytes that are left to the
            library from here on. Returns whether anything behind them is wanted.
        max_message_bytes: longer messages go to `on_other`, to be refused there.

    An exception out of `on_message` loses no bytes: the next `feed`, which may be of none, goes
    on behind the frame that caused it.
    """

    def __init__(
        self,
        on_message: Callable[[bytes], None],
        on_other: Callable[[bytes], bool],
        *,
        max_message_bytes: int,
    ) -> None:
        self.feed: Callable[[bytes], None] = self._split
        """Processes what was read from the socket, of any length and cut anywhere."""
        self.on_message = on_message  # may be replaced
        self._on_other = on_other
        self._max_message_bytes = max_message_bytes
        self._partial = b""  # the beginning of a frame that is not yet whole
        self._in_fragments = False  # the library collects the fragments of a message

    def _split(self, received: bytes) -> None:
        """Hand on each whole frame. This is the hot path: every call in it costs 1 % of a chunk."""
        if self._partial:
            received = self._partial + received
        at, size = 0, len(received)
        try:
            while size - at >= _SHORTEST_BYTES:
                length = received[at + 1]
                if length == _TWO_BYTES_OF_LENGTH:
                    start = at + _SHORTEST_BYTES + 2
                    end = start + (received[at + 2] << 8 | received[at + 3])
                else:
                    start = at + _SHORTEST_BYTES
                    end = start + length - _MASKED
                if end > size or not _MASKED <= length <= _TWO_BYTES_OF_LENGTH:
                    break
                first, frame_at, at = received[at], at, end
                if (
                    first in _WHOLE_MESSAGE
                    and not self._in_fragments
                    and end - start <= self._max_message_bytes
                ):
                    mask = received[start - _MASK_BYTES : start]
                    self.on_message(apply_mask(received[start:end], mask))
                    continue
                if not self._feed_other(first, received[frame_at:end]):
                    at = size
        finally:
            self._partial = received[at:]
        if size - at > 1 and not _MASKED <= received[at + 1] <= _TWO_BYTES_OF_LENGTH:
            self._pass_on_from_here()

    def _feed_other(self, first: int, frame: bytes) -> bool:
        if not first & _CONTROL:
            self._in_fragments = not first & _FIN
        wanted = self._on_other(frame)
        if not wanted:
            self.feed = _ignore
        return wanted

    def _pass_on_from_here(self) -> None:
        """Leave all that comes to the library; what is not masked or very long is its to judge."""
        rest, self._partial = self._partial, b""
        self.feed = self._pass_on
        self._pass_on(rest)

    def _pass_on(self, received: bytes) -> None:
        if not self._on_other(received):
            self.feed = _ignore


def _ignore(received: bytes) -> None:
    """Drop what comes behind the end."""
