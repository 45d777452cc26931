"""The event loop a receiver runs on: the fastest that is installed."""

from __future__ import annotations

import asyncio
import asyncio.sslproto
from collections.abc import Coroutine
from typing import Any, Final

TLS_BUFFER_BYTES: Final = 16_384
"""What a TLS record holds. asyncio sets 256 KiB aside for each connection, idle or not, which
was 292 KiB of memory per idle stream instead of 46."""


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run `main` to its end, on uvloop where it is installed."""
    try:
        import uvloop
    except ImportError:
        factory = None  # asyncio's own
        asyncio.sslproto.SSLProtocol.max_size = TLS_BUFFER_BYTES
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main)
