"""Peers that want to hurt."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import floods


@pytest.mark.parametrize("transport", floods.TRANSPORTS)
@pytest.mark.parametrize("attack", [floods.empty_pongs, floods.short_streams])
def test_a_flood_hurts_only_its_peer(tmp_path: Path, attack: floods.Attack, transport: str) -> None:
    """The peer is cut, memory stays, and no other stream has a gap; `make faults` does more."""
    which = floods.TRANSPORTS.index(transport) * len(floods.FLOODS)
    tally = floods.flood(tmp_path, which + floods.FLOODS.index(attack))
    assert tally.passed, tally
    assert tally.sent == tally.kept
