"""Several workers behind one port, with real processes, sockets and signals."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from receiver.disk import layout
from receiver.media import EndReason
from tests.bounds import at_most
from tests.end_to_end import sender
from tests.end_to_end.receiver_process import (
    TOKEN,
    WAIT_SECONDS,
    ReceiverProcess,
    running_receiver,
)
from tests.receiver.helpers import journals

CALLS = 100


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[ReceiverProcess]:
    """Run two workers."""
    with running_receiver(tmp_path, "--workers", "2") as process:
        yield process


@pytest.fixture
def two_workers(tmp_path: Path) -> Iterator[ReceiverProcess]:
    """Run two workers."""
    with running_receiver(tmp_path, "--workers", "2") as process:
        yield process


def pids(receiver: ReceiverProcess, count: int = 2) -> dict[int, int]:
    """Return the processes of the workers that have come up since the last call, by number."""
    lines = [receiver.wait_for("worker_serving") for _ in range(count)]
    return {line["worker"]: line["pid"] for line in lines}


def test_calls_are_dealt_out_evenly(two_workers: ReceiverProcess) -> None:
    """Of 100 calls at once no worker has more than 60."""
    with contextlib.ExitStack() as calls:
        for number in range(CALLS):
            call = calls.enter_context(sender.dial(two_workers.url))
            call.send(sender.start(stream_sid=f"stream-{number}"))
        lines = [two_workers.wait_for("stream_started") for _ in range(CALLS)]
        carried = Counter(line["worker"] for line in lines)
        assert {1, 2} == carried.keys()
        assert max(carried.values()) <= 60
    for _ in range(CALLS):
        two_workers.wait_for("recording_published")
    assert 0 == two_workers.stop()


def test_a_stream_goes_on_in_another_worker(two_workers: ReceiverProcess) -> None:
    """Also while nobody knows that its first socket is dead: the journal says where it stood."""
    audio = bytes(range(160))
    with contextlib.ExitStack() as sockets:
        parts = []
        for first in (1, 26):
            socket = sockets.enter_context(sender.dial(two_workers.url))
            media = [
                sender.media("inbound", n, audio, sequence=n + 1) for n in range(first, first + 20)
            ]
            sender.send_call(socket, [sender.start(), *media])
            started = two_workers.wait_for("stream_started")
            parts.append((socket, started["worker"], started["recording_id"]))
            wait_until_written(two_workers, started["recording_id"], 20 * 160)
        assert parts[0][1] != parts[1][1]
        wait_for_note(two_workers, parts[1][2])
        parts[1][0].send(sender.stop())
        document = two_workers.published()[1]
    assert document.previous is not None
    assert (parts[0][2], 100) == (document.previous.id, document.previous.gap_ms)
    assert ["audio_lost", "track_silent"] == [finding.code for finding in document.findings]


def wait_until_written(receiver: ReceiverProcess, recording_id: str, size: int) -> None:
    """Wait until a journal holds so many bytes."""
    while len(journal_of(receiver, recording_id)) < size:
        os.sched_yield()


def wait_for_note(receiver: ReceiverProcess, recording_id: str) -> None:
    """Wait until a journal says which part was before it."""
    while b"previous_part" not in journal_of(receiver, recording_id):
        os.sched_yield()


def journal_of(receiver: ReceiverProcess, recording_id: str) -> bytes:
    """Return what the journal of a recording holds by now."""
    found = receiver.spool.glob(f"*/{recording_id}.journal")
    return b"".join(journal.read_bytes() for journal in found)


def test_no_more_streams_than_allowed_are_admitted(tmp_path: Path) -> None:
    """Four places are two, one and one: all are given, and none twice."""
    options = ("--workers", "3", "--max-streams", "4")
    with running_receiver(tmp_path, *options) as receiver, contextlib.ExitStack() as calls:
        answers = Counter(status(receiver, calls) for _ in range(20))
        assert {101: 4, 503: 16} == answers


def status(receiver: ReceiverProcess, calls: contextlib.ExitStack) -> int:
    """Place a call; return the status with which it is answered."""
    try:
        calls.enter_context(sender.dial(receiver.url)).send(sender.start())
    except InvalidStatus as refused:
        return refused.response.status_code
    receiver.wait_for("stream_started")
    return 101


def test_an_address_has_one_share_with_all_workers(tmp_path: Path) -> None:
    """Of 60 idle connections 16 stay, however many workers there are."""
    options = ("--workers", "3", "--handshake-timeout-seconds", "120")
    with running_receiver(tmp_path, *options) as receiver, contextlib.ExitStack() as stack:
        address = ("127.0.0.1", receiver.port)
        waiting = {stack.enter_context(socket.create_connection(address)) for _ in range(60)}
        while len(waiting) > 16:
            ended = select.select(waiting, (), (), WAIT_SECONDS)[0]
            assert ended, f"{len(waiting)} stay"
            waiting.difference_update(ended)
        assert 16 == len(waiting)


def test_a_killed_worker_is_replaced_and_its_journals_recovered(
    receiver: ReceiverProcess,
) -> None:
    """Its streams end as crashed, the other worker's go on, and new ones are taken."""
    workers = pids(receiver)
    with contextlib.ExitStack() as calls:
        sockets = one_for_each(receiver, calls)
        os.kill(workers[1], signal.SIGKILL)
        killed, broken = sockets[1]
        with pytest.raises(ConnectionClosed):
            broken.recv(timeout=at_most(30))
        assert -signal.SIGKILL == receiver.wait_for("worker_died")["exit_code"]
        fresh = pids(receiver, 1)
        assert {1} == fresh.keys() != {1: workers[1]}
        _, document = receiver.published()
        assert (killed, EndReason.CRASH) == (document.stream_sid, document.end_reason)
        alive, call = sockets[2]
        call.send(sender.stop())
        _, document = receiver.published()
        assert (alive, EndReason.STOP) == (document.stream_sid, document.end_reason)
        replacement = calls.enter_context(sender.dial(receiver.url))
        replacement.send(sender.start(stream_sid="three"))
        assert 1 == receiver.wait_for("stream_started")["worker"]
        assert 0 == receiver.stop(signal.SIGINT)


def drain(receiver: ReceiverProcess, count: int = 2) -> None:
    """Begin to drain, and wait until each worker has begun."""
    receiver.process.send_signal(signal.SIGTERM)
    for _ in range(count):
        receiver.wait_for("draining")


def one_for_each(
    receiver: ReceiverProcess, calls: contextlib.ExitStack
) -> dict[int, tuple[str, ClientConnection]]:
    """Place a call with each of two workers; return name and socket by the worker's number."""
    found = {}
    for sid in ("one", "two"):
        call = calls.enter_context(sender.dial(receiver.url))
        call.send(sender.start(stream_sid=sid))
        call.send(sender.media("inbound", 1, b"\x00" * 160))
        found[receiver.wait_for("stream_started")["worker"]] = sid, call
    assert {1, 2} == found.keys()
    waiting_for_disk(receiver, 2)
    return found


def waiting_for_disk(receiver: ReceiverProcess, count: int) -> None:
    """Return when so many journals hold a chunk."""
    while count > sum(
        path.stat().st_size > 400 for path in receiver.spool.glob("worker-*/*.journal")
    ):
        os.sched_yield()


def test_a_drain_waits_for_the_streams_of_all_workers(receiver: ReceiverProcess) -> None:
    """After SIGTERM to the parent live streams go on to their end, and the exit code is 0."""
    with contextlib.ExitStack() as calls:
        sockets = [calls.enter_context(sender.dial(receiver.url)) for _ in range(2)]
        for call in sockets:
            call.send(sender.start())
            receiver.wait_for("stream_started")
        drain(receiver)
        for call in sockets:
            call.send(sender.media("inbound", 1, b"\x00" * 160))
            call.send(sender.stop())
        reasons = {receiver.published()[1].end_reason for _ in sockets}
    assert {EndReason.STOP} == reasons
    assert 0 == receiver.ended()


def test_a_worker_that_dies_while_draining_is_recovered(receiver: ReceiverProcess) -> None:
    """A drain may last for hours: what the dead left is published, and the others go on."""
    workers = pids(receiver)
    with contextlib.ExitStack() as stack:
        calls = one_for_each(receiver, stack)
        drain(receiver)
        os.kill(workers[1], signal.SIGKILL)
        line = receiver.wait_for("worker_died")
        assert (1, -signal.SIGKILL) == (line["worker"], line["exit_code"])
        _, document = receiver.published()
        assert (calls[1][0], EndReason.CRASH) == (document.stream_sid, document.end_reason)
        alive, call = calls[2]
        call.send(sender.stop())
        _, document = receiver.published()
        assert (alive, EndReason.STOP) == (document.stream_sid, document.end_reason)
    assert 0 == receiver.ended()
    assert [] == list(receiver.spool.rglob("*.journal"))


def test_a_drain_does_not_forget_a_worker_that_waits_for_its_start(
    receiver: ReceiverProcess,
) -> None:
    """What it left is published before the receiver ends."""
    worker = pids(receiver)[1]
    os.kill(worker, signal.SIGKILL)
    receiver.wait_for("worker_died")
    worker = pids(receiver, 1)[1]
    crashed(receiver.spool, 1)
    os.kill(worker, signal.SIGKILL)
    assert 1.0 == receiver.wait_for("worker_died")["restart_seconds"]
    receiver.process.send_signal(signal.SIGTERM)
    assert receiver.published()[1].end_reason is EndReason.CRASH
    assert 0 == receiver.ended()


def test_what_a_drain_cannot_recover_is_logged(receiver: ReceiverProcess) -> None:
    """The exit code shows it, too; the journal waits for the next start."""
    workers = pids(receiver)
    with contextlib.ExitStack() as stack:
        calls = one_for_each(receiver, stack)
        drain(receiver)
        receiver.token_file.write_text("short\n")
        os.kill(workers[1], signal.SIGKILL)
        receiver.wait_for("worker_refused_to_start")
        line = receiver.wait_for("left_for_next_start")
        assert (1, 1) == (line["worker"], line["journals"])
        calls[2][1].send(sender.stop())
        assert receiver.published()[1].end_reason is EndReason.STOP
    assert 1 == receiver.ended()
    assert "receiver: journals that wait for the next start: 1\n" in receiver.raw_log


def test_a_worker_that_keeps_dying_is_started_ever_more_slowly(tmp_path: Path) -> None:
    """At once the first time, then after 1 s; the streams of the others are whole."""
    with running_receiver(tmp_path, "--workers", "2") as receiver:
        pid = pids(receiver)[2]
        for delay in (0.0, 1.0):
            os.kill(pid, signal.SIGKILL)
            line = receiver.wait_for("worker_died")
            assert (2, delay) == (line["worker"], line["restart_seconds"])
            pid = pids(receiver, 1)[2]
        assert 0 == receiver.stop()


def test_settings_that_went_bad_stop_no_other_worker(receiver: ReceiverProcess) -> None:
    """A worker that cannot start again is tried again; the other one goes on."""
    workers = pids(receiver)
    receiver.token_file.write_text("short\n")
    with sender.dial(receiver.url) as call:
        call.send(sender.start())
        alive = receiver.wait_for("stream_started")["worker"]
        os.kill(workers[3 - alive], signal.SIGKILL)
        assert "shorter" in receiver.wait_for("worker_refused_to_start")["problem"]
        receiver.token_file.write_text(TOKEN + "\n")
        pids(receiver, 1)
        call.send(sender.stop())
        assert receiver.published()[1].end_reason is EndReason.STOP
    assert 0 == receiver.stop()


def test_a_start_that_fails_is_tried_again(receiver: ReceiverProcess) -> None:
    """Out of descriptors for a while: the streams of the other worker are whole."""
    workers = pids(receiver)
    limits = resource.prlimit(receiver.process.pid, resource.RLIMIT_NOFILE)
    with sender.dial(receiver.url) as call:
        call.send(sender.start())
        alive = receiver.wait_for("stream_started")["worker"]
        resource.prlimit(receiver.process.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
        os.kill(workers[3 - alive], signal.SIGKILL)
        line = receiver.wait_for("worker_not_started")
        assert (3 - alive, "Too many open files") == (line["worker"], line["error"])
        resource.prlimit(receiver.process.pid, resource.RLIMIT_NOFILE, limits)
        pids(receiver, 1)
        call.send(sender.stop())
        assert receiver.published()[1].end_reason is EndReason.STOP
    assert 0 == receiver.stop()


def test_each_worker_reloads_and_has_metrics_of_its_own(tmp_path: Path) -> None:
    """SIGHUP reaches all of them, and each serves its own figures."""
    with running_receiver(tmp_path, "--workers", "2", "--metrics-port", "0") as receiver:
        urls = {receiver.wait_for("serving_metrics")["url"] for _ in range(2)}
        assert 2 == len(urls)
        receiver.process.send_signal(signal.SIGHUP)
        assert {1, 2} == {receiver.wait_for("reloaded")["worker"] for _ in range(2)}
        assert 0 == receiver.stop()


def test_workers_end_with_their_parent(receiver: ReceiverProcess) -> None:
    """When the parent is killed, the workers end their streams and publish them."""
    with sender.dial(receiver.url) as call:
        call.send(sender.start())
        receiver.wait_for("stream_started")
        receiver.process.kill()
        assert receiver.published()[1].end_reason is EndReason.SHUTDOWN
    receiver.ended()
    assert [] == list(receiver.spool.glob("worker-*/*.journal"))


def test_one_line_has_the_address_of_all(receiver: ReceiverProcess) -> None:
    """The workers' port is printed once, when all of them serve."""
    assert receiver.listening.startswith("listening ws://127.0.0.1:")
    assert 0 == receiver.stop()
    assert receiver.process.stdout is not None
    assert "" == receiver.process.stdout.read()


def crashed(spool: Path, worker: int) -> None:
    """Leave a journal in a worker's folder, as a crash would."""
    folder = spool / f"{layout.WORKER}{worker}"
    folder.mkdir(0o700, parents=True, exist_ok=True)
    chunks = [journals.chunk(1, b"\x00" * 160, timestamp_ms=0)]
    name = layout.journal_name(journals.HEADER.recording_id)
    journals.write(folder / name, journals.records(chunks))


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_recovers_what_others_left(tmp_path: Path, workers: int) -> None:
    """A journal of a third worker is published whether one or two are started now."""
    spool = tmp_path / "recordings" / layout.SPOOL
    crashed(spool, 3)
    spool.chmod(0o700)
    with running_receiver(tmp_path, "--workers", str(workers)) as receiver:
        assert receiver.published()[1].end_reason is EndReason.CRASH
        assert 0 == receiver.stop()


def test_recover_finds_the_journals_of_workers(tmp_path: Path) -> None:
    """`receiver recover` looks into the workers' folders too."""
    spool = tmp_path / "recordings" / layout.SPOOL
    crashed(spool, 2)
    spool.chmod(0o700)
    command = [sys.executable, "-m", "receiver", "recover", "--recordings", "recordings"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("published ")


def test_a_second_receiver_keeps_off_the_workers_spool(receiver: ReceiverProcess) -> None:
    """The spool above the workers' is locked too."""
    command = [sys.executable, "-m", "receiver", "recover", "--recordings", "recordings"]
    done = subprocess.run(command, cwd=receiver.folder, capture_output=True, text=True, check=False)
    assert 3 == done.returncode
    assert "in use by another receiver" in done.stderr


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--port", "1"), "cannot listen on 127.0.0.1 port 1: permission denied"),
        (("--demo",), "--demo is for one worker"),
    ],
)
def test_what_no_worker_could_use_is_logged_once(
    tmp_path: Path, options: tuple[str, ...], problem: str
) -> None:
    """A bad setting is one line on stderr and exit code 3, as with one worker."""
    if os.geteuid() == 0 and "--port" in options:
        pytest.skip("the super-user may listen on any port")
    with running_receiver(tmp_path, "--workers", "2", *options) as receiver:
        assert 3 == receiver.ended()
        assert 1 == receiver.raw_log.count(problem)
