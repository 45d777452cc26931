"""The life of one stream as a pure state machine: a message in, events out.

The transitions are a table. It is liberal where providers are (no `connected`, media before
`start`, no `stop`) because call audio exists once: what cannot be explained is still kept. A
chunk is ours where it goes on with the stream that the latest start message names.

    state      start     chunk: ours   not ours   dtmf, mark, connected   stop
    IDLE       STARTED   FOLLOWING     EARLY      IDLE                    IDLE
    FOLLOWING  STARTED   FOLLOWING     EARLY      FOLLOWING               IDLE
    EARLY      STARTED   EARLY         EARLY      EARLY                   IDLE
    STARTED    STARTED   STARTED       STARTED    STARTED                 IDLE

Leaving IDLE opens a recording and coming back ends it. After `stop`, stragglers open another
one that keeps the identity of the stream they follow, while audio that starts over waits for
the start message that names it: it is never given the name of the stream before.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass, field
from typing import Final

import msgspec

from receiver.media import Chunk, EndReason, RejectedChunk, Track, clipped
from receiver.rate_limit import TokenBucket
from receiver.wire.messages import (
    OTHER_STREAM,
    Connected,
    DtmfMessage,
    MarkMessage,
    Message,
    MessageRejected,
    ProtocolViolation,
    Start,
    Stop,
    Unknown,
    UntrackedChunk,
)


class State(enum.Enum):
    """What is known of the stream."""

    IDLE = enum.auto()  # no recording is open
    FOLLOWING = enum.auto()  # stragglers came after a stop message
    EARLY = enum.auto()  # audio came before the start message
    STARTED = enum.auto()  # the stream is known by name


class ChunkOwner(enum.Enum):
    """Whether a chunk belongs to the stream that the latest start message names."""

    OURS = enum.auto()
    NOT_OURS = enum.auto()


@dataclass(frozen=True, slots=True)
class RecordingOpened:
    """From here on everything belongs to a new recording; `followed` names it."""

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
class ChunkRefused:
    """A chunk is of another stream by its name, so it belongs into no open recording."""

    chunk: Chunk

    @property
    def rejection(self) -> MessageRejected:
        """Return the refusal in the form of every other one."""
        refused = self.chunk
        known = RejectedChunk(
            refused.track, refused.sequence_number, refused.chunk, refused.timestamp_ms
        )
        return MessageRejected(
            OTHER_STREAM,
            "the chunk names another stream",
            chunk=known,
            audio=refused.payload,
            label=clipped(refused.stream_sid or ""),
        )


@dataclass(frozen=True, slots=True)
class RecordingEnded:
    """The open recording is complete.

    `assumed` is the start message that must be taken for its own, where none has come. `latest`
    are the latest chunks of its tracks.
    """

    reason: EndReason
    assumed: Start | None = None
    latest: tuple[Chunk, ...] = field(default=(), compare=False)


ProtocolEvent = RecordingOpened | MessageReceived | ChunkReceived | ChunkRefused | RecordingEnded
Events = tuple[ProtocolEvent, ...]

_IDLE, _FOLLOWING, _EARLY, _STARTED = State
_OTHERS: Final = (Connected, DtmfMessage, MarkMessage, Unknown)
TRANSITIONS: Final[dict[tuple[State, type | ChunkOwner], State]] = {
    **{(state, kind): state for state in State for kind in _OTHERS},
    **{(state, Start): _STARTED for state in State},
    **{(state, Stop): _IDLE for state in State},
    **{(state, ChunkOwner.OURS): _FOLLOWING for state in (_IDLE, _FOLLOWING)},
    **{(state, ChunkOwner.NOT_OURS): _EARLY for state in (_IDLE, _FOLLOWING)},
    **{(state, owner): state for state in (_EARLY, _STARTED) for owner in ChunkOwner},
}


class Stream:
    """One connection's protocol state. Never waits, never fails, reads no clock."""

    def __init__(self) -> None:
        self.state = State.IDLE
        self.start: Start | None = None  # the latest start message
        self._latest: dict[Track, Chunk] = {}  # of each track of the stream that `start` names
        self._names: set[str] = set()  # what its chunks may call it
        self._past: set[str] = set()  # the same of streams before it
        self._has_early_audio = False  # of the open recording, from before its start message
        self._early_sid: str | None = None  # what audio before its start message calls its stream

    def continues_stream(self, chunk: Chunk) -> bool:
        """Whether a chunk belongs into the open recording, and that is all there is to it.

        So it is with nearly every chunk, and no event need be made of it.
        """
        sid = chunk.stream_sid
        if self.state is not _STARTED or (sid is not None and sid not in self._names):
            return False
        self._latest[chunk.track] = chunk
        return True

    def receive(self, message: Message) -> Events:
        """Return what `message` means."""
        if type(message) is UntrackedChunk:
            message = Chunk(
                self.assumed_track,
                message.sequence_number,
                message.chunk,
                message.timestamp_ms,
                message.payload,
                message.stream_sid,
            )
        if type(message) is Chunk:
            return (
                (ChunkReceived(message),)
                if self.continues_stream(message)
                else self._unusual(message)
            )
        before = self.state
        self.state = after = TRANSITIONS[before, type(message)]
        if isinstance(message, Start):
            return self._started(before, self._restated(before, message))
        if before is _IDLE:
            return ()  # connected, or a message about no recording
        received = MessageReceived(message)
        return (received,) if after is not _IDLE else (received, self._ended(before))

    @property
    def assumed_track(self) -> Track:
        """Return the track of chunks that name none: the only one of the start, or inbound."""
        tracks = self.start.tracks if self.start else ()
        return Track(tracks[0]) if tracks in [(track.value,) for track in Track] else Track.INBOUND

    def latest_of_tracks(self) -> tuple[Chunk, ...]:
        """Return the latest chunk of each track of the stream that `start` names."""
        return tuple(self._latest.values())

    def closed(self, reason: EndReason) -> Events:
        """Return what the end of the connection means; idempotent."""
        before, self.state = self.state, State.IDLE
        return () if before is _IDLE else (self._ended(before, reason),)

    def _unusual(self, chunk: Chunk) -> Events:
        """Return what a chunk means that does not just continue a stream that has started."""
        before, sid = self.state, chunk.stream_sid
        ours = before is not _EARLY and self._is_ours(chunk)
        self.state = TRANSITIONS[before, ChunkOwner.OURS if ours else ChunkOwner.NOT_OURS]
        received = ChunkReceived(chunk)
        if before in (_STARTED, _FOLLOWING) and ours:
            return (received,)
        if before is _STARTED or (before is _EARLY and self._is_of_the_past(sid)):
            return (ChunkRefused(chunk),)
        if before is _EARLY and (sid is None or self._early_sid in (None, sid)):
            self._early_sid = sid or self._early_sid
            return (received,)
        if self.state is _EARLY:
            self._early_sid = sid
        ended = () if before is _IDLE else (self._ended(before, EndReason.REPLACED),)
        return (*ended, RecordingOpened(self.start if ours else None), received)

    def _is_of_the_past(self, sid: str | None) -> bool:
        return sid is not None and (sid in self._names or sid in self._past)

    def _is_ours(self, chunk: Chunk) -> bool:
        """Decide by what a chunk calls its stream, or else by its counters."""
        sid = chunk.stream_sid
        if sid is None:
            return self._counters_continue(chunk)
        if self.state is _STARTED and self._may_be_called(sid):
            self._names.add(sid)
        return sid in self._names

    def _may_be_called(self, sid: str) -> bool:
        """Whether a name that is not in the start message fits nothing but this stream.

        It does where no chunk has come under the names that are: the provider calls its
        stream by two names, and refusing them all would lose the call.
        """
        called = {chunk.stream_sid for chunk in self._latest.values()}
        return sid not in self._past and not called & self._names

    def _counters_continue(self, chunk: Chunk) -> bool:
        """Whether all counters go on where those of the stream that has stopped ended."""
        if not self._latest:
            return False  # nothing came before that it could go on with
        pairs = [(chunk.sequence_number, self._highest("sequence_number"))]
        latest = self._latest.get(chunk.track)
        if latest is not None:
            pairs.append((chunk.chunk, latest.chunk))
            pairs.append((chunk.timestamp_ms, latest.timestamp_ms))
        else:
            pairs.append((chunk.timestamp_ms, self._highest("timestamp_ms")))
        return all(mine > last for mine, last in pairs if mine is not None and last is not None)

    def _highest(self, counter: str) -> int | None:
        known = [getattr(chunk, counter) for chunk in self._latest.values()]
        return max((number for number in known if number is not None), default=None)

    def _started(self, before: State, start: Start) -> Events:
        known, self.start = self.start, start
        events: Events = (MessageReceived(start),)
        self._has_early_audio |= before in (_FOLLOWING, _EARLY)
        if before is _IDLE:
            self._has_early_audio = False
            events = (RecordingOpened(), *events)
        elif self._is_of_another(before, known, start):
            self._has_early_audio = False
            ended = RecordingEnded(EndReason.REPLACED, latest=self.latest_of_tracks())
            events = (ended, RecordingOpened(), *events)
        same = known is not None and start.goes_on(known)
        if not same:
            self._past |= self._names
            self._names.clear()
        if not same or before is not _STARTED:
            self._latest.clear()  # counters start over
        self._names |= start.names
        self._past -= start.names
        self._early_sid = None
        return events

    def _is_of_another(self, before: State, known: Start | None, start: Start) -> bool:
        """Whether what has been recorded belongs to another stream than `start` names."""
        if before is _EARLY:
            return self._early_sid is not None and self._early_sid not in start.names
        if known is not None and before is _STARTED and start.is_of(known):
            has_audio = bool(self._latest) or self._has_early_audio
            return has_audio and not start.goes_on(known)  # else it corrects the one before
        return known is not None and not start.goes_on(known)

    def _restated(self, before: State, start: Start) -> Start:
        """Return a start message with what it leaves open of the format, and an earlier one says.

        A message of the same stream that names another format begins another recording.
        """
        known = self.start
        if before is not _STARTED or known is None or not start.goes_on(known):
            return start
        return msgspec.structs.replace(
            start, media_format=known.media_format, refused_format=known.refused_format
        )

    def _ended(self, before: State, reason: EndReason = EndReason.STOP) -> RecordingEnded:
        nameless = before is _EARLY and self._early_sid is None
        assumed = self.start if nameless else None
        return RecordingEnded(reason, assumed, self.latest_of_tracks())


class ParameterMissing(ProtocolViolation):
    """The start message lacks custom parameters without which nothing is recorded."""

    def __init__(self, missing: tuple[str, ...]) -> None:
        super().__init__(f"not recorded: the start message lacks {', '.join(missing)}")
        self.missing = missing


MOST_REJECTED: Final = 50
"""More unusable messages than this within `REJECTED_WINDOW_SECONDS` end the stream."""
REJECTED_WINDOW_SECONDS: Final = 10.0
OTHERS_AT_ONCE: Final = 5000
"""Messages other than media that may come at once ..."""
OTHERS_PER_SECOND: Final = 50.0
"""... and in the long run; digits dialled by a person are ten a second at most."""
RECORDINGS_AT_ONCE: Final = 20
"""Recordings that one connection may open at once ..."""
RECORDINGS_PER_SECOND: Final = 0.2
"""... and in the long run; providers open a connection for each stream."""


class PeerLimits:
    """How much work without audio one stream's peer may make before the stream ends.

    Audio is never too much: a provider that was held up sends a minute of it at once. A message
    without audio costs as much to handle, and a peer that sends nothing else would keep the event
    loop from all others, or fill the disk with empty recordings.

    Each method counts one event at `now`, in seconds of a clock that never goes back.

    Raises:
        ProtocolViolation: it was one too many.
    """

    def __init__(self) -> None:
        self._rejected_at: deque[float] = deque()  # when the latest unusable messages came
        self._others = TokenBucket(OTHERS_AT_ONCE, OTHERS_PER_SECOND)
        self._recordings = TokenBucket(RECORDINGS_AT_ONCE, RECORDINGS_PER_SECOND)

    def count_rejected(self, now: float) -> None:
        """Count a message that could not be used."""
        self._rejected_at.append(now)
        if len(self._rejected_at) <= MOST_REJECTED:
            return
        if now - self._rejected_at.popleft() <= REJECTED_WINDOW_SECONDS:
            raise ProtocolViolation("too many unusable messages")

    def count_other(self, now: float) -> None:
        """Count a good message that is not media."""
        if not self._others.take(now):
            raise ProtocolViolation("too many messages other than media")

    def count_recording(self, now: float) -> None:
        """Count a recording that is about to be opened."""
        if not self._recordings.take(now):
            raise ProtocolViolation("too many recordings on one connection")
