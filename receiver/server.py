"""The house around the sessions: who may stream, what runs beside them, how it all ends.

The server is the transports' gate and the sessions' recorder. It owns the spool, the
publisher and the listener, and tears them down in the order in which audio flows.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from receiver import certificates, credentials, publish
from receiver.config import Config
from receiver.demo import Demo
from receiver.errors import ConfigurationError
from receiver.folders import make_folder
from receiver.journal import Header
from receiver.live_journal import Journal
from receiver.media import EndReason
from receiver.publish import Published
from receiver.publisher import Publisher
from receiver.render import RenderOptions
from receiver.session import Session
from receiver.spool import Spool
from receiver.tokens import Refused, Tokens
from receiver.transports import HttpAnswer, Limits, Listener, Peer, UpgradeRequest
from receiver.transports.websockets import listen

STREAMS_PATH: Final = "/audio"
_WATCH_SECONDS: Final = 1.0
_GOING_AWAY: Final = 1001
_DONE: Final = 1000

_UNAUTHORIZED: Final = HttpAnswer(401, "Unauthorized\n", (("WWW-Authenticate", "Bearer"),))
_NOT_FOUND: Final = HttpAnswer(404, "Not found\n")
_HEALTHY: Final = HttpAnswer(200, "ok\n")
_READY: Final = HttpAnswer(200, "ready\n")
_NOT_READY: Final = HttpAnswer(503, "not ready\n", (("Retry-After", "5"),))
_FULL: Final = HttpAnswer(503, "too many streams\n", (("Retry-After", "5"),))

log = structlog.get_logger("receiver.server")


class Server:
    """A running receiver: gate of its listener, recorder of its sessions."""

    def __init__(
        self,
        config: Config,
        tokens: Tokens,
        *,
        published: Callable[[Published], None] = lambda _: None,
    ) -> None:
        self._config = config
        self._tokens = tokens
        self._published = published
        self._sessions: set[Session] = set()
        self._refused: set[str] = set()
        self.ready = False

    # The gate.

    def admit(self, request: UpgradeRequest) -> HttpAnswer | Peer:
        """Decide about one request; only `/audio` with a token leads to a session."""
        if request.path == "/healthz":
            return _HEALTHY
        if request.path == "/readyz":
            return _READY if self.ready else _NOT_READY
        if request.path != STREAMS_PATH:
            return _NOT_FOUND
        try:
            grant = self._tokens.admit(request.authorization, now=time.time())
        except Refused as refused:
            log.warning(
                "handshake_refused",
                reason=refused.reason.value,
                remote_address=request.remote_address,
            )
            return _UNAUTHORIZED
        if not self.ready:
            return _NOT_READY
        if len(self._sessions) >= self._config.max_streams:
            return _FULL
        return Session(self, grant, remote_address=request.remote_address)

    # The recorder.

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
        self._sessions.add(session)

    def session_closed(self, session: Session) -> None:
        """Forget a session."""
        self._sessions.discard(session)

    # Its life.

    async def run(self, *, stop: asyncio.Event, listening: Callable[[Listener], None]) -> None:
        """Serve until `stop` is set; everything that arrived is published on return.

        Raises:
            ConfigurationError: a folder, certificate or address cannot be used.
        """
        config = self._config
        self._loop = asyncio.get_running_loop()
        make_folder(config.recordings)
        ssl_context = _ssl_context(config)
        self._spool = Spool(config.spool, sync_interval_ms=config.sync_interval_ms)
        options = RenderOptions(config.byte_order, config.stereo)
        self._publisher = Publisher(config.recordings, options, published=self._published)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._publisher.close)
            stack.push_async_callback(asyncio.to_thread, self._spool.close)
            for journal in publish.waiting(config.spool):
                self._publisher.submit(journal)
            listener = await self._listen(ssl_context)
            stack.push_async_callback(listener.close)
            stack.callback(self._end_sessions)
            watcher = asyncio.create_task(self._watch())
            stack.callback(watcher.cancel)
            self.ready = True
            listening(listener)
            await stop.wait()
            self.ready = False

    async def _listen(self, ssl_context: ssl.SSLContext | None) -> Listener:
        config = self._config
        limits = Limits(
            max_message_bytes=config.max_message_bytes,
            handshake_timeout_seconds=config.handshake_timeout_seconds,
        )
        return await listen(
            self, host=config.host, port=config.port, ssl_context=ssl_context, limits=limits
        )

    def _end_sessions(self) -> None:
        for session in list(self._sessions):
            session.close(EndReason.SHUTDOWN, code=_GOING_AWAY, text="the receiver was stopped")

    async def _watch(self) -> None:
        """End sessions on which no media came for too long; pongs are no sign of life."""
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            oldest = self.now() - self._config.idle_timeout_seconds
            for session in list(self._sessions):
                if session.active_at < oldest:
                    session.close(EndReason.IDLE, code=_DONE, text="no media came for too long")


def run(config: Config) -> None:
    """Run a receiver until SIGINT or SIGTERM.

    Raises:
        TapreelError: it cannot start with these settings.
    """
    os.umask(0o077)
    tokens = credentials.tokens(config)
    asyncio.run(_run(config, tokens))


async def _run(config: Config, tokens: Tokens) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    demo = Demo(config) if config.demo else None
    server = Server(config, tokens, published=demo.published if demo else lambda _: None)
    try:
        await server.run(stop=stop, listening=functools.partial(_listening, config, demo))
    finally:
        if demo:
            await demo.close()


def _listening(config: Config, demo: Demo | None, listener: Listener) -> None:
    """Say where we listen, as the one line on stdout that programs wait for."""
    scheme = "ws" if config.no_tls else "wss"
    host = f"[{config.host}]" if ":" in config.host else config.host
    url = f"{scheme}://{host}:{listener.port}{STREAMS_PATH}"
    print(f"listening {url}", flush=True)  # noqa: T201  data on stdout is the contract
    if demo is not None:
        demo.start(url)


def _ssl_context(config: Config) -> ssl.SSLContext | None:
    if config.no_tls:
        return None
    if config.tls is not None:
        return certificates.ssl_context(*config.tls)
    if config.self_signed:
        return certificates.ssl_context(*certificates.self_signed(config.state, config.host))
    raise ConfigurationError("choose one of --tls CERT KEY, --self-signed and --no-tls")
