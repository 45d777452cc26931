"""One connection's life: what its socket delivers becomes records of a journal.

Push-style and synchronous: nothing here waits, so whatever transport feeds it is a thin
adapter, and a slow disk or listener cannot slow the socket's reader.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Protocol

import structlog

from receiver.auth.stream_tokens import Grant
from receiver.counters import Counters
from receiver.errors import FormatRefused, MessageRejected, ProtocolViolation
from receiver.ingest.live_recording import EarlyMessages, LiveRecording, names, new_header
from receiver.ingest.peer_limits import PeerLimits
from receiver.ingest.stream import (
    ChunkReceived,
    ChunkRefused,
    Event,
    MessageReceived,
    RecordingEnded,
    RecordingOpened,
    State,
    Stream,
)
from receiver.journal import records
from receiver.journal.records import Header, NoteRecord
from receiver.journal.writer import JournalWriter
from receiver.media import Chunk, EndReason
from receiver.rate_limit import LogThrottle
from receiver.tap.events import LiveChunk
from receiver.tap.hub import Hub
from receiver.transports.interface import FAILURES, Connection
from receiver.wire import parse
from receiver.wire.parse import OTHER_STREAM, Message, Start

LONGEST_UNSAID_SECONDS: Final = 10.0
"""How long an open socket may take to say what it is for, before nobody waits for it."""

log = structlog.get_logger("receiver.session")


class Recorder(Protocol):
    """What a session needs from the house around it."""

    figures: Counters
    hub: Hub

    def now(self) -> float:
        """Return a clock that never goes back, in seconds."""

    def utc_ms(self) -> int:
        """Return UTC, in milliseconds since 1970."""

    def open_journal(self, header: Header) -> JournalWriter:
        """Begin a journal."""

    def journal_ended(self, path: Path) -> None:
        """Take a finished journal for publication; called from the writer's thread."""

    def session_opened(self, session: Session) -> None:
        """Remember a session whose socket is open."""

    def session_closed(self, session: Session) -> None:
        """Forget a session."""


class Session:
    """Takes the messages of one accepted socket (a transport's `Peer`)."""

    def __init__(self, recorder: Recorder, grant: Grant, *, remote_address: str) -> None:
        self._recorder = recorder
        self._now = recorder.now
        self._grant = grant
        self._remote_address = remote_address
        self._stream = Stream()
        self._connection: Connection | None = None
        self._recording: LiveRecording | None = None
        self._beginning = EarlyMessages()
        self._patience = PeerLimits()
        self._closed = False
        self._deaf = False  # we have closed the connection
        self._throttle = LogThrottle()
        self._had_recording = False
        self._opened_at = self.active_at = self._now()  # active: when the latest chunk came

    @property
    def recording_id(self) -> str | None:
        """Return the id of the recording that is open, if any."""
        return self._recording.id if self._recording else None

    @property
    def expected(self) -> bool:
        """Whether a recording is open, or may be about to begin on a socket that is new."""
        if self._deaf or self._had_recording:
            return self._recording is not None
        return self._now() - self._opened_at < LONGEST_UNSAID_SECONDS

    @property
    def chunks(self) -> int:
        """Return how many chunks came for the recording that is open."""
        return self._recording.chunks if self._recording else 0

    def opened(self, connection: Connection) -> None:
        """Take the socket, now that the upgrade is done."""
        self._connection = connection
        self._opened_at = self._now()
        self._recorder.session_opened(self)

    def message_received(self, message: bytes) -> None:
        """Take one whole message; never fails on what a peer may send."""
        if self._deaf:
            return  # we have closed: what still comes belongs to no recording
        try:
            parsed = parse.parse(message)
            if type(parsed) is Chunk and self._stream.goes_on(parsed):
                self._keep_chunk(parsed)  # nearly every message; no event need be made of it
            else:
                self._take(parsed, message)
        except MessageRejected as rejected:
            self._reject(rejected, message)
        except ProtocolViolation as violation:
            if isinstance(violation, FormatRefused):
                self._keep_refused(violation.start, message)
            self._cut(violation)

    def _take(self, parsed: Message, message: bytes) -> None:
        if type(parsed) is not Chunk:
            self._patience.bear_other(self._now())
            self._remember(parsed, message)
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
        self._deaf = True
        self.end(reason, text)
        if self._connection is not None:
            self._connection.close(code, text)

    def _remember(self, parsed: Message, message: bytes) -> None:
        """Keep what a recording that opens later needs of its beginning."""
        if isinstance(parsed, Start):
            self._check_call(parsed)
            self._beginning.start = message
        elif isinstance(parsed, parse.Connected):
            self._beginning.greeting = message
        if self._recording is None and isinstance(parsed, parse.Connected | parse.Unknown):
            self._beginning.keep(message)

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
        """Keep nothing of a stream that nobody showed to be the token's call."""
        detail = "not kept: no start message named the call of the token"
        recording.end(reason, detail, Path.unlink)
        self._note_end(recording, reason, detail)

    def _keep_refused(self, start: Start, message: bytes) -> None:
        """Keep whose audio it is that came before a start message which cannot be used."""
        recording, call_sid = self._recording, self._grant.call_sid
        proven = call_sid is None or call_sid == start.call_sid
        if recording is not None and proven and self._stream.would_name(start):
            recording.start = start
            recording.keep(message)

    def _apply(self, event: Event, message: bytes) -> None:
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
                    self._recording.tell(message)
                if isinstance(event.message, Start):
                    self._announce(event.message)
                    self._note_start(event.message)
            case RecordingEnded():
                self._end_recording(event, "")

    def _keep_chunk(self, chunk: Chunk) -> None:
        recording = self._recording
        if recording is None:
            return
        self.active_at = now = self._now()
        arrival_ms = int((now - recording.opened_at) * 1000)
        recording.chunks += 1
        recording.journal.append(records.encode_chunk(chunk, arrival_ms))
        recording.latest = chunk
        if recording.tap.has_subscribers:
            recording.tap.publish(LiveChunk(chunk, arrival_ms))

    def _open_recording(self, event: RecordingOpened) -> None:
        self._patience.bear_recording(self._now())
        header = new_header(self._recorder.utc_ms())
        self._had_recording = True
        opened = self._recorder.open_journal(header)
        self._note_token(opened)
        self._recorder.figures.started += 1
        self._recording = LiveRecording(
            header.recording_id, opened, header.started_at_ms, self._now, self._stream.latest
        )
        self._beginning.hand_over(self._recording)
        if event.followed is not None:
            self._recording.go_on(self._beginning.start)
            self._announce(event.followed)
        if self._stream.state is not State.STARTED:  # else its start message says so
            log.info("audio_before_start", **self._names(), remote_address=self._remote_address)

    def _note_token(self, opened: JournalWriter) -> None:
        """Have the journal say that nobody has yet shown to be the token's call.

        What we discard at the end must not be published after a crash.
        """
        call_sid = self._grant.call_sid
        if call_sid is not None and self._stream.start is None:
            text = call_sid.encode("utf-8", "replace").decode()  # a signer may write anything
            opened.append(records.encode(NoteRecord(0, records.CLAIMED_CALL, text)))

    def _announce(self, start: Start) -> None:
        if self._recording is not None:
            early = self._beginning
            self._recording.announce(
                self._recorder.hub, start, greeting=early.greeting, message=early.start
            )

    def _names(self) -> dict[str, str | None]:
        """Return what a log line calls this stream by."""
        start = self._recording.start if self._recording else self._stream.start
        return names(self.recording_id, start)

    def _note_start(self, start: Start) -> None:
        """Log the first start message of a recording; a peer may repeat it as it likes."""
        if self._recording is None or self._recording.named:
            return
        self._recording.named = True
        log.info(
            "stream_started",
            **self._names(),
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
            recording.assume(event.assumed, self._beginning.start)
        recording.end(event.reason, detail, self._recorder.journal_ended)
        self._note_end(recording, event.reason, detail)

    def _note_end(self, recording: LiveRecording, reason: EndReason, detail: str) -> None:
        self._recorder.figures.ended[reason.value] += 1
        self._recorder.figures.chunks_received += recording.chunks
        log.info(
            "stream_ended",
            **self._names(),
            reason=reason.value,
            detail=detail,
            chunks=recording.chunks,
            rejected=recording.rejected,
        )
        self._recording = None

    def _reject(self, rejected: MessageRejected, message: bytes) -> None:
        """Count an unusable message; too many of them in a row end the stream."""
        now = self._now()
        if times := self._throttle.count(rejected.code, now):
            log.warning("message_rejected", code=rejected.code, times=times, **self._names())
        if self._recording is None:
            self._beginning.keep(message)
        else:
            self._recording.keep_rejected(rejected, message)
        if rejected.code == OTHER_STREAM:
            return  # it is audio, of which no peer sends too much
        try:
            self._patience.bear_rejected(now)
        except ProtocolViolation as violation:
            self._cut(violation)

    def _cut(self, violation: ProtocolViolation) -> None:
        log.warning("stream_refused", reason=violation.detail, **self._names())
        self.close(EndReason.PROTOCOL_ERROR, code=violation.close_code, text=violation.detail)
