"""The recording that is open on a session: its journal, its tap, and what was counted of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from receiver import paths
from receiver.live_journal import Journal
from receiver.media import Chunk
from receiver.messages import Start
from receiver.tap import SILENT, Hub, LiveStream, Standing, Tap

MOST_MESSAGES: Final = 10_000
"""Messages other than media that are kept of one recording; the rest is counted."""


@dataclass(slots=True)
class OpenRecording:
    """What a session keeps while a recording is open; where its stream stands, for the tap."""

    id: str
    journal: Journal
    started_at_ms: int
    now: Callable[[], float]
    opened_at: float
    tap: Tap = SILENT  # until the stream has a name
    latest: Chunk | None = None
    chunks: int = 0
    messages: int = 0
    rejected: int = 0

    def arrival_ms(self) -> int:
        """Return what the clock of arrival times shows."""
        return int((self.now() - self.opened_at) * 1000)

    def standing(self) -> Standing:
        """Return where the stream stands, for those who begin to listen."""
        kept = min(self.messages, MOST_MESSAGES)
        return Standing(self.chunks, kept, self.arrival_ms(), self.latest)

    def announce(self, hub: Hub, start: Start, *, greeting: bytes, message: bytes) -> None:
        """Have the stream be listened to, now that it has a name; once.

        `greeting` and `message` are the connected and start messages, verbatim.
        """
        if self.tap is not SILENT:
            return
        live = LiveStream(
            recording_id=self.id,
            account_sid=start.account_sid,
            call_sid=start.call_sid,
            stream_sid=start.stream_sid,
            parameters=start.parameters,
            media_format=start.media_format,
            tracks=start.tracks,
            started_at=paths.timestamp(self.started_at_ms),
            greeting=greeting,
            start_message=message,
        )
        self.tap = hub.open(live, self)
