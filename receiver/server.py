"""The house around the sessions: what runs beside them, and how it all ends.

The server is the sessions' recorder. It owns the spool, the publisher, the gate and the
listener, and tears them down in the order in which audio flows.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import structlog

from receiver import certificates, credentials, folders, publish
from receiver.config import Config
from receiver.errors import ConfigurationError
from receiver.gate import Gate
from receiver.journal import Header
from receiver.live_journal import Journal
from receiver.media import EndReason
from receiver.metrics import Figures, Live, MetricsListener
from receiver.pacer import Pacer
from receiver.publish import Published
from receiver.publisher import Publisher
from receiver.render import RenderOptions
from receiver.session import Session
from receiver.spool import Spool
from receiver.tap_house import TapHouse
from receiver.throttle import Throttle
from receiver.tokens import Grant
from receiver.transports import Limits, Listener
from receiver.transports.choice import choose
from receiver.transports.sharing import SharedPort
from receiver.used_tokens import UsedTokens

USED_TOKENS: Final = "used-tokens"
"""The folder in the spool that remembers single-use tokens."""
_WATCH_SECONDS: Final = 1.0
_LAG_SECONDS: Final = 0.1
_DONE: Final = 1000
_GOING_AWAY: Final = 1001

log = structlog.get_logger("receiver.server")


class Server:
    """A running receiver.

    Raises:
        ConfigurationError: a folder, token or certificate cannot be used.
    """

    def __init__(
        self,
        config: Config,
        *,
        published: Callable[[Published], None] = lambda _: None,
        shared: SharedPort | None = None,
    ) -> None:
        folders.make_recordings_folder(config.recordings)
        self._config = config
        self._shared = shared  # with other workers, whose folders are beside ours
        self._on_published = published
        self._ssl_context = _ssl_context(config)
        tokens = credentials.tokens(config)
        self._spool = Spool(config.spool, sync_interval_ms=config.sync_interval_ms)
        common = config.spool.parent if shared else config.spool
        self._used_tokens = UsedTokens(common / USED_TOKENS)
        self.figures = Figures()
        self._tap_house = TapHouse(config, flush=self._spool.flush, figures=self.figures.taps)
        self.hub = self._tap_house.hub
        self.gate = Gate(
            tokens, self._used_tokens, open_session=self._open_session, taps=self._tap_house.taps
        )
        self.sessions: set[Session] = set()
        self._note_certificate()
        self._stopping = asyncio.Event()
        self._draining_until: float | None = None
        self._disk_full = False

    # What sessions need (their `Recorder`).

    now = staticmethod(time.monotonic)

    def utc_ms(self) -> int:
        """Return UTC, in milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    def open_journal(self, header: Header) -> Journal:
        """Begin a journal in the spool."""
        return self._spool.open(header)

    def journal_ended(self, path: Path) -> None:
        """Take a finished journal from the writer's thread."""
        self._loop.call_soon_threadsafe(self._publisher.submit, path)

    def session_opened(self, session: Session) -> None:
        """Remember a session whose socket is open."""
        self.sessions.add(session)
        self._note_sessions()

    def session_closed(self, session: Session) -> None:
        """Forget a session."""
        self.sessions.discard(session)
        self._note_sessions()
        self._see_if_drained()

    def _note_sessions(self) -> None:
        self._pacer.note(len(self.sessions))
        if self._shared is not None:
            self._shared.carry(len(self.sessions))
        self._see_if_full()

    def _open_session(self, grant: Grant, remote_address: str) -> Session:
        return Session(self, grant, remote_address=remote_address)

    # Its life.

    async def run(self, *, listening: Callable[[Listener], None]) -> None:
        """Serve until `stop` or a finished `drain`; all that arrived is published on return.

        Raises:
            ConfigurationError: the address cannot be listened on.
        """
        config = self._config
        self._loop = asyncio.get_running_loop()
        self._pacer = Pacer()
        self._loop.set_exception_handler(_Unforeseen())
        options = RenderOptions(config.byte_order, config.stereo)
        self._publisher = Publisher(
            config.recordings,
            options,
            published=self._published,
            quarantined=self.figures.count_quarantined,
        )
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._publisher.close)
            stack.push_async_callback(asyncio.to_thread, self._spool.close)
            publish.gather(config.spool)
            for journal in publish.waiting(config.spool):
                self._publisher.submit(journal)
            await self._look_at_disk()
            await asyncio.to_thread(self._used_tokens.forget_expired)
            listener = await self._listen()
            stack.push_async_callback(listener.close)
            self._tap_house.start()
            stack.push_async_callback(self._tap_house.close)
            stack.callback(self._end_sessions)
            watcher = asyncio.create_task(self._watch())
            stack.callback(watcher.cancel)
            lag_meter = asyncio.create_task(self._measure_lag())
            stack.callback(lag_meter.cancel)
            if config.metrics_port is not None:
                stack.callback(self._serve_metrics(config.metrics_port).close)
            self._see_if_full()
            gc.freeze()  # what is here by now stays: a full collection need not look at it
            listening(listener)
            await self._stopping.wait()
            self.gate.closed_for = "stopping"

    def _serve_metrics(self, port: int) -> MetricsListener:
        metrics = MetricsListener(
            port,
            self.figures,
            self._spool.figures,
            refused=self.gate.refused,
            live=self._live_figures,
        )
        log.info("serving_metrics", url=metrics.url)
        return metrics

    def _live_figures(self) -> Live:
        live = self._live()
        return Live(len(live), sum(session.chunks for session in live))

    def _published(self, outcome: Published) -> None:
        self.figures.count_published(outcome.recording)
        self._tap_house.kept(outcome.recording, outcome.folder)
        self._on_published(outcome)

    async def _listen(self) -> Listener:
        config = self._config
        limits = Limits(
            max_message_bytes=config.max_message_bytes,
            handshake_timeout_seconds=config.handshake_timeout_seconds,
            max_waiting=config.max_waiting,
            max_waiting_per_address=(
                None if config.behind_proxy else config.max_waiting_per_address
            ),
        )
        transport, listen = choose(config.transport)
        listener = await listen(
            self.gate,
            host=config.host,
            port=config.port,
            ssl_context=self._ssl_context,
            limits=limits,
            shared=self._shared,
        )
        event_loop = type(self._loop).__module__.partition(".")[0]
        log.info("listening", port=listener.port, transport=transport, event_loop=event_loop)
        return listener

    def stop(self) -> None:
        """End live streams now and publish them."""
        self._stopping.set()

    def drain(self) -> None:
        """Take no new streams, and stop when the live ones have ended; a second call stops."""
        if self._draining_until is not None:
            self.stop()
            return
        self._draining_until = self.now() + self._config.drain_timeout
        self.gate.closed_for = "draining"
        log.info("draining", streams=len(self._live()), timeout_seconds=self._config.drain_timeout)
        self._see_if_drained()

    def reload(self) -> None:
        """Read tokens, keys and certificate again; what is bad leaves the old in force."""
        try:
            tokens = credentials.tokens(self._config)
            self._tap_house.reload()
            self.gate.tokens = tokens
            if self._ssl_context is not None:
                certificates.reload(self._ssl_context, *_certificate(self._config))
        except ConfigurationError as error:
            log.error("reload_failed", error=str(error))
        else:
            self._note_certificate()
            log.info("reloaded")

    def _note_certificate(self) -> None:
        if self._ssl_context is not None:
            certificate = _certificate(self._config)[0]
            self.figures.certificate_expires_at = certificates.expires_at(certificate)

    def _live(self) -> list[Session]:
        return [session for session in list(self.sessions) if session.recording_id is not None]

    def _end_sessions(self) -> None:
        for session in list(self.sessions):
            session.close(EndReason.SHUTDOWN, code=_GOING_AWAY, text="the receiver was stopped")

    def _see_if_drained(self) -> None:
        if self._draining_until is None:
            return
        if not self._live() or self.now() >= self._draining_until:
            self.stop()

    def _see_if_full(self, free_bytes: int | None = None) -> None:
        """Open or close the gate, unless it is closed for good."""
        if self._draining_until is not None or self._stopping.is_set():
            return
        if free_bytes is not None:
            self._disk_full = free_bytes < self._config.min_free
        if self._disk_full:
            self.gate.closed_for = "disk full"
        elif len(self.sessions) >= self._config.max_streams:
            self.gate.closed_for = "too many streams"
        else:
            self.gate.closed_for = ""

    async def _look_at_disk(self) -> None:
        places = (self._config.spool, self._config.recordings)
        free = await asyncio.to_thread(lambda: min(map(folders.free_bytes, places)))
        self.figures.free_bytes = free
        was_full = self._disk_full
        self._see_if_full(free)
        if self._disk_full and not was_full:
            log.error("disk_full", free_bytes=free, min_free=self._config.min_free)
        elif was_full and not self._disk_full:
            log.info("disk_has_space", free_bytes=free)

    async def _measure_lag(self) -> None:
        """Keep the worst delay with which the event loop came back to us."""
        figures, now = self.figures, self._loop.time
        while True:
            due = now() + _LAG_SECONDS
            await asyncio.sleep(_LAG_SECONDS)
            figures.worst_lag_seconds = max(figures.worst_lag_seconds, now() - due)

    async def _watch(self) -> None:
        """Look after what no message tells: silent sockets, free space, the end of a drain."""
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            oldest = self.now() - self._config.idle_timeout_seconds
            for session in list(self.sessions):
                if session.active_at < oldest:
                    session.close(EndReason.IDLE, code=_DONE, text="no media came for too long")
            self._see_if_drained()
            try:
                await self._look_at_disk()
            except OSError as error:
                log.error("disk_unreadable", error=error.strerror)


def _certificate(config: Config) -> tuple[Path, Path]:
    return config.tls or certificates.self_signed(config.state, config.host)


def _ssl_context(config: Config) -> ssl.SSLContext | None:
    return None if config.no_tls else certificates.ssl_context(*_certificate(config))


class _Unforeseen:
    """Turns what nobody foresaw into one line, at most once a second for each kind."""

    def __init__(self) -> None:
        self._throttle = Throttle()

    def __call__(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        problem, error = str(context.get("message")), context.get("exception")
        if times := self._throttle.count(problem, time.monotonic()):
            log.error("unforeseen", problem=problem, error=repr(error), times=times)
