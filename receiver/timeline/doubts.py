"""What was met where a sender's clock could not be followed, and what is said of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from receiver.media import ClockRule, Finding, Track


@dataclass(slots=True)
class Anomaly:
    """How often something was met, and the largest size of it in milliseconds."""

    times: int = 0
    most_ms: float = 0

    def met(self, size_ms: float) -> None:
        """Count it once more."""
        self.times += 1
        self.most_ms = max(self.most_ms, abs(size_ms))

    def __str__(self) -> str:
        return f"{self.times} times, up to {self.most_ms:.0f} ms"


@dataclass(slots=True)
class ClockAnomalies:
    """What was met on one track."""

    overlap: Anomaly = field(default_factory=Anomaly)
    absurd: Anomaly = field(default_factory=Anomaly)
    unstamped: int = 0

    def findings(self, track: Track, rule: ClockRule) -> Iterator[Finding]:
        """Yield what a listener should know about how the track was placed."""
        if rule is not ClockRule.TIMESTAMP:
            yield Finding("clock_rule", f"chunks were placed by {rule.value}", track)
        if self.unstamped and rule is not ClockRule.CHUNKS:
            yield Finding("timestamps_missing", f"on {self.unstamped} chunks", track)
        if self.absurd.times:
            yield Finding("timestamps_absurd", f"{self.absurd}; not followed", track)
        if self.overlap.times:
            text = f"too little room {self.overlap}; the audio was appended"
            yield Finding("timestamps_overlap", text, track)
