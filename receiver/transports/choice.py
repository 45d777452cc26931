"""Which adapter serves: the one asked for, or the fastest that is installed."""

from __future__ import annotations

import importlib
import importlib.util
import ssl
from collections.abc import Awaitable
from typing import Final, Protocol, cast

from receiver.errors import ConfigurationError
from receiver.transports import Gate, Limits, Listener
from receiver.transports.sharing import SharedPort

FASTEST_FIRST: Final = ("picows", "websockets")


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
