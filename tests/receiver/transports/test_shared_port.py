"""Processes that share a port leave connections to those that carry less."""

from __future__ import annotations

import pytest

from receiver.transports.acceptor import SharedPort


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the time, which only a test moves."""
    now = [1000.0]
    monkeypatch.setattr("receiver.transports.acceptor.time.monotonic", lambda: now[0])
    return now


def test_the_process_that_carries_less_accepts() -> None:
    """Equal shares both accept; the one that is ahead leaves the next connection to the other."""
    counts = [0, 0]
    first, second = (SharedPort([], counts, place) for place in range(2))
    assert first.is_ours(0)
    assert not first.is_ours(1)
    assert second.is_ours(0)
    assert not first.is_ours(1)
    second.carry(2)
    assert [1, 2] == counts
    assert first.is_ours(1)


def test_a_process_with_fewer_places_is_full_when_the_others_are() -> None:
    """Of three places one has two: it gets two of three connections, and is not passed over."""
    counts = [0, 1]
    larger, smaller = SharedPort([], counts, 0), SharedPort([], counts, 1, ahead=1)
    assert not smaller.is_ours(0)
    assert larger.is_ours(0)
    larger.carry(1)
    assert smaller.is_ours(0)
    smaller.carry(1)
    assert [1, 2] == counts
    assert not smaller.is_ours(0)
    assert larger.is_ours(0)
    larger.carry(2)
    assert [2, 2] == counts


def test_an_upgraded_connection_is_no_longer_pending() -> None:
    """A connection counts once; one that ends counts no more, however many are pending."""
    port = SharedPort([], counts := [0, 9], 0)
    assert port.is_ours(2)
    port.carry(1)
    assert 2 == counts[0]
    port.carry(0)
    assert 1 == counts[0]


def test_nothing_is_left_to_a_worker_that_is_gone() -> None:
    """A count below zero is no share."""
    assert SharedPort([], [5, -1], 0).is_ours(5)


def test_a_worker_that_hangs_is_not_waited_for(clock: list[float]) -> None:
    """What the others do not accept is accepted after all, and so is what comes right behind it."""
    port = SharedPort([], [0, 0], 0)
    assert not port.is_ours(1)
    clock[0] += 0.2
    assert not port.is_ours(1)
    clock[0] += 0.1
    assert port.is_ours(1)
    clock[0] += 0.01
    assert port.is_ours(2)


def test_the_wait_starts_anew_with_each_connection(clock: list[float]) -> None:
    """What was left to the others long ago does not count."""
    port = SharedPort([], [0, 0], 0)
    assert not port.is_ours(1)
    clock[0] += 10
    assert not port.is_ours(1)


def test_the_wait_lasts_as_long_as_the_others_are_busy(clock: list[float]) -> None:
    """One connection after the other is not one that none accepts."""
    port = SharedPort([], counts := [0, 0], 0)
    port.carry(10)
    for accepted in range(9):
        counts[1] = accepted
        clock[0] += 0.2
        assert not port.is_ours(0)


def test_a_worker_that_hangs_is_not_waited_for_because_others_live(clock: list[float]) -> None:
    """Signs of life count only from those who would be next."""
    port = SharedPort([], counts := [0, 0, 9], 0)
    port.carry(1)
    assert not port.is_ours(0)
    clock[0] += 0.2
    counts[2] = 8
    assert not port.is_ours(0)
    clock[0] += 0.1
    counts[2] = 7
    assert port.is_ours(0)
