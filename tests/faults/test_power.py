"""A power cut during calls."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import power


@pytest.mark.needs("mount", "losetup", "mkfs.ext4")
def test_what_was_synced_survives_a_power_cut(tmp_path: Path) -> None:
    """Of a disk image taken under load, everything older than 0.7 s is recovered."""
    tally = power.cut(tmp_path, 1)
    assert tally.passed, tally
    assert tally.kept
