"""Shutdown with a deadline: it is met, whatever cannot be published until then."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from receiver.disk import layout
from receiver.media import EndReason
from tests.bounds import at_most
from tests.end_to_end import sender
from tests.end_to_end.receiver_process import ReceiverProcess, running_receiver

AUDIO = b"\x55" * 160
MOST_SECONDS = 10.0
MARGIN_SECONDS = at_most(5.0)
"""For a machine that is busy with other tests."""


def live_journal(receiver: ReceiverProcess) -> Path:
    """Return the journal of the one live stream, once it holds a chunk."""
    while not (
        found := [path for path in receiver.spool.rglob("*.journal") if path.stat().st_size > 400]
    ):
        os.sched_yield()
    (journal,) = found
    return journal


@contextlib.contextmanager
def held_back(journal: Path) -> Iterator[None]:
    """Keep a journal from being published: whoever publishes one claims it first."""
    with journal.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.mark.parametrize(
    ("options", "signals"),
    [
        ((), (signal.SIGINT,)),
        (("--workers", "2"), (signal.SIGTERM, signal.SIGTERM)),
    ],
    ids=["SIGINT", "workers, second SIGTERM"],
)
def test_what_cannot_be_published_in_time_is_left_for_the_next_start(
    tmp_path: Path, options: tuple[str, ...], signals: tuple[signal.Signals, ...]
) -> None:
    """Exit code 0 within 10 s, one line with the count, and nothing lost or half published."""
    with running_receiver(tmp_path, *options) as receiver, sender.dial(receiver.url) as socket:
        sender.send_call(socket, [sender.start(), sender.media("inbound", 1, AUDIO)])
        receiver.wait_for("stream_started")
        journal = live_journal(receiver)
        with held_back(journal):
            *first, last = signals
            for number in first:
                receiver.process.send_signal(number)
                receiver.wait_for("draining")
            began = time.monotonic()
            receiver.process.send_signal(last)
            assert 0 == receiver.ended()
            assert time.monotonic() - began < MOST_SECONDS + MARGIN_SECONDS
        line = receiver.wait_for("left_for_next_start")
        assert (1, str(journal.parent.relative_to(tmp_path))) == (line["journals"], line["spool"])
        assert [] == list(receiver.recordings.rglob(layout.RECORDING_JSON))
    with running_receiver(tmp_path, *options) as receiver:
        _, document = receiver.published()
        assert (EndReason.SHUTDOWN, 1) == (document.end_reason, document.tracks[0].chunks.written)


def test_a_deadline_may_start_while_a_drain_publishes(tmp_path: Path) -> None:
    """The streams have ended, rendering goes on: a second SIGTERM bounds that, too."""
    with running_receiver(tmp_path) as receiver, sender.dial(receiver.url) as socket:
        sender.send_call(socket, [sender.start(), sender.media("inbound", 1, AUDIO)])
        receiver.wait_for("stream_started")
        with held_back(live_journal(receiver)):
            receiver.process.send_signal(signal.SIGTERM)
            receiver.wait_for("draining")
            socket.send(sender.stop())
            receiver.wait_for("stream_ended")
            assert 0 == receiver.stop(signal.SIGTERM)
        assert 1 == receiver.wait_for("left_for_next_start")["journals"]


def test_a_worker_that_hangs_is_killed(tmp_path: Path) -> None:
    """Its parent ends in time all the same, logs what is left, and the next start publishes it."""
    # Its own last resort, 0.2 s later, would come before it has ended in order on a busy machine.
    program = ("-m", "tests.faults.launcher", "service.shutdown_deadline.LAST_SECONDS=60", "--")
    root = {"PYTHONPATH": str(Path(__file__).parents[2])}
    with running_receiver(
        tmp_path, "--workers", "2", environment=root, program=program
    ) as receiver:
        workers = [receiver.wait_for("worker_serving") for _ in range(2)]
        with sender.dial(receiver.url) as socket:
            sender.send_call(socket, [sender.start(), sender.media("inbound", 1, AUDIO)])
            number = receiver.wait_for("stream_started")["worker"]
            live_journal(receiver)
            (pid,) = [line["pid"] for line in workers if line["worker"] == number]
            os.kill(pid, signal.SIGSTOP)
            began = time.monotonic()
            assert 0 == receiver.stop(signal.SIGINT)
            assert time.monotonic() - began < MOST_SECONDS + MARGIN_SECONDS
        assert number == receiver.wait_for("worker_killed")["worker"]
        assert number == receiver.wait_for("worker_died")["worker"]
        line = receiver.wait_for("left_for_next_start")
        assert (number, 1) == (line["worker"], line["journals"])
    with running_receiver(tmp_path, "--workers", "2") as receiver:
        assert receiver.published()[1].end_reason is EndReason.CRASH
