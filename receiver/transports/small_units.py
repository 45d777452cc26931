"""Protocol units that carry next to nothing, and how many of them one connection may send."""

from __future__ import annotations

import asyncio

from receiver.rate_limit import TokenBucket
from receiver.transports.interface import Limits


class SmallFrameLimit:
    """Counts control units and small fragments: each costs as much to take as a chunk of audio.

    A large fragment makes up for a small one, because some libraries end each message with an
    empty fragment. Whole messages are not counted: what they may be is their peer's affair.
    """

    def __init__(self, limits: Limits, loop: asyncio.AbstractEventLoop) -> None:
        self._now = loop.time
        self._small_bytes = limits.small_frame_bytes
        self._bucket = TokenBucket(limits.max_small_frames, limits.small_frames_per_second)

    def bear(self, length: int, *, control: bool) -> bool:
        """Count a unit with a payload of `length` bytes; return whether it was not one too many."""
        if length >= self._small_bytes and not control:
            self._bucket.give_back()
            return True
        return self._bucket.take(self._now())
