"""How much work without audio one peer may make before its stream ends.

Audio is never too much: a provider that was held up sends a minute of it at once. A message
without audio costs as much to handle, and a peer that sends nothing else would keep the event
loop from all others, or fill the disk with empty recordings.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from receiver.rate_limit import TokenBucket
from receiver.wire.errors import ProtocolViolation

MOST_REJECTED: Final = 50
"""More unusable messages than this within `REJECTED_WINDOW_SECONDS` end the stream."""
REJECTED_WINDOW_SECONDS: Final = 10.0
OTHERS_AT_ONCE: Final = 5000
"""Messages other than media that may come at once ..."""
OTHERS_PER_SECOND: Final = 50.0
"""... and in the long run; digits dialled by a person are ten a second at most."""
RECORDINGS_AT_ONCE: Final = 20
"""Recordings that one connection may open at once ..."""
RECORDINGS_PER_SECOND: Final = 0.2
"""... and in the long run; providers open a connection for each stream."""


class PeerLimits:
    """What one stream's peer may do besides sending audio.

    Each method counts one event at `now`, in seconds of a clock that never goes back.

    Raises:
        ProtocolViolation: it was one too many.
    """

    def __init__(self) -> None:
        self._rejected_at: deque[float] = deque()  # when the latest unusable messages came
        self._others = TokenBucket(OTHERS_AT_ONCE, OTHERS_PER_SECOND)
        self._recordings = TokenBucket(RECORDINGS_AT_ONCE, RECORDINGS_PER_SECOND)

    def count_rejected(self, now: float) -> None:
        """Count a message that could not be used."""
        self._rejected_at.append(now)
        if len(self._rejected_at) <= MOST_REJECTED:
            return
        if now - self._rejected_at.popleft() <= REJECTED_WINDOW_SECONDS:
            raise ProtocolViolation("too many unusable messages")

    def count_other(self, now: float) -> None:
        """Count a good message that is not media."""
        if not self._others.take(now):
            raise ProtocolViolation("too many messages other than media")

    def count_recording(self, now: float) -> None:
        """Count a recording that is about to be opened."""
        if not self._recordings.take(now):
            raise ProtocolViolation("too many recordings on one connection")
