"""One connection's life: what its socket delivers becomes records of a journal.

Push-style and synchronous: nothing here waits, so whatever transport feeds it is a thin
adapter, and a slow disk or listener cannot slow the socket's reader.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from receiver.auth.bearer import Grant
from receiver.ingest.live_recording import EarlyMessages, LiveRecording, names, new_header
from receiver.ingest.recorder import Recorder
from receiver.ingest.stream import (
    ChunkReceived,
    ChunkRefused,
    MessageReceived,
    PeerLimits,
    ProtocolEvent,
    RecordingEnded,
    RecordingOpened,
    State,
    Stream,
)
from receiver.journal import records
from receiver.journal.records import NoteRecord
from receiver.journal.writer import JournalWriter
from receiver.media import Chunk, EndReason
from receiver.rate_limit import LogThrottle
from receiver.transports.interface import FAILURES, Connection
from receiver.wire import messages, parse
from receiver.wire.messages import (
    OTHER_STREAM,
    FormatRefused,
    Message,
    MessageRejected,
    ProtocolViolation,
    Start,
)

LONGEST_UNSAID_SECONDS: Final = 10.0
"""How long an open socket may take to send its start, before no recording is expected of it."""

log = structlog.get_logger("receiver.session")


class Session:
    """Records the messages of one accepted socket (a transport's `Peer`)."""

    def __init__(self, recorder: Recorder, grant: Grant, *, remote_address: str) -> None:
        self._recorder = recorder
        self._now = recorder.now
        self._grant = grant
        self._remote_address = remote_address
        self._stream = Stream()
        self._connection: Connection | None = None
        self._recording: LiveRecording | None = None
        self._keep_chunk: Callable[[Chunk], None] = _keep_nothing  # that of the open recording
        self._early = EarlyMessages()
        self._limits = PeerLimits()
        self._closed = False
        self._closing = False  # we have closed the connection
        self._throttle = LogThrottle()
        self._had_recording = False
        self._opened_at = self._active_at = self._now()
        self._unused_seconds = 0.0  # without an open recording

    @property
    def recording_id(self) -> str | None:
        """Return the id of the recording that is open, if any."""
        return self._recording.header.recording_id if self._recording else None

    @property
    def may_still_record(self) -> bool:
        """Whether a recording is open, or may yet be opened on a socket that is new."""
        if self._closing or self._had_recording:
            return self._recording is not None
        return self._now() - self._opened_at < LONGEST_UNSAID_SECONDS

    @property
    def chunks(self) -> int:
        """Return how many chunks came for the recording that is open."""
        return self._recording.chunks if self._recording else 0

    def unanswered_seconds(self, passed: float) -> float:
        """Count `passed` seconds; return for how long nothing shows that the call is there.

        A recording lives as long as its socket. A socket that has none is no call on hold.
        """
        if self._recording is None or self._connection is None:
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
            if type(parsed) is Chunk and self._stream.continues_stream(parsed):
                self._keep_chunk(parsed)  # nearly every message; no event need be made of it
            else:
                self._receive(parsed, message)
        except MessageRejected as rejected:
            self._reject(rejected, message)
        except ProtocolViolation as violation:
            if isinstance(violation, FormatRefused):
                self._keep_refused(violation.start, message)
            self._cut(violation)

    def _receive(self, parsed: Message, message: bytes) -> None:
        if type(parsed) is not Chunk:
            self._limits.count_other(self._now())
            self._keep_early(parsed, message)
        for event in self._stream.receive(parsed):
            self._apply(event, message)

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
                self._end_recording(event, detail)

    def close(self, reason: EndReason, *, code: int, text: str) -> None:
        """End the open recording and ask the peer to close the socket."""
        self._closing = True
        self.end(reason, text)
        if self._connection is not None:
            self._connection.close(code, text)

    def _keep_early(self, parsed: Message, message: bytes) -> None:
        """Keep what recordings that open later start with."""
        if isinstance(parsed, Start):
            self._check_call(parsed)
            self._early.start = message
        elif isinstance(parsed, messages.Connected):
            self._early.connected = message
        if self._recording is None and isinstance(parsed, messages.Connected | messages.Unknown):
            self._early.keep(message)

    def _check_call(self, start: Start) -> None:
        """Hold a stream to the call that its signed token names.

        What came under a start message that named it is that call's, and is kept.
        """
        if self._grant.call_sid is not None and start.call_sid != self._grant.call_sid:
            if self._recording is not None and self._recording.start is None:
                self._discard(self._recording, EndReason.PROTOCOL_ERROR)
                self._stream.closed(EndReason.PROTOCOL_ERROR)
            raise ProtocolViolation("the token is for another call")

    def _discard(self, recording: LiveRecording, reason: EndReason) -> None:
        """Remove what came of a stream that nothing showed to be the token's call."""
        detail = "not kept: no start message named the call of the token"
        recording.end(reason, detail, Path.unlink)
        self._record_end(recording, reason, detail)

    def _keep_refused(self, start: Start, message: bytes) -> None:
        """Name early audio by a start message whose media format cannot be used."""
        recording, call_sid = self._recording, self._grant.call_sid
        proven = call_sid is None or call_sid == start.call_sid
        if recording is not None and proven and self._stream.would_name(start):
            recording.start = start
            recording.keep(message)

    def _apply(self, event: ProtocolEvent, message: bytes) -> None:
        match event:
            case ChunkReceived():
                self._keep_chunk(event.chunk)
            case ChunkRefused():
                self._reject(event.rejection, message)
            case RecordingOpened():
                self._open_recording(event)
            case MessageReceived():
                if self._recording is not None:
                    self._recording.keep(message)
                    self._recording.publish_message(message)
                    if isinstance(event.message, Start):
                        self._start(self._recording, event.message)
            case RecordingEnded():
                self._end_recording(event, "")

    def _open_recording(self, event: RecordingOpened) -> None:
        self._limits.count_recording(self._now())
        header = new_header(self._recorder.utc_ms())
        self._had_recording = True
        journal = self._recorder.open_journal(header)
        self._claim_call(journal)
        self._recorder.counters.started += 1
        tracks = self._stream.latest_of_tracks
        recording = self._recording = LiveRecording(
            header, journal, self._now, self._early, tracks, self._active_at
        )
        self._keep_chunk = recording.keep_chunk
        self._early.hand_over(recording)
        if event.followed is not None:
            recording.continue_stream()
            recording.announce(self._recorder.hub, event.followed)
        if self._stream.state is not State.STARTED:  # else its start message is logged
            log.info("audio_before_start", **self._names(), remote_address=self._remote_address)

    def _claim_call(self, journal: JournalWriter) -> None:
        """Write into the journal that nothing has shown it to be the token's call, so far.

        What is discarded at the end must not be published after a crash.
        """
        call_sid = self._grant.call_sid
        if call_sid is not None and self._stream.start is None:
            text = call_sid.encode("utf-8", "replace").decode()  # a signer may write anything
            journal.append(records.encode(NoteRecord(0, records.CLAIMED_CALL, text)))

    def _names(self) -> dict[str, str | None]:
        """Return what log lines name this stream by."""
        return self._recording.names() if self._recording else names(None, self._stream.start)

    def _start(self, recording: LiveRecording, start: Start) -> None:
        """Name a recording; only its first start message is logged, however often it comes."""
        recording.announce(self._recorder.hub, start)
        if recording.has_start_message:
            return
        recording.has_start_message = True
        log.info(
            "stream_started",
            **recording.names(),
            encoding=start.media_format.encoding.value,
            sample_rate=start.media_format.sample_rate,
            remote_address=self._remote_address,
        )

    def _end_recording(self, event: RecordingEnded, detail: str) -> None:
        recording = self._recording
        if recording is None:
            return
        named = recording.start or self._stream.start
        if self._grant.call_sid is not None and named is None:
            self._discard(recording, event.reason)
            return
        if event.assumed is not None and recording.start is None:
            recording.assume(event.assumed)
        recording.end(event.reason, detail, self._recorder.journal_ended)
        self._record_end(recording, event.reason, detail)

    def _record_end(self, recording: LiveRecording, reason: EndReason, detail: str) -> None:
        self._recorder.counters.ended[reason.value] += 1
        self._recorder.counters.chunks_received += recording.chunks
        log.info(
            "stream_ended",
            **recording.names(),
            reason=reason.value,
            detail=detail,
            chunks=recording.chunks,
            rejected=recording.rejected,
        )
        self._active_at = recording.active_at
        self._recording, self._keep_chunk = None, _keep_nothing

    def _reject(self, rejected: MessageRejected, message: bytes) -> None:
        """Count an unusable message; too many of them in a row end the stream."""
        now = self._now()
        if times := self._throttle.count(rejected.code, now):
            log.warning("message_rejected", code=rejected.code, times=times, **self._names())
        if self._recording is None:
            self._early.keep(message)
        else:
            self._recording.keep_rejected(rejected, message)
        if rejected.code == OTHER_STREAM:
            return  # it is audio, of which no peer sends too much
        try:
            self._limits.count_rejected(now)
        except ProtocolViolation as violation:
            self._cut(violation)

    def _cut(self, violation: ProtocolViolation) -> None:
        log.warning("stream_refused", reason=violation.detail, **self._names())
        self.close(EndReason.PROTOCOL_ERROR, code=violation.close_code, text=violation.detail)


def _keep_nothing(_: Chunk) -> None:
    """Drop a chunk that comes while no recording is open."""
