"""Floods by one peer."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.end_to_end import sender
from tests.end_to_end.receiver_process import WAIT_SECONDS
from tests.faults import floods
from tests.faults.disks import syncs
from tests.faults.faulty_disk import Orders
from tests.faults.trial import Trial
from tests.faults.watching import ask


@pytest.mark.parametrize("attack", [floods.empty_pongs, floods.short_streams])
def test_a_flood_hurts_only_its_peer(tmp_path: Path, attack: floods.Attack) -> None:
    """The peer is cut, memory stays, and no other stream has a gap; `make faults` does more."""
    tally = floods.flood(tmp_path, floods.FLOODS.index(attack))
    assert tally.passed, tally
    assert tally.sent == tally.kept


@pytest.mark.needs("cc")
def test_streams_that_end_faster_than_the_disk_stop_admission(tmp_path: Path) -> None:
    """No new streams while too many ended ones wait for the disk; then they are admitted again."""
    orders = Orders(tmp_path / "shim")
    with Trial(tmp_path) as trial:
        receiver = trial.start("--max-streams", "5", orders=orders)
        orders.give(*syncs("delay", 3000))
        for number in range(2):
            with sender.dial(receiver.url) as socket:
                for part in range(5):
                    socket.send(sender.start(stream_sid=f"stream-{number}-{part}"))
                    socket.send(sender.stop())
        assert 503 == ask(receiver, "/readyz")
        orders.give()
        trial.wait_until_published()
        deadline = time.monotonic() + WAIT_SECONDS
        while ask(receiver, "/readyz") != 200:  # it looks once a second
            assert time.monotonic() < deadline
        assert 10 == len(list(trial.recordings.glob("2*/*/*/*/recording.json")))
