"""Web servers that receive webhooks, each in its own way, and what they have received."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import standardwebhooks

from tests.receiver.helpers.secret_files import secret as write_secret

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHER_SECRET = "whsec_" + base64.b64encode(bytes(range(1, 33))).decode()


@dataclass
class Hook:
    """A server at `url`; it answers as `answer` says, and keeps what it received."""

    url: str
    answer: Answer
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def events(self) -> list[dict[str, Any]]:
        """Return the events that it received, as JSON."""
        return [json.loads(body) for body in self.bodies]

    @property
    def ids(self) -> list[str]:
        """Return the ids of what it received."""
        return [headers["webhook-id"] for headers in self.headers]

    def verified(self, secret: str = SECRET) -> list[Any]:
        """Return what it received, each verified by a library that others wrote."""
        verifier = standardwebhooks.Webhook(secret)
        pairs = zip(self.bodies, self.headers, strict=True)
        return [verifier.verify(body, headers) for body, headers in pairs]

    async def received(self, count: int, seconds: float) -> None:
        """Wait until so many requests have come."""
        async with asyncio.timeout(seconds):
            while len(self.bodies) < count:
                self.came.clear()
                await self.came.wait()


@contextlib.asynccontextmanager
async def hook(answer: Answer | None = None, *, port: int = 0) -> AsyncIterator[Hook]:
    """Serve until the end of the block, on 127.0.0.1."""
    tasks = set[asyncio.Task[None]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            lines = [line.partition(": ") for line in head.split("\r\n")[1:] if line]
            headers = {name.lower(): value for name, _, value in lines}
            body = await reader.readexactly(int(headers["content-length"]))
            made.bodies.append(body)
            made.headers.append(headers)
            made.came.set()
            await made.answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    made = Hook(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", answer or status(204))
    try:
        yield made
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


def raw(answer: bytes) -> Answer:
    """Return a way to answer with these bytes, and to close."""

    async def send(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    return send


def status(code: int, *headers: str) -> Answer:
    """Return a way to answer with a status and nothing else."""
    lines = [f"HTTP/1.1 {code} X", "Content-Length: 0", *headers, "", ""]
    return raw("\r\n".join(lines).encode())


async def silence(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Never answer."""
    await reader.read()


async def dripping(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer a byte at a time, without end."""
    writer.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.05)


async def endless(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer without end, as fast as it is read."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
    while True:
        writer.write(bytes(65_536))
        await writer.drain()


def table(url: str, folder: Path, **more: Any) -> dict[str, Any]:
    """Return a `[[webhook]]` of the settings for a hook on this machine, and write its secret."""
    secret = folder / "webhook-secret"
    if not secret.exists():
        write_secret(secret, SECRET)
    return {"url": url, "secret_file": secret, "allow_private": True, **more}
