"""Peers that want to hurt."""

from __future__ import annotations

from pathlib import Path

from tests.faults import floods


def test_a_flood_hurts_only_its_peer(tmp_path: Path) -> None:
    """The peer is cut, memory stays, and no other stream has a gap; `make faults` does more."""
    tally = floods.flood(tmp_path, floods.FLOODS.index(floods.tiny_fragments))
    assert tally.passed, tally
    assert tally.sent == tally.kept
