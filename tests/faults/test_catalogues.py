"""Something becomes of the catalogue; recording goes on, and the catalogue is whole afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import catalogues


def test_a_killed_console_costs_no_call_and_no_row(tmp_path: Path) -> None:
    """At any moment of its start, of catching up and of comparing."""
    tally = catalogues.killed(tmp_path, 1)
    assert tally.passed, tally
    assert tally.sent == tally.kept


def test_a_locked_catalogue_costs_no_call_and_no_row(tmp_path: Path) -> None:
    """It is tried again."""
    tally = catalogues.locked(tmp_path, 1)
    assert tally.passed, tally
    assert tally.sent == tally.kept


@pytest.mark.needs("mount")
def test_a_catalogue_on_a_full_disk_costs_no_call_and_no_row(tmp_path: Path) -> None:
    """What was not written is written when there is space."""
    tally = catalogues.disk_full(tmp_path / "disk", 1)
    assert tally.passed, tally
    assert tally.sent == tally.kept


@pytest.mark.needs("postgres", "initdb")
def test_a_server_that_is_away_costs_no_call_and_no_row(tmp_path: Path) -> None:
    """Its connections end, and others are made."""
    tally = catalogues.server_away(tmp_path, 1)
    assert tally.passed, tally
    assert tally.sent == tally.kept
