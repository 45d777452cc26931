"""A receiver under a limit of file descriptors: raised where it can be, kept to where not."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from receiver.service import run
from tests.end_to_end import sender
from tests.end_to_end.receiver_process import ReceiverProcess

LIMITED = """
import resource, sys
from receiver.cli.main import main
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
sys.exit(main(sys.argv[1:]))
"""
AUDIO = b"\x55" * 160
BASE = 24
"""What an idle receiver has open, at the least."""


@contextlib.contextmanager
def limited(folder: Path, soft: int, hard: int, *options: str) -> Iterator[ReceiverProcess]:
    """Run a receiver with limits for the length of a `with` block."""
    program = ("-c", LIMITED.format(soft=soft, hard=hard))
    process = ReceiverProcess(folder, *options, program=program)
    try:
        yield process
    finally:
        process.release()


def call(receiver: ReceiverProcess, calls: contextlib.ExitStack, number: int) -> None:
    """Place a call, and wait until it is known."""
    socket = calls.enter_context(sender.dial(receiver.url))
    socket.send(sender.start(stream_sid=f"stream-{number}"))
    socket.send(sender.media("inbound", 1, AUDIO))
    receiver.wait_for("stream_started")


def all_published(receiver: ReceiverProcess, count: int) -> bool:
    """Whether that many recordings come, and no call to the disk has failed."""
    written = [receiver.published()[1].tracks[0].chunks.written for _ in range(count)]
    return written == [1] * count and "failed" not in receiver.raw_log


def test_more_streams_than_the_soft_limit_has_descriptors(tmp_path: Path) -> None:
    """The limit is ours to raise: every call gets in and is recorded."""
    soft = 90
    streams = soft - BASE
    with limited(tmp_path, soft, 4096) as receiver:
        with contextlib.ExitStack() as calls:
            for number in range(streams):
                call(receiver, calls, number)
        assert all_published(receiver, streams)
        assert 0 == receiver.stop()
    assert "too_few_descriptors" not in receiver.raw_log


def test_a_hard_limit_admits_what_fits(tmp_path: Path) -> None:
    """One line reports it at the start, and the next call is refused for capacity."""
    with limited(tmp_path, 160, 160, "--max-waiting", "10") as receiver:
        streams = receiver.wait_for("too_few_descriptors")["max_streams"]
        assert 0 < streams <= (160 - run.RESERVE) // 2
        with contextlib.ExitStack() as calls:
            for number in range(streams):
                call(receiver, calls, number)
            with pytest.raises(InvalidStatus) as refused:
                sender.dial(receiver.url)
            assert 503 == refused.value.response.status_code
        assert all_published(receiver, streams)
        assert 0 == receiver.stop()


def test_workers_inherit_the_limit(tmp_path: Path) -> None:
    """It is raised, or complained of, once for all of them."""
    with limited(tmp_path, 90, 4096, "--workers", "2") as receiver:
        pids = [receiver.wait_for("worker_serving")["pid"] for _ in range(2)]
        limits = [resource.prlimit(pid, resource.RLIMIT_NOFILE)[0] for pid in pids]
        assert [run.RESERVE + 1000 + 128] * 2 == limits
    with limited(tmp_path, 160, 160, "--workers", "2") as receiver:
        for _ in range(2):
            receiver.wait_for("worker_serving")
        assert 1 == receiver.raw_log.count("too_few_descriptors")
