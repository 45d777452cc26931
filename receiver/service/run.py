"""The process around a server: its signals, its line on stdout, its demo call."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
from collections.abc import Callable

from receiver.config.settings import Config
from receiver.service import event_loop, file_limits
from receiver.service.admission import STREAMS_PATH
from receiver.service.demo import Demo
from receiver.service.server import Server
from receiver.service.supervisor import Supervisor
from receiver.transports.listener import SocketListener


def run(config: Config) -> None:
    """Run a receiver until SIGINT, or until SIGTERM and the end of its streams.

    Raises:
        TapreelError: it cannot start with these settings.
    """
    os.umask(0o077)
    config = file_limits.raise_limit(config)
    if config.workers > 1:
        event_loop.run(_run_workers(config))
    else:
        event_loop.run(_run(config))


async def _run_workers(config: Config) -> None:
    await Supervisor(config, listening=functools.partial(_announce, config)).run()


def _announce(config: Config, port: int) -> str:
    """Print where we listen, as the one line on stdout that programs wait for."""
    host = f"[{config.host}]" if ":" in config.host else config.host
    scheme = "ws" if config.no_tls else "wss"
    url = f"{scheme}://{host}:{port}{STREAMS_PATH}"
    print(f"listening {url}", flush=True)  # noqa: T201  data on stdout is the contract
    return url


async def _run(config: Config) -> None:
    demo = Demo(config) if config.demo else None
    server = Server(config, published=demo.published if demo else lambda _: None)
    server.deadline.arm_watchdog(server.left_behind)
    loop = asyncio.get_running_loop()

    def end(how: Callable[[], object]) -> None:
        if demo is not None:
            demo.shutdown_started()
        how()

    loop.add_signal_handler(signal.SIGINT, end, server.stop)
    loop.add_signal_handler(signal.SIGTERM, end, server.drain)
    loop.add_signal_handler(signal.SIGHUP, server.reload)

    def listening(listener: SocketListener) -> None:
        url = _announce(config, listener.port)
        if demo is not None:
            demo.start(url)

    try:
        await server.run(listening=listening)
    finally:
        if demo is not None:
            await demo.close()
