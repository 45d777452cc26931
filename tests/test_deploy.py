"""The examples in deploy/ agree with what the receiver needs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from receiver.config.settings import Config
from receiver.service import run

DEPLOY = Path(__file__).parent.parent / "deploy"


def number(file: str, pattern: str) -> int:
    """Return the number that a pattern finds in a file."""
    found = re.search(pattern, (DEPLOY / file).read_text("utf-8"), re.MULTILINE)
    assert found, pattern
    return int(found[1])


def test_the_unit_gives_as_many_descriptors_as_are_needed() -> None:
    """No warning with the default settings, also where listeners are admitted."""
    config = Config()
    limit = number("tapreel-receiver.service", r"^LimitNOFILE=(\d+)$")
    streams = config.max_streams * run.PER_STREAM
    assert limit >= run.RESERVE + streams + config.max_waiting + config.max_listeners


def test_the_unit_waits_for_a_drain_and_for_publishing() -> None:
    """systemd kills only a receiver that had its time."""
    seconds = number("tapreel-receiver.service", r"^TimeoutStopSec=(\d+)$")
    assert seconds >= Config().drain_timeout + 60


def test_the_unit_notifies_and_is_watched() -> None:
    """systemd waits for `READY=1`; memory, which holds audio and tokens, is dumped nowhere."""
    unit = (DEPLOY / "tapreel-receiver.service").read_text("utf-8").split("\n")
    assert {"Type=notify", "LimitCORE=0"} < set(unit)
    assert 30 <= number("tapreel-receiver.service", r"^WatchdogSec=(\d+)$") <= 120


@pytest.mark.needs("systemd-analyze")
def test_the_unit_exposes_little() -> None:
    """As systemd counts it, from 0 to 10: what the receiver could do beside what it needs."""
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager"]
    unit = str(DEPLOY / "tapreel-receiver.service")
    done = subprocess.run([*command, unit], capture_output=True, text=True, check=False)
    exposure = re.search(r"exposure level for \S+: ([0-9.]+)", done.stdout)
    assert exposure, done.stderr
    assert float(exposure[1]) <= 2.0


def test_nginx_can_carry_as_many_streams_as_the_receiver_lets_in() -> None:
    """Two connections for each, and a descriptor for each of these."""
    connections = number("nginx.conf", r"worker_connections (\d+);")
    assert connections >= 2 * Config().max_streams
    assert number("nginx.conf", r"worker_rlimit_nofile (\d+);") >= connections


def test_nginx_leaves_silent_streams_to_the_receiver() -> None:
    """One that does not answer is ended by the receiver's own limit, with its reason."""
    for side in ("read", "send"):
        hours = number("nginx.conf", rf"proxy_{side}_timeout (\d+)h;")
        assert hours * 3600 > Config().idle_timeout_seconds
