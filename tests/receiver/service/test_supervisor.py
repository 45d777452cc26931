"""What all workers have together, and what each of them gets."""

from __future__ import annotations

import pickle

import pytest

from receiver.config.settings import Config, as_plain, from_plain
from receiver.service.supervisor import settings_of
from receiver.transports.acceptor import SharedPort

LIMITS = ("max_streams", "max_waiting", "max_waiting_per_address")


@pytest.mark.parametrize("workers", [1, 2, 3, 5, 16])
def test_limits_hold_for_all_workers_together(workers: int) -> None:
    """What does not divide evenly goes to the first ones."""
    config = Config(workers=workers, max_streams=17)
    settings = [settings_of(config, place) for place in range(workers)]
    for name in LIMITS:
        shares = [getattr(one, name) for one in settings]
        assert getattr(config, name) == sum(shares)
        assert sorted(shares, reverse=True) == shares
        assert shares[0] - shares[-1] <= 1


def test_every_worker_has_a_pending_connection() -> None:
    """Where there are more workers than connections may wait: else none could admit a stream."""
    config = Config(workers=20, max_waiting=3)
    assert [1] * 20 == [settings_of(config, place).max_waiting for place in range(20)]
    per_address = [settings_of(config, place).max_waiting_per_address for place in range(20)]
    assert [1] * 20 == per_address


def test_a_worker_of_a_later_version_understands_what_it_is_handed() -> None:
    """It is started again by a parent from before an upgrade: nothing of ours is in the pickle."""
    settings, port = settings_of(Config(workers=2, max_streams=7), 1), SharedPort([], [0, 0], 1)
    pickled = pickle.dumps((as_plain(settings), port.handed_over()))
    assert b"receiver." not in pickled
    values, shared = pickle.loads(pickled)  # noqa: S301  our own
    assert (3, 1) == (from_plain(values).max_streams, SharedPort.of(shared).place)
    del shared["carried"]
    assert port == SharedPort.of({**shared, "of_another_version": 1})
