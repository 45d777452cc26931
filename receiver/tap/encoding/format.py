"""What a listener may ask for, and the messages that are made of it."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Final, Protocol

import msgspec

from receiver.tap.events import StreamEvent

LONGEST_WAIT_MS: Final = 60
"""How long a chunk of one track waits for its counterpart of the other, or for one before it."""
_SILENCE_BLOCK_BYTES: Final = 2**15


class Format(enum.StrEnum):
    """The shape of what is sent."""

    PCM16 = "pcm16"
    PAYLOAD = "payload"
    MESSAGES = "messages"


class OutputSpec(msgspec.Struct, frozen=True):
    """What a listener asked for. `rate` is `None` where it is the stream's own."""

    format: Format
    track: str  # inbound, outbound, stereo; of messages, stereo
    rate: int | None = None

    @property
    def channels(self) -> int:
        """Return how many tracks are in each binary message."""
        return 2 if self.track == "stereo" else 1


class OutMessage(msgspec.Struct, frozen=True):
    """One message to a listener, `str` as text and `bytes` as binary.

    Audio has a duration and the name of its track. Silence is `repeat` times the message: it
    takes no room in a queue, however long it is.
    """

    message: bytes | str
    track: str = ""
    timestamp_ms: float = 0
    duration_ms: float = 0
    repeat: int = 1

    def messages(self) -> Iterator[bytes | str]:
        """Return what is to be sent."""
        if self.repeat == 1 or isinstance(self.message, str):
            return iter((self.message,))
        return self._blocks(self.message)

    def _blocks(self, message: bytes) -> Iterator[bytes]:
        at_a_time = max(1, _SILENCE_BLOCK_BYTES // len(message))
        whole, rest = divmod(self.repeat, at_a_time)
        block = message * at_a_time
        for _ in range(whole):
            yield block
        if rest:
            yield message * rest


class Encoder(Protocol):
    """Turns the events of one stream into what listeners of one spec get."""

    @property
    def position_ms(self) -> float:
        """Return where on the stream's clock a listener starts that subscribes now."""
        ...

    @property
    def waiting_since_ms(self) -> int | None:
        """Return when the audio that is held back came; it is due `LONGEST_WAIT_MS` later."""
        ...

    @property
    def left_out(self) -> int:
        """Return how many chunks came too late, or twice."""
        ...

    def feed(self, event: StreamEvent) -> list[OutMessage]:
        """Return what follows from an event."""
        ...

    def flush_due(self, now_ms: int) -> list[OutMessage]:
        """Return what has waited long enough at `now_ms`, on the clock of arrival times."""
        ...

    def reach_present(self) -> None:
        """Wait from now on as for live audio; called when a replay of the past is through."""
        ...
