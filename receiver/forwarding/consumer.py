"""Consumers: media-stream servers that get streams as the provider would send them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from receiver.config.load import is_loopback
from receiver.errors import ConfigurationError
from receiver.tap.encoding.format import Format, OutMessage, OutputSpec, opening
from receiver.tap.events import LiveStream
from receiver.tap.queue import SendQueue
from receiver.tap.sender import DONE, ListenerLimits

SPEC: Final = OutputSpec(Format.MESSAGES, "stereo")
_TRACKS: Final = 2
_FILTER: Final = "param."


@dataclass(frozen=True, slots=True)
class Consumer:
    """A media-stream server, and the custom parameters of the streams that it gets."""

    url: str
    filters: dict[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Return the URL without what may be secret in it, for logs."""
        parts = urlsplit(self.url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def parse_consumer(text: str) -> Consumer:
    """Return the consumer that `URL` or `URL#param.NAME=VALUE&...` names.

    Raises:
        ConfigurationError: it is no wss URL (or ws on loopback), or has another fragment.
    """
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
        pairs = (
            parse_qsl(parts.fragment, keep_blank_values=True, strict_parsing=True)
            if parts.fragment
            else []
        )
    except ValueError as error:
        raise ConfigurationError("a consumer is wss://HOST/PATH[#param.NAME=VALUE]") from error
    if not host or parts.scheme not in ("ws", "wss"):
        raise ConfigurationError("a consumer must be given as wss://HOST/PATH")
    if parts.scheme == "ws" and not is_loopback(host):
        raise ConfigurationError("a consumer elsewhere needs wss: ws sends audio in the clear")
    if any(not name.startswith(_FILTER) or name == _FILTER for name, _ in pairs):
        raise ConfigurationError("the filter behind # must be param.NAME=VALUE")
    filters = {name.removeprefix(_FILTER): value for name, value in pairs}
    return Consumer(urlunsplit(parts._replace(fragment="")), filters)


class ConsumerQueue:
    """What waits for one consumer (a feed's `Sink`); it may be filled before anybody sends."""

    def __init__(self, limits: ListenerLimits, *, on_drop: Callable[[], None]) -> None:
        self.queue = SendQueue(
            limit_ms=limits.queue_ms * _TRACKS, limit_bytes=limits.queue_bytes, on_drop=on_drop
        )
        self.put = self.queue.put

    def start(self, live: LiveStream, timestamp_ms: float) -> None:
        """Send `connected` and `start`, as the provider does."""
        for item in opening(SPEC, live, listeners=0, timestamp_ms=timestamp_ms):
            self.queue.put(item)

    def end(self) -> None:
        """Close once everything is sent."""
        self.queue.close(DONE, "the stream has ended")

    @property
    def is_finished(self) -> bool:
        """Return whether the stream has ended and everything of it is sent."""
        return self.queue.closing is not None and not len(self.queue)

    def abandon(self) -> int:
        """Drop what waits, and return how many pieces of audio that were."""
        waiting = iter(self.queue.pop, None)
        return sum(bool(item.duration_ms) for item in waiting)


class AbsentConsumer:
    """Stands in for a consumer that is not there, and counts what it misses (a `Sink`)."""

    def __init__(self, on_drop: Callable[[], None]) -> None:
        self._on_drop = on_drop

    def start(self, live: LiveStream, timestamp_ms: float) -> None:
        """Do nothing: nobody is there."""

    def put(self, item: OutMessage) -> None:
        """Count audio."""
        if item.duration_ms:
            self._on_drop()

    def end(self) -> None:
        """Do nothing: nobody is there."""
