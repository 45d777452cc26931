"""Sockets that end in a reset."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import resets


@pytest.mark.needs("cc")
def test_a_burst_before_a_reset_is_kept(tmp_path: Path) -> None:
    """3000 chunks at once while syncs are slow, then a reset: not one is missing."""
    tally = resets.burst(tmp_path, 1)
    assert tally.passed, tally
    assert tally.kept == tally.sent == 2 * resets.CHUNKS
