"""One connection's life: what its socket delivers becomes records of a journal.

Push-style and synchronous: nothing here waits, so whatever transport feeds it is a thin
adapter, and a slow disk or listener cannot slow the socket's reader.
"""

from __future__ import annotations

from typing import Final

import structlog

from receiver.auth.bearer import Grant
from receiver.ingest.live_recording import LiveRecording
from receiver.ingest.recorder import Recorder
from receiver.ingest.recordings import ConnectionRecordings
from receiver.ingest.stream import (
    ChunkRefused,
    ParameterMissing,
    PeerLimits,
    RecordingEnded,
    RecordingOpened,
    Stream,
)
from receiver.lifecycle.pauses import Pause
from receiver.media import Chunk, DtmfMode, EndReason, PauseEnd, lacking
from receiver.rate_limit import LogThrottle
from receiver.transports.interface import FAILURES, Connection
from receiver.wire import messages, parse
from receiver.wire.messages import (
    Message,
    MessageRejected,
    ProtocolViolation,
    Start,
    UntrackedChunk,
)

LONGEST_UNSAID_SECONDS: Final = 10.0
"""How long an open socket may take to send its start, before no recording is expected of it."""

_NO_STREAM: Final = frozenset({"not_json", "not_utf8", "not_object", "no_event"})
"""Why a message is refused that no media stream begins with."""
_SHOWN: Final = 80
"""How many bytes of such a message the log shows."""

log = structlog.get_logger("receiver.session")


class Session:
    """Records the messages of one accepted socket (a transport's `Peer`)."""

    def __init__(self, recorder: Recorder, grant: Grant, *, remote_address: str) -> None:
        self._recorder = recorder
        self._now = recorder.now
        self._grant = grant
        self._remote_address = remote_address
        self._stream = Stream()
        self._recordings = ConnectionRecordings(
            recorder, grant, self._stream, remote_address=remote_address
        )
        self._connection: Connection | None = None
        self._limits = PeerLimits()
        self._is_stream = False  # a message came that only media streams have
        self._closed = False
        self._closing = False  # we have closed the connection
        self._throttle = LogThrottle()
        self._opened_at = self._now()
        self._unused_seconds = 0.0  # without an open recording

    @property
    def recording_id(self) -> str | None:
        """Return the id of the recording that is open, if any."""
        recording = self._recordings.open
        return recording.header.recording_id if recording else None

    @property
    def may_still_record(self) -> bool:
        """Whether a recording is open, or may yet be opened on a socket that is new."""
        if self._closing or self._recordings.had_any:
            return self._recordings.open is not None
        return self._now() - self._opened_at < LONGEST_UNSAID_SECONDS

    @property
    def chunks(self) -> int:
        """Return how many chunks came for the recording that is open."""
        return self._recordings.open.chunks if self._recordings.open else 0

    def pause(self, pause: Pause) -> LiveRecording | None:
        """Keep nothing from now on, if this is the call; return the recording that is paused."""
        return self._recordings.pause(pause) if self.call_sid == pause.call_sid else None

    def resume(self, call_sid: str, end: PauseEnd) -> LiveRecording | None:
        """Keep again what comes, if this is the call; return the recording that goes on."""
        return self._recordings.resume(end) if self.call_sid == call_sid else None

    @property
    def call_sid(self) -> str:
        """Return the call, as far as it is known."""
        return self._recordings.call_sid

    @property
    def recording(self) -> LiveRecording | None:
        """Return the recording that is open, if any."""
        return self._recordings.open

    def unanswered_seconds(self, passed: float) -> float:
        """Count `passed` seconds; return for how long nothing shows that the call is there.

        A recording lives as long as its socket. A socket that has none is no call on hold.
        """
        if self._recordings.open is None or self._connection is None:
            self._unused_seconds += passed
            return self._unused_seconds
        self._unused_seconds = 0.0
        return self._connection.unanswered_seconds(passed)

    def opened(self, connection: Connection) -> None:
        """Start with an open socket: the upgrade is done."""
        self._connection = connection
        self._opened_at = self._now()
        self._recorder.session_opened(self)

    def message_received(self, message: bytes) -> None:
        """Handle one whole message; never fails on what a peer may send."""
        if self._closing:
            return  # we have closed: what still comes belongs to no recording
        try:
            parsed = parse.parse(message)
            if type(parsed) is Chunk and self._recordings.continues(parsed):
                self._recordings.keep_chunk(parsed)  # nearly every message: no event is made of it
            else:
                self._receive(parsed, message)
        except MessageRejected as rejected:
            self._reject(rejected, message)
        except ProtocolViolation as violation:
            self._cut(violation)

    def _receive(self, parsed: Message, message: bytes) -> None:
        if isinstance(parsed, messages.Unknown) and not self._is_stream:
            self._refuse_other(message)
            return
        self._is_stream = True
        if not isinstance(parsed, Chunk):
            self._limits.count_other(self._now())
            parsed, message = parse.without_keys(parsed, message, self._recorder.dtmf)
        if self._recordings.is_paused:
            self._receive_paused(parsed, message)
            return
        if not isinstance(parsed, Chunk):
            self._keep_early(parsed, message)
        self._follow(parsed, message)

    def _receive_paused(self, parsed: Message, message: bytes) -> None:
        """Handle a message during a pause: of audio there is silence from here on, and no more."""
        kept = self._recordings.withhold(parsed)
        if isinstance(kept, Chunk):
            self._follow(kept, b"")
        elif kept is not None:
            self._keep_early(kept, message)
            self._follow(kept, message)

    def _follow(self, parsed: Message, message: bytes) -> None:
        """Do what a message means for the stream, and for its recordings."""
        for event in self._stream.receive(parsed):
            if isinstance(event, ChunkRefused):
                self._reject(event.rejection, message)
                continue
            if isinstance(event, RecordingOpened):
                self._limits.count_recording(self._now())
            self._recordings.apply(event, message)
        if type(parsed) is UntrackedChunk and self._recordings.open is not None:
            text = f"messages name no track; {self._stream.assumed_track.value} was assumed"
            self._recordings.open.note("track_assumed", text, once=True)
        self._recordings.adopt_ids(message)

    def closed(self, *, code: int, clean: bool) -> None:
        """End what is open, because the socket is gone."""
        if self._closed:
            return
        if clean:
            self.end(EndReason.CLOSED)
        elif code in FAILURES:
            self.end(EndReason.PROTOCOL_ERROR, FAILURES[code])
        else:
            self.end(EndReason.CLOSED, "the connection broke without a closing handshake")
        self._closed = True
        self._recorder.session_closed(self)
        log.debug("connection_closed", code=code, clean=clean)

    def end(self, reason: EndReason, detail: str = "") -> None:
        """End the open recording for a reason of ours; idempotent."""
        for event in self._stream.closed(reason):
            if isinstance(event, RecordingEnded):
                self._recordings.end(event, detail)

    def close(self, reason: EndReason, *, code: int, text: str) -> None:
        """End the open recording and ask the peer to close the socket."""
        self._closing = True
        self.end(reason, text)
        if self._connection is not None:
            self._connection.close(code, text)

    def _keep_early(self, parsed: Message, message: bytes) -> None:
        """Keep what recordings that open later start with."""
        early = self._recordings.early
        if isinstance(parsed, Start):
            self._recordings.named = parsed
            self._check_call(parsed)
            self._check_parameters(parsed)
            early.start = message
        elif isinstance(parsed, messages.Connected):
            early.connected = message
        is_early = self._recordings.open is None
        if is_early and isinstance(parsed, messages.Connected | messages.Unknown):
            early.keep(message)

    def _check_call(self, start: Start) -> None:
        """Hold a stream to the call that its signed token names.

        What came under a start message that named it is that call's, and is kept.
        """
        if self._grant.call_sid is not None and start.call_sid != self._grant.call_sid:
            self._discard_nameless()
            raise ProtocolViolation("the token is for another call")

    def _check_parameters(self, start: Start) -> None:
        """Refuse a stream that lacks a required parameter; what was recorded with it is kept."""
        if missing := lacking(self._recorder.required, start.parameters):
            self._discard_nameless()
            raise ParameterMissing(missing)

    def _discard_nameless(self) -> None:
        """Remove what came before any start message."""
        recording = self._recordings.open
        if recording is not None and recording.start is None:
            self._recordings.discard(EndReason.PROTOCOL_ERROR)
            self._stream.closed(EndReason.PROTOCOL_ERROR)

    def _reject(self, rejected: MessageRejected, message: bytes) -> None:
        """Count an unusable message; too many of them in a row end the stream."""
        if rejected.code in _NO_STREAM and not self._is_stream:
            self._refuse_other(message)
            return
        now, self._is_stream = self._now(), True
        if times := self._throttle.count(rejected.code, now):
            log.warning(
                "message_rejected", code=rejected.code, times=times, **self._recordings.names()
            )
        if self._recordings.is_paused:
            self._recordings.withhold_rejected(rejected)
            return
        if self._recorder.dtmf is not DtmfMode.KEEP and not rejected.audio:
            message = b""  # nobody knows what is in it: it may be a key
        if self._recordings.open is None:
            self._recordings.early.keep(message, has_audio=bool(rejected.audio))
        else:
            self._recordings.open.keep_rejected(rejected, message)
        if rejected.audio and rejected.code != "bad_base64":
            return  # no peer sends too much of it
        try:
            self._limits.count_rejected(now)
        except ProtocolViolation as violation:
            self._cut(violation)

    def _cut(self, violation: ProtocolViolation) -> None:
        names = self._recordings.names()
        times = self._recorder.refusals.count_peer(
            self._remote_address, names["call_sid"], violation.detail, self._now()
        )
        if times:
            log.warning(
                "stream_refused",
                **names,
                reason=violation.detail,
                remote_address=self._remote_address,
                times=times,
            )
        if isinstance(violation, ParameterMissing):
            self._recorder.count_unwanted(names["call_sid"] or "", violation.missing, times)
        self.close(EndReason.PROTOCOL_ERROR, code=violation.close_code, text=violation.detail)

    def _refuse_other(self, message: bytes) -> None:
        """Close a connection whose first message is of no media stream."""
        looks, named = parse.description(message)
        call_sid = named or self._grant.call_sid
        times = self._recorder.refusals.count_peer(
            self._remote_address, call_sid, "not_a_media_stream", self._now()
        )
        if times:
            log.warning(
                "not_a_media_stream",
                remote_address=self._remote_address,
                call_sid=call_sid,
                looks=looks,
                length=len(message),
                beginning=_beginning(message, self._recorder.dtmf),
                times=times,
            )
        text = f"no media stream: {looks}"
        self.close(EndReason.PROTOCOL_ERROR, code=1003, text=text)


def _beginning(message: bytes, mode: DtmfMode) -> str:
    """Return what the log shows of a message: nothing where it may be a key."""
    shown = message[:_SHOWN] if mode is DtmfMode.KEEP else b""
    return ascii(shown.decode("latin-1"))[1:-1]
