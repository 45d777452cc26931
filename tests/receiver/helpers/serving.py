"""Taps on a real socket, with streams that the test publishes to, and listeners to connect."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from receiver.auth.tap_tokens import TapTokens
from receiver.lifecycle.ledger_thread import LedgerThread
from receiver.media import ByteOrder, Encoding, EndReason, Track
from receiver.tap.feed import Feeds
from receiver.tap.hub import LiveStream, StreamEnded, StreamPosition, Tap
from receiver.tap.listener import ListenerLimits
from receiver.tap.local_hub import LocalHub
from receiver.tap.service import TapOptions, TapService
from receiver.transports.interface import Decision, Limits, UpgradeRequest
from receiver.transports.listener import SocketListener, listen
from tests.receiver.helpers.taps import BEGINNING, live_chunk, live_stream

TOKEN = "a-tap-token-for-tests"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
CHUNK = b"\x10" * 160
"""The payload of every chunk that these streams publish: 20 ms of PCMU."""


@dataclass(frozen=True)
class FixedSource:
    """The source of a stream that has come to a position chosen by the test."""

    at: StreamPosition = BEGINNING

    def position(self) -> StreamPosition:
        return self.at


@dataclass
class PublishedStream:
    """A live stream, and its tap to publish to."""

    live: LiveStream
    tap: Tap
    chunks: int = 0

    def publish(self, count: int, *, track: Track = Track.INBOUND) -> None:
        """Publish the next `count` chunks of one track, as a session would."""
        for _ in range(count):
            self.chunks += 1
            if self.tap.has_subscribers:
                self.tap.publish(live_chunk(self.chunks, CHUNK, track=track))

    def end(self) -> None:
        """Publish the end."""
        self.tap.publish(StreamEnded(EndReason.STOP, self.chunks * 20))


@dataclass
class TapServer:
    """A hub, and a listening transport that serves its taps."""

    hub: LocalHub
    taps: TapService
    transport: SocketListener
    journal: Path

    def open_stream(
        self, position: StreamPosition = BEGINNING, **parameters: str
    ) -> PublishedStream:
        """Open a stream that has come to `position` already."""
        live = live_stream(Encoding.PCMU, 8000, **parameters)
        tap = self.hub.open(live, FixedSource(position))
        return PublishedStream(live, tap, position.chunks)

    def connect(self, rest: str, *, token: str = TOKEN, **options: Any) -> connect:
        """Return a client's connection to `/tap/{rest}`, to be opened."""
        return connect(
            f"ws://127.0.0.1:{self.transport.port}/tap/{rest}",
            additional_headers={"Authorization": f"Bearer {token}"},
            compression=None,
            proxy=None,
            **options,
        )


@dataclass
class _TapsOnly:
    """Admits to nothing but taps."""

    taps: TapService

    def admit(self, request: UpgradeRequest) -> Decision | Coroutine[Any, Any, Decision]:
        return self.taps.admit(request)

    def count_refused(self, reason: str, remote_address: str, detail: str = "") -> None:
        pass


@asynccontextmanager
async def serving_taps(
    journal: Path,
    limits: ListenerLimits = ListenerLimits(),  # noqa: B008  frozen
    *,
    recordings: Path | None = None,
) -> AsyncIterator[TapServer]:
    """Serve taps on a free port until the end of the block; `recordings` has their ledger."""
    hub = LocalHub()
    ledger = LedgerThread(recordings) if recordings is not None else None
    options = TapOptions(journal_of=lambda _: journal, limits=limits, ledger=ledger)
    feeds = Feeds(hub, byte_order=ByteOrder.LITTLE, counters=options.counters)
    taps = TapService(hub, feeds, TapTokens([TOKEN]), options=options)
    transport = await listen(
        _TapsOnly(taps),
        host="127.0.0.1",
        port=0,
        ssl_context=None,
        limits=Limits(close_timeout_seconds=5),
    )
    try:
        yield TapServer(hub, taps, transport, journal)
    finally:
        await transport.close()
        if ledger is not None:
            await ledger.close()


async def read_text(connection: ClientConnection) -> dict[str, Any]:
    """Return the next message, which is a text."""
    message = await connection.recv(decode=True)
    document: dict[str, Any] = json.loads(message)
    return document


async def read_until_closed(connection: ClientConnection) -> None:
    """Read until the connection is closed, which raises `ConnectionClosed`."""
    while True:
        await connection.recv()


async def read_all(connection: ClientConnection) -> tuple[bytes, list[dict[str, Any]]]:
    """Return the audio and the texts up to the end of a connection."""
    audio, texts = b"", []
    async for message in connection:
        if isinstance(message, bytes):
            audio += message
        else:
            texts.append(json.loads(message))
    return audio, texts
