"""The rendering process: journals in, recordings out, whatever happens to the process."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from receiver import paths
from receiver.media import EndReason
from receiver.publish import Published
from receiver.publisher import Publisher
from receiver.render import RenderOptions
from tests.receiver import journals

PATIENCE_SECONDS = 30


class Desk:
    """A publisher, and what it said."""

    def __init__(self, folder: Path) -> None:
        self.recordings = folder / "recordings"
        self.spool = folder / "spool"
        self.recordings.mkdir(mode=0o700)
        self.spool.mkdir(mode=0o700)
        self.published: asyncio.Queue[Published] = asyncio.Queue()
        self.quarantined = asyncio.Event()
        self.publisher = Publisher(
            self.recordings,
            RenderOptions(),
            published=self.published.put_nowait,
            quarantined=self.quarantined.set,
        )

    def journal(self) -> Path:
        """Return a finished journal in the spool."""
        chunks = [journals.chunk(n, bytes(160), timestamp_ms=n * 20) for n in range(50)]
        path = self.spool / paths.journal_name(journals.HEADER.recording_id)
        return journals.write(path, journals.records(chunks, reason=EndReason.STOP))

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
    assert b"not a journal" == (desk.spool / paths.QUARANTINE / "broken.journal").read_bytes()


async def test_a_killed_process_is_replaced_and_the_work_done_again(desk: Desk) -> None:
    """Whoever kills the renderer (the kernel, out of memory) loses no recording."""
    desk.publisher.submit(desk.journal())
    await desk.next_published()
    (worker,) = desk.publisher._pool._processes.values()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    folder = desk.recordings
    for number in range(2):  # the broken pool is noticed at either of them
        header = journals.HEADER
        records = journals.records([], reason=EndReason.STOP)
        records[0] = type(header)(f"{number:016x}", header.started_at_ms, 1, "0.1.0")
        desk.publisher.submit(
            journals.write(desk.spool / paths.journal_name(f"{number:016x}"), records)
        )
    names = {(await desk.next_published()).recording.id for _ in range(2)}
    assert {"0" * 16, "0" * 15 + "1"} == names
    assert 3 == len(list(folder.rglob(paths.RECORDING_JSON)))


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
    (worker,) = desk.publisher._pool._processes.values()
    assert worker.pid is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(worker.pid, number)
    header = journals.HEADER
    records = journals.records([], reason=EndReason.STOP)
    records[0] = type(header)("f" * 16, header.started_at_ms, 1, "0.1.0")
    desk.publisher.submit(journals.write(desk.spool / paths.journal_name("f" * 16), records))
    assert "f" * 16 == (await desk.next_published()).recording.id
    assert worker.is_alive()


async def test_closing_twice_is_fine(desk: Desk) -> None:
    """Close is idempotent."""
    await desk.publisher.close()
    await desk.publisher.close()
