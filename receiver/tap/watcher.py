"""One watcher of all streams (`/tap/all`): a socket that gets what happens to any of them.

Events wait undescribed, so that a long list of what is live already takes no room, and none is
ever dropped: a watcher that lets too many of them wait is closed with 1013, and finds what it
missed in the list when it comes back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from receiver.auth.leases import Lease
from receiver.auth.tap_tokens import TapGrant
from receiver.tap import query
from receiver.tap.encoding.format import OutMessage
from receiver.tap.events import LifecycleEvent, LiveStream, RecordingPublished, StreamStarted
from receiver.tap.queue import SendQueue
from receiver.tap.sender import Sender
from receiver.transports.interface import Connection

if TYPE_CHECKING:
    from receiver.tap.service import TapService

MOST_EVENTS: Final = 1000
"""That may wait for one watcher, besides the streams that it found."""


class Watcher:
    """A transport's `Peer` that gets what happens to those streams that it may watch.

    These are the ones whose custom parameters match `filters`, within the scope of `grant`.
    """

    _sender: Sender  # these two from `opened` on
    _lease: Lease

    def __init__(self, filters: dict[str, str], grant: TapGrant, service: TapService) -> None:
        limits = service.options.limits
        self._filters = filters
        self._grant = grant
        self._service = service
        self._unsubscribe: Callable[[], None] = lambda: None
        self._waiting: deque[LifecycleEvent] = deque()
        self._most_waiting = MOST_EVENTS
        self._queue = SendQueue(limit_bytes=limits.queue_bytes, on_empty=self._fill)

    @property
    def closed_slow(self) -> bool:
        """Return whether it was closed because it did not read."""
        return self._sender.closed_slow

    def opened(self, connection: Connection) -> None:
        """Start to send over an open connection: what is live already, then what happens."""
        service = self._service
        self._sender = Sender(connection, self._queue, service.options.limits)
        self._lease = service.leases.start(self._grant, dismiss=self._sender.dismiss)
        live = [StreamStarted(live) for live in service.hub.streams() if self._may_see(live)]
        self._most_waiting += len(live)  # however many these are
        self._send(*live)
        self._unsubscribe = service.hub.watch(self._on_event)
        service.watcher_opened(self)

    def message_received(self, message: bytes) -> None:
        """Ignore a message, unless it is one of too many."""
        self._sender.count_message()

    def closed(self, *, code: int, clean: bool) -> None:
        """Drop everything, because the socket is gone."""
        self._unsubscribe()
        self._lease.release()
        self._sender.stop()
        self._service.watcher_closed(self)
        self._waiting.clear()
        self._queue.clear()

    def _may_see(self, about: LiveStream | RecordingPublished) -> bool:
        permitted = self._grant.scope.permits(about.call_sid, about.parameters)
        return permitted and query.matches(self._filters, about.parameters)

    def _on_event(self, event: LifecycleEvent) -> None:
        about = event if isinstance(event, RecordingPublished) else event.live
        if self._may_see(about) and self._lease.is_valid() and not self.closed_slow:
            self._send(event)

    def _send(self, *events: LifecycleEvent) -> None:
        self._waiting.extend(events)
        if len(self._waiting) > self._most_waiting:
            self._sender.close_slow()
        self._fill()

    def _fill(self) -> None:
        while self._waiting and not self._queue.is_crowded():
            document = self._document(self._waiting.popleft())
            self._queue.put(OutMessage(msgspec.json.encode(document).decode()))

    def _document(self, event: LifecycleEvent) -> dict[str, Any]:
        """Return an event as it is sent."""
        if isinstance(event, StreamStarted):
            return {"event": "started", **self._service.described(event.live)}
        if isinstance(event, RecordingPublished):
            fields = msgspec.to_builtins(event)
            del fields["type"]
            return {"event": "recorded", **fields}
        live = event.live
        return {
            "event": "stopped",
            "recording_id": live.recording_id,
            "call_sid": live.call_sid,
            "stream_sid": live.stream_sid,
            "parameters": live.parameters,
            "reason": event.reason.value,
        }
