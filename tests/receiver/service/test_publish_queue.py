"""The rendering process: journals in, recordings out, whatever happens to the process."""

from __future__ import annotations

import asyncio
import fcntl
import multiprocessing
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from receiver.disk import layout
from receiver.journal.records import Header
from receiver.media import EndReason
from receiver.recording.publish import Published
from receiver.recording.render import RenderOptions
from receiver.service import publish_queue
from receiver.service.publish_queue import PublishQueue
from tests.bench.rendering import write_journal
from tests.patience import at_most
from tests.receiver.helpers import journals

pytestmark = pytest.mark.integration

PATIENCE_SECONDS = at_most(120)


def rendering_processes() -> list[int]:
    """Return the processes that this one has started to render in."""
    return [child.pid for child in multiprocessing.active_children() if child.pid is not None]


class Desk:
    """A publisher, and what it said."""

    def __init__(self, folder: Path, options: RenderOptions | None = None) -> None:
        self.recordings = folder / "recordings"
        self.spool = folder / "spool"
        self.recordings.mkdir(mode=0o700)
        self.spool.mkdir(mode=0o700)
        self.published: asyncio.Queue[Published] = asyncio.Queue()
        self.quarantined = asyncio.Event()
        self.failed = asyncio.Event()
        self.publisher = PublishQueue(
            self.recordings,
            options or RenderOptions(),
            published=self.published.put_nowait,
            quarantined=self.quarantined.set,
            failed=self.failed.set,
            most=2,
        )

    def journal(self, recording_id: str = journals.HEADER.recording_id, chunks: int = 50) -> Path:
        """Return a finished journal in the spool."""
        sent = [journals.chunk(n, bytes(160), timestamp_ms=n * 20) for n in range(chunks)]
        records = journals.records(sent, reason=EndReason.STOP)
        records[0] = Header(recording_id, journals.HEADER.started_at_ms, 1, "0.1.0")
        return journals.write(self.spool / layout.journal_name(recording_id), records)

    async def next_published(self) -> Published:
        """Wait for the next recording."""
        return await asyncio.wait_for(self.published.get(), PATIENCE_SECONDS)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """A publisher with empty folders."""
    made = Desk(tmp_path)
    yield made
    await made.publisher.close()


async def test_a_journal_becomes_a_recording_elsewhere(desk: Desk) -> None:
    """Another process renders; the journal goes when the recording is there."""
    journal = desk.journal()
    desk.publisher.submit(journal)
    outcome = await desk.next_published()
    assert outcome.recording.complete
    assert (outcome.folder / "inbound.wav").is_file()
    assert not journal.exists()


async def test_a_journal_that_cannot_be_read_is_set_aside(desk: Desk) -> None:
    """It is kept in quarantine, and told."""
    journal = desk.spool / "broken.journal"
    journal.write_bytes(b"not a journal")
    desk.publisher.submit(journal)
    await asyncio.wait_for(desk.quarantined.wait(), PATIENCE_SECONDS)
    assert b"not a journal" == (desk.spool / layout.QUARANTINE / "broken.journal").read_bytes()


async def test_a_killed_process_is_replaced_and_the_work_done_again(desk: Desk) -> None:
    """Whoever kills the renderer (the kernel, out of memory) loses no recording."""
    desk.publisher.submit(desk.journal())
    await desk.next_published()
    (pid,) = rendering_processes()
    os.kill(pid, signal.SIGKILL)
    folder = desk.recordings
    for number in range(2):  # the broken pool is noticed at either of them
        desk.publisher.submit(desk.journal(f"{number:016x}"))
    names = {(await desk.next_published()).recording.id for _ in range(2)}
    assert {"0" * 16, "0" * 15 + "1"} == names
    assert 3 == len(list(folder.rglob(layout.RECORDING_JSON)))


async def test_what_cannot_be_written_now_waits_for_the_next_start(desk: Desk) -> None:
    """An unwritable place leaves the journal in the spool; closing does not hang on it."""
    journal = desk.journal()
    (desk.recordings / "2026").write_text("in the way")
    desk.publisher.submit(journal)
    await desk.publisher.close()
    assert journal.exists()
    assert desk.published.empty()


async def test_signals_for_the_receiver_do_not_end_its_renderer(desk: Desk) -> None:
    """Ctrl-C reaches the whole group; the parent decides when work ends."""
    desk.publisher.submit(desk.journal())
    await desk.next_published()
    (pid,) = rendering_processes()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(pid, number)
    desk.publisher.submit(desk.journal("f" * 16))
    assert "f" * 16 == (await desk.next_published()).recording.id
    assert [pid] == rendering_processes()


async def test_closing_twice_is_fine(desk: Desk) -> None:
    """Close is idempotent."""
    await desk.publisher.close()
    await desk.publisher.close()


async def test_in_a_hurry_journals_are_rendered_side_by_side(desk: Desk) -> None:
    """One that is held up holds up no other."""
    held, free = desk.journal(), desk.journal("f" * 16)
    with held.open("rb") as claim:
        fcntl.flock(claim, fcntl.LOCK_EX)
        desk.publisher.submit(held)
        desk.publisher.submit(free)
        desk.publisher.start_deadline()
        assert "f" * 16 == (await desk.next_published()).recording.id
        assert 2 <= len(rendering_processes())
    assert journals.HEADER.recording_id == (await desk.next_published()).recording.id


@pytest.mark.parametrize("hurry", [False, True])
async def test_the_oldest_come_first_and_in_a_hurry_the_smallest(desk: Desk, hurry: bool) -> None:
    """As many as possible are published before the time is up."""
    held, small = desk.journal(), desk.journal("f" * 16)
    large = desk.journal("e" * 16, chunks=5000)
    with held.open("rb") as claim:
        fcntl.flock(claim, fcntl.LOCK_EX)
        for journal in (held, large, small):
            desk.publisher.submit(journal)
        await asyncio.sleep(0)  # they are submitted, and the first has a process
        if hurry:
            desk.publisher.start_deadline()
            assert "f" * 16 == (await desk.next_published()).recording.id
    order = [(await desk.next_published()).recording.id[0] for _ in range(2 if hurry else 3)]
    assert {"0", "e"} == set(order) if hurry else ["0", "e", "f"] == order


async def test_in_a_hurry_rendering_is_no_longer_polite(desk: Desk) -> None:
    """Whoever waits for the end of the process would wait for all others on the machine."""
    desk.publisher.submit(desk.journal())
    await desk.next_published()
    (polite,) = rendering_processes()
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    assert min(ours + 10, 19) == os.getpriority(os.PRIO_PROCESS, polite)
    desk.publisher.start_deadline()
    desk.publisher.submit(desk.journal("f" * 16))
    await desk.next_published()
    assert ours in [os.getpriority(os.PRIO_PROCESS, pid) for pid in rendering_processes()]


async def test_what_is_cut_off_leaves_nothing_half_published(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hidden folder goes, the journal stays, and closing does not wait."""
    monkeypatch.setattr(publish_queue, "IN_TIME_SECONDS", 0.0)
    monkeypatch.setattr(publish_queue, "_TIDY_SECONDS", PATIENCE_SECONDS)  # this machine is busy
    journal = desk.spool / layout.journal_name(journals.HEADER.recording_id)
    write_journal(journal, hours=1)
    desk.publisher.submit(journal)
    # At once: a polite process gets next to nothing of a busy machine.
    desk.publisher.start_deadline()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not list(desk.recordings.rglob("*.partial")):  # noqa: ASYNC110  nothing tells
            await asyncio.sleep(0.005)
    await desk.publisher.close()
    assert journal.exists()
    assert [] == [path for path in desk.recordings.rglob("*") if not path.name.isdigit()]
    assert [] == rendering_processes()


async def test_a_recording_with_deeply_nested_parameters_is_told_of(desk: Desk) -> None:
    """What the rendering process has published comes back whole."""
    deep = "[" * 700 + "]" * 700
    start = journals.start_message(a="deep").replace(b'"deep"', deep.encode())
    sent = [journals.chunk(1, bytes(160), timestamp_ms=0)]
    records = journals.records(sent, start=start, reason=EndReason.STOP)
    name = layout.journal_name(journals.HEADER.recording_id)
    desk.publisher.submit(journals.write(desk.spool / name, records))
    published = await desk.next_published()
    await desk.publisher.close()
    assert {"a": deep} == published.recording.parameters


async def test_a_mistake_of_ours_is_counted_and_keeps_the_journal(tmp_path: Path) -> None:
    """It is told of like any other failure."""
    cannot_be_sent = cast(bool, lambda: True)  # to another process
    desk = Desk(tmp_path, RenderOptions(stereo=cannot_be_sent))
    journal = desk.journal()
    desk.publisher.submit(journal)
    await asyncio.wait_for(desk.failed.wait(), PATIENCE_SECONDS)
    await desk.publisher.close()
    assert journal.exists()
    assert desk.published.empty()


async def test_a_failure_is_counted_and_keeps_the_journal(desk: Desk) -> None:
    """A recordings folder that leads elsewhere is trouble that somebody must hear of."""
    elsewhere = desk.spool.parent / "elsewhere"
    elsewhere.mkdir()
    (desk.recordings / "2026").symlink_to(elsewhere)
    journal = desk.journal()
    desk.publisher.submit(journal)
    await asyncio.wait_for(desk.failed.wait(), PATIENCE_SECONDS)
    await desk.publisher.close()
    assert journal.exists()
    assert [] == list(elsewhere.iterdir())
