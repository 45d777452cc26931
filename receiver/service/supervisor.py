"""Child processes that serve: workers behind one port, and whatever is kept alive beside them.

A `ChildProcess` is started, sent commands, and watched; a `KeptChild` is started again whenever it
dies. Children ignore signals and get their commands through a pipe: a service manager may signal
all processes of a service, and each command would come twice. When the parent dies the pipe
breaks, and the children end.

Every worker is a whole receiver with a spool, a lock and metrics of its own. The parent holds
the port, the spool above theirs, and a pipe to each; it reads no audio. A worker that dies is
started again, at once the first time and then ever more slowly, and first publishes what the
one before it left in the spool.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import structlog

from receiver import logs
from receiver.auth import credentials, tls
from receiver.config.settings import Config, as_plain, from_plain
from receiver.disk import layout
from receiver.disk.folders import FolderLock, make_private_folder, make_recordings_folder
from receiver.errors import ConfigurationError, DiskLeftError, TapreelError
from receiver.journal import backlog
from receiver.service import event_loop
from receiver.service.control import Colleagues
from receiver.service.server import Server, log_left
from receiver.service.shutdown_deadline import ShutdownDeadline, leave_disk
from receiver.transports.acceptor import SharedPort, open_sockets
from receiver.transports.listener import SocketListener

COMMANDS: Final = {signal.SIGINT: "stop", signal.SIGTERM: "drain", signal.SIGHUP: "reload"}
"""What a parent sends its children, by the signal that it got itself."""
SPAWNING: Final = multiprocessing.get_context("spawn")
"""How children are made: a fork would copy the event loop and locks."""
LOOPBACK: Final = "127.0.0.1"
LONGEST_DELAY_SECONDS: Final = 30.0
"""Between two starts of a child that keeps dying."""
STEADY_SECONDS: Final = 60.0
"""A child that lived this long is started again at once."""
_STOP_SECONDS: Final = 5.0
"""For a child to end by itself ..."""
_STOPPED_SECONDS: Final = 2.0
"""... and what is left where it was stopped before, with all else."""
_READY: Final = ""
LONGEST_STOP_SECONDS: Final = 9.5
"""After a stop, for a worker to end, which takes it less; then it is killed. This is before the
watchdog of each process, of the parent's too, ends it (`shutdown_deadline.LAST_SECONDS`)."""
_DEAD: Final = -1

log = structlog.get_logger("receiver.workers")
_children_log = structlog.get_logger("receiver.children")


class ChildProcess:
    """One child, as its parent has it.

    Args:
        target: Runs in the child, with these arguments and its end of the pipe behind them.
        arguments: Whatever can be pickled.

    Raises:
        OSError: the system cannot start another process now.
    """

    def __init__(self, target: Callable[..., None], *arguments: object) -> None:
        self._channel, theirs = SPAWNING.Pipe()
        self._process = SPAWNING.Process(target=target, args=(*arguments, theirs))
        # For those who signal every process of a service: until it can ignore them.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, COMMANDS)
        try:
            self._process.start()
        except OSError:
            self._channel.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()

    def send(self, command: str | tuple[Any, ...]) -> None:
        """Send a command, or what another child says; a process that has just ended gets none."""
        with contextlib.suppress(OSError):
            self._channel.send(command)

    def kill(self) -> None:
        """End the process at once, whatever it does."""
        self._process.kill()

    async def ended(self, received: Callable[[Any], object]) -> int | None:
        """Wait until the process has ended, and return its exit code.

        Args:
            received: Is called with everything that it sends.
        """
        loop, died = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._channel.fileno(), self._receive, received)
        loop.add_reader(self._process.sentinel, died.set)
        try:
            await died.wait()
        finally:
            loop.remove_reader(self._process.sentinel)
            loop.remove_reader(self._channel.fileno())
        self._process.join()  # it has ended: this does not wait
        self._receive(received)
        self._channel.close()
        return self._process.exitcode

    def _receive(self, received: Callable[[Any], object]) -> None:
        with contextlib.suppress(EOFError, OSError):  # it has ended: see its sentinel
            while self._channel.poll():
                received(self._channel.recv())


class RestartDelay:
    """How long to wait before a child is started again: not at all the first time, then 1, 2, 4 s.

    It is `LONGEST_DELAY_SECONDS` at the most. A child that lived for `STEADY_SECONDS` has died for
    another reason than those before it.
    """

    def __init__(self) -> None:
        self._deaths = 0

    def after(self, lived_seconds: float) -> float:
        """Return the seconds to wait, now that one has died that lived so long."""
        self._deaths = 0 if lived_seconds > STEADY_SECONDS else self._deaths + 1
        if self._deaths <= 1:
            return 0.0
        return min(2.0 ** (self._deaths - 2), LONGEST_DELAY_SECONDS)


class KeptChild:
    """A child that is started again whenever it dies, until `close`.

    Args:
        name: What logs call it.
        target: See `ChildProcess`; it sends pairs of a word and a text, of which
            ("problem", text) says why it cannot go on.
        arguments: Its arguments.
        received: Is called with all other pairs.
    """

    def __init__(
        self,
        name: str,
        target: Callable[..., None],
        *arguments: object,
        received: Callable[[str, str], object],
    ) -> None:
        self._name = name
        self._target = target
        self._arguments = arguments
        self._received = received
        self._child: ChildProcess | None = None
        self._serves = False
        self._ending = asyncio.Event()
        self._keeping = asyncio.create_task(self._keep())

    def send(self, command: str) -> None:
        """Send a command; with "stop" it is not started again."""
        if command == "stop":
            self._ending.set()
        if self._child is not None:
            self._child.send(command)

    async def close(self) -> None:
        """Stop it, and kill it where it does not end by itself; idempotent."""
        seconds = _STOPPED_SECONDS if self._ending.is_set() else _STOP_SECONDS
        self.send("stop")
        await asyncio.wait([self._keeping], timeout=seconds)
        if self._child is not None:
            if self._serves:  # else it was only about to
                _children_log.warning("child_killed", child=self._name)
            self._child.kill()
        await self._keeping

    async def _keep(self) -> None:
        restart = RestartDelay()
        while not self._ending.is_set():
            started_at = time.monotonic()
            code = await self._run()
            if self._ending.is_set():
                return
            delay = restart.after(time.monotonic() - started_at)
            _children_log.error(
                "child_died", child=self._name, exit_code=code, restart_seconds=delay
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), delay)

    async def _run(self) -> int | None:
        """Run it once; return its exit code, or `None` where it could not be started."""
        try:
            self._child = ChildProcess(self._target, *self._arguments)
        except OSError as error:  # no memory or descriptor now; there may be some later
            _children_log.error("child_not_started", child=self._name, error=error.strerror)
            return None
        if self._ending.is_set():
            self._child.send("stop")
        try:
            return await self._child.ended(self._receive)
        finally:
            self._child, self._serves = None, False

    def _receive(self, message: tuple[str, str]) -> None:
        word, text = message
        if word == "problem":
            _children_log.error("child_refused", child=self._name, problem=text)
        elif not self._ending.is_set():
            self._serves = True
            self._received(word, text)


class Worker(ChildProcess):
    """One worker, as its parent has it: a whole receiver in a process of its own.

    Killed, it leaves its journals in the spool.

    Raises:
        OSError: the system cannot start another process now.
    """

    def __init__(self, config: Config, shared: SharedPort) -> None:
        super().__init__(_work, as_plain(config), shared.handed_over())
        self.problem = ""  # why it could not start

    async def served(
        self, *, ready: Callable[[], None], passed_on: Callable[[tuple[Any, ...]], object]
    ) -> int | None:
        """Wait until the process has ended, and return its exit code.

        Args:
            ready: is called once, when it serves.
            passed_on: is called with what it says to the other workers.
        """

        def received(message: str | tuple[Any, ...]) -> None:
            if not isinstance(message, str):
                passed_on(message)
                return
            self.problem = message
            if message == _READY:
                ready()

        return await self.ended(received)


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


def _work(settings: Mapping[str, Any], port: Mapping[str, Any], channel: Connection) -> None:
    """Run a worker until it ends; the target of its process.

    Settings and port come by name: the parent may have been started before an upgrade, and this
    process imports what is on disk now.
    """
    for number in COMMANDS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, COMMANDS)
    os.umask(0o077)
    try:
        config, shared = from_plain(settings), SharedPort.of(port)
        logs.configure(config.log_level)
        structlog.contextvars.bind_contextvars(worker=shared.place + 1)
        if unknown := sorted(settings.keys() - as_plain(config).keys()):
            advice = "restart the receiver: it runs another version than its workers"
            log.warning("settings_ignored", names=unknown, advice=advice)
        event_loop.run(_serve(config, shared, channel))
    except TapreelError as error:
        channel.send(str(error))


async def _serve(config: Config, shared: SharedPort, channel: Connection) -> None:
    server = Server(config, shared=shared)
    server.deadline.arm_watchdog(server.left_behind)
    loop = asyncio.get_running_loop()
    commands = {"stop": server.stop, "drain": server.drain, "reload": server.reload}

    colleagues = Colleagues(channel.send)
    server.control.serve_colleagues(colleagues)

    def receive() -> None:
        try:
            message = channel.recv()
            if isinstance(message, str):
                commands[message]()
            else:
                colleagues.receive(message)
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


class Supervisor:
    """The parent of `config.workers` workers.

    Args:
        config: the settings of all workers together.
        listening: is called once, when all of them serve, with the port, and the ports on
            loopback at which the console finds each worker.
        commanded: is called with each command that all of them get, just before.
    """

    def __init__(
        self,
        config: Config,
        *,
        listening: Callable[[int, Sequence[int]], object],
        commanded: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._config = config
        self._listening = listening
        self._commanded = commanded
        self._counts: Any = SPAWNING.RawArray("q", [_DEAD] * config.workers)
        self._workers: dict[int, Worker] = {}  # those that live, by place
        self._served: set[int] = set()  # places whose worker has served
        self._unpublished = 0  # journals that dead workers have left when there was time for them
        self._disk_left = False  # by a worker
        self._ending = asyncio.Event()
        self._deadline = ShutdownDeadline()

    async def run(self) -> None:
        """Serve until SIGINT or a second SIGTERM, or until SIGTERM and the end of all streams.

        Raises:
            TapreelError: the settings cannot be used, a worker did not start, what one that
                died has left could not be published, or one had to leave a disk behind.
        """
        config = self._config
        _check(config)
        with FolderLock(config.spool), contextlib.ExitStack() as stack:
            _pass_on_journals(config.spool)
            self._sockets = await open_sockets(config.host, config.port)
            own = config.workers if config.console_token is not None else 0
            self._own = [await open_sockets(LOOPBACK, 0) for _ in range(own)]
            for listening in (*self._sockets, *itertools.chain(*self._own)):
                stack.enter_context(listening)
            for number, command in COMMANDS.items():
                asyncio.get_running_loop().add_signal_handler(number, self._send, command)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, COMMANDS)
            places = range(config.workers)
            supervised = [asyncio.create_task(self._supervise(place)) for place in places]
            reaper = asyncio.create_task(self._kill_late_workers())
            self._deadline.arm_watchdog(
                lambda: {"workers": [place + 1 for place in list(self._workers)]}
            )
            try:
                await asyncio.gather(*supervised)
            finally:
                self._send("stop")
                await asyncio.gather(*supervised, return_exceptions=True)
                reaper.cancel()
            if self._unpublished:
                raise TapreelError(f"journals that wait for the next start: {self._unpublished}")
            if self._disk_left:
                raise DiskLeftError("a disk that takes nothing was left behind, see the log")

    async def _kill_late_workers(self) -> None:
        await self._deadline.wait_until(LONGEST_STOP_SECONDS)
        for place, worker in self._workers.items():
            log.error("worker_killed", worker=place + 1)
            worker.kill()

    def _send(self, command: str) -> None:
        """Send every worker a command; a second drain is a stop."""
        if command == "drain" and self._ending.is_set():
            command = "stop"
        if command == "stop":
            self._deadline.start()
        if command != "reload":
            self._ending.set()
        self._commanded(command)
        for worker in self._workers.values():
            worker.send(command)

    async def _supervise(self, place: int) -> None:
        """Run a worker at this place until all are to end, and another one whenever it dies."""
        restart = RestartDelay()
        while not self._ending.is_set():
            started_at = time.monotonic()
            code = await self._run_worker(place)
            if self._ending.is_set() and code == 0:
                return
            if self._deadline.started and code == DiskLeftError.exit_code:
                self._disk_left = True
            if not self._ending.is_set() and place not in self._served:
                raise TapreelError(f"worker {place + 1} ended at its start")
            delay = restart.after(time.monotonic() - started_at)
            self._log_death(place, code, delay)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), delay)
        await self._recover(place)

    async def _recover(self, place: int) -> None:
        """Publish what a worker has left that died while the others ended, or log what it is."""
        if not self._deadline.started:
            code = await self._run_worker(
                place
            )  # a drain may last for hours, so not the next start
            if code == 0:
                return
            self._log_death(place, code, None)
        spool = settings_of(self._config, place).spool
        if left := await asyncio.to_thread(_count_journals, spool):
            log.error("left_for_next_start", worker=place + 1, journals=left, spool=str(spool))
            self._unpublished += 0 if self._deadline.started else left

    def _log_death(self, place: int, code: int | None, delay: float | None) -> None:
        if code is not None:  # else it did not start, which was logged
            log.error("worker_died", worker=place + 1, exit_code=code, restart_seconds=delay)

    async def _run_worker(self, place: int) -> int | None:
        """Run one worker and return its exit code when it has ended; `None`: it did not start."""
        settings = settings_of(self._config, place)
        ahead = settings_of(self._config, 0).max_streams - settings.max_streams
        self._counts[place] = ahead
        own = self._own[place] if self._own else []
        shared = SharedPort(self._sockets, self._counts, place, ahead, own)
        try:
            worker = Worker(settings, shared)
        except OSError as error:
            self._not_started(place, error)
            return None
        self._workers[place] = worker
        if self._ending.is_set():
            worker.send("drain")  # it publishes what it finds, and ends
        try:
            code = await worker.served(
                ready=functools.partial(self._worker_serves, place),
                passed_on=functools.partial(self._pass_on, place),
            )
        finally:
            del self._workers[place]
            self._counts[place] = _DEAD
        if worker.problem and place not in self._served:
            raise ConfigurationError(worker.problem)
        if worker.problem:  # settings went bad since the start: the others live on
            log.error("worker_refused_to_start", worker=place + 1, problem=worker.problem)
            return None
        return code

    def _pass_on(self, place: int, message: tuple[Any, ...]) -> None:
        """Pass on what one worker asks the others, and what one answers; see `Colleagues`."""
        word, *rest = message
        if word == "answer":
            asking, number, found = rest
            if asking in self._workers:
                self._workers[asking].send(("answer", number, found))
            return
        number, what = rest
        others = [worker for at, worker in self._workers.items() if at != place]
        self._workers[place].send(("asking", number, len(others)))
        for worker in others:
            worker.send(("asked", place, number, what))

    def _not_started(self, place: int, error: OSError) -> None:
        self._counts[place] = _DEAD
        if place not in self._served:
            problem = f"worker {place + 1} cannot be started: {error.strerror}"
            raise TapreelError(problem) from error
        # No descriptor or memory now: the others live on, and there may be some later.
        log.error("worker_not_started", worker=place + 1, error=error.strerror)

    def _worker_serves(self, place: int) -> None:
        before = len(self._served)
        self._served.add(place)
        if before < len(self._served) == self._config.workers:
            own = [listening.getsockname()[1] for (listening,) in self._own]
            self._listening(self._sockets[0].getsockname()[1], own)


def _check(config: Config) -> None:
    """Refuse what every worker would refuse, and make what all of them would make."""
    if config.demo:
        raise ConfigurationError("--demo is for one worker")
    make_recordings_folder(config.recordings)
    credentials.stream_tokens(config)
    if config.self_signed:
        tls.pair(config)


def _pass_on_journals(spool: Path) -> None:
    """Move what an earlier receiver left, with any number of workers, to the first worker."""
    log_left(backlog.gather(spool))
    folder = spool / f"{layout.WORKER}1"
    make_private_folder(folder)
    backlog.hand_down(spool, folder)


def _count_journals(spool: Path) -> int:
    """Return how many journals wait in a spool; none where it cannot be read."""
    try:
        return len(backlog.waiting(spool))
    except OSError as error:
        log.error("spool_unreadable", spool=str(spool), error=error.strerror)
        return 0
