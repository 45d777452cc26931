"""The queue of journals: recordings come out, whatever happens to the process that renders."""

from __future__ import annotations

import asyncio
import fcntl
import functools
import multiprocessing
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import cast

import pytest
from structlog.testing import capture_logs

from receiver.disk import layout
from receiver.journal.records import Header
from receiver.media import EndReason
from receiver.recording.document import Published, RenderOptions
from receiver.service import publish_queue
from receiver.service.publish_queue import PublishQueue
from tests.bench.rendering import write_journal
from tests.bounds import at_most
from tests.receiver.helpers import journals

pytestmark = pytest.mark.integration

WAIT_SECONDS = at_most(120)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may raise a priority")


def rendering_processes() -> list[int]:
    """Return the processes that this one has started to render in."""
    return [child.pid for child in multiprocessing.active_children() if child.pid is not None]


async def until(condition: Callable[[], object]) -> None:
    """Wait for what another process does."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():  # noqa: ASYNC110  nothing notifies of it
            await asyncio.sleep(0.01)


class Desk:
    """A queue, and what it called."""

    def __init__(self, folder: Path, options: RenderOptions | None = None) -> None:
        self.recordings = folder / "recordings"
        self.spool = folder / "spool"
        self.recordings.mkdir(mode=0o700)
        self.spool.mkdir(mode=0o700)
        self.published: asyncio.Queue[Published] = asyncio.Queue()
        self.quarantined = asyncio.Event()
        self.failed = asyncio.Event()
        self.deaths = 0
        self.queue = PublishQueue(
            self.recordings,
            options or RenderOptions(),
            published=[self.published.put_nowait],
            quarantined=self.quarantined.set,
            failed=self.failed.set,
            died=self._count_death,
        )

    def has_died(self, times: int) -> bool:
        """Whether the rendering process has died so often."""
        return self.deaths == times

    def _count_death(self) -> None:
        self.deaths += 1

    def journal(self, recording_id: str = journals.HEADER.recording_id, chunks: int = 50) -> Path:
        """Return a finished journal in the spool."""
        sent = [journals.chunk(n, bytes(160), timestamp_ms=n * 20) for n in range(chunks)]
        records = journals.records(sent, reason=EndReason.STOP)
        records[0] = Header(recording_id, journals.HEADER.started_at_ms, 1, "0.1.0")
        return journals.write(self.spool / layout.journal_name(recording_id), records)

    async def next_published(self) -> Published:
        """Wait for the next recording."""
        return await asyncio.wait_for(self.published.get(), WAIT_SECONDS)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """A queue with empty folders."""
    made = Desk(tmp_path)
    yield made
    await made.queue.close()


async def test_a_journal_becomes_a_recording_elsewhere(desk: Desk) -> None:
    """Another process renders; the journal goes when the recording is there."""
    journal = desk.journal()
    desk.queue.submit(journal)
    outcome = await desk.next_published()
    assert outcome.recording.complete
    assert (outcome.folder / "inbound.wav").is_file()
    assert not journal.exists()


async def test_a_journal_that_cannot_be_read_is_set_aside(desk: Desk) -> None:
    """It is kept in quarantine, and counted."""
    journal = desk.spool / "broken.journal"
    journal.write_bytes(b"not a journal")
    desk.queue.submit(journal)
    await asyncio.wait_for(desk.quarantined.wait(), WAIT_SECONDS)
    assert b"not a journal" == (desk.spool / layout.QUARANTINE / "broken.journal").read_bytes()


async def test_a_killed_process_is_replaced_and_the_work_done_again(desk: Desk) -> None:
    """A renderer that is killed (by the kernel, out of memory) costs no recording."""
    desk.queue.submit(desk.journal())
    await desk.next_published()
    (pid,) = rendering_processes()
    os.kill(pid, signal.SIGKILL)
    folder = desk.recordings
    for number in range(2):  # the broken pool is noticed at either of them
        desk.queue.submit(desk.journal(f"{number:016x}"))
    names = {(await desk.next_published()).recording.id for _ in range(2)}
    assert {"0" * 16, "0" * 15 + "1"} == names
    assert 3 == len(list(folder.rglob(layout.RECORDING_JSON)))


async def test_a_journal_of_which_the_process_dies_again_and_again_is_tried_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each death is counted, others have their turn meanwhile, and nothing waits for a start."""
    monkeypatch.setattr(publish_queue, "_DEATH_RETRY_SECONDS", (0.0, 0.2))
    journal = desk.journal()
    with capture_logs() as lines:
        with journal.open("rb") as claim:
            fcntl.flock(claim, fcntl.LOCK_EX)
            desk.queue.submit(journal)
            for deaths in (1, 2, 3):
                await until(lambda: rendering_processes() and desk.queue._process.journal)
                os.kill(rendering_processes()[0], signal.SIGKILL)
                await until(functools.partial(desk.has_died, deaths))
        desk.queue.submit(desk.journal("f" * 16))
        names = [(await desk.next_published()).recording.id for _ in range(2)]
    assert {"f" * 16, journals.HEADER.recording_id} == set(names)
    assert [(1, 0.0), (2, 0.2), (3, 0.2)] == [
        (line["times"], line["retry_seconds"])
        for line in lines
        if line["event"] == "renderer_failed"
    ]


async def test_what_cannot_be_written_now_waits_for_the_next_start(desk: Desk) -> None:
    """An unwritable place leaves the journal in the spool; closing does not hang on it."""
    journal = desk.journal()
    (desk.recordings / "2026").write_text("in the way")
    desk.queue.submit(journal)
    with capture_logs() as lines:
        await desk.queue.close()
    assert journal.exists()
    assert desk.published.empty()
    assert desk.queue.disk_left
    assert [1] == [line["journals"] for line in lines if line["event"] == "left_for_next_start"]


async def test_signals_for_the_receiver_do_not_end_its_renderer(desk: Desk) -> None:
    """Ctrl-C reaches the whole group; the parent decides when work ends."""
    desk.queue.submit(desk.journal())
    await desk.next_published()
    (pid,) = rendering_processes()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(pid, number)
    desk.queue.submit(desk.journal("f" * 16))
    assert "f" * 16 == (await desk.next_published()).recording.id
    assert [pid] == rendering_processes()


async def test_closing_twice_is_fine(desk: Desk) -> None:
    """Close is idempotent."""
    await desk.queue.close()
    await desk.queue.close()


async def test_journals_are_published_in_their_order_by_one_process(desk: Desk) -> None:
    """However small a later one is; also once the deadline has begun."""
    held, small = desk.journal(), desk.journal("f" * 16)
    large = desk.journal("e" * 16, chunks=2000)
    with held.open("rb") as claim:
        fcntl.flock(claim, fcntl.LOCK_EX)
        for journal in (held, large, small):
            desk.queue.submit(journal)
        await asyncio.sleep(0)  # they are submitted, and the first has the process
        desk.queue.start_deadline()
    assert "0ef" == "".join([(await desk.next_published()).recording.id[0] for _ in range(3)])
    assert 1 == len(rendering_processes())


def niceness() -> int:
    """Return that of the one process that renders."""
    (pid,) = rendering_processes()
    return os.getpriority(os.PRIO_PROCESS, pid)


@pytest.mark.parametrize("runs_already", [pytest.param(True, marks=needs_root), False])
async def test_rendering_has_low_priority_until_the_deadline_has_begun(
    desk: Desk, runs_already: bool
) -> None:
    """The end of the process would wait for all others on the machine."""
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    if runs_already:
        desk.queue.submit(desk.journal())
        await desk.next_published()
        assert min(ours + 10, 19) == niceness()
    desk.queue.start_deadline()
    desk.queue.submit(desk.journal("f" * 16))
    await desk.next_published()
    assert ours == niceness()


async def test_every_subscriber_is_called_once_for_a_recording(desk: Desk) -> None:
    """In their order; one that raises holds back neither the others nor the queue."""
    calls: list[str] = []

    def fail(_: Published) -> None:
        calls.append("failing")
        raise RuntimeError("a mistake of the subscriber")

    desk.queue.published[:0] = [fail, lambda outcome: calls.append(outcome.recording.id)]
    for recording_id in ("a" * 16, "b" * 16):
        desk.queue.submit(desk.journal(recording_id))
        await desk.next_published()
    assert ["failing", "a" * 16, "failing", "b" * 16] == calls


async def test_what_is_cut_off_leaves_nothing_half_published(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hidden folder goes, the journal stays, and closing does not wait."""
    monkeypatch.setattr(publish_queue, "IN_TIME_SECONDS", 0.0)
    monkeypatch.setattr(publish_queue, "_TIDY_SECONDS", WAIT_SECONDS)  # this machine is busy
    journal = desk.spool / layout.journal_name(journals.HEADER.recording_id)
    write_journal(journal, hours=1)
    desk.queue.submit(journal)
    desk.queue.start_deadline()  # at once: low priority is next to nothing on a busy machine
    async with asyncio.timeout(WAIT_SECONDS):
        while not list(desk.recordings.rglob("*.partial")):  # noqa: ASYNC110  no event says so
            await asyncio.sleep(0.005)
    await desk.queue.close()
    assert journal.exists()
    assert not desk.queue.disk_left  # it was too much for the time
    assert [] == [path for path in desk.recordings.rglob("*") if not path.name.isdigit()]
    assert [] == rendering_processes()


async def test_a_recording_with_deeply_nested_parameters_is_announced(desk: Desk) -> None:
    """What the rendering process has published comes back whole."""
    deep = "[" * 700 + "]" * 700
    start = journals.start_message(a="deep").replace(b'"deep"', deep.encode())
    sent = [journals.chunk(1, bytes(160), timestamp_ms=0)]
    records = journals.records(sent, start=start, reason=EndReason.STOP)
    name = layout.journal_name(journals.HEADER.recording_id)
    desk.queue.submit(journals.write(desk.spool / name, records))
    published = await desk.next_published()
    await desk.queue.close()
    assert {"a": deep} == published.recording.parameters


async def test_a_mistake_of_ours_is_counted_and_keeps_the_journal(tmp_path: Path) -> None:
    """It is counted like any other failure."""
    cannot_be_sent = cast(bool, lambda: True)  # to another process
    desk = Desk(tmp_path, RenderOptions(stereo=cannot_be_sent))
    journal = desk.journal()
    desk.queue.submit(journal)
    await asyncio.wait_for(desk.failed.wait(), WAIT_SECONDS)
    await desk.queue.close()
    assert journal.exists()
    assert desk.published.empty()


async def test_a_failure_is_counted_and_keeps_the_journal(desk: Desk) -> None:
    """A recordings folder that leads elsewhere is trouble that somebody must know of."""
    elsewhere = desk.spool.parent / "elsewhere"
    elsewhere.mkdir()
    (desk.recordings / "2026").symlink_to(elsewhere)
    journal = desk.journal()
    desk.queue.submit(journal)
    await asyncio.wait_for(desk.failed.wait(), WAIT_SECONDS)
    await desk.queue.close()
    assert journal.exists()
    assert [] == list(elsewhere.iterdir())
