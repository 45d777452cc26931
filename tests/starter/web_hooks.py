"""A small real HTTP server in place of a caller's web hook, or of the provider."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qsl


@dataclass
class WebHook:
    """A tiny HTTP server of the caller's: keeps what it receives."""

    status: str = "200 OK"
    body: bytes = b""
    url: str = ""
    seen: list[tuple[str, str, dict[str, str], dict[str, str]]] = field(default_factory=list)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one request, keep it, answer it, hang up."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = head[0].split()
        headers = dict(line.split(": ", 1) for line in head[1:] if line)
        body = await reader.readexactly(int(headers.get("Content-Length", 0)))
        self.seen.append((method, path, headers, dict(parse_qsl(body.decode()))))
        head_of_answer = f"HTTP/1.1 {self.status}\r\nContent-Length: {len(self.body)}\r\n\r\n"
        writer.write(head_of_answer.encode() + self.body)
        writer.close()


@asynccontextmanager
async def web_hook(status: str = "200 OK", body: bytes = b"") -> AsyncIterator[WebHook]:
    """A web hook that listens while the context is open."""
    hook = WebHook(status, body)
    server = await asyncio.start_server(hook.handle, "127.0.0.1", 0)
    hook.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield hook
