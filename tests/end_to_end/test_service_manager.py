"""A receiver under a service manager: it is notified, and no signal comes too early."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.receiver_process import WAIT_SECONDS, running_receiver

WORKERS = pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["one", "workers"])


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """Return the socket of a service manager, at `notify` in the test's folder."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(WAIT_SECONDS)
        yield listening


def message(manager: socket.socket, *, but: str = "WATCHDOG=1") -> str:
    """Return the next message that is another one than `but`."""
    deadline = time.monotonic() + WAIT_SECONDS
    while (received := manager.recv(4096).decode()) == but:
        assert time.monotonic() < deadline, f"nothing but {but}"
    return received


@WORKERS
def test_a_service_manager_is_notified(
    tmp_path: Path, manager: socket.socket, options: tuple[str, ...]
) -> None:
    """When it serves, reloads and ends; and of its watchdog again and again."""
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "600000"}
    with running_receiver(tmp_path, *options, environment=environment) as receiver:
        assert "READY=1" == message(manager)
        assert "WATCHDOG=1" == message(manager, but="")
        receiver.process.send_signal(signal.SIGHUP)
        first, second = message(manager).split("\n")
        assert ("RELOADING=1", "MONOTONIC_USEC") == (first, second.partition("=")[0])
        assert "READY=1" == message(manager)
        receiver.process.send_signal(signal.SIGTERM)
        assert "STOPPING=1" == message(manager)
        assert 0 == receiver.ended()


@WORKERS
def test_a_manager_whose_queue_is_full_is_notified_later(
    tmp_path: Path, manager: socket.socket, options: tuple[str, ...]
) -> None:
    """As where it is busy itself while the machine starts."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                other.sendto(b"another service's", str(tmp_path / "notify"))
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
    with running_receiver(tmp_path, *options, environment=environment) as receiver:
        assert "READY=1" == message(manager, but="another service's")
        receiver.process.send_signal(signal.SIGTERM)
        assert "STOPPING=1" == message(manager)
        assert 0 == receiver.ended()


def test_the_watchdog_of_another_process_is_not_fed(tmp_path: Path, manager: socket.socket) -> None:
    """As where it was started by a script that systemd watches."""
    environment = {
        "NOTIFY_SOCKET": str(tmp_path / "notify"),
        "WATCHDOG_USEC": "1000",
        "WATCHDOG_PID": str(os.getpid()),
    }
    with running_receiver(tmp_path, environment=environment) as receiver:
        assert 0 == receiver.stop()
    assert ["READY=1", "STOPPING=1"] == [message(manager, but="") for _ in range(2)]


def holds_back(process_id: int, number: signal.Signals) -> bool:
    """Whether a process has blocked a signal."""
    status = Path(f"/proc/{process_id}/status").read_text()
    (blocked,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigBlk"))
    return bool(int(blocked, 16) & 1 << number - 1)


@WORKERS
def test_a_reload_at_the_start_is_remembered(tmp_path: Path, options: tuple[str, ...]) -> None:
    """As soon as the program has begun: long before it has read a token."""
    deadline = time.monotonic() + WAIT_SECONDS

    def hang_up(process_id: int) -> None:
        while not holds_back(process_id, signal.SIGHUP):
            assert time.monotonic() < deadline
            os.sched_yield()
        os.kill(process_id, signal.SIGHUP)

    with running_receiver(tmp_path, *options, started=hang_up) as receiver:
        assert receiver.url
        assert 0 == receiver.stop()
        if not options:  # workers start behind it, so they have nothing to read again
            assert "stream tokens" == receiver.wait_for("reloaded")["part"]
