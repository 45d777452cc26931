"""The recordings of one connection, one after the other: how they open, get their name and end."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import structlog

from receiver.auth.bearer import Grant
from receiver.ingest.live_recording import (
    NAMELESS,
    EarlyMessages,
    LiveRecording,
    names,
    new_header,
)
from receiver.ingest.recorder import Recorder
from receiver.ingest.stream import (
    ChunkReceived,
    MessageReceived,
    ProtocolEvent,
    RecordingEnded,
    RecordingOpened,
    State,
    Stream,
)
from receiver.journal import records
from receiver.journal.records import NoteRecord, PreviousPart
from receiver.journal.writer import JournalWriter
from receiver.lifecycle.pauses import Pause
from receiver.media import Chunk, EndReason, PauseEnd
from receiver.wire import parse
from receiver.wire.messages import Connected, Message, MessageRejected, Start, Stop

SEARCHED_FOR_IDS: Final = 10
"""In so many messages of a stream an id is searched for that its start message lacks."""

log = structlog.get_logger("receiver.session")


class ConnectionRecordings:
    """The recordings of one connection, of which at most one is open.

    `keep_chunk` is that of the open one. `continues` says of a chunk whether it needs nothing
    but that: while an id is searched for, none does.
    """

    def __init__(
        self, recorder: Recorder, grant: Grant, stream: Stream, *, remote_address: str
    ) -> None:
        self.open: LiveRecording | None = None
        self.early = EarlyMessages()
        self.named: Start | None = None  # the latest start message, also one that was refused
        self.keep_chunk: Callable[[Chunk], None] = _keep_nothing
        self.continues: Callable[[Chunk], bool] = stream.continues_stream
        self._recorder = recorder
        self._grant = grant
        self._stream = stream
        self._remote_address = remote_address
        self._search_ids = 0  # in so many messages more
        self._ids: set[str] = set()  # of all recordings of this connection

    @property
    def call_sid(self) -> str:
        """Return the call that all of it is of, as far as it is known."""
        named = (self.open and self.open.start) or self._stream.start
        return (named.call_sid if named else "") or self._grant.call_sid or ""

    @property
    def is_paused(self) -> bool:
        """Whether nothing may be kept of what comes now."""
        if self.open is not None:
            return self.open.withheld is not None
        return self._recorder.pauses.of(self.call_sid) is not None

    def pause(self, pause: Pause) -> LiveRecording | None:
        """Keep nothing of the open recording from now on; return it, if there is one."""
        recording = self.open
        if recording is not None:
            recording.pause(pause.reason, pause.until_ms)
            self.keep_chunk, self.continues = recording.withhold_chunk, _never
        return recording

    def resume(self, end: PauseEnd) -> LiveRecording | None:
        """Keep again what comes; return the open recording, if it was paused."""
        recording = self.open
        if recording is None or recording.withheld is None:
            return None
        self._recorder.counters.chunks_withheld += recording.withheld.chunks
        recording.resume(end)
        self.keep_chunk = recording.keep_chunk
        self.continues = _never if self._search_ids else self._stream.continues_stream
        return recording

    def withhold(self, parsed: Message) -> Message | None:
        """Return what may go on during a pause: silence, starts and stops; else count it."""
        if isinstance(parsed, Chunk):
            media = ((self.open and self.open.start) or self._stream.start or NAMELESS).media_format
            return msgspec.structs.replace(parsed, payload=media.silence(len(parsed.payload)))
        if isinstance(parsed, Connected | Start | Stop):
            return parsed
        self.withhold_message(parsed.sequence_number)
        return None

    def withhold_message(self, sequence_number: int | None) -> None:
        """Count a message other than media that came during a pause."""
        if self.open is not None and self.open.withheld is not None:
            self.open.withheld.add_message(sequence_number)

    def withhold_rejected(self, rejected: MessageRejected) -> None:
        """Count an unusable message that came during a pause."""
        if rejected.chunk is None:
            self.withhold_message(None)
        elif self.open is not None and self.open.withheld is not None:
            self.open.withheld.add_chunk(rejected.chunk)

    def _begin_paused(self, recording: LiveRecording) -> None:
        """Pause a recording whose call is paused, if it is not already."""
        pause = self._recorder.pauses.of(self.call_sid)
        if pause is not None and recording.withheld is None:
            self.pause(pause)

    @property
    def had_any(self) -> bool:
        """Whether a recording was ever opened."""
        return bool(self._ids)

    def names(self) -> dict[str, str | None]:
        """Return what log lines name this stream by."""
        return self.open.names() if self.open else names(None, self.named)

    def apply(self, event: ProtocolEvent, message: bytes) -> None:
        """Do what an event of the stream means for its recordings; it came of `message`."""
        match event:
            case ChunkReceived():
                self.keep_chunk(event.chunk)
            case RecordingOpened():
                self._open(event)
            case MessageReceived():
                if self.open is not None:
                    self.open.keep(message)
                    self.open.count_sequence(event.message)
                    self.open.publish_message(message)
                    if isinstance(event.message, Start):
                        self._start(self.open, event.message)
            case RecordingEnded():
                self.end(event, "")

    def end(self, event: RecordingEnded, detail: str) -> None:
        """End the open recording, if there is one."""
        recording = self.open
        if recording is None:
            return
        is_bound = self._grant.call_sid is not None or self._recorder.required
        if is_bound and (recording.start or self._stream.start) is None:
            self.discard(event.reason)
            return
        if event.assumed is not None and recording.start is None:
            recording.assume(event.assumed)
        if key := recording.key:
            part = recording.as_part(event.latest, event.reason)
            self._recorder.part_ended(key, recording, part)
        recording.end(event.reason, detail, self._recorder.journal_ended)
        self._forget(recording, event.reason, detail)

    def discard(self, reason: EndReason) -> None:
        """Remove what came of a stream that nothing showed to be one that may be recorded."""
        if self.open is not None:
            detail = "not kept: no start message showed that it may be"
            self.open.end(reason, detail, Path.unlink)
            self._forget(self.open, reason, detail)

    def adopt_ids(self, message: bytes) -> None:
        """Name a recording by ids that messages repeat and its start message lacks."""
        if not self._search_ids:
            return
        self._search_ids -= 1
        found = self.open is None or self.open.adopt_ids(*parse.ids(message))
        if not found and self._search_ids:
            return
        self._search_ids = 0
        self.continues = _never if self.is_paused else self._stream.continues_stream
        if self.open is not None and self.open.start is not None:
            self._announce(self.open, self.open.start)

    def _open(self, event: RecordingOpened) -> None:
        header = new_header(self._recorder.utc_ms())
        self._ids.add(header.recording_id)
        journal = self._recorder.open_journal(header)
        self._note_conditions(journal)
        self._recorder.counters.started += 1
        tracks = self._stream.latest_of_tracks
        recording = self.open = LiveRecording(
            header, journal, self._recorder.now, self.early, tracks
        )
        self.keep_chunk = recording.keep_chunk
        self.continues = self._stream.continues_stream
        self._begin_paused(recording)
        self.early.hand_over(recording)
        if event.followed is not None:
            recording.keep(self.early.start)
            self._name(recording, event.followed)
        if self._stream.state is not State.STARTED:  # else its start message is logged
            log.info("audio_before_start", **self.names(), remote_address=self._remote_address)

    def _note_conditions(self, journal: JournalWriter) -> None:
        """Write into the journal what its start message must show: the call, and parameters.

        What is discarded at the end must not be published after a crash.
        """
        if required := self._recorder.required:
            detail = msgspec.json.encode(required).decode()
            journal.append(records.encode(NoteRecord(0, records.REQUIRED_PARAMETERS, detail)))
        call_sid = self._grant.call_sid
        if call_sid is not None and self._stream.start is None:
            text = call_sid.encode("utf-8", "replace").decode()  # a signer may write anything
            journal.append(records.encode(NoteRecord(0, records.CLAIMED_CALL, text)))

    def _start(self, recording: LiveRecording, start: Start) -> None:
        """Name a recording, now or as soon as other messages have said the ids it lacks."""
        known = recording.start
        if recording.has_start_message:
            if known and not recording.chunks and start.is_of(known) and not start.goes_on(known):
                recording.close_tap()
                self._announce(recording, start)
            return
        recording.start, recording.has_start_message = start, True
        self._begin_paused(recording)
        if start.stream_sid and start.call_sid:
            self._announce(recording, start)
        else:
            self._search_ids, self.continues = SEARCHED_FOR_IDS, _never

    def _announce(self, recording: LiveRecording, start: Start) -> None:
        """Log a stream by its name, once for each recording, and open it to listeners."""
        if start.refused_format:
            log.warning("format_refused", **recording.names(), reason=start.refused_format)
        self._name(recording, start)
        media = None if start.refused_format else start.media_format
        log.info(
            "stream_started",
            **recording.names(),
            encoding=media.encoding.value if media else None,
            sample_rate=media.sample_rate if media else None,
            remote_address=self._remote_address,
        )

    def _name(self, recording: LiveRecording, start: Start) -> None:
        """Make a stream known to listeners by its name: open, or why nobody can listen to it.

        The journal says which recording has what came of the stream before.
        """
        recording.start = start
        self._begin_paused(recording)
        found = functools.partial(self._found_elsewhere, recording)
        key = recording.key
        previous = self._recorder.part_started(key, recording, found) if key else None
        if previous is not None:
            same_socket = previous.id in self._ids
            recording.continue_part(msgspec.structs.replace(previous, same_socket=same_socket))
        recording.announce(self._recorder.hub, start)

    def _found_elsewhere(self, recording: LiveRecording, part: PreviousPart) -> None:
        """Go on with a part that another process knows, unless a newer one is known here."""
        known = recording.previous
        newer = known is None or (part.id != known.id and part.latest_at_ms > known.latest_at_ms)
        if recording is self.open and newer:
            recording.continue_part(part)

    def _forget(self, recording: LiveRecording, reason: EndReason, detail: str) -> None:
        self._recorder.counters.ended[reason.value] += 1
        self._recorder.counters.chunks_received += recording.chunks
        if recording.withheld is not None:
            self._recorder.counters.chunks_withheld += recording.withheld.chunks
        log.info(
            "stream_ended",
            **recording.names(),
            reason=reason.value,
            detail=detail,
            chunks=recording.chunks,
            rejected=recording.rejected,
        )
        self.open, self.keep_chunk = None, _keep_nothing
        self.continues = self._stream.continues_stream


def _never(_: Chunk) -> bool:
    """Return that a chunk needs a look at its message, for the ids in it."""
    return False


def _keep_nothing(_: Chunk) -> None:
    """Drop a chunk that comes while no recording is open."""
