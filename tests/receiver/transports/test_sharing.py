"""Processes that share a port leave connections to whoever carries less."""

from __future__ import annotations

import pytest

from receiver.transports.sharing import SharedPort


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the time, which stands still unless a test moves it."""
    now = [1000.0]
    monkeypatch.setattr("receiver.transports.sharing.time.monotonic", lambda: now[0])
    return now


def test_who_carries_less_accepts() -> None:
    """Equal shares both accept; whoever is ahead leaves the next one to the other."""
    counts = [0, 0]
    first, second = (SharedPort([], counts, place) for place in range(2))
    assert first.is_ours(0)
    assert not first.is_ours(1)
    assert second.is_ours(0)
    assert not first.is_ours(1)
    second.carry(2)
    assert [1, 2] == counts
    assert first.is_ours(1)


def test_the_dead_carry_nothing() -> None:
    """A worker that does not live is left nothing."""
    assert SharedPort([], [5, -1], 0).is_ours(5)


def test_nobody_waits_for_a_worker_that_hangs(clock: list[float]) -> None:
    """A connection that the others do not take is taken after all."""
    port = SharedPort([], [0, 0], 0)
    assert not port.is_ours(1)
    clock[0] += 0.04
    assert not port.is_ours(1)
    clock[0] += 0.02
    assert port.is_ours(1)


def test_patience_begins_anew_with_each_connection(clock: list[float]) -> None:
    """What was left to the others long ago does not count."""
    port = SharedPort([], [0, 0], 0)
    assert not port.is_ours(1)
    clock[0] += 10
    assert not port.is_ours(1)
