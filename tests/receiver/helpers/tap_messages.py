"""What a tap sends, message by message, for clients that are tested without a receiver."""

from __future__ import annotations

from typing import Any

import numpy as np

SAMPLES = np.arange(160, dtype="<i2")
STOPPED = {"event": "stopped", "reason": "stop", "timestamp_ms": 40}


def started(timestamp_ms: float = 0, **changes: object) -> dict[str, Any]:
    """Return the first message of a tap."""
    return {
        "event": "started",
        "recording_id": "0011",
        "call_sid": "CA1",
        "stream_sid": "MZ1",
        "parameters": {"A": "b"},
        "track": "inbound",
        "rate": 8000,
        "channels": 1,
        "timestamp_ms": timestamp_ms,
    } | changes


def gap(reason: str) -> dict[str, Any]:
    """Return a gap from 20 to 60 ms."""
    return {
        "event": "gap",
        "reason": reason,
        "track": "inbound",
        "timestamp_ms": 20,
        "duration_ms": 40,
    }
