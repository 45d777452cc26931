"""Tombstones: a line for each, for ever, and what is being done beside them."""

from __future__ import annotations

from pathlib import Path

import msgspec

from receiver.lifecycle import tombstones
from receiver.recording import store
from receiver.recording.store import Tombstone

DONE = Tombstone(
    at="2026-12-01T10:00:00.000Z",
    what="deleted",
    who="ann",
    via="command",
    reason="asked for",
    id="00112233aabbccdd",
    folder="2026/11/22/20261122T203000Z-00112233aabbccdd",
)


def test_what_is_appended_is_read_in_the_order_of_months(tmp_path: Path) -> None:
    """What is no tombstone, or of no recording's folder, is passed over."""
    later = msgspec.structs.replace(DONE, at="2027-01-01T10:00:00.000Z", what="erased")
    astray = msgspec.structs.replace(DONE, folder="../00112233aabbccdd")
    assert not tombstones.has(tmp_path, DONE)
    for each in (later, DONE, astray):
        tombstones.append(tmp_path, each)
    with open(tmp_path / ".tombstones" / "2026-12.jsonl", "a") as file:
        file.write('{"half')
    tombstones.append(tmp_path, DONE)
    assert [DONE, DONE, later] == list(store.tombstones(tmp_path))
    assert tombstones.has(tmp_path, DONE)
    assert not tombstones.has(tmp_path, msgspec.structs.replace(DONE, who="bob"))
    assert {DONE.id: DONE} == store.deletions(tmp_path, frozenset({DONE.id}))
    assert {} == store.deletions(tmp_path, frozenset({"0" * 16}))


def test_what_is_pending_is_known_until_it_is_done(tmp_path: Path) -> None:
    """The later word replaces the one before; removing it twice does no harm."""
    assert [] == list(tombstones.pending(tmp_path))
    tombstones.put_pending(tmp_path, DONE)
    changed = msgspec.structs.replace(DONE, after={"recording.json": "00"})
    tombstones.put_pending(tmp_path, changed)
    assert [changed] == list(tombstones.pending(tmp_path))
    for _ in range(2):
        tombstones.remove_pending(tmp_path, DONE.id)
    assert [] == list(tombstones.pending(tmp_path))
    assert [] == list(store.tombstones(tmp_path))
