"""Those who watch all streams begin and end (`/tap/all`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import structlog

from receiver.auth.leases import Leases
from receiver.auth.tap_tokens import TapGrant
from receiver.counters import TapCounters
from receiver.recording.document import Recording
from receiver.tap import query
from receiver.tap.events import LifecycleEvent, LiveStream, RecordingPublished, StreamStarted
from receiver.tap.hub import Hub
from receiver.tap.listener import ListenerLimits, Watcher

log = structlog.get_logger("receiver.watchers")


class WatcherPool:
    """Makes watchers, and counts those whose sockets are open."""

    def __init__(
        self,
        hub: Hub,
        limits: ListenerLimits,
        *,
        figures: TapCounters,
        described: Callable[[LiveStream], dict[str, Any]],
        tickets: Leases,
    ) -> None:
        self._hub = hub
        self._limits = limits
        self._figures = figures
        self._described = described
        self._tickets = tickets
        self._open: set[Watcher] = set()

    def __len__(self) -> int:
        return len(self._open)

    def watcher(self, filters: dict[str, str], ticket: TapGrant) -> Watcher:
        """Return the peer of one who watches what `filters` and a ticket let through."""

        def wanted(call_sid: str, parameters: dict[str, Any]) -> bool:
            permitted = ticket.scope.permits(call_sid, parameters)
            return permitted and query.matches(filters, parameters)

        def begin(watcher: Watcher) -> Callable[[], None]:
            hold = self._tickets.start(ticket, dismiss=watcher.dismiss)

            def tell(event: LifecycleEvent) -> None:
                about = event if isinstance(event, RecordingPublished) else event.live
                if wanted(about.call_sid, about.parameters) and hold.is_valid():
                    watcher.tell(event)

            alive = [live for live in self._hub.streams() if wanted(live.call_sid, live.parameters)]
            watcher.tell(*map(StreamStarted, alive), new=False)
            leave = self._hub.watch(tell)
            self._open.add(watcher)
            self._figures.watchers = len(self)

            def stop() -> None:
                leave()
                hold.release()
                self._forget(watcher)

            return stop

        return Watcher(begin, self._told, self._limits)

    def _forget(self, watcher: Watcher) -> None:
        self._open.discard(watcher)
        self._figures.watchers = len(self)
        if watcher.slow:
            self._figures.closed_slow += 1
            log.warning("watcher_too_slow")

    def _told(self, event: LifecycleEvent) -> dict[str, Any]:
        if isinstance(event, StreamStarted):
            return {"event": "started", **self._described(event.live)}
        if isinstance(event, RecordingPublished):
            told = msgspec.to_builtins(event)
            del told["type"]
            return {"event": "recorded", **told}
        live = event.live
        return {
            "event": "stopped",
            "recording_id": live.recording_id,
            "call_sid": live.call_sid,
            "stream_sid": live.stream_sid,
            "parameters": live.parameters,
            "reason": event.reason.value,
        }


def kept(document: Recording, folder: Path) -> RecordingPublished:
    """Return what watchers, who may be anywhere, are told of a published recording."""
    return RecordingPublished(
        document.id,
        document.call_sid,
        document.stream_sid,
        document.parameters,
        document.complete,
        str(folder.absolute()),
    )
