"""All that serves listeners and consumers of one receiver, built from its settings.

The hub is chosen here and nowhere else: another one may carry the same events further.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from receiver.auth import credentials
from receiver.config.settings import Config
from receiver.counters import TapCounters
from receiver.disk import layout
from receiver.recording.document import Recording
from receiver.tap import watchers
from receiver.tap.feed import Feeds
from receiver.tap.hub import Hub
from receiver.tap.listener import ListenerLimits
from receiver.tap.local_hub import LocalHub
from receiver.tap.service import TapOptions, TapService

if TYPE_CHECKING:
    from receiver.forwarding.relay import Forwarder

log = structlog.get_logger("receiver.taps")


class LiveTaps:
    """The hub, the taps of the gate, and the forwarder.

    `flush` has the journals written now.

    Raises:
        ConfigurationError: a token, key or consumer cannot be used.
    """

    def __init__(self, config: Config, *, flush: Callable[[], None], figures: TapCounters) -> None:
        self.hub: Hub = LocalHub()
        self._config = config
        channels = Feeds(self.hub, byte_order=config.byte_order, figures=figures)
        options = TapOptions(
            journal_of=lambda recording_id: config.spool / layout.journal_name(recording_id),
            flush=flush,
            byte_order=config.byte_order,
            limits=ListenerLimits(queue_ms=config.tap_queue_seconds * 1000),
            max_listeners=config.max_listeners,
            among_workers=config.workers > 1,
            figures=figures,
        )
        tokens = credentials.tap_tokens(config)
        self.taps = TapService(self.hub, channels, tokens, options=options)
        token = credentials.forward_token(config)
        self._forwarder = _forwarder(config, self.hub, channels, options, token)

    def start(self) -> None:
        """Begin to forward."""
        if self._config.workers > 1 and self.taps.tokens:
            log.warning("listeners_hear_one_worker", workers=self._config.workers)
        if self._forwarder is not None:
            self._forwarder.start()

    async def close(self) -> None:
        """Let what is on its way to consumers arrive, for a while; idempotent."""
        self.hub.flush()
        if self._forwarder is not None:
            await self._forwarder.close()

    def reload(self) -> None:
        """Read tap tokens and keys again.

        Raises:
            ConfigurationError: one of them cannot be used; the old ones stay in force.
        """
        self.taps.tokens = credentials.tap_tokens(self._config)

    def reload_forward_token(self) -> None:
        """Read the token again that consumers get.

        Raises:
            ConfigurationError: it cannot be used; the old one stays in force.
        """
        token = credentials.forward_token(self._config)
        if self._forwarder is not None:
            self._forwarder.take_token(token)

    def kept(self, document: Recording, folder: Path) -> None:
        """Tell watchers of a published recording."""
        self.hub.recording_published(watchers.kept(document, folder))


def _forwarder(
    config: Config, hub: Hub, channels: Feeds, options: TapOptions, token: str | None
) -> Forwarder | None:
    if not config.forward:
        return None
    from receiver.forwarding.relay import (  # only here: a client starts slowly
        Forwarder,
        ForwardOptions,
        parse_consumer,
    )
    from receiver.transports.client import trust_in

    consumers = tuple(map(parse_consumer, config.forward))
    way = ForwardOptions(
        token=token,
        trust=trust_in(None),  # read once: it takes milliseconds
        limits=options.limits,
        figures=options.figures,
    )
    return Forwarder(hub, channels, consumers, way)
