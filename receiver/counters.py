"""Counters of a receiver, as plain numbers; `service/prometheus.py` makes metrics of them.

The event loop alone changes them, so counting needs no lock.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class TapCounters:
    """Counters of the live tap: who listens, and what was not sent."""

    listeners: int = 0  # sockets open at the moment
    started: Counter[str] = field(default_factory=Counter)  # listeners, by the token's name
    ended: Counter[str] = field(default_factory=Counter)  # of these
    listened_ms: Counter[str] = field(default_factory=Counter)  # of audio that they were sent
    lost: Counter[str] = field(default_factory=Counter)  # pieces of audio that they were not sent
    watchers: int = 0  # sockets open at the moment that follow all streams
    dropped: Counter[str] = field(default_factory=Counter)  # pieces of audio, by reason
    closed_slow: int = 0
    refused: Counter[str] = field(default_factory=Counter)  # by reason


@dataclass(slots=True)
class Counters:
    """Counters of one receiving process, apart from the spool's."""

    started: int = 0  # recordings
    ended: Counter[str] = field(default_factory=Counter)  # by reason
    chunks_received: int = 0  # of recordings that ended
    chunks: Counter[tuple[str, str]] = field(default_factory=Counter)  # by track and fate
    published: Counter[str] = field(default_factory=Counter)  # "complete" or "incomplete"
    quarantined: int = 0
    discarded: int = 0  # journals
    failed: int = 0  # attempts to publish
    pauses: int = 0  # that began here
    chunks_withheld: int = 0  # during pauses that ended
    without_parameter: int = 0  # streams that were not recorded, because they lack one
    renderer_deaths: int = 0
    worst_lag_seconds: float = 0.0  # of the event loop, since the last scrape
    free_bytes: int = 0
    certificate_expires_at: float | None = None
    taps: TapCounters = field(default_factory=TapCounters)

    def count_quarantined(self) -> None:
        """Count a journal that was moved to the quarantine."""
        self.quarantined += 1

    def count_discarded(self) -> None:
        """Count a journal of which nothing may be kept."""
        self.discarded += 1

    def count_failed(self) -> None:
        """Count an attempt to publish that failed."""
        self.failed += 1

    def count_renderer_death(self) -> None:
        """Count a rendering process that died in the midst of a journal."""
        self.renderer_deaths += 1


@dataclass(frozen=True, slots=True)
class LiveCounts:
    """What is open at this moment."""

    streams: int
    chunks_received: int  # of recordings that are open
