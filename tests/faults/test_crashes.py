"""The receiver dies without a word; what it had is published at the next start."""

from __future__ import annotations

from pathlib import Path

from tests.faults import crashes


def test_a_killed_receiver_loses_only_the_last_moment(tmp_path: Path) -> None:
    """SIGKILL during several calls: all but the last 0.7 s is published, once, in its place."""
    tally = crashes.killed(tmp_path, 1)
    assert tally.passed, tally
    assert tally.kept
