"""The process around a server: its file limits, its signals, its line on stdout, its demo call.

The usual soft limit of 1024 file descriptors is for programs that use `select`, which cannot count
further; we do not. A receiver at its limit could open neither sockets nor journals, so it admits
fewer streams instead.

A service manager (systemd, `Type=notify`) is notified of what happens: see `ServiceManager`.

The demo call of `receiver serve --demo` is placed by `starter simulate --demo`, a process of its
own, over the real socket with the real bearer token: what works here works for a provider.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shlex
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import structlog

from receiver.auth import credentials, tls
from receiver.config.settings import Config, as_plain
from receiver.errors import DiskLeftError
from receiver.media import visible
from receiver.recording.document import Published
from receiver.service import event_loop
from receiver.service.admission import STREAMS_PATH
from receiver.service.server import Server
from receiver.service.shutdown_deadline import leave_disk
from receiver.service.supervisor import COMMANDS, LOOPBACK, KeptChild, Supervisor
from receiver.transports.listener import SocketListener

ConsoleTarget = Callable[[Mapping[str, Any], Connection], None]
"""What runs the console in a process of its own: with the settings by name (`as_plain`), which
another version of the code can read, and its end of a pipe."""
PER_STREAM: Final = 2
"""A socket and a journal."""
RESERVE: Final = 128
"""For everything else: 24 when idle, the listening sockets among them, and 5 for each of up to 8
rendering processes; the rest is for journals that a bad disk keeps open after their streams."""
_NOTIFY_AGAIN_SECONDS: Final = 0.05
_PARAMETERS: Final = ("--param", "agent=Jane", "--param", "queue=sales")
"""Of the demo call: a newcomer finds it by them."""

log = structlog.get_logger("receiver.run")


def raise_limit(config: Config) -> Config:
    """Raise this process's limit to what the settings need; workers inherit it.

    Returns:
        The settings. Where the system allows no such limit they are those that fit below it:
        fewer streams, waiting connections and listeners by the same share, so that none of
        them starves the rest.
    """
    streams, others = _needed(config)
    needed = RESERVE + streams + others
    limit = _raised(needed)
    if limit >= needed:
        return config
    share = max(0.0, (limit - RESERVE) / (needed - RESERVE))
    fitting = replace(
        config,
        max_streams=max(1, int(config.max_streams * share / config.workers)) * config.workers,
        max_waiting=max(1, int(config.max_waiting * share / config.workers)) * config.workers,
        max_listeners=int(config.max_listeners * share),
    )
    log.warning(
        "too_few_descriptors",
        limit=limit,
        needed=needed,
        max_streams=fitting.max_streams,
        advice="raise LimitNOFILE in the unit (or ulimit -Hn), or lower --max-streams",
    )
    return fitting


def _needed(config: Config) -> tuple[int, int]:
    """Return how many the streams of one process need, and how many everything else does."""
    streams, waiting = (-(-n // config.workers) for n in (config.max_streams, config.max_waiting))
    listeners = config.max_listeners if credentials.has_tap_tokens(config) else 0
    return streams * (PER_STREAM + len(config.forward)), waiting + listeners


def _raised(needed: int) -> int:
    """Raise the soft limit as far as needed and allowed, and return what it is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return needed
    target = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
    except (OSError, ValueError):  # macOS has another limit below the one that it reports
        return soft
    return target


class ServiceManager:
    """Notifies the service manager that started us, if it asked for it: sd_notify(3).

    Messages are datagrams to the socket that NOTIFY_SOCKET names: READY=1 when streams can come,
    STOPPING=1 and RELOADING=1 with the commands, and WATCHDOG=1 from the event loop, three times
    within the time after which the manager takes a process for hung (WATCHDOG_USEC). What finds the
    manager's queue full is sent again soon: a lost READY=1 would never be made good.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]  # an abstract one
        is_ours = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._watchdog_seconds = int(environ.get("WATCHDOG_USEC", 0)) / 1e6 if is_ours else 0.0
        self._stopping = False
        self._unsent: deque[bytes] = deque()

    def ready(self) -> None:
        """Streams can come."""
        self._notify("READY=1")

    def commanded(self, command: str) -> None:
        """Notify of a command of `supervisor.COMMANDS`, which is carried out now."""
        if command != "reload":
            self._stopping = True
            self._notify("STOPPING=1")
        elif not self._stopping:
            since = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            self._notify("RELOADING=1", f"MONOTONIC_USEC={since}")
            asyncio.get_running_loop().call_soon(self.ready)  # behind the command itself

    async def feed_watchdog(self) -> None:
        """Show that the event loop runs, for ever; return where nobody watches."""
        while self._address and self._watchdog_seconds:
            if not self._unsent:  # else it has enough to read, and the state comes first
                self._notify("WATCHDOG=1")
            await asyncio.sleep(self._watchdog_seconds / 3)

    def _notify(self, *lines: str) -> None:
        if self._address:
            self._unsent.append("\n".join(lines).encode())
            if len(self._unsent) == 1:  # else they are being sent again already
                self._send()

    def _send(self) -> None:
        """Send, in order, what is not sent yet; again soon where the manager's queue is full."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to_manager:
            to_manager.setblocking(False)
            while self._unsent:
                try:
                    to_manager.sendto(self._unsent[0], self._address)
                except BlockingIOError:
                    asyncio.get_running_loop().call_later(_NOTIFY_AGAIN_SECONDS, self._send)
                    return
                except OSError:
                    pass  # nobody is there any more
                self._unsent.popleft()


class Demo:
    """One demo call, and the lines that are printed about it."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._task: asyncio.Task[None] | None = None
        self._command: list[str] = []
        self._ending = False
        self._advised = False

    def start(self, url: str) -> None:
        """Place the call at a receiver that listens on `url`."""
        self._command = ["simulate", url, "--demo", "--bearer-token-file", str(self._token_file)]
        if urlsplit(url).scheme == "wss":
            self._command += ["--ca-file", str(self._certificate)]
        _print("placing a demo call of about 20 seconds ...")
        self._task = asyncio.create_task(self._place())

    @property
    def _token_file(self) -> Path:
        return self._config.token_file or credentials.demo_token_file(self._config.state)

    @property
    def _certificate(self) -> Path:
        return tls.pair(self._config)[0]

    async def _place(self) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "starter", *self._command, *_PARAMETERS),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for us; we end it
        )
        try:
            _, errors = await process.communicate()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
            raise
        if process.returncode and not self._ending:
            log.error("demo_call_failed", output=errors.decode("utf-8", "replace").strip())

    def published(self, outcome: Published) -> None:
        """Print where the recording is, and once how to place another call."""
        _print(f"recording:    {outcome.folder}")
        if self._advised or self._ending:
            return  # at the end there is no receiver for another call
        self._advised = True
        _print(f"token:        {self._token_file}")
        _print(f"another call: {shlex.join([_starter(), *self._command])}")
        _print("Ctrl-C ends the receiver.")

    def shutdown_started(self) -> None:
        """Print no advice any more: the receiver ends, and the call may fail with it."""
        self._ending = True

    async def close(self) -> None:
        """End the call if it still runs; idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def _starter() -> str:
    """Return the command as this environment has it, relative where that is shorter."""
    command = Path(sys.executable).with_name("starter")
    with contextlib.suppress(ValueError):
        command = command.relative_to(Path.cwd())
    return str(command)


def _print(text: str) -> None:
    print(visible(text), flush=True)  # noqa: T201  text for the person at the terminal


def run(config: Config, console: ConsoleTarget | None = None) -> None:
    """Run a receiver until SIGINT, or until SIGTERM and the end of its streams.

    Args:
        config: the settings.
        console: runs the console in a child of its own; it gets the settings and a pipe.

    Raises:
        TapreelError: it cannot start with these settings.
    """
    os.umask(0o077)
    if console is not None:
        config = replace(config, console_token=credentials.new_token())
    config = raise_limit(config)
    if config.workers > 1:
        event_loop.run(_run_workers(config, console))
    else:
        event_loop.run(_run(config, console))


class ConsoleChild:
    """The console beside a receiver, from the moment that this listens; it may be none at all.

    It gets the addresses of our taps and a token for them through the pipe that starts it.
    """

    def __init__(self, config: Config, target: ConsoleTarget | None) -> None:
        self._config = config
        self._target = target
        self._child: KeptChild | None = None
        self._settings: dict[str, Any] = {}  # which each child gets as they are at its start
        self._draining = False

    def start(self, *taps: str) -> None:
        """Start it, and keep it alive; `taps` are where our live calls are."""
        if self._target is not None:
            self._settings = as_plain(replace(self._config, console_taps=taps))
            self._child = KeptChild(
                "console", self._target, self._settings, received=self._received
            )

    def commanded(self, command: str) -> None:
        """Pass a command on; a first drain is the receiver's alone: the console serves on."""
        if command == "drain" and not self._draining:
            self._draining = True
        elif self._child is not None:
            self._child.send("stop" if command == "drain" else command)

    async def close(self) -> None:
        """End it; idempotent."""
        if self._child is not None:
            await self._child.close()

    def _received(self, word: str, text: str) -> None:
        if word == "port":  # it was perhaps a free one: the next child is found there, too
            self._settings["console_port"] = int(text)
        else:
            _print(f"console {text}")


async def _run_workers(config: Config, console_target: ConsoleTarget | None) -> None:
    manager = ServiceManager(os.environ)
    console = ConsoleChild(config, console_target)

    def listening(port: int, own: Sequence[int]) -> None:
        _announce(config, port)
        manager.ready()
        console.start(*(_tap_root(config, LOOPBACK, each) for each in own))

    def commanded(command: str) -> None:
        manager.commanded(command)
        console.commanded(command)

    feeding = asyncio.create_task(manager.feed_watchdog())
    try:
        await Supervisor(config, listening=listening, commanded=commanded).run()
    finally:
        feeding.cancel()
        await console.close()


def _tap_root(config: Config, host: str, port: int) -> str:
    """Return where our own console finds our taps, whichever addresses we listen on."""
    host = {"0.0.0.0": LOOPBACK, "": LOOPBACK, "::": "::1"}.get(host, host)  # noqa: S104  no address to listen on
    bracketed = f"[{host}]" if ":" in host else host
    return f"{'ws' if config.no_tls else 'wss'}://{bracketed}:{port}"


def _announce(config: Config, port: int) -> str:
    """Print where we listen, as the one line on stdout that programs wait for."""
    host = f"[{config.host}]" if ":" in config.host else config.host
    scheme = "ws" if config.no_tls else "wss"
    url = f"{scheme}://{host}:{port}{STREAMS_PATH}"
    print(f"listening {url}", flush=True)  # noqa: T201  data on stdout is the contract
    return url


async def _run(config: Config, console_target: ConsoleTarget | None) -> None:
    manager = ServiceManager(os.environ)
    console = ConsoleChild(config, console_target)
    demo = Demo(config) if config.demo else None
    server = Server(config, published=demo.published if demo else lambda _: None)
    server.deadline.arm_watchdog(server.left_behind)
    loop = asyncio.get_running_loop()

    commands = {"stop": server.stop, "drain": server.drain, "reload": server.reload}

    def obey(command: str) -> None:
        manager.commanded(command)
        console.commanded(command)
        if demo is not None and command != "reload":
            demo.shutdown_started()
        commands[command]()

    for number, command in COMMANDS.items():
        loop.add_signal_handler(number, obey, command)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, COMMANDS)

    def listening(listener: SocketListener) -> None:
        url = _announce(config, listener.port)
        manager.ready()
        console.start(_tap_root(config, config.host, listener.port))
        if demo is not None:
            demo.start(url)

    feeding = asyncio.create_task(manager.feed_watchdog())
    try:
        await server.run(listening=listening)
    except DiskLeftError as error:
        leave_disk(error)
    finally:
        feeding.cancel()
        await console.close()
        if demo is not None:
            await demo.close()
