"""Pauses of calls: which last, and what of them a crash leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from receiver.lifecycle.pauses import Pause, Pauses, PauseStore


def test_a_pause_lasts_until_its_time_is_over() -> None:
    """Or until it is removed; one of another call is none."""
    now = [1000]
    pauses = Pauses(lambda: now[0])
    assert pauses.of("a") is None
    pauses.add(Pause("a", "card", 2000))
    pauses.add(Pause("b", "card", 3000))
    assert ["card", None] == [pauses.of("a") and "card", pauses.of("c")]
    now[0] = 2000
    assert pauses.of("a") is None
    pauses.remove("b")
    assert pauses.of("b") is None


def test_what_was_written_is_found_again(tmp_path: Path) -> None:
    """The latest of each call, and none that was removed or is over, which is forgotten."""
    store = PauseStore(tmp_path / "paused")
    odd = Pause("../x\ud800y".replace("\ud800", "é"), "", 9000, "ann", "command")
    for pause in (Pause("a", "one", 5000), Pause("a", "two", 6000), Pause("b", "", 1000), odd):
        store.write(pause)
    store.write(Pause("c", "", 9000))
    store.remove("c")
    store.remove("never")
    found = PauseStore(tmp_path / "paused").load(2000)
    assert {Pause("a", "two", 6000), odd} == set(found)
    assert 2 == len(list((tmp_path / "paused").iterdir()))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"call_sid":5}'])
def test_what_a_crash_left_half_written_is_removed(tmp_path: Path, content: bytes) -> None:
    """It was never acknowledged."""
    store = PauseStore(tmp_path)
    (tmp_path / "0.json").write_bytes(content)
    (tmp_path / ".fresh-0").write_bytes(b"{}")
    assert [] == store.load(0)
    assert [] == list(tmp_path.iterdir())
