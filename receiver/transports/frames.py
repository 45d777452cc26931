"""Cuts what a client sends into whole protocol units, so that most never meet a library.

Nearly all traffic is whole messages of a few hundred bytes, one unit each. The websockets
library reads every unit through a chain of generators, which was half of what a chunk cost
with it. Such messages are taken here in one step; every other unit goes to the library as it
came, which so remains the judge of all that is unusual.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from websockets.speedups import apply_mask

_WHOLE: Final = (0x81, 0x82)  # a text or binary message of one unit (RFC 6455, section 5.2)
_LAST: Final = 0x80
_CONTROL: Final = 0x08
_MASKED: Final = 0x80
_IN_TWO_BYTES: Final = 126
_IN_EIGHT_BYTES: Final = 127
_LENGTH: Final = 0x7F
_SHORTEST: Final = 6  # two bytes of head and the mask


class FrameReader:
    """Hands messages of one unit to `deliver`, and everything else to `library`.

    `sound` tells whether the library still takes units; once it does not, it gets all the rest.
    It also gets messages of more than `longest` bytes, which it refuses.
    """

    def __init__(
        self,
        deliver: Callable[[bytes], None],
        library: Callable[[bytes], None],
        sound: Callable[[], bool],
        *,
        longest: int,
    ) -> None:
        self._deliver = deliver
        self._longest = longest
        self._library = library
        self._sound = sound
        self._rest = b""  # of a unit that is not yet whole
        self._in_fragments = False  # the library collects a message of several units
        self._cutting = True

    def receive(self, received: bytes) -> None:
        """Take what was read from the socket."""
        if self._rest:
            received, self._rest = self._rest + received, b""
        at = 0
        while self._cutting and (unit := _find(received, at)):
            start, end = unit
            usual = received[at] in _WHOLE and not self._in_fragments
            if usual and end - start <= self._longest:
                self._deliver(apply_mask(received[start:end], received[start - 4 : start]))
            else:
                self._pass_on(received[at:end])
            at = end
        if not self._cutting or _is_the_librarys(received, at):
            self._cutting = False
            self._library(received[at:])  # and all that is still to come
        else:
            self._rest = received[at:]

    def _pass_on(self, unit: bytes) -> None:
        if not unit[0] & _CONTROL:
            self._in_fragments = not unit[0] & _LAST
        self._library(unit)
        self._cutting = self._sound()


def _find(received: bytes, at: int) -> tuple[int, int] | None:
    """Return where the payload of the unit at `at` begins and ends, if it is all there."""
    size = len(received)
    if size - at < _SHORTEST or _is_the_librarys(received, at):
        return None
    length, start = received[at + 1] & _LENGTH, at + _SHORTEST
    if length == _IN_TWO_BYTES:
        if size - at < _SHORTEST + 2:
            return None
        length, start = received[at + 2] << 8 | received[at + 3], start + 2
    end = start + length
    return (start, end) if end <= size else None


def _is_the_librarys(received: bytes, at: int) -> bool:
    """Return whether a unit is not masked, or so long that it comes in many pieces."""
    second = received[at + 1 : at + 2]
    return bool(second) and (second[0] < _MASKED or second[0] & _LENGTH == _IN_EIGHT_BYTES)
