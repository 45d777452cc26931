"""SIGTERM while calls go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import signals


def test_a_drain_waits_for_live_streams(tmp_path: Path) -> None:
    """SIGTERM refuses new streams and waits for the others, of which everything is kept."""
    tally = signals.drained(tmp_path, 1)
    assert tally.passed, tally
    assert tally.sent == tally.kept


def test_a_second_signal_publishes_what_is_live(tmp_path: Path) -> None:
    """SIGTERM twice: it ends within 10 s, and everything up to then is published."""
    tally = signals.stopped(tmp_path, 1)
    assert tally.passed, tally
    assert tally.kept


@pytest.mark.needs("cc")
@pytest.mark.parametrize(
    ("what", "workers"), [("recordings", 1), ("everything", 1), ("journals", 2)]
)
def test_a_second_signal_is_obeyed_though_the_disk_hangs(
    tmp_path: Path, what: str, workers: int
) -> None:
    """All steps share one deadline, and none of them touches the disk beyond it."""
    tally = signals.stopped_while_the_disk_hangs(tmp_path, 1, what=what, workers=workers)
    assert tally.passed, tally
    assert tally.kept


@pytest.mark.needs("cc")
def test_a_pause_of_the_receiver_loses_nothing(tmp_path: Path) -> None:
    """Every chunk waited in a socket, or in memory behind a write that was stopped, too."""
    tally = signals.frozen(tmp_path, 1, limit=2, seconds=3)
    assert tally.passed, tally
    assert tally.sent == tally.kept
