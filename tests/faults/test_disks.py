"""The disk is full, fails, or is slow, while calls go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import disks


@pytest.mark.needs("mount")
def test_a_full_disk_is_bridged_by_memory(tmp_path: Path) -> None:
    """Everything is written when space returns; new streams are refused meanwhile."""
    tally = disks.full(tmp_path / "disk", 1, seconds=2)
    assert tally.passed, tally
    assert tally.sent == tally.kept


@pytest.mark.needs("mount")
def test_what_memory_may_not_hold_is_one_gap(tmp_path: Path) -> None:
    """A disk that is full for too long costs one `disk` gap per track, with exact bounds."""
    tally = disks.full_for_too_long(tmp_path / "disk", 1, limit=0.5, seconds=2)
    assert tally.passed, tally
    assert tally.listed


@pytest.mark.needs("cc")
def test_failing_syncs_lose_nothing(tmp_path: Path) -> None:
    """EIO from a sync: the journal is written again elsewhere, with a finding."""
    tally = disks.failing(tmp_path, 1)
    assert tally.passed, tally
    assert tally.sent == tally.kept


@pytest.mark.needs("mount")
def test_without_inodes_no_new_streams_are_admitted(tmp_path: Path) -> None:
    """There are free bytes, and yet a new journal cannot be created: memory bridges it."""
    tally = disks.out_of_inodes(tmp_path / "disk", 1, seconds=5)
    assert tally.passed, tally
    assert tally.sent == tally.kept


@pytest.mark.needs("mount")
def test_an_idle_receiver_sees_that_its_disk_takes_no_file(tmp_path: Path) -> None:
    """It is not ready before the first call comes, and ready again when there is an inode."""
    tally = disks.idle_without_inodes(tmp_path / "disk", 1)
    assert tally.passed, tally
    assert tally.sent == tally.kept
