"""One worker: a whole receiver in a process of its own, and that process as its parent has it.

Workers ignore signals and get their commands through a pipe: a service manager may signal all
processes of a service, and each command would come twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Final

import structlog

from receiver import logs
from receiver.config.settings import Config
from receiver.disk import layout
from receiver.errors import DiskLeftError, TapreelError
from receiver.service import event_loop
from receiver.service.server import Server
from receiver.service.shutdown_deadline import leave_disk
from receiver.transports.acceptor import SharedPort
from receiver.transports.listener import SocketListener

COMMANDS: Final = {signal.SIGINT: "stop", signal.SIGTERM: "drain", signal.SIGHUP: "reload"}
"""What the parent sends its workers, by the signal that it got itself."""
SPAWNING: Final = multiprocessing.get_context("spawn")
"""How workers are made: a fork would copy the event loop and locks."""
_READY: Final = ""

log = structlog.get_logger("receiver.workers")


class Worker:
    """One worker, as its parent has it.

    Raises:
        OSError: the system cannot start another process now.
    """

    def __init__(self, config: Config, shared: SharedPort) -> None:
        self.problem = ""  # why it could not start
        self._channel, theirs = SPAWNING.Pipe()
        self._process = SPAWNING.Process(target=_work, args=(config, shared, theirs))
        # For those who signal every process of a service: until it can ignore them (`_work`).
        before = signal.pthread_sigmask(signal.SIG_BLOCK, COMMANDS)
        try:
            self._process.start()
        except OSError:
            self._channel.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()

    def send(self, command: str) -> None:
        """Send a command: stop, drain or reload; a process that has just ended gets none."""
        with contextlib.suppress(OSError):
            self._channel.send(command)

    def kill(self) -> None:
        """End the process at once; its journals stay in the spool."""
        self._process.kill()

    async def ended(self, *, ready: Callable[[], None]) -> int | None:
        """Wait until the process has ended, and return its exit code.

        Args:
            ready: is called once, when it serves.
        """
        loop, died = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._channel.fileno(), self._receive, ready)
        loop.add_reader(self._process.sentinel, died.set)
        try:
            await died.wait()
        finally:
            loop.remove_reader(self._process.sentinel)
            loop.remove_reader(self._channel.fileno())
        self._process.join()  # it has ended: this does not wait
        self._receive(ready)
        self._channel.close()
        return self._process.exitcode

    def _receive(self, ready: Callable[[], None]) -> None:
        with contextlib.suppress(EOFError, OSError):  # it has ended: see its sentinel
            while self._channel.poll():
                self.problem = self._channel.recv()
                if self.problem == _READY:
                    ready()


def settings_of(config: Config, place: int) -> Config:
    """Return the settings of one worker: each gets its share of what all have together."""
    return replace(
        config,
        spool=config.spool / f"{layout.WORKER}{place + 1}",
        metrics_port=config.metrics_port + place if config.metrics_port else config.metrics_port,
        max_streams=_share(config.max_streams, config.workers, place),
        max_waiting=_share(config.max_waiting, config.workers, place),
        max_waiting_per_address=_share(config.max_waiting_per_address, config.workers, place),
    )


def _share(number: int, workers: int, place: int) -> int:
    """Return how many of what all have together one worker gets: at least one."""
    each, rest = divmod(number, workers)
    return max(1, each + (place < rest))


def _work(config: Config, shared: SharedPort, channel: Connection) -> None:
    """Run a worker until it ends; the target of its process."""
    for number in COMMANDS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, COMMANDS)
    os.umask(0o077)
    logs.configure(config.log_level)
    structlog.contextvars.bind_contextvars(worker=shared.place + 1)
    try:
        event_loop.run(_serve(config, shared, channel))
    except TapreelError as error:
        channel.send(str(error))


async def _serve(config: Config, shared: SharedPort, channel: Connection) -> None:
    server = Server(config, shared=shared)
    server.deadline.arm_watchdog(server.left_behind)
    loop = asyncio.get_running_loop()
    commands = {"stop": server.stop, "drain": server.drain, "reload": server.reload}

    def receive() -> None:
        try:
            commands[channel.recv()]()
        except (EOFError, OSError):  # the parent is gone, and with it the port
            loop.remove_reader(channel.fileno())
            server.stop()

    def listening(_: SocketListener) -> None:
        log.info("worker_serving", pid=os.getpid())
        channel.send(_READY)

    loop.add_reader(channel.fileno(), receive)
    try:
        await server.run(listening=listening)
    except DiskLeftError as error:
        leave_disk(error)
    finally:
        loop.remove_reader(channel.fileno())
