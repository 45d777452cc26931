"""Events go out, whatever the ends do that receive them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from receiver.catalogue.database import Database, open_database
from receiver.config.settings import Config, from_plain
from receiver.errors import CatalogueError
from receiver.notifications import notifier as module
from receiver.notifications import outbox
from receiver.notifications.notifier import Notifier
from receiver.recording import publication_log
from tests.bounds import at_most
from tests.receiver.helpers import hooks
from tests.receiver.helpers import recordings_builder as builder
from tests.receiver.helpers.hooks import OTHER_SECRET, SECRET, hook
from tests.receiver.helpers.secret_files import secret

pytestmark = pytest.mark.integration
PUBLISHED = ["recording.published"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try everything again soon."""
    monkeypatch.setattr(module, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(module, "_BACK_OFF_SECONDS", (0.02,))
    monkeypatch.setattr(outbox, "FIRST_DELAY_MS", 20)
    monkeypatch.setattr(outbox, "LONGEST_DELAY_MS", 200)


def settings(folder: Path, *tables: dict[str, Any], **more: Any) -> Config:
    """Return settings with these webhooks."""
    plain = [{**table, "secret_file": str(table["secret_file"])} for table in tables]
    recordings = folder / "recordings"
    recordings.mkdir(exist_ok=True)
    spool = str(recordings / ".spool")
    return from_plain({"recordings": str(recordings), "spool": spool, "webhook": plain, **more})


@contextlib.asynccontextmanager
async def running(config: Config, *, seconds: float = 5.0) -> AsyncIterator[Notifier]:
    """Run a notifier until the end of the block; its mark is behind what is there."""
    database = open_database(None, config.recordings)
    notifier = Notifier(config, database, seconds=seconds)
    notifier._feed.catch_up(notifier.endpoints)
    task = asyncio.create_task(notifier.run())
    try:
        yield notifier
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        database.close()


def publish(config: Config, *numbers: int, **fields: Any) -> None:
    """Publish recordings."""
    for number in numbers:
        started = builder.STARTED_AT_MS + number
        folder = builder.put(config.recordings, f"{number:016x}", started_at_ms=started, **fields)
        publication_log.append(config.recordings, folder)


def delivered(notifier: Notifier, name: str) -> int:
    """Return how many deliveries an endpoint has accepted."""
    return notifier.outbox.totals().get(name, outbox.Totals()).delivered


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(at_most(seconds)):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110  it is in a database
            await asyncio.sleep(0.02)


async def test_what_is_published_arrives_signed(tmp_path: Path) -> None:
    """With links to where people open it."""
    async with hook() as made:
        config = settings(tmp_path, hooks.table(made.url, tmp_path))
        async with running(config) as notifier:
            notifier.base_url = "https://calls.example.com/"
            publish(config, 1, parameters={"queue": "sales"})
            await made.received(3, at_most(20))
        by_type = {event["type"]: event["data"] for event in made.verified()}
    assert {"stream.started", "stream.ended", "recording.published"} == by_type.keys()
    data = by_type["recording.published"]
    link = "https://calls.example.com/recordings/0000000000000001"
    assert (link, {"queue": "sales"}) == (data["links"]["page"], data["parameters"])
    assert 3 == len(set(made.ids))


async def test_a_webhook_gets_what_it_asked_for(tmp_path: Path) -> None:
    """By type, and by the words of a search."""
    async with hook() as made:
        config = settings(
            tmp_path, hooks.table(made.url, tmp_path, events=PUBLISHED, match="param.queue=sales")
        )
        async with running(config):
            publish(config, 1, parameters={"queue": "support"})
            publish(config, 2, parameters={"queue": "sales"})
            await made.received(1, at_most(20))
    assert [f"{2:016x}"] == [event["data"]["recording_id"] for event in made.events]


async def test_what_fails_comes_again_with_the_same_id(tmp_path: Path) -> None:
    """Until it is accepted; each attempt has its own time."""
    async with hook(hooks.status(500)) as made:
        config = settings(tmp_path, hooks.table(made.url, tmp_path, events=PUBLISHED))
        with capture_logs() as logged:
            async with running(config) as notifier:
                publish(config, 1)
                await made.received(3, at_most(20))
                made.answer = hooks.status(200)
                await until(lambda: delivered(notifier, "127.0.0.1") == 1)
    assert 1 == len(set(made.ids)) < len(made.ids)
    assert 1 == len(set(made.bodies))
    made.verified()
    assert 1 == [entry["event"] for entry in logged].count("delivery_failed")


async def test_a_bad_end_costs_nobody_else_anything(tmp_path: Path) -> None:
    """Slow, silent, endless, redirecting, lying: twenty events reach the good one beside each."""
    lying = hooks.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n")
    redirecting = hooks.status(307, "Location: http://127.0.0.1:1/")
    bad = (hooks.silence, hooks.dripping, hooks.endless, redirecting, lying)
    async with contextlib.AsyncExitStack() as stack:
        ends = [await stack.enter_async_context(hook(answer)) for answer in bad]
        good = await stack.enter_async_context(hook())
        tables = [
            hooks.table(end.url, tmp_path, events=PUBLISHED, name=f"end-{number}")
            for number, end in enumerate((*ends, good))
        ]
        config = settings(tmp_path, *tables)
        async with running(config, seconds=at_most(30)) as notifier:
            publish(config, *range(1, 21))
            began = time.monotonic()
            await good.received(20, at_most(20))
            assert time.monotonic() - began < at_most(10)
            await until(lambda: delivered(notifier, "end-5") == 20)
            await until(lambda: len(ends[0].bodies) == module.AT_ONCE)
            totals = notifier.outbox.totals()
            assert 0 == totals["end-0"].delivered == totals["end-3"].delivered
            assert 0 == totals["end-4"].delivered


async def test_secrets_are_exchanged_without_a_stop(tmp_path: Path) -> None:
    """The new one is added, then the old one goes; a bad file changes nothing."""
    async with hook() as made:
        table = hooks.table(made.url, tmp_path, events=PUBLISHED)
        config = settings(tmp_path, table)
        async with running(config) as notifier:
            secret(table["secret_file"], f"{SECRET}\n{OTHER_SECRET}\n")
            notifier.reload()
            publish(config, 1)
            await made.received(1, at_most(20))
            made.verified(SECRET)
            made.verified(OTHER_SECRET)
            secret(table["secret_file"], "nonsense")
            with capture_logs() as logged:
                notifier.reload()
            assert ["reload_failed"] == [entry["event"] for entry in logged]
            publish(config, 2)
            await made.received(2, at_most(20))
            made.verified(OTHER_SECRET)


async def test_a_database_that_is_away_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log says so once, and nothing is lost."""
    async with hook() as made:
        config = settings(tmp_path, hooks.table(made.url, tmp_path, events=PUBLISHED))
        with capture_logs() as logged:
            async with running(config):

                def away(*_: object, **__: object) -> None:
                    raise CatalogueError("the database is away")

                with monkeypatch.context() as patch:
                    patch.setattr(Database, "reading", away)
                    publish(config, 1)
                    await until(lambda: any(e["event"] == "outbox_unavailable" for e in logged))
                await made.received(1, at_most(20))
    assert 1 == [entry["event"] for entry in logged].count("outbox_unavailable")


async def test_the_command_gets_each_recording(tmp_path: Path) -> None:
    """One after the other, and again what failed."""
    seen, failed = tmp_path / "seen", tmp_path / "failed"
    script = f"test -e {failed} || {{ touch {failed}; exit 1; }}; cat >> {seen}; echo >> {seen}"
    config = settings(tmp_path, on_published=f'sh -c "{script}"')
    async with running(config) as notifier:
        publish(config, 1, 2)
        await until(lambda: delivered(notifier, "on-published") == 2)
    lines = seen.read_text().splitlines()
    assert 2 == len(lines)
    assert all("recording.published" in line for line in lines)


async def test_what_was_on_its_way_at_the_end_is_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the next process, once the lease is over."""
    monkeypatch.setattr(outbox, "LEASE_MS", 200)
    async with hook(hooks.silence) as made:
        config = settings(tmp_path, hooks.table(made.url, tmp_path, events=PUBLISHED))
        async with running(config):
            publish(config, 1)
            await made.received(1, at_most(20))
        made.answer = hooks.status(200)
        async with running(config) as notifier:
            await until(lambda: delivered(notifier, "127.0.0.1") == 1)
    assert Counter({made.ids[0]: 2}) == Counter(made.ids)
