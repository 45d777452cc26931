"""The receiver of one process: what it is made of, and in which order it starts and ends.

A `Server` wires the parts together: admission in front, sessions and their recorder behind it,
then the spool, and behind that the queue that publishes. It ends them in the order in which
audio flows, so that each part has all of its input before it is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import structlog

from receiver.auth import credentials, tls
from receiver.auth.bearer import ControlTokens, StreamTokens
from receiver.auth.replay_store import ReplayStore
from receiver.config.settings import Config
from receiver.counters import Counters
from receiver.disk import folders
from receiver.errors import ConfigurationError, DiskLeftError
from receiver.ingest.recorder import PartStore, Recorder
from receiver.ingest.session import Session
from receiver.journal import backlog
from receiver.journal.spool import Spool
from receiver.lifecycle.ledger_thread import LedgerThread
from receiver.lifecycle.pauses import PauseStore
from receiver.recording.document import Published, Recording, RenderOptions
from receiver.service import event_loop
from receiver.service.admission import Admission, DiskWatch
from receiver.service.control import ControlService
from receiver.service.event_loop import ReadCoalescer
from receiver.service.publish_queue import IN_TIME_SECONDS, PublishQueue
from receiver.service.shutdown_deadline import ShutdownDeadline
from receiver.service.tap_setup import LiveTaps
from receiver.transports.acceptor import SharedPort
from receiver.transports.interface import Limits
from receiver.transports.listener import SocketListener, listen

USED_TOKENS: Final = "used-tokens"
"""The folder in the spool with a file for each single-use token that was used."""
PARTS: Final = "parts"
"""The folder in the spool with a file for each stream of the last hour: where it stood."""
PAUSED: Final = "paused"
"""The folder in the spool with a file for each call that is paused."""
_WATCH_SECONDS: Final = 1.0
_LAST_EVENTS_SECONDS: Final = 1.5
"""For what is on its way to consumers, once the shutdown deadline runs."""
_LEDGER_SECONDS: Final = 9.4
"""By when the ledger must have its last entries; one that hangs has fewer."""
_CLOSING_SECONDS: Final = 1.0
"""For closing handshakes, once the deadline runs and all is published or left."""

log = structlog.get_logger("receiver.server")


class Server:
    """A running receiver.

    Args:
        config: its settings.
        published: is called with each recording that was published.
        shared: the port, where other workers accept from it too; their folders are beside ours.

    Raises:
        ConfigurationError: a folder, token or certificate cannot be used.
    """

    _listener: SocketListener | None = None
    _draining_until: float | None = None

    def __init__(
        self,
        config: Config,
        *,
        published: Callable[[Published], None] = lambda _: None,
        shared: SharedPort | None = None,
    ) -> None:
        folders.make_recordings_folder(config.recordings)
        self._config, self._shared = config, shared
        folder = _common_folder(config, shared)
        self._on_published = published
        self._ssl_context = tls.serving(config)
        tokens = credentials.stream_tokens(config)
        self._spool = Spool(config.spool, sync_interval_ms=config.sync_interval_ms)
        self._used_tokens = ReplayStore(folder / USED_TOKENS)
        self.counters = Counters()
        self._taps = LiveTaps(config, self._spool, counters=self.counters.taps)
        self.recorder = Recorder(
            self._spool,
            self._taps.hub,
            self.counters,
            journal_ended=self._submit,
            changed=self._sessions_changed,
            **_recorder_options(config, folder, self._taps.ledger),
        )
        self.control = _control(config, folder, self.recorder, self._used_tokens, self._spool)
        self._admission = Admission(
            tokens,
            self._used_tokens,
            open_session=lambda grant, host: Session(self.recorder, grant, remote_address=host),
            **{name: getattr(config, name) for name in ("max_streams", "min_free")},
            unsynced=self._spool.__len__,
            stalled=lambda: self._spool.counters.stalled or self._disks[0].hangs,
            taps=self._taps.taps,
            control=self.control,
        )
        self._disks = [DiskWatch(at, checked=self._disk_checked) for at in _places(config)]
        self._record_certificate()
        self._stopping = asyncio.Event()
        self.deadline = ShutdownDeadline()

    async def run(self, *, listening: Callable[[SocketListener], None]) -> None:
        """Serve until `stop` or a finished `drain`; all that arrived is published on return.

        After `stop` the rest is left in the spool, when its time is up.

        Args:
            listening: is called once, with the listener, when the first connection may come.

        Raises:
            ConfigurationError: the address cannot be listened on.
            DiskLeftError: all has ended, but for a disk that hangs or fails.
        """
        config, deadline = self._config, self.deadline
        self._loop = asyncio.get_running_loop()
        self._coalescer = ReadCoalescer(self._needs_low_latency)
        self._loop.set_exception_handler(event_loop.LoopExceptionLogger())
        self._queue = self._publish_queue()
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._close_sockets)
            stack.push_async_callback(self._queue.close)
            stack.push_async_callback(self._close_spool)
            stack.callback(self.recorder.close)
            log_left(backlog.gather(config.spool))
            await asyncio.to_thread(self.recorder.load_parts)
            await self.control.start()
            stack.callback(self.control.close)
            for journal in backlog.waiting(config.spool):
                self._queue.submit(journal)
            await asyncio.gather(*(disk.check() for disk in self._disks))
            self._admission.open()
            self._listener = listener = await _listen(
                config, self._admission, ssl_context=self._ssl_context, shared=self._shared
            )
            stack.callback(listener.stop_accepting)
            self._taps.start()
            stack.push_async_callback(deadline.run_until, self._taps.close, _LAST_EVENTS_SECONDS)
            stack.callback(self.recorder.end_all)
            lag_meter = event_loop.measure_lag(self.counters)
            checks = (self._check_ends, *(disk.check for disk in self._disks))
            watches = [event_loop.repeat(check, _WATCH_SECONDS) for check in checks]
            for work in (*watches, lag_meter, self._used_tokens.clean_up()):
                stack.callback(asyncio.create_task(work).cancel)
            if config.metrics_port is not None:
                stack.callback(self._serve_metrics(config.metrics_port))
            gc.freeze()  # what is here by now stays: a full collection need not look at it
            listening(listener)
            await self._stopping.wait()
        if self._queue.disk_left:
            raise DiskLeftError("a disk that takes nothing was left behind, see the log")

    def stop(self) -> None:
        """End live streams now, publish for some seconds, and leave the rest in the spool."""
        self._queue.start_deadline()
        self._admission.close("stopping")
        self._stopping.set()

    def drain(self) -> None:
        """Admit no new streams, and end when the live ones have; a second call stops."""
        if self._draining_until is not None:
            self.stop()
            return
        timeout = self._config.drain_timeout
        self._draining_until = self.recorder.now() + timeout
        self._admission.close("draining")
        log.info("draining", streams=self.recorder.live().streams, timeout_seconds=timeout)
        self._check_drained()

    def reload(self) -> None:
        """Read tokens, keys and certificate again; one log line for each part.

        A part uses all of its files or, with a `ConfigurationError`, none: what is bad leaves
        the old in force, and holds back no other part.
        """
        in_force = self._admission.tokens, self._taps.taps.tokens
        streams, taps = credentials.read_again(self._config, *in_force)
        parts: dict[str, Callable[[], None]] = {
            "stream tokens": lambda: self._replace_stream_tokens(streams)
        }
        if credentials.has_tap_tokens(self._config):
            parts["tap tokens"] = lambda: self._taps.replace_tokens(taps)
        if self._config.control_key_file is not None:
            parts["control keys"] = lambda: self.control.replace_keys(
                credentials.control_keys(self._config)
            )
        if self._config.forward_token_file is not None:
            parts["forward token"] = self._taps.reload_forward_token
        if self._ssl_context is not None:
            parts["certificate"] = self._reload_certificate
        for part, reload in parts.items():
            try:
                reload()
            except ConfigurationError as error:
                log.error("reload_failed", part=part, error=str(error), in_force="the old")
            else:
                log.info("reloaded", part=part)

    def left_behind(self) -> dict[str, object]:
        """Return what a process that must end now has not done; for any thread, from memory."""
        held = self._spool.counters.held_bytes
        return {"journals": len(self._queue), "live": len(self._spool), "held_bytes": held}

    def _submit(self, journal: Path) -> None:
        self._loop.call_soon_threadsafe(self._queue.submit, journal)

    def _publish_queue(self) -> PublishQueue:
        config = self._config
        return PublishQueue(
            config.recordings,
            RenderOptions(config.byte_order, config.stereo),
            published=[self._published],
            quarantined=self.counters.count_quarantined,
            discarded=self.counters.count_discarded,
            failed=self.counters.count_failed,
            died=self.counters.count_renderer_death,
            deadline=self.deadline,
        )

    def _published(self, outcome: Published) -> None:
        count_published(self.counters, outcome.recording)
        self._taps.recording_published(outcome.recording, outcome.folder)
        self._on_published(outcome)

    def _sessions_changed(self, streams: int) -> None:
        self._admission.streams = streams
        self._coalescer.observe(streams)
        if self._shared is not None:
            self._shared.carry(streams)
        self._check_drained()

    def _needs_low_latency(self) -> bool:
        """Whether somebody would notice a longer rest: a listener, a newcomer, the end."""
        pending = self._listener is not None and self._listener.pending > 0
        # A listener to the past need not have subscribed yet.
        listens = self._taps.hub.has_subscribers or self.counters.taps.listeners > 0
        return pending or listens or self._stopping.is_set()

    def _serve_metrics(self, port: int) -> Callable[[], None]:
        from receiver.service.prometheus import (
            MetricsListener,  # only here: its library starts slowly
        )

        metrics = MetricsListener(
            port,
            self.counters,
            self._spool.counters,
            refused=self._admission.refused,
            live=self.recorder.live,
            unpublished=lambda: len(self._queue),
        )
        log.info("serving_metrics", url=metrics.url)
        return metrics.close

    def _replace_stream_tokens(self, tokens: StreamTokens | ConfigurationError) -> None:
        if isinstance(tokens, ConfigurationError):
            raise tokens
        self._admission.tokens = tokens

    def _reload_certificate(self) -> None:
        if self._ssl_context is not None:
            tls.reload(self._ssl_context, *tls.pair(self._config))
            self._record_certificate()

    def _record_certificate(self) -> None:
        if self._ssl_context is not None:
            certificate, key = tls.pair(self._config)
            self.counters.certificate_expires_at = tls.expires_at(certificate)
            if self._config.tls is not None and (reason := tls.distrust(certificate, key)):
                log.warning("certificate_distrusted", certificate=str(certificate), reason=reason)

    async def _close_spool(self) -> None:
        left = self.deadline.remaining(IN_TIME_SECONDS)  # not what closing sockets has used up
        self._queue.disk_left |= not await asyncio.to_thread(self._spool.close, left)

    async def _close_sockets(self) -> None:
        """Close every socket, now that watchers were sent the last recording, then the ledger."""
        if self._listener is not None:
            left = self.deadline.remaining(IN_TIME_SECONDS)
            passed = 0.0 if left is None else IN_TIME_SECONDS - left
            await self.deadline.run_until(self._listener.close, passed + _CLOSING_SECONDS)
        closed = await self.deadline.run_until(self._taps.ledger.close, _LEDGER_SECONDS)
        self._queue.disk_left |= not closed

    def _check_drained(self) -> None:
        """End a drain when no stream lives; one that is about to send its start lives, too."""
        if self._draining_until is None:
            return
        if not self.recorder.may_still_record or self.recorder.now() >= self._draining_until:
            self._stopping.set()

    def _disk_checked(self) -> None:
        free = self.counters.free_bytes = min(disk.free_bytes for disk in self._disks)
        errors = (disk.error for disk in self._disks if disk.error)
        self._admission.disk_checked(free, next(errors, ""))

    async def _check_ends(self) -> None:
        """Check what no message brings about: dead sockets, the end of a drain."""
        self.recorder.end_unanswered(self._config.idle_timeout_seconds)
        self._check_drained()


def _places(config: Config) -> tuple[Path, Path]:
    """Return where is written: journals come first."""
    return config.spool, config.recordings


def _common_folder(config: Config, shared: SharedPort | None) -> Path:
    """Return the folder above what each worker has of its own."""
    return config.spool.parent if shared else config.spool


def _recorder_options(config: Config, folder: Path, ledger: LedgerThread) -> dict[str, Any]:
    """Return what of recording is a matter of settings; `folder` is common to all workers."""
    return {
        "elsewhere": PartStore(folder / PARTS, config.spool),
        "dtmf": config.dtmf,
        "required": config.require_param,
        "ledger": ledger,
    }


def _control(
    config: Config, folder: Path, recorder: Recorder, used: ReplayStore, spool: Spool
) -> ControlService:
    """Return what carries out orders; `folder` is common to all workers."""
    return ControlService(
        recorder,
        used,
        tokens=ControlTokens(credentials.control_keys(config)),
        store=PauseStore(folder / PAUSED),
        longest_seconds=config.longest_pause,
        flush=spool.flush,
    )


def log_left(folders: Mapping[Path, str]) -> None:
    """Log which folders of workers cannot be used, and why: journals may be behind them."""
    for folder, reason in folders.items():
        log.error("worker_folder_left", folder=str(folder), reason=reason)


def count_published(counters: Counters, document: Recording) -> None:
    """Count a published recording and what became of its chunks."""
    counters.published["complete" if document.complete else "incomplete"] += 1
    for track in document.tracks:
        for fate in ("written", "duplicate", "late", "conflict", "rejected"):
            counters.chunks[track.track.value, fate] += getattr(track.chunks, fate)


async def _listen(
    config: Config,
    admission: Admission,
    *,
    ssl_context: ssl.SSLContext | None,
    shared: SharedPort | None,
) -> SocketListener:
    proxies = tuple(map(ipaddress.ip_network, config.trusted_proxy))
    known = proxies or not config.behind_proxy  # who calls
    per_address = config.max_waiting_per_address if known else None
    listener = await listen(
        admission,
        host=config.host,
        port=config.port,
        ssl_context=ssl_context,
        limits=Limits(
            max_message_bytes=config.max_message_bytes,
            handshake_timeout_seconds=config.handshake_timeout_seconds,
            max_pending=config.max_waiting,
            max_pending_per_address=per_address,
            trusted_proxies=proxies,
            ping_seconds=min(Limits().ping_seconds, config.idle_timeout_seconds / 3),
        ),
        shared=shared,
    )
    log.info("listening", port=listener.port, event_loop=event_loop.name())
    return listener
