"""An asyncio protocol that reads and throws away: what a Python server pays at the least."""

from __future__ import annotations

import asyncio

UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"


class OnlyReads(asyncio.Protocol):
    """Answers the upgrade as its client expects, then only reads."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport for the one answer."""
        self._transport = transport
        self._upgraded = False

    def data_received(self, data: bytes) -> None:
        """Answer once, read for ever."""
        if not self._upgraded and data.endswith(b"\r\n\r\n"):
            self._upgraded = True
            assert isinstance(self._transport, asyncio.Transport)
            self._transport.write(UPGRADED)


async def main() -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(OnlyReads, "127.0.0.1", 0)
    print("listening", server.sockets[0].getsockname()[1], flush=True)  # noqa: T201
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
