"""The life of one stream as a pure state machine: a message in, events out.

The transitions are a table. It is liberal where providers are (no `connected`, media before
`start`, no `stop`) because call audio exists once: what cannot be explained is still kept.

    state      connected   start       media       dtmf, mark   stop
    IDLE       IDLE        STARTED     EARLY       IDLE         IDLE
    EARLY      EARLY       STARTED     EARLY       EARLY        IDLE
    STARTED    STARTED     STARTED     STARTED     STARTED      IDLE

Leaving IDLE opens a recording and coming back ends it. Media after `stop` opens another one
that keeps the identity of the stream it followed.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from receiver.media import Chunk, EndReason
from receiver.messages import Connected, Dtmf, Mark, Message, Start, Stop, Unknown


class State(enum.Enum):
    """What is known of the stream."""

    IDLE = enum.auto()  # no recording is open
    EARLY = enum.auto()  # audio came before the start message
    STARTED = enum.auto()  # the stream is known by name


@dataclass(frozen=True, slots=True)
class RecordingOpened:
    """From here on everything belongs to a new recording; `followed` names whose it is."""

    followed: Start | None = None


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A message other than media belongs into the open recording, verbatim."""

    message: Message


@dataclass(frozen=True, slots=True)
class ChunkReceived:
    """A chunk belongs into the open recording."""

    chunk: Chunk


@dataclass(frozen=True, slots=True)
class RecordingEnded:
    """The open recording is complete."""

    reason: EndReason


Event = RecordingOpened | MessageReceived | ChunkReceived | RecordingEnded
Events = tuple[Event, ...]

_IDLE, _EARLY, _STARTED = State.IDLE, State.EARLY, State.STARTED
TRANSITIONS: Final[dict[tuple[State, type], State]] = {
    **{(state, kind): state for state in State for kind in (Connected, Dtmf, Mark, Unknown)},
    **{(state, Start): _STARTED for state in State},
    **{(state, Stop): _IDLE for state in State},
    (_IDLE, Chunk): _EARLY,
    (_EARLY, Chunk): _EARLY,
    (_STARTED, Chunk): _STARTED,
}


class Stream:
    """One connection's protocol state. Never waits, never fails, reads no clock."""

    def __init__(self) -> None:
        self.state = State.IDLE
        self.start: Start | None = None  # the latest start message

    def receive(self, message: Message) -> Events:
        """Return what `message` means."""
        before = self.state
        if type(message) is Chunk:
            if before is _IDLE:
                self.state = TRANSITIONS[before, Chunk]
                return RecordingOpened(self.start), ChunkReceived(message)
            return (ChunkReceived(message),)
        self.state = after = TRANSITIONS[before, type(message)]
        if isinstance(message, Start):
            return self._started(before, message)
        if before is _IDLE:
            return ()  # a greeting, or a message about no recording
        received = MessageReceived(message)
        return (received,) if after is not _IDLE else (received, RecordingEnded(EndReason.STOP))

    def _started(self, before: State, start: Start) -> Events:
        known, self.start = self.start, start
        received = MessageReceived(start)
        if before is _IDLE:
            return RecordingOpened(), received
        if before is _STARTED and known is not None and known.stream_sid != start.stream_sid:
            return RecordingEnded(EndReason.REPLACED), RecordingOpened(), received
        return (received,)

    def closed(self, reason: EndReason) -> Events:
        """Return what the end of the connection means; idempotent."""
        before, self.state = self.state, State.IDLE
        return () if before is _IDLE else (RecordingEnded(reason),)
