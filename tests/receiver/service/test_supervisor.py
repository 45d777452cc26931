"""What all workers have together, and what each of them gets."""

from __future__ import annotations

import pytest

from receiver.config.settings import Config
from receiver.service.supervisor import settings_of

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
