"""Several receivers behind one port: a small parent starts, watches and drains them.

Every worker is a whole receiver with a spool, a lock and metrics of its own. The parent holds
the port, the spool above theirs, and a pipe to each; it reads no audio. A worker that dies is
started again, at once the first time and then ever more slowly, and begins with what its
predecessor left in the spool. Workers are deaf to signals and take their orders through the
pipe: a service manager may signal all processes of a service, and would be heard twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import structlog

from receiver import certificates, credentials, logs, loops, paths, publish
from receiver.config import Config
from receiver.errors import ConfigurationError, TapreelError
from receiver.folders import FolderLock, make_private_folder, make_recordings_folder
from receiver.hurry import Hurry
from receiver.server import Server
from receiver.transports import Listener
from receiver.transports.acceptor import open_sockets
from receiver.transports.sharing import SharedPort

LONGEST_DELAY_SECONDS: Final = 30.0
"""Between two starts of a worker that keeps dying."""
STEADY_SECONDS: Final = 60.0
"""A worker that lived this long is started again at once."""
LONGEST_STOP_SECONDS: Final = 9.5
"""For a worker to end in a hurry, which it does within less; then it is killed. This is before
every process of ours, the parent too, ends itself (`hurry.LAST_SECONDS`)."""
_DEAD: Final = -1
_READY: Final = ""
_ORDERS: Final = {signal.SIGINT: "stop", signal.SIGTERM: "drain", signal.SIGHUP: "reload"}
_spawning = multiprocessing.get_context("spawn")  # a fork would copy the event loop and locks

log = structlog.get_logger("receiver.workers")


class Workers:
    """The parent of `config.workers` workers; `listening` learns the port once all serve."""

    def __init__(self, config: Config, *, listening: Callable[[int], object]) -> None:
        self._config = config
        self._listening = listening
        self._counts: Any = _spawning.RawArray("q", [_DEAD] * config.workers)
        self._workers: dict[int, _Worker] = {}  # those that live, by place
        self._served: set[int] = set()  # places whose worker has served
        self._ending = asyncio.Event()
        self._hurry = Hurry()

    async def run(self) -> None:
        """Serve until SIGINT or a second SIGTERM, or until SIGTERM and the end of all streams.

        Raises:
            TapreelError: the settings cannot be used, or a worker did not start.
        """
        config = self._config
        _check(config)
        with FolderLock(config.spool), contextlib.ExitStack() as stack:
            _hand_down(config.spool)
            self._sockets = await open_sockets(config.host, config.port)
            for listening in self._sockets:
                stack.enter_context(listening)
            for number, order in _ORDERS.items():
                asyncio.get_running_loop().add_signal_handler(number, self._tell, order)
            keepers = [asyncio.create_task(self._keep(place)) for place in range(config.workers)]
            reaper = asyncio.create_task(self._kill_the_late())
            self._hurry.enforce(lambda: {"workers": [place + 1 for place in list(self._workers)]})
            try:
                await asyncio.gather(*keepers)
            finally:
                self._tell("stop")
                await asyncio.gather(*keepers, return_exceptions=True)
                reaper.cancel()

    async def _kill_the_late(self) -> None:
        await self._hurry.passed(LONGEST_STOP_SECONDS)
        for place, worker in self._workers.items():
            log.error("worker_killed", worker=place + 1)
            worker.kill()

    def _tell(self, order: str) -> None:
        if order == "drain" and self._ending.is_set():
            order = "stop"  # it is the second time
        if order == "stop":
            self._hurry.begin()
        if order != "reload":
            self._ending.set()
        for worker in self._workers.values():
            worker.tell(order)

    async def _keep(self, place: int) -> None:
        """Have a worker at this place until all are to end."""
        deaths = 0
        while not self._ending.is_set():
            began = time.monotonic()
            code = await self._employ(place)
            if self._ending.is_set():
                return
            if place not in self._served:
                raise TapreelError(f"worker {place + 1} ended at its start")
            deaths = 0 if time.monotonic() - began > STEADY_SECONDS else deaths + 1
            delay = min(2.0 ** (deaths - 2), LONGEST_DELAY_SECONDS) if deaths > 1 else 0.0
            log.error("worker_died", worker=place + 1, exit_code=code, restart_seconds=delay)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), delay)

    async def _employ(self, place: int) -> int | None:
        """Start a worker and return its exit code when it has ended."""
        self._counts[place] = 0
        shared = SharedPort(self._sockets, self._counts, place)
        worker = _Worker(_settings_of(self._config, place), shared)
        self._workers[place] = worker
        try:
            code = await worker.ended(ready=functools.partial(self._serves, place))
        finally:
            del self._workers[place]
            self._counts[place] = _DEAD
        if worker.problem and place not in self._served:
            raise ConfigurationError(worker.problem)
        if worker.problem:  # settings went bad since the start: the others live on
            log.error("worker_refused_to_start", worker=place + 1, problem=worker.problem)
        return code

    def _serves(self, place: int) -> None:
        before = len(self._served)
        self._served.add(place)
        if before < len(self._served) == self._config.workers:
            self._listening(self._sockets[0].getsockname()[1])


class _Worker:
    """One worker, as its parent sees it."""

    def __init__(self, config: Config, shared: SharedPort) -> None:
        self.problem = ""  # why it could not start
        self._channel, theirs = _spawning.Pipe()
        self._process = _spawning.Process(target=_work, args=(config, shared, theirs))
        self._process.start()
        theirs.close()

    def tell(self, order: str) -> None:
        """Pass an order on: stop, drain or reload."""
        with contextlib.suppress(OSError):  # it has just ended
            self._channel.send(order)

    def kill(self) -> None:
        """End the process at once; its journals stay in the spool."""
        self._process.kill()

    async def ended(self, *, ready: Callable[[], None]) -> int | None:
        """Return the exit code when the process has ended; `ready` is called once it serves."""
        loop, died = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._channel.fileno(), self._hear, ready)
        loop.add_reader(self._process.sentinel, died.set)
        try:
            await died.wait()
        finally:
            loop.remove_reader(self._process.sentinel)
            loop.remove_reader(self._channel.fileno())
        self._process.join()  # it has ended: this does not wait
        self._hear(ready)
        self._channel.close()
        return self._process.exitcode

    def _hear(self, ready: Callable[[], None]) -> None:
        with contextlib.suppress(EOFError, OSError):  # it has ended, which the sentinel tells
            while self._channel.poll():
                self.problem = self._channel.recv()
                if self.problem == _READY:
                    ready()


def _check(config: Config) -> None:
    """Refuse what every worker would refuse, and make what all of them would make."""
    if config.demo:
        raise ConfigurationError("--demo is for one worker")
    make_recordings_folder(config.recordings)
    credentials.tokens(config)
    if config.self_signed:
        certificates.self_signed(config.state, config.host)


def _hand_down(spool: Path) -> None:
    """Give what an earlier receiver left, with any number of workers, to the first worker."""
    publish.gather(spool)
    folder = spool / f"{paths.WORKER}1"
    make_private_folder(folder)
    for journal in publish.waiting(spool):
        journal.rename(folder / journal.name)


def _settings_of(config: Config, place: int) -> Config:
    """Return the settings of one worker: what cannot be shared is dealt out."""
    return replace(
        config,
        spool=config.spool / f"{paths.WORKER}{place + 1}",
        metrics_port=config.metrics_port + place if config.metrics_port else config.metrics_port,
        max_streams=-(-config.max_streams // config.workers),
    )


def _work(config: Config, shared: SharedPort, channel: Connection) -> None:
    """Be a worker; in its own process."""
    for number in _ORDERS:
        signal.signal(number, signal.SIG_IGN)
    os.umask(0o077)
    logs.configure(config.log_level)
    structlog.contextvars.bind_contextvars(worker=shared.place + 1)
    try:
        loops.run(_serve(config, shared, channel))
    except TapreelError as error:
        channel.send(str(error))


async def _serve(config: Config, shared: SharedPort, channel: Connection) -> None:
    server = Server(config, shared=shared)
    server.hurry.enforce(server.left_behind)
    loop = asyncio.get_running_loop()
    orders = {"stop": server.stop, "drain": server.drain, "reload": server.reload}

    def obey() -> None:
        try:
            orders[channel.recv()]()
        except (EOFError, OSError):  # the parent is gone, and with it the port
            loop.remove_reader(channel.fileno())
            server.stop()

    def listening(_: Listener) -> None:
        log.info("worker_serving", pid=os.getpid())
        channel.send(_READY)

    loop.add_reader(channel.fileno(), obey)
    try:
        await server.run(listening=listening)
    finally:
        loop.remove_reader(channel.fileno())
