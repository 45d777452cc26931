"""Feeds the outbox and empties it: what the console's process does for webhooks.

    publication log, quarantine ──> RecordingsFeed ──┐
    /tap/all of receivers ────────> streams_feed ────┴──> outbox ──> each endpoint, a few at once

- The event loop sends; whatever waits for the database or a disk is in two threads of this module.
- An endpoint that is slow or away holds its own few places, and nobody else's.
- A database that is away is tried again behind ever longer waits; the log says so once a minute.
- Nothing of a call depends on any of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

import structlog

from receiver.catalogue.database import Database
from receiver.config.settings import Config
from receiver.errors import CatalogueError, ConfigurationError
from receiver.notifications import (
    commands,
    events,
    expectations,
    http_client,
    outbox,
    signing,
    streams_feed,
)
from receiver.notifications.events import OutboxEvent
from receiver.notifications.expectations import Expectation, Expectations
from receiver.notifications.http_client import PostAnswer
from receiver.notifications.outbox import Delivery, Outbox
from receiver.notifications.recordings_feed import RecordingsFeed
from receiver.notifications.streams_feed import Dial
from receiver.notifications.webhooks import WebhookEndpoint, endpoints_of
from receiver.rate_limit import LogThrottle

AT_ONCE: Final = 4
"""Deliveries of one endpoint that are on their way; the command has one."""
POLL_SECONDS: Final = 0.5
TIDY_SECONDS: Final = 3600.0
SHOWN_SECONDS: Final = 3600.0
"""For so long a stream that did not come stands on the live page."""
MOST_PENDING: Final = 10_000
"""Events of streams that wait for a database that is away; what is more comes with publication."""
_BACK_OFF_SECONDS: Final = (1.0, 2.0, 5.0, 15.0, 30.0)
_LOG_SECONDS: Final = 60.0
_STREAM_TYPES: Final = frozenset({events.STREAM_STARTED, events.STREAM_ENDED})

P = ParamSpec("P")
T = TypeVar("T")

log = structlog.get_logger("receiver.notifications")


async def send(
    endpoint: WebhookEndpoint,
    event_id: str,
    body: bytes,
    *,
    command_seconds: float,
    seconds: float = http_client.ATTEMPT_SECONDS,
) -> PostAnswer:
    """Send one event to an endpoint, once; return what came of it."""
    if endpoint.command:
        return await commands.run(
            endpoint.command, body, seconds=command_seconds, environ=os.environ, event=event_id
        )
    headers = signing.headers(event_id, int(time.time()), body, endpoint.secrets)
    return await http_client.post(
        endpoint.url,
        headers,
        body,
        allow_private=endpoint.allow_private,
        trust=endpoint.trust,
        seconds=seconds,
    )


class Notifier:
    """Everything that tells others, for the life of one console.

    Args:
        config: The settings.
        database: The catalogue's.
        dials: Open the taps of the receivers whose streams are told of.
        seconds: For one attempt of HTTP.
    """

    def __init__(
        self,
        config: Config,
        database: Database,
        dials: Sequence[Dial] = (),
        *,
        seconds: float = http_client.ATTEMPT_SECONDS,
    ) -> None:
        self.endpoints = endpoints_of(config)
        self.outbox = Outbox(database)
        self.expectations = Expectations(database, config.expect_seconds)
        self.base_url = "/"  # where people open the console; links begin with it
        self.not_come: list[Expectation] = []  # streams that did not come lately
        self.on_not_come: Callable[[], None] = lambda: None  # is called when these change
        self._config = config
        self._database = database
        self._dials = dials
        self._seconds = seconds
        self._feed = RecordingsFeed(database, config.recordings, config.spool, self._links)
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="notifications")
        self._woken = asyncio.Event()
        self._following: list[asyncio.Task[None]] = []  # taps of receivers
        self._sending: dict[str, set[asyncio.Task[None]]] = {}  # by endpoint
        self._pending: deque[OutboxEvent] = deque(maxlen=MOST_PENDING)
        self._throttle = LogThrottle(_LOG_SECONDS)
        self._tidied_at = -TIDY_SECONDS

    def reload(self) -> None:
        """Read the secrets again; where one is no use, the old ones stay in force."""
        try:
            self.endpoints = endpoints_of(self._config)
        except ConfigurationError as error:
            log.error("reload_failed", part="webhooks", error=str(error), in_force="the old")
        else:
            log.info("reloaded", part="webhooks")

    def wake(self) -> None:
        """Look at once whether something is due, because somebody has asked for it."""
        self._woken.set()

    async def run(self) -> None:
        """Feed and send until it is cancelled; what is on its way then is sent again later."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._repeat(self._feed_once))
                tasks.create_task(self._repeat(self._send_once))
        finally:
            on_their_way = [task for tasks in self._sending.values() for task in tasks]
            on_their_way += self._following
            for task in on_their_way:
                task.cancel()
            await asyncio.gather(*on_their_way, return_exceptions=True)
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def _repeat(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do it again and again; where the database is away, behind ever longer waits."""
        failures = 0
        while True:
            try:
                await work()
            except (CatalogueError, OSError) as error:
                delay = self._failed(str(error), failures)
            except Exception:  # a mistake of ours: nothing is lost, it is tried again
                log.exception("notifications_failed")
                delay = self._failed("unexpected", failures)
            else:
                failures = 0
                await self._poll()
                continue
            failures += 1
            await asyncio.sleep(delay)

    async def _poll(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_SECONDS):  # `wait_for` may swallow a cancellation
                await self._woken.wait()

    def _failed(self, error: str, failures: int) -> float:
        delay = _BACK_OFF_SECONDS[min(failures, len(_BACK_OFF_SECONDS) - 1)]
        if times := self._throttle.count(error, time.monotonic()):
            log.error("outbox_unavailable", error=error, times=times, retry_seconds=delay)
        return delay

    # Feeding.

    async def _feed_once(self) -> None:
        await self._flush()
        await self._follow_streams()
        for missing in await self._run(self.expectations.sweep, self.endpoints):
            about = {"call_sid": missing.call_sid, "name": missing.name, "reason": missing.reason}
            log.error("stream_missing", expectation=missing.id, **about)
            self.wake()
        since_ms = outbox.now_ms() - round(SHOWN_SECONDS * 1000)
        not_come = await self._run(self.expectations.page, expectations.NOT_COME, since_ms=since_ms)
        if not_come != self.not_come:
            self.not_come = not_come
            self.on_not_come()
        if await self._run(self._feed.catch_up, self.endpoints):
            self.wake()
        if time.monotonic() - self._tidied_at > TIDY_SECONDS:
            names = [endpoint.name for endpoint in self.endpoints]
            if dead := await self._run(self.outbox.tidy, names):
                log.warning("deliveries_dead", count=dead, reason="no such webhook any more")
            await self._run(self.expectations.tidy)
            self._tidied_at = time.monotonic()

    async def _follow_streams(self) -> None:
        """Subscribe to taps while somebody wants to know of streams, or waits for one."""
        is_wanted = any(_STREAM_TYPES & set(each.types) for each in self.endpoints)
        if not is_wanted and self._dials:
            is_wanted = bool(await self._run(self.expectations.open_count))
        if is_wanted and not self._following:
            self._following = [
                asyncio.create_task(streams_feed.follow(dial, self._put)) for dial in self._dials
            ]
        elif not is_wanted and self._following:
            for task in self._following:
                task.cancel()
            self._following = []

    async def _put(self, event: OutboxEvent) -> None:
        self._pending.append(event)
        with contextlib.suppress(CatalogueError):  # it stays, and is tried again
            await self._flush()

    async def _flush(self) -> None:
        """Put what taps have told into the outbox."""
        found = list(self._pending)
        if not found:
            return
        await self._run(self._add, found)
        for event in found:
            with contextlib.suppress(ValueError):
                self._pending.remove(event)
        self.wake()

    def _add(self, found: Sequence[OutboxEvent]) -> None:
        with self._database.writing() as connection:
            expectations.join(connection, found)
            outbox.add(connection, found, self.endpoints)

    def _links(self, recording_id: str) -> dict[str, str]:
        return {
            "page": f"{self.base_url}recordings/{recording_id}",
            "api": f"{self.base_url}api/v1/recordings/{recording_id}",
        }

    # Sending.

    async def _send_once(self) -> None:
        self._woken.clear()
        for endpoint in self.endpoints:
            busy = self._sending.setdefault(endpoint.name, set())
            free = (1 if endpoint.command else AT_ONCE) - len(busy)
            if free > 0:
                for delivery in await self._run(self.outbox.claim, endpoint.name, free):
                    task = asyncio.create_task(self._deliver(endpoint, delivery))
                    busy.add(task)
                    task.add_done_callback(functools.partial(self._sent, busy))

    def _sent(self, busy: set[asyncio.Task[None]], task: asyncio.Task[None]) -> None:
        busy.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("delivery_failed", error=repr(task.exception()))
        self.wake()  # there is a place for the next one

    async def _deliver(self, endpoint: WebhookEndpoint, delivery: Delivery) -> None:
        answer = await send(
            endpoint,
            delivery.event,
            delivery.body.encode(),
            command_seconds=self._config.on_published_seconds,
            seconds=self._seconds,
        )
        try:
            state = await self._run(self.outbox.settle, delivery, answer)
        except CatalogueError as error:  # it is due again when its lease is over
            self._failed(str(error), 0)
            return
        self._log(endpoint, delivery, answer, state)

    def _log(
        self, endpoint: WebhookEndpoint, delivery: Delivery, answer: PostAnswer, state: str
    ) -> None:
        about = {"endpoint": endpoint.name, "event_id": delivery.event, "type": delivery.type}
        if state == outbox.DELIVERED:
            log.debug("delivered", **about, status=answer.status)
        elif state == outbox.DEAD:
            log.error("delivery_dead", **about, problem=answer.problem)
        elif times := self._throttle.count(f"{endpoint.name} {answer.problem}", time.monotonic()):
            log.warning("delivery_failed", **about, problem=answer.problem, times=times)

    async def _run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        call = functools.partial(work, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)
