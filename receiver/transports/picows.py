"""The picows library behind the seam: protocol units are parsed in C, straight from the socket.

picows knows 16 KiB requests and the answer 400 only, so requests are read by our own doorway,
with the same parser as in the other adapter. aiofastnet, which comes with picows, reads the
sockets: it costs less than what the event loops bring along; on uvloop it needs help with
those that are reset (`resets`). TLS is the event loop's own all
the same: aiofastnet 1.2 keeps about 15 KB of every handshake that fails, for good.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
from typing import Any, Final

import aiofastnet

from receiver.transports import Gate, Limits, Listener, handshake, picows_wiring, resets
from receiver.transports.acceptor import Acceptor, open_sockets
from receiver.transports.doorway import Admitted, Doorway, House
from receiver.transports.lobby import Lobby, Waiting
from receiver.transports.picows_socket import Socket
from receiver.transports.sharing import SharedPort

_GOING_AWAY: Final = 1001


async def listen(
    gate: Gate,
    *,
    host: str,
    port: int,
    ssl_context: ssl.SSLContext | None,
    limits: Limits,
    shared: SharedPort | None = None,
) -> Listener:
    """Listen on `host` and `port` (0: a free one), or take turns on a port that is `shared`.

    Raises:
        ConfigurationError: the address cannot be listened on.
    """
    handshake.allow_long_lines(limits)
    loop = asyncio.get_running_loop()
    fast = ssl_context is None and (resets.possible() or not resets.needed(loop))
    watch = resets.Resets(loop) if fast and resets.needed(loop) else None
    listener = _PicowsListener(gate, limits, watch)
    sockets = shared.sockets if shared else await open_sockets(host, port)

    async def connect(waiting: Waiting) -> None:
        make = functools.partial(Doorway, listener.house, waiting)
        if fast:
            await aiofastnet.connect_accepted_socket(loop, make, waiting.tcp)
        else:
            timeout = limits.handshake_timeout_seconds if ssl_context else None
            await loop.connect_accepted_socket(
                make, waiting.tcp, ssl=ssl_context, ssl_handshake_timeout=timeout
            )

    listener.server = Acceptor(sockets, Lobby(limits, gate.turned_away), connect, shared=shared)
    return listener


class _PicowsListener:
    """A server and the connections it has accepted."""

    server: Acceptor

    def __init__(self, gate: Gate, limits: Limits, watch: resets.Resets | None) -> None:
        self.limits = limits
        self._resets = watch
        self.house = House(gate, limits, upgrade=self._upgrade, left=self.see_if_empty)
        self.sockets: set[Socket] = set()
        self._gone = asyncio.Event()

    @property
    def port(self) -> int:
        """Return the port, also where a free one was asked for."""
        port: int = self._names[0][1]
        return port

    @property
    def addresses(self) -> tuple[str, ...]:
        """Return every address it listens on."""
        return tuple(name[0] for name in self._names)

    @functools.cached_property
    def _names(self) -> list[Any]:
        return [listening.getsockname() for listening in self.server.sockets]

    def stop_accepting(self) -> None:
        """Close the listening sockets; open connections live on."""
        self.server.close()

    async def close(self) -> None:
        """Close every connection with 1001 and return when all sockets are gone."""
        self.server.close()
        for doorway in list(self.house.doorways):
            doorway.abort()
        for socket in list(self.sockets):
            socket.start_closing(_GOING_AWAY, "the receiver is shutting down")
        self._gone.clear()
        self.see_if_empty()
        await self._gone.wait()
        if self._resets is not None:
            self._resets.close()
        await self.server.wait_closed()

    def gone(self, socket: Socket) -> None:
        """Forget a connection that has ended."""
        self.sockets.discard(socket)
        if self._resets is not None:
            self._resets.forget(socket.transport)
        self.see_if_empty()

    def see_if_empty(self) -> None:
        """Let `close` return when the last connection is gone."""
        if not self.house.doorways and not self.sockets:
            self._gone.set()

    def _upgrade(self, admitted: Admitted) -> None:
        socket = Socket(admitted.peer, admitted.transport, self)
        ears = picows_wiring.Ears(socket.broken_off)
        longest = self.house.limits.max_message_bytes
        protocol = picows_wiring.make_protocol(socket, ears, max_message_bytes=longest)
        self.sockets.add(socket)
        if self._resets is not None:
            self._resets.watch(admitted.transport)
        picows_wiring.hand_over(protocol, admitted.transport, key=admitted.key, rest=admitted.rest)
