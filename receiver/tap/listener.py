"""One listener of one stream: a socket, and the queue that a feed fills for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from receiver.auth.tap_tokens import TapGrant
from receiver.media import GapReason
from receiver.tap.encoding.format import Format, OutputSpec, gap_notice, opening
from receiver.tap.events import LiveStream
from receiver.tap.query import TapQuery
from receiver.tap.queue import SendQueue
from receiver.tap.sender import DONE, FAILED, NO_SUCH_STREAM, Sender
from receiver.transports.interface import Connection

if TYPE_CHECKING:
    from receiver.auth.leases import Lease
    from receiver.tap.service import TapService


@dataclass(frozen=True, slots=True)
class ListenRequest:
    """What one listener asked for, and what its token permits."""

    name: str
    query: TapQuery
    grant: TapGrant

    def matches(self, live: LiveStream) -> bool:
        """Return whether a stream has that name and may be listened to."""
        named = self.name in (live.recording_id, live.stream_sid, live.call_sid)
        return named and self.grant.scope.permits(live.call_sid, live.parameters)


class Listener:
    """A transport's `Peer` that listens to one stream, and a feed's `Sink`.

    `service` finds its stream; `unsubscribe` ends whatever the service has started for it.
    """

    lease: Lease  # from `opened` on
    _sender: Sender  # from `opened` on

    def __init__(self, request: ListenRequest, service: TapService) -> None:
        limits = service.options.limits
        self.request = request
        self.live: LiveStream | None = None  # once it is found
        self.unsubscribe: Callable[[], None] = lambda: None
        self._service = service
        # Both tracks' messages wait in one queue: two seconds of audio are four of theirs.
        tracks = 2 if self.spec.format is Format.MESSAGES else 1
        self.queue = SendQueue(
            limit_ms=limits.queue_ms * tracks,
            limit_bytes=limits.queue_bytes,
            gap_notice=_slow_notice,
            on_drop=service.count_slow,
            on_empty=self._on_empty,
        )
        self.put = self.queue.put
        self._emptied = asyncio.Event()

    @property
    def spec(self) -> OutputSpec:
        """Return in which shape the stream is sent."""
        return self.request.query.spec

    @property
    def closed_slow(self) -> bool:
        """Return whether it was closed because it did not read."""
        return self._sender.closed_slow

    # As a transport's peer.

    def opened(self, connection: Connection) -> None:
        """Start to send over an open connection."""
        self._sender = Sender(connection, self.queue, self._service.options.limits)
        self._service.listener_opened(self)

    def message_received(self, message: bytes) -> None:
        """Ignore a message, unless it is one of too many: listeners listen."""
        self._sender.count_message()

    def closed(self, *, code: int, clean: bool) -> None:
        """Drop everything, because the socket is gone."""
        self.unsubscribe()
        self._sender.stop()
        self._service.listener_closed(self)
        self.queue.clear()

    # As a feed's sink.

    def start(self, live: LiveStream, timestamp_ms: float) -> None:
        """Send what is listened to, and where on the stream's clock it starts."""
        self.live = live
        listeners = self._service.listeners_of(live.recording_id)
        for item in opening(self.spec, live, listeners=listeners, timestamp_ms=timestamp_ms):
            self.queue.put(item)

    def end(self) -> None:
        """Close once everything is sent."""
        if self.live is None:
            self.refuse()
        else:
            self.queue.close(DONE, "the stream has ended")

    def refuse(self) -> None:
        """Close: there is no such stream, or not for this listener."""
        self.queue.close(NO_SUCH_STREAM, "no such stream")

    def fail(self) -> None:
        """Close because of an error of ours, once everything is sent."""
        self.queue.close(FAILED, "internal error")

    def dismiss(self) -> None:
        """Close now, because the token that opened the socket is no longer valid."""
        self.unsubscribe()
        self._sender.dismiss()

    async def drained(self) -> None:
        """Return when nothing waits in the queue."""
        while not self.queue.is_idle:
            self._emptied.clear()
            await self._emptied.wait()

    def _on_empty(self) -> None:
        self._emptied.set()


def _slow_notice(track: str, timestamp_ms: float, duration_ms: float) -> str:
    return gap_notice(GapReason.SLOW_LISTENER, track, timestamp_ms, duration_ms)
