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

import aiofastnet

from receiver.transports import handshake, picows_wiring, resets
from receiver.transports.interface import Gate, Limits, Listener
from receiver.transports.listener import SocketListener
from receiver.transports.pending import PendingConnection
from receiver.transports.picows_socket import Socket
from receiver.transports.shared_port import SharedPort
from receiver.transports.upgrade import AcceptedUpgrade, UpgradeProtocol


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
    listener = _PicowsListener(gate, limits, watch=fast and resets.needed(loop))

    async def connect(waiting: PendingConnection) -> None:
        if fast:
            make = functools.partial(UpgradeProtocol, listener.house, waiting)
            await aiofastnet.connect_accepted_socket(loop, make, waiting.tcp)
        else:
            await listener.connect(waiting, ssl_context=ssl_context)

    await listener.start(connect, host=host, port=port, shared=shared)
    return listener


class _PicowsListener(SocketListener):
    """A listener that may have to watch over its sockets."""

    def __init__(self, gate: Gate, limits: Limits, *, watch: bool) -> None:
        super().__init__(gate, limits, self._upgrade)
        self._resets = resets.Resets(asyncio.get_running_loop()) if watch else None

    async def close(self) -> None:
        """Close every connection with 1001 and return when all sockets are gone."""
        await super().close()
        if self._resets is not None:
            self._resets.close()

    def _upgrade(self, admitted: AcceptedUpgrade, _listener: SocketListener) -> None:
        socket = Socket(admitted.peer, admitted.transport, self)
        ears = picows_wiring.Ears(socket.broken_off)
        longest = self.limits.max_message_bytes
        protocol = picows_wiring.make_protocol(socket, ears, max_message_bytes=longest)
        self.sockets.add(socket)
        if self._resets is not None:
            self._resets.watch(socket)
        picows_wiring.hand_over(protocol, admitted.transport, key=admitted.key, rest=admitted.rest)
