"""TCP's own keep-alive, for sockets whose other end may vanish while it has nothing to say."""

from __future__ import annotations

import socket
from typing import Any, Final

IDLE_SECONDS: Final = 60
_OPTIONS: Final = {
    "TCP_KEEPIDLE": IDLE_SECONDS,
    "TCP_KEEPINTVL": 15,
    "TCP_KEEPCNT": 4,
    # Keep-alive rests while what was sent is not acknowledged, and TCP tries that for 15 minutes.
    # On Linux a window that stays closed for as long counts, too: nobody reads on that side.
    "TCP_USER_TIMEOUT": 120_000,
}


def keep_alive(tcp: Any) -> None:
    """Have a socket break two minutes after its other end has vanished, whoever waits for it."""
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _OPTIONS.items():
        if hasattr(socket, name):  # not on every system
            tcp.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
