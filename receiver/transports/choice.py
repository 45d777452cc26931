"""Which adapter serves, the one asked for or the fastest, and with which limits."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import ssl
from collections.abc import Awaitable
from typing import Final, Protocol, cast

import structlog

from receiver.config.settings import Config
from receiver.errors import ConfigurationError
from receiver.transports.interface import Gate, Limits, Listener
from receiver.transports.shared_port import SharedPort

FASTEST_FIRST: Final = ("picows", "websockets")

log = structlog.get_logger("receiver.server")


class Listen(Protocol):
    """What every adapter offers."""

    def __call__(
        self,
        gate: Gate,
        *,
        host: str,
        port: int,
        ssl_context: ssl.SSLContext | None,
        limits: Limits,
        shared: SharedPort | None = None,
    ) -> Awaitable[Listener]:
        """Listen until the listener is closed, on a port that may be shared."""
        ...


def choose(wanted: str | None) -> tuple[str, Listen]:
    """Return an adapter's name and its function; `None` takes the fastest that is installed.

    Raises:
        ConfigurationError: the wanted one is not installed.
    """
    for name in FASTEST_FIRST if wanted is None else (wanted,):
        if importlib.util.find_spec(name) is not None:
            adapter = importlib.import_module(f"receiver.transports.{name}")
            return name, cast(Listen, adapter.listen)
    raise ConfigurationError(f"{wanted} is not installed: pip install 'tapreel[fast]'")


async def listen(
    config: Config, gate: Gate, *, ssl_context: ssl.SSLContext | None, shared: SharedPort | None
) -> Listener:
    """Listen as the settings say, until the listener is closed.

    Raises:
        ConfigurationError: the address cannot be listened on, or the adapter is not installed.
    """
    limits = Limits(
        max_message_bytes=config.max_message_bytes,
        handshake_timeout_seconds=config.handshake_timeout_seconds,
        max_waiting=config.max_waiting,
        max_waiting_per_address=None if config.behind_proxy else config.max_waiting_per_address,
    )
    transport, listen_with = choose(config.transport)
    listener = await listen_with(
        gate,
        host=config.host,
        port=config.port,
        ssl_context=ssl_context,
        limits=limits,
        shared=shared,
    )
    event_loop = type(asyncio.get_running_loop()).__module__.partition(".")[0]
    log.info("listening", port=listener.port, transport=transport, event_loop=event_loop)
    return listener
