"""The console as a process: its sockets, TLS, signals, and its end.

`run` serves until it is stopped. `receiver console` calls it in a process of its own accord;
`receiver serve --console` has it in a child, which `run_child` is the target of. That one gets
its commands through a pipe, ignores signals, and ends with its parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from typing import Any, Final

import h11
import structlog
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from receiver import logs
from receiver.auth import credentials, tls
from receiver.catalogue.catalogue import Catalogue, Follower
from receiver.config.settings import Config, as_plain, from_plain
from receiver.console import check_console
from receiver.console.accounts import Accounts, ApiTokens, Sessions
from receiver.console.app import Rates, application
from receiver.console.context import Console
from receiver.console.live import LiveCalls, tap_addresses
from receiver.console.oidc import Provider
from receiver.console.who import Role
from receiver.disk.folders import make_recordings_folder
from receiver.errors import ConfigurationError, TapreelError
from receiver.lifecycle.expiry import Retention, RetentionThread
from receiver.lifecycle.ledger import Ledger
from receiver.notifications.notifier import Notifier
from receiver.service import event_loop
from receiver.transports.acceptor import open_sockets

MOST_CONNECTIONS: Final = 512
LONGEST_HEAD_BYTES: Final = 32_768
LONGEST_SOCKET_MESSAGE_BYTES: Final = 65_536
HEAD_SECONDS: Final = 10.0
"""A connection must have sent its first request by then."""
KEEP_ALIVE_SECONDS: Final = 30
LAST_ANSWERS_SECONDS: Final = 3
NICENESS: Final = 5
"""By how much nicer the child is than the receiver, which must never wait for it."""
DEMO_USER: Final = "demo"
_COMMANDS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

log = structlog.get_logger("receiver.console")


class _Protocol(H11Protocol):
    """HTTP/1.1 that does not wait for ever for the head of a first request."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._first_request = self.loop.call_later(HEAD_SECONDS, self._close_silent)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._first_request.cancel()  # it has come, and another protocol has the socket now
        super().handle_websocket_upgrade(event)

    def connection_lost(self, exc: Exception | None) -> None:
        self._first_request.cancel()
        super().connection_lost(exc)

    def _close_silent(self) -> None:
        if self.cycle is None:
            self.transport.close()


class _Server(uvicorn.Server):
    """A server that leaves signals to us, and reports when it listens."""

    def __init__(self, config: uvicorn.Config, listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._listening = listening

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._listening()


class Runner:
    """One console, from its database to its last answer.

    Args:
        config: The settings.
        listening: Is called once, with the URL that people open, when it serves.
        rates: How often somebody may ask.

    Raises:
        TapreelError: it cannot start with these settings.
    """

    def __init__(
        self, config: Config, listening: Callable[[str], None], *, rates: Rates | None = None
    ) -> None:
        check_console(config)
        make_recordings_folder(config.recordings)
        self._config = config
        self._listening = listening
        self._rates = rates
        self._ssl_context = tls.serving(config)
        catalogue = Catalogue(config.database_url, config.recordings)
        database, taps = catalogue.database, tap_addresses(config)
        self.console = Console(
            config,
            catalogue,
            Accounts(database),
            Sessions(database),
            ApiTokens(database),
            Ledger(config.recordings),
            LiveCalls(taps),
            Notifier(config, database, [tap.dial for tap in taps]),
            provider=provider_of(config),
        )
        self.console.notifier.on_not_come = self.console.live.announce
        self._follower = Follower(catalogue)
        self._retention = RetentionThread(config, Retention(config, catalogue))
        self._server: _Server | None = None
        self._stopping = False
        self.port = config.console_port
        """Where it listens; 0 until then, where it takes a free one."""

    async def run(self) -> None:
        """Serve until `stop`.

        Raises:
            ConfigurationError: the address cannot be listened on.
        """
        config = self._config
        sockets = await open_sockets(config.console_host, config.console_port)
        self.port = int(sockets[0].getsockname()[1])
        url = url_of(config, self.port)
        serving = uvicorn.Config(
            application(self.console, self._rates),
            ssl_context_factory=self._ssl_context_factory(),
            http=_Protocol,
            ws="websockets-sansio",
            ws_max_size=LONGEST_SOCKET_MESSAGE_BYTES,
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=MOST_CONNECTIONS,
            h11_max_incomplete_event_size=LONGEST_HEAD_BYTES,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=LAST_ANSWERS_SECONDS,
        )
        self._server = _Server(serving, lambda: self._listening(url))
        self._server.should_exit = self._stopping
        self._follower.start()
        self._retention.start()
        self.console.notifier.base_url = url
        notifying = asyncio.create_task(self.console.notifier.run())
        log.info("console_listening", url=url)
        try:
            await self._server.serve(sockets)
        finally:
            self.console.live.close()
            notifying.cancel()
            await asyncio.wait([notifying], timeout=LAST_ANSWERS_SECONDS)

    def stop(self) -> None:
        """End when the answers that are on their way are given, and soon; idempotent."""
        self._stopping = True
        if self._server is not None:
            self._server.should_exit = True

    def reload(self) -> None:
        """Read certificate and secrets again; a bad one leaves the old one in force."""
        self.console.notifier.reload()
        if self._ssl_context is None:
            return
        try:
            tls.reload(self._ssl_context, *tls.pair(self._config))
        except ConfigurationError as error:
            log.error("reload_failed", part="certificate", error=str(error), in_force="the old")
        else:
            log.info("reloaded", part="certificate")

    def close(self) -> None:
        """Close the database; a process whose threads hang ends without waiting for them."""
        self._retention.close()
        console = self.console
        if all([self._follower.close(), console.threads.close(), console.encoding.close()]):
            console.catalogue.close()
            return
        log.error("threads_left_behind", busy=self.console.threads.busy)
        os._exit(0)

    def sign_in_link(self) -> str:
        """Return the code of a link for the demo's admin, who is made where missing."""
        accounts = self.console.accounts
        if DEMO_USER not in {user.name for user in accounts.all()}:
            accounts.add(DEMO_USER, Role.ADMIN, {})
        return accounts.make_link(DEMO_USER)

    def _ssl_context_factory(self) -> Callable[..., ssl.SSLContext] | None:
        context = self._ssl_context
        return None if context is None else lambda *_: context


def provider_of(config: Config) -> Provider | None:
    """Return the OpenID Connect provider that is configured, if there is one.

    Raises:
        ConfigurationError: the file of the secret cannot be used.
    """
    if config.oidc_issuer is None or config.oidc_client_secret_file is None:
        return None
    secret = credentials.read_secret(config.oidc_client_secret_file)
    return Provider(config, secret.decode("utf-8", "replace").strip())


def url_of(config: Config, port: int) -> str:
    """Return where people open the console, with a slash at its end."""
    if config.public_url is not None:
        return f"{config.public_url}/"
    host = f"[{config.console_host}]" if ":" in config.console_host else config.console_host
    return f"{'http' if config.no_tls else 'https'}://{host}:{port}/"


def run(config: Config, listening: Callable[[str], None]) -> None:
    """Run a console until SIGINT or SIGTERM; SIGHUP reads the certificate again.

    Raises:
        TapreelError: it cannot start with these settings.
    """
    _prepare_process()
    runner = Runner(config, listening)

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, runner.stop)
        loop.add_signal_handler(signal.SIGTERM, runner.stop)
        loop.add_signal_handler(signal.SIGHUP, runner.reload)
        await runner.run()

    try:
        event_loop.run(serve())
    finally:
        runner.close()


def run_child(settings: Mapping[str, Any], channel: Connection) -> None:
    """Run a console as a child of the receiver; the target of its process.

    The settings come by name (`as_plain`): the receiver may have been started before an upgrade,
    and this process imports what is on disk now.

    It sends ("port", digits) and ("listening", URL), or ("problem", text), and with a demo
    ("link", URL); it receives "stop" and "reload".
    """
    for number in _COMMANDS:
        signal.signal(number, _ignored)  # unlike SIG_IGN, it is not handed down to commands
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _COMMANDS)
    os.nice(NICENESS)
    _prepare_process()
    try:
        config = from_plain(settings)
        logs.configure(config.log_level)
        if unknown := sorted(settings.keys() - as_plain(config).keys()):
            advice = "restart the receiver: it runs another version than its console"
            log.warning("settings_ignored", names=unknown, advice=advice)
        _run_child(config, channel)
    except TapreelError as error:
        with contextlib.suppress(OSError):
            channel.send(("problem", str(error)))


def _run_child(config: Config, channel: Connection) -> None:
    def listening(url: str) -> None:
        channel.send(("port", str(runner.port)))
        channel.send(("listening", url))
        if config.demo:
            channel.send(("link", f"{url}login#{runner.sign_in_link()}"))

    runner = Runner(config, listening)
    commands = {"stop": runner.stop, "reload": runner.reload}

    async def serve() -> None:
        loop = asyncio.get_running_loop()

        def receive() -> None:
            try:
                commands[channel.recv()]()
            except (EOFError, OSError):  # the parent is gone
                loop.remove_reader(channel.fileno())
                runner.stop()

        loop.add_reader(channel.fileno(), receive)
        await runner.run()

    try:
        event_loop.run(serve())
    finally:
        runner.close()


def _ignored(*_: object) -> None:
    """Do nothing about a signal: the parent decides."""


def _prepare_process() -> None:
    os.umask(0o077)
    # What the server logs of an error is in our own line already, with the id of the request.
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
