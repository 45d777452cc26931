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

BOTH: Final = "stereo"
_TRACKS: Final = ("inbound", "outbound")
_FILTER: Final = "param."
_FORM: Final = "wss://HOST/PATH[#track=inbound&param.NAME=VALUE]"


@dataclass(frozen=True, slots=True)
class Consumer:
    """A media-stream server, and what it gets: of which streams, and which of their tracks."""

    url: str
    filters: dict[str, str] = field(default_factory=dict)  # custom parameters
    track: str = BOTH

    @property
    def spec(self) -> OutputSpec:
        """Return the shape of what it gets."""
        return OutputSpec(Format.MESSAGES, self.track)

    @property
    def address(self) -> str:
        """Return the URL without what may be secret in it, for logs."""
        parts = urlsplit(self.url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def parse_consumer(text: str) -> Consumer:
    """Return the consumer that `URL` or `URL#track=inbound&param.NAME=VALUE&...` names.

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
        raise ConfigurationError(f"a consumer is {_FORM}") from error
    if not host or parts.scheme not in ("ws", "wss"):
        raise ConfigurationError("a consumer must be given as wss://HOST/PATH")
    if parts.scheme == "ws" and not is_loopback(host):
        raise ConfigurationError("a consumer elsewhere needs wss: ws sends audio in the clear")
    url = urlunsplit(parts._replace(fragment=""))
    return Consumer(url, _filters(pairs), _track(pairs))


def _filters(pairs: list[tuple[str, str]]) -> dict[str, str]:
    given = dict(pairs)
    given.pop("track", None)
    if any(not name.startswith(_FILTER) or name == _FILTER for name in given):
        raise ConfigurationError(
            "a consumer's filter behind # must be track=TRACK or param.NAME=VALUE"
        )
    return {name.removeprefix(_FILTER): value for name, value in given.items()}


def _track(pairs: list[tuple[str, str]]) -> str:
    given = [value for name, value in pairs if name == "track"]
    if len(given) > 1 or not set(given) <= set(_TRACKS):
        raise ConfigurationError("a consumer's track behind # must be one of inbound and outbound")
    return given[0] if given else BOTH


class ConsumerQueue:
    """What waits for one consumer (a feed's `Sink`); it may be filled before anybody sends."""

    def __init__(
        self, spec: OutputSpec, limits: ListenerLimits, *, on_drop: Callable[[], None]
    ) -> None:
        self._spec = spec
        tracks = len(_TRACKS) if spec.track == BOTH else 1
        self.queue = SendQueue(
            limit_ms=limits.queue_ms * tracks, limit_bytes=limits.queue_bytes, on_drop=on_drop
        )
        self.put = self.queue.put

    def start(self, live: LiveStream, timestamp_ms: float) -> None:
        """Send `connected` and `start`, as the provider does."""
        for item in opening(self._spec, live, listeners=0, timestamp_ms=timestamp_ms):
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
