"""Calls in real time over real sockets: many at once, each remembering what it sent, and when."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from receiver.media import Track
from tests.bounds import at_most
from tests.end_to_end import sender
from tests.end_to_end.receiver_process import TOKEN
from tests.faults.accounting import Sent
from tests.faults.payloads import CHUNK_MS, Name, payload

MOST_SECONDS = at_most(120.0)
"""No call lasts longer, whatever the test forgets."""
_SKIPPED = 0.02
_REPEATED = 0.01


def dial(url: str) -> connect:
    """Open a stream's socket as the provider does."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return connect(
        url,
        additional_headers=headers,
        compression=None,
        proxy=None,
        ping_interval=None,
        close_timeout=5,
    )


def media(name: Name, sequence: int) -> str:
    """Return the message that carries a chunk."""
    return sender.media(name.track.value, name.chunk, payload(name), sequence=sequence)


@dataclass(slots=True)
class Call:
    """One stream of two tracks, 50 chunks a second each; some are skipped, some repeated."""

    sent: Sent
    seed: int = 0
    ended_by_peer: bool = False
    _sequence: int = 1

    async def run(self, url: str, hang_up: asyncio.Event) -> None:
        """Stream until `hang_up`, then stop; a socket that breaks ends the call."""
        try:
            async with dial(url) as socket:
                await socket.send(sender.connected())
                await socket.send(sender.start(stream_sid=self.sent.stream_sid))
                await self._talk(socket, hang_up)
                await socket.send(sender.stop())
        except (OSError, WebSocketException):
            self.ended_by_peer = True

    async def _talk(self, socket: ClientConnection, hang_up: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for chunk, skipped, repeated in self._script():
            for track in Track:
                name = Name(self.sent.number, track, chunk)
                if skipped:
                    self.sent.skipped.add(name)
                    self._sequence += 1  # lost on the way: its message was counted
                else:
                    await self.send(socket, name, times=1 + repeated)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(
                    hang_up.wait(), began + chunk * CHUNK_MS / 1000 - loop.time()
                )
            if hang_up.is_set():
                return

    def _script(self) -> Iterator[tuple[int, bool, bool]]:
        """Yield chunk numbers, and whether each is left out, and whether it comes twice."""
        source = random.Random(f"{self.seed} {self.sent.number}")
        for chunk in range(1, int(MOST_SECONDS * 1000 / CHUNK_MS)):
            skipped = chunk > 1 and source.random() < _SKIPPED
            yield chunk, skipped, source.random() < _REPEATED

    async def send(self, socket: ClientConnection, name: Name, *, times: int = 1) -> None:
        """Send one chunk and remember when."""
        for _ in range(times):
            self._sequence += 1
            at = time.monotonic()
            await socket.send(media(name, self._sequence))
            self.sent.chunks.setdefault(name, at)


@dataclass
class Callers:
    """Several calls on a thread of their own, from `with` to `hang_up`."""

    url: str
    count: int
    seed: int = 0
    first: int = 1
    calls: list[Call] = field(default_factory=list)

    def __enter__(self) -> Self:
        numbers = range(self.first, self.first + self.count)
        self.calls = [Call(Sent(number), self.seed) for number in numbers]
        self._loop = asyncio.new_event_loop()
        self._hang_up = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def _run(self) -> None:
        self._loop.run_until_complete(self._run_all())
        self._loop.close()

    async def _run_all(self) -> None:
        await asyncio.gather(*(call.run(self.url, self._hang_up) for call in self.calls))

    @property
    def streams(self) -> list[Sent]:
        """Return what every call has sent."""
        return [call.sent for call in self.calls]

    def wait_for(self, chunks: int) -> None:
        """Return once every call has sent this many chunks, or has ended."""
        deadline = time.monotonic() + MOST_SECONDS
        while self._thread.is_alive() and time.monotonic() < deadline:
            if all(len(c.sent.chunks) >= chunks or c.ended_by_peer for c in self.calls):
                return
            time.sleep(0.005)  # there is no event for that

    def hang_up(self) -> None:
        """Stop every call and wait for the end of their sockets; idempotent."""
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # it closed itself meanwhile
                self._loop.call_soon_threadsafe(self._hang_up.set)
        self._thread.join(MOST_SECONDS)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.hang_up()
