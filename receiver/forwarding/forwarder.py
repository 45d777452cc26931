"""Forwarding: every stream of a hub to each of the consumers that want it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

from receiver.forwarding.consumer import SPEC, Consumer
from receiver.forwarding.relay import ForwardOptions, Relay
from receiver.tap.events import LifecycleEvent, LiveStream, StreamStarted, StreamStopped
from receiver.tap.feed import Feeds, Sink
from receiver.tap.hub import Hub, Unsubscribe
from receiver.tap.query import matches

_CLOSE_SECONDS: Final = 10.0
"""For how long what is on its way may still arrive."""


class Forwarder:
    """Starts a relay for each stream and each consumer whose filters match it."""

    def __init__(
        self, hub: Hub, feeds: Feeds, consumers: tuple[Consumer, ...], options: ForwardOptions
    ) -> None:
        self._hub = hub
        self._feeds = feeds
        self._consumers = consumers
        self._options = options
        self._relays: dict[str, set[Relay]] = {}  # by recording id
        self._tasks: set[asyncio.Task[None]] = set()
        self._unwatch: Unsubscribe = lambda: None

    def start(self) -> None:
        """Forward every stream from now on, and those that are live already."""
        self._unwatch = self._hub.watch(self._on_event)
        for live in self._hub.streams():
            self._forward(live)

    def replace_token(self, token: str | None) -> None:
        """Send another token to consumers of streams that start from now on."""
        self._options = replace(self._options, token=token)

    async def close(self) -> None:
        """Wait for what is on its way to arrive, but not for long; idempotent."""
        self._unwatch()
        for relays in self._relays.values():
            for relay in relays:
                relay.stop()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=_CLOSE_SECONDS)
            for task in late:
                task.cancel()

    def _on_event(self, event: LifecycleEvent) -> None:
        if isinstance(event, StreamStarted):
            self._forward(event.live)
        elif isinstance(event, StreamStopped):
            for relay in self._relays.pop(event.live.recording_id, ()):
                relay.stop()

    def _forward(self, live: LiveStream) -> None:
        for consumer in self._consumers:
            if matches(consumer.filters, live.parameters):
                self._start_relay(consumer, live)

    def _start_relay(self, consumer: Consumer, live: LiveStream) -> None:
        def attach(sink: Sink) -> Unsubscribe:
            return self._feeds.subscribe(live.recording_id, SPEC, sink)

        relay = Relay(consumer, attach, self._options, call_sid=live.call_sid)
        self._relays.setdefault(live.recording_id, set()).add(relay)
        task = asyncio.ensure_future(relay.run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
