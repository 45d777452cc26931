"""All that serves listeners and consumers of one receiver, built from its settings.

The hub is chosen here and nowhere else: another one may carry the same events further.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from receiver.auth import credentials
from receiver.auth.bearer import digest
from receiver.auth.tap_tokens import TapTokens
from receiver.config.settings import Config
from receiver.counters import TapCounters
from receiver.disk import layout
from receiver.errors import ConfigurationError
from receiver.journal.spool import Spool
from receiver.lifecycle.ledger_thread import LedgerThread
from receiver.recording.document import Recording
from receiver.recording.verdict import verdict
from receiver.tap.feed import Feeds
from receiver.tap.hub import Hub, RecordingPublished
from receiver.tap.listener import ListenerLimits
from receiver.tap.local_hub import LocalHub
from receiver.tap.service import TapOptions, TapService

if TYPE_CHECKING:
    from receiver.forwarding.relay import Forwarder

log = structlog.get_logger("receiver.taps")


class LiveTaps:
    """The hub, the taps for listeners, and the forwarder for consumers.

    `spool` has the journals of live calls.

    Raises:
        ConfigurationError: a token, key or consumer cannot be used.
    """

    def __init__(self, config: Config, spool: Spool, *, counters: TapCounters) -> None:
        self.hub: Hub = LocalHub()
        self._config = config
        feeds = Feeds(
            self.hub,
            byte_order=config.byte_order,
            counters=counters,
            longest_wait_ms=config.tap_wait_ms,
        )
        self.ledger = LedgerThread(config.recordings)
        options = TapOptions(
            journal_of=lambda recording_id: config.spool / layout.journal_name(recording_id),
            flush=spool.flush,
            unsynced_seconds=lambda: spool.counters.held_seconds,
            byte_order=config.byte_order,
            longest_wait_ms=config.tap_wait_ms,
            limits=ListenerLimits(queue_ms=config.tap_queue_seconds * 1000),
            max_listeners=config.max_listeners,
            among_workers=config.workers > 1,
            counters=counters,
            ledger=self.ledger,
            entered_elsewhere=digest(config.console_token) if config.console_token else b"",
        )
        tokens = credentials.tap_tokens(config)
        self.taps = TapService(self.hub, feeds, tokens, options=options)
        token = credentials.forward_token(config)
        self._forwarder = _forwarder(config, self.hub, feeds, options, token)

    def start(self) -> None:
        """Start to forward."""
        if self._config.workers > 1 and self.taps.tokens:
            log.warning("listeners_hear_one_worker", workers=self._config.workers)
        if self._forwarder is not None:
            self._forwarder.start()

    async def close(self) -> None:
        """Wait for what is on its way to consumers to arrive, but not for long; idempotent."""
        self.hub.flush()
        if self._forwarder is not None:
            await self._forwarder.close()

    def replace_tokens(self, tokens: TapTokens | ConfigurationError) -> None:
        """Replace tap tokens and keys by those that were read again.

        Raises:
            ConfigurationError: it was given: the old ones stay in force.
        """
        if isinstance(tokens, ConfigurationError):
            raise tokens
        self.taps.tokens = tokens

    def reload_forward_token(self) -> None:
        """Read the token again that consumers get.

        Raises:
            ConfigurationError: it cannot be used; the old one stays in force.
        """
        token = credentials.forward_token(self._config)
        if self._forwarder is not None:
            self._forwarder.replace_token(token)

    def recording_published(self, document: Recording, folder: Path) -> None:
        """Notify watchers, who may be anywhere, of a published recording."""
        event = RecordingPublished(
            document.id,
            document.call_sid,
            document.stream_sid,
            document.parameters,
            document.complete,
            str(folder.absolute()),
            document.duration_ms,
            verdict(document).text,
        )
        self.hub.recording_published(event)


def _forwarder(
    config: Config, hub: Hub, feeds: Feeds, options: TapOptions, token: str | None
) -> Forwarder | None:
    if not config.forward:
        return None
    # Only here: a client starts slowly.
    from receiver.forwarding.relay import Forwarder, ForwardOptions, parse_consumer
    from receiver.transports.client import trust_in

    consumers = tuple(map(parse_consumer, config.forward))
    forward_options = ForwardOptions(
        token=token,
        trust=trust_in(None),  # read once: it takes milliseconds
        limits=options.limits,
        counters=options.counters,
    )
    return Forwarder(hub, feeds, consumers, forward_options)
