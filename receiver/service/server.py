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
from typing import Final

import structlog

from receiver.auth import credentials, tls
from receiver.auth.replay_store import ReplayStore
from receiver.auth.stream_tokens import Grant
from receiver.config.settings import Config
from receiver.counters import Counters, LiveCounts
from receiver.disk import folders
from receiver.ingest.session import Session
from receiver.journal.records import Header
from receiver.journal.spool import Spool
from receiver.journal.writer import JournalWriter
from receiver.media import EndReason
from receiver.recording import publish
from receiver.recording.document import Recording
from receiver.recording.publish import Published
from receiver.recording.render import RenderOptions
from receiver.service import event_loop, reloading, render_process
from receiver.service.admission import Admission
from receiver.service.publish_queue import IN_TIME_SECONDS, PublishQueue
from receiver.service.read_coalescing import ReadCoalescer
from receiver.service.shutdown_deadline import ShutdownDeadline
from receiver.service.tap_setup import LiveTaps
from receiver.transports.interface import Limits
from receiver.transports.listener import SocketListener, listen
from receiver.transports.shared_port import SharedPort

USED_TOKENS: Final = "used-tokens"
"""The folder in the spool that remembers single-use tokens."""
_WATCH_SECONDS: Final = 1.0
_FAREWELL_SECONDS: Final = 1.5
"""For what is on its way to consumers, in a hurry."""
_PARTING_SECONDS: Final = 1.0
"""For closing handshakes, in a hurry, when all is published or left."""
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
        self._ssl_context = tls.serving(config)
        tokens = credentials.stream_tokens(config)
        self._spool = Spool(config.spool, sync_interval_ms=config.sync_interval_ms)
        common = config.spool.parent if shared else config.spool
        self._used_tokens = ReplayStore(common / USED_TOKENS)
        self.figures = Counters()
        self._tap_house = LiveTaps(config, flush=self._spool.flush, figures=self.figures.taps)
        self.hub = self._tap_house.hub
        self.gate = Admission(
            tokens,
            self._used_tokens,
            open_session=self._open_session,
            taps=self._tap_house.taps,
            pending_changed=self._see_if_full,
        )
        self.sessions: set[Session] = set()
        self._note_certificate()
        self._listener: SocketListener | None = None
        self._stopping = asyncio.Event()
        self._ended = False  # all streams, by us
        self.hurry = ShutdownDeadline()
        self._draining_until: float | None = None
        self._disk_full = False

    # What sessions need (their `Recorder`).

    now = staticmethod(time.monotonic)

    def utc_ms(self) -> int:
        """Return UTC, in milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    def open_journal(self, header: Header) -> JournalWriter:
        """Begin a journal in the spool."""
        return self._spool.open(header)

    def journal_ended(self, path: Path) -> None:
        """Take a finished journal from the writer's thread."""
        self._loop.call_soon_threadsafe(self._publisher.submit, path)

    def session_opened(self, session: Session) -> None:
        """Remember a session whose socket is open."""
        self.sessions.add(session)
        self._note_sessions()
        if self._ended:  # it was admitted before
            self._end_sessions()

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

    def _somebody_waits(self) -> bool:
        """Whether a longer rest of the event loop is noticed: a listener, a newcomer, the end."""
        pending = self._listener is not None and self._listener.pending > 0
        # Listeners of a call's past need not subscribe yet.
        listens = self.hub.has_subscribers or self.figures.taps.listeners > 0
        return pending or listens or self._stopping.is_set()

    def _open_session(self, grant: Grant, remote_address: str) -> Session:
        return Session(self, grant, remote_address=remote_address)

    # Its life.

    async def run(self, *, listening: Callable[[SocketListener], None]) -> None:
        """Serve until `stop` or a finished `drain`; all that arrived is published on return.

        After `stop` the rest is left in the spool, when its time is up.

        Raises:
            ConfigurationError: the address cannot be listened on.
        """
        config = self._config
        self._loop = asyncio.get_running_loop()
        self._pacer = ReadCoalescer(self._somebody_waits)
        self._loop.set_exception_handler(event_loop.LoopExceptionLogger())
        options = RenderOptions(config.byte_order, config.stereo)
        self._publisher = PublishQueue(
            config.recordings,
            options,
            published=self._published,
            quarantined=self.figures.count_quarantined,
            discarded=self.figures.count_discarded,
            failed=self.figures.count_failed,
            most=-(-render_process.most() // config.workers),
            hurry=self.hurry,
        )
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._part)
            stack.push_async_callback(self._publisher.close)
            stack.push_async_callback(self._close_spool)
            publish.gather(config.spool)
            for journal in publish.waiting(config.spool):
                self._publisher.submit(journal)
            await self._look_at_disk()
            listener = await self._listen()
            stack.callback(listener.stop_accepting)
            self._tap_house.start()
            stack.push_async_callback(self.hurry.allow, self._tap_house.close, _FAREWELL_SECONDS)
            stack.callback(self._end_sessions)
            lag_meter = event_loop.measure_lag(self.figures)
            for work in (self._watch(), lag_meter, self._used_tokens.clean_up()):
                stack.callback(asyncio.create_task(work).cancel)
            if config.metrics_port is not None:
                stack.callback(self._serve_metrics(config.metrics_port))
            self._see_if_full()
            gc.freeze()  # what is here by now stays: a full collection need not look at it
            listening(listener)
            await self._stopping.wait()

    async def _listen(self) -> SocketListener:
        self._listener = await _listen(
            self._config, self.gate, ssl_context=self._ssl_context, shared=self._shared
        )
        return self._listener

    def _serve_metrics(self, port: int) -> Callable[[], None]:
        from receiver.service.prometheus import (
            MetricsListener,  # only here: its library starts slowly
        )

        metrics = MetricsListener(
            port,
            self.figures,
            self._spool.figures,
            refused=self.gate.refused,
            live=self._live_figures,
        )
        log.info("serving_metrics", url=metrics.url)
        return metrics.close

    def _live_figures(self) -> LiveCounts:
        live = self._live()
        return LiveCounts(len(live), sum(session.chunks for session in live))

    def _published(self, outcome: Published) -> None:
        count_published(self.figures, outcome.recording)
        self._tap_house.kept(outcome.recording, outcome.folder)
        self._on_published(outcome)

    def stop(self) -> None:
        """End live streams now, publish for some seconds, and leave the rest in the spool."""
        self._publisher.hurry()
        self.gate.closed_for = "stopping"
        self._stopping.set()

    def drain(self) -> None:
        """Take no new streams, and end when the live ones have; a second call stops."""
        if self._draining_until is not None:
            self.stop()
            return
        self._draining_until = self.now() + self._config.drain_timeout
        self.gate.closed_for = "draining"
        log.info("draining", streams=len(self._live()), timeout_seconds=self._config.drain_timeout)
        self._see_if_drained()

    def reload(self) -> None:
        """Read tokens, keys and certificate again; what is bad leaves the old in force."""
        parts = {"stream tokens": self._take_tokens}
        if credentials.has_tap_tokens(self._config):
            parts["tap tokens"] = self._tap_house.reload
        if self._config.forward_token_file is not None:
            parts["forward token"] = self._tap_house.reload_forward_token
        if self._ssl_context is not None:
            parts["certificate"] = self._take_certificate
        reloading.reload(parts)

    def _take_tokens(self) -> None:
        self.gate.tokens = credentials.stream_tokens(self._config)

    def _take_certificate(self) -> None:
        if self._ssl_context is not None:
            tls.reload(self._ssl_context, *tls.pair(self._config))
            self._note_certificate()

    def _note_certificate(self) -> None:
        if self._ssl_context is not None:
            certificate = tls.pair(self._config)[0]
            self.figures.certificate_expires_at = tls.expires_at(certificate)

    def _live(self) -> list[Session]:
        return [session for session in list(self.sessions) if session.recording_id is not None]

    async def _close_spool(self) -> None:
        left = self.hurry.left(IN_TIME_SECONDS)  # not what closing sockets has used up
        await asyncio.to_thread(self._spool.close, left)

    def left_behind(self) -> dict[str, object]:
        """Return what a process that must end now has not done; for any thread, from memory."""
        held = self._spool.figures.held_bytes
        return {"journals": len(self._publisher), "live": len(self._spool), "held_bytes": held}

    async def _part(self) -> None:
        """Close every socket, now that watchers have been told of the last recording."""
        if self._listener is not None:
            left = self.hurry.left(IN_TIME_SECONDS)
            passed = 0.0 if left is None else IN_TIME_SECONDS - left
            await self.hurry.allow(self._listener.close, passed + _PARTING_SECONDS)

    def _end_sessions(self) -> None:
        self._ended = True
        for session in list(self.sessions):
            session.close(EndReason.SHUTDOWN, code=_GOING_AWAY, text="the receiver was stopped")

    def _see_if_drained(self) -> None:
        if self._draining_until is None:
            return
        # Who was admitted before may be about to send its start: that call is live, too.
        expected = any(session.expected for session in self.sessions)
        if not expected or self.now() >= self._draining_until:
            self._stopping.set()

    def _see_if_full(self, free_bytes: int | None = None) -> None:
        """Open or close the gate, unless it is closed for good."""
        if self._draining_until is not None or self._stopping.is_set():
            return
        if free_bytes is not None:
            self._disk_full = free_bytes < self._config.min_free
        streams = len(self.sessions) + self.gate.pending
        if self._disk_full:
            self.gate.closed_for = "disk full"
        elif max(streams, len(self._spool) / 2) >= self._config.max_streams:
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

    def _end_silent_sessions(self) -> None:
        oldest = self.now() - self._config.idle_timeout_seconds
        for session in list(self.sessions):
            if session.active_at < oldest:
                session.close(EndReason.IDLE, code=_DONE, text="no media came for too long")

    async def _watch(self) -> None:
        """Look after what no message tells: silent sockets, free space, the end of a drain."""
        while True:
            slept_at = self.now()
            await asyncio.sleep(_WATCH_SECONDS)
            # Where we were held up ourselves, what waits in the sockets must be read first.
            if self.now() - slept_at < 2 * _WATCH_SECONDS:
                self._end_silent_sessions()
            self._see_if_drained()
            try:
                await self._look_at_disk()
            except OSError as error:
                log.error("disk_unreadable", error=error.strerror)


def count_published(figures: Counters, document: Recording) -> None:
    """Count a finished recording and what became of its chunks."""
    figures.published["complete" if document.complete else "incomplete"] += 1
    for track in document.tracks:
        for fate in ("written", "duplicate", "late", "conflict", "rejected"):
            figures.chunks[track.track.value, fate] += getattr(track.chunks, fate)


async def _listen(
    config: Config,
    gate: Admission,
    *,
    ssl_context: ssl.SSLContext | None,
    shared: SharedPort | None,
) -> SocketListener:
    per_address = None if config.behind_proxy else config.max_waiting_per_address
    listener = await listen(
        gate,
        host=config.host,
        port=config.port,
        ssl_context=ssl_context,
        limits=Limits(
            max_message_bytes=config.max_message_bytes,
            handshake_timeout_seconds=config.handshake_timeout_seconds,
            max_pending=config.max_waiting,
            max_pending_per_address=per_address,
        ),
        shared=shared,
    )
    log.info("listening", port=listener.port, event_loop=event_loop.name())
    return listener
