"""Sockets whose other end may vanish."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from receiver.transports.tcp import keep_alive

pytestmark = pytest.mark.integration


def option(tcp: socket.socket, name: str) -> int:
    """Return what the kernel holds of one option."""
    return tcp.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="not on this system")
def test_who_vanishes_is_given_two_minutes() -> None:
    """Silent or not: keep-alive rests while something that was sent is not acknowledged."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as tcp:
        keep_alive(tcp)
        assert 1 == tcp.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        probing = option(tcp, "TCP_KEEPINTVL") * option(tcp, "TCP_KEEPCNT")
        assert 120 == option(tcp, "TCP_KEEPIDLE") + probing
        assert 120_000 == option(tcp, "TCP_USER_TIMEOUT")
