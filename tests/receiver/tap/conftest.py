"""Servers of taps for the tests of this package."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from receiver.tap.listener import ListenerLimits
from tests.receiver.helpers.serving import TapServer, serving_taps

SHORT_STALL = ListenerLimits(stall_seconds=0.3)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[TapServer]:
    """Serve the taps of a hub."""
    async with serving_taps(tmp_path / "x.journal") as running:
        yield running


@pytest.fixture
async def strict_server(tmp_path: Path) -> AsyncIterator[TapServer]:
    """Serve taps, and close listeners soon that do not read, though the machine stalled."""
    async with serving_taps(tmp_path / "x.journal", SHORT_STALL) as running:
        yield running
