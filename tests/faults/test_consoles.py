"""The console beside calls, whatever becomes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import consoles


@pytest.mark.parametrize("attack", consoles.ATTACKS)
def test_calls_lose_nothing_whatever_becomes_of_the_console(
    tmp_path: Path, attack: consoles.Attack
) -> None:
    """Killed, frozen, flooded, or its database locked."""
    tally = consoles.attacked(tmp_path, consoles.ATTACKS.index(attack))
    assert tally.passed, tally
    assert tally.sent == tally.kept
