"""What TCP sockets are set to and asked for: keep-alive, buffers, and how full these are.

Kernels buffer minutes of audio for whoever does not limit them, and then nobody knows whether
the other end keeps up. A socket on which only the other end speaks, or only we do, may go dead
without a sign; keep-alive ends it.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import socket
import termios
from typing import Any, Final

IDLE_SECONDS: Final = 60
_KEEP_ALIVE: Final = {
    "TCP_KEEPIDLE": IDLE_SECONDS,
    "TCP_KEEPINTVL": 15,
    "TCP_KEEPCNT": 4,
    # Keep-alive rests while what was sent is not acknowledged, and TCP tries that for 15 minutes.
    # On Linux a window that stays closed for as long counts, too: nobody reads on that side.
    "TCP_USER_TIMEOUT": 120_000,
}


def keep_alive(tcp: Any) -> None:
    """Set a socket to break two minutes after its other end has vanished."""
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE.items():
        if hasattr(socket, name):  # not on every system
            tcp.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def prepare_sending(tcp: Any, *, send_buffer_bytes: int) -> None:
    """Prepare a socket that was accepted for messages of ours, perhaps to one who only listens."""
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
    keep_alive(tcp)


def prepare_dialling(
    tcp: socket.socket, *, receive_buffer_bytes: int, send_buffer_bytes: int
) -> None:
    """Prepare a socket that is not yet connected: later the receive buffer has no effect."""
    tcp.setblocking(False)
    tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
    prepare_sending(tcp, send_buffer_bytes=send_buffer_bytes)


def unread_bytes(descriptor: int) -> int:
    """Return how many received bytes the kernel still holds; 0 where it does not say."""
    return _asked(descriptor, termios.FIONREAD, otherwise=0)


def unacknowledged_bytes(descriptor: int) -> int:
    """Return how many sent bytes the other end's TCP has not acknowledged.

    That is 1 where the kernel does not say: only Linux does.
    """
    return _asked(descriptor, termios.TIOCOUTQ, otherwise=1)


def _asked(descriptor: int, what: int, *, otherwise: int) -> int:
    count = array.array("i", [otherwise])
    with contextlib.suppress(OSError):  # the socket is gone, or the system has no such call
        fcntl.ioctl(descriptor, what, count)
    return count[0]
