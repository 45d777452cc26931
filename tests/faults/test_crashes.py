"""The receiver is killed; what it had is published at the next start."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import crashes


def test_a_killed_receiver_loses_only_the_last_0_7_s(tmp_path: Path) -> None:
    """SIGKILL during several calls: all but the last 0.7 s is published, once, in its place."""
    tally = crashes.killed(tmp_path, 1)
    assert tally.passed, tally
    assert tally.kept


@pytest.mark.needs("cc")
def test_a_receiver_killed_on_a_slow_disk_loses_no_more(tmp_path: Path) -> None:
    """SIGKILL while every sync takes 3 s: what was written does not wait for it."""
    tally = crashes.killed_while_syncing(tmp_path, 0)
    assert tally.passed, tally
    assert tally.kept


def test_a_receiver_killed_while_it_recovers_recovers_again(tmp_path: Path) -> None:
    """SIGKILL of the first start and of the second: both lose only the last 0.7 s."""
    tally = crashes.killed_twice(tmp_path, 2)
    assert tally.passed, tally
    assert tally.kept


def test_a_killed_worker_loses_only_its_own_last_0_7_s(tmp_path: Path) -> None:
    """Its calls are published up to it, the other worker's whole, without another start."""
    tally = crashes.worker_killed(tmp_path, 1)
    assert tally.passed, tally
    assert tally.kept


@pytest.mark.needs("cc")
def test_a_receiver_killed_while_publishing_publishes_once(tmp_path: Path) -> None:
    """Between the rename and the removal of the journal; `make faults` tries all calls."""
    tally = crashes.killed_while_publishing(tmp_path, 5)
    assert tally.passed, tally
    assert tally.sent == tally.kept


@pytest.mark.needs("cc")
def test_a_receiver_killed_beside_its_log_tells_all_who_follow_it(tmp_path: Path) -> None:
    """Before the line of a recording is synced: it is there after the next start."""
    tally = crashes.killed_while_publishing(tmp_path, crashes.BEFORE_LOG)
    assert tally.passed, tally
    assert tally.sent == tally.kept


def test_a_living_receivers_journals_are_left_alone(tmp_path: Path) -> None:
    """Recovery beside it, and a second receiver, are refused; its calls are whole."""
    tally = crashes.recovered_too_early(tmp_path, 3)
    assert tally.passed, tally
    assert tally.sent == tally.kept
