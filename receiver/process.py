"""The process around a server: its signals, its line on stdout, its demo call."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable

from receiver.config import Config
from receiver.demo import Demo
from receiver.gate import STREAMS_PATH
from receiver.server import Server
from receiver.transports import Listener


def run(config: Config) -> None:
    """Run a receiver until SIGINT, or until SIGTERM and the end of its streams.

    Raises:
        TapreelError: it cannot start with these settings.
    """
    os.umask(0o077)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_run(config))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes the fastest event loop that is installed; `None` is asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _run(config: Config) -> None:
    demo = Demo(config) if config.demo else None
    server = Server(config, published=demo.published if demo else lambda _: None)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, server.stop)
    loop.add_signal_handler(signal.SIGTERM, server.drain)
    loop.add_signal_handler(signal.SIGHUP, server.reload)

    def listening(listener: Listener) -> None:
        """Say where we listen, as the one line on stdout that programs wait for."""
        host = f"[{config.host}]" if ":" in config.host else config.host
        scheme = "ws" if config.no_tls else "wss"
        url = f"{scheme}://{host}:{listener.port}{STREAMS_PATH}"
        print(f"listening {url}", flush=True)  # noqa: T201  data on stdout is the contract
        if demo is not None:
            demo.start(url)

    try:
        await server.run(listening=listening)
    finally:
        if demo is not None:
            await demo.close()
