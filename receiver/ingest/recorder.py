"""The seam between sessions and the receiver that they record for.

Who calls: a `Session` calls `now`, `utc_ms`, `open_journal`, `session_opened` and
`session_closed`, and reads `hub` and `counters`, all in the event loop's thread. The service
above it calls `end_unanswered`, `end_all` and asks what is live, in the same thread. Only
`journal_ended` is called in another one: that of the journal's writer.

What must never happen: nothing here waits, for a disk or for anything else, because every call
comes from a socket's reader. `session_opened` and `session_closed` come once each, in this
order; no session is opened after its `session_closed`. `journal_ended` is called once for each
journal that is to be published, when the disk holds all of it, and never for one that is not
to be kept.

A recorder does not depend on what a session is made of: it uses `LiveSession` and no more, so
sessions of another kind of socket can be recorded beside the ones of today.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import math
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Protocol

import msgspec
import structlog

from receiver.counters import Counters, LiveCounts
from receiver.disk.files import create_private, open_regular, write_all
from receiver.disk.folders import make_private_folder
from receiver.disk.layout import journal_name
from receiver.errors import JournalError
from receiver.ingest.live_recording import LiveRecording, part_end
from receiver.journal.backlog import open_journal, waiting
from receiver.journal.records import (
    REPEATED_IDS,
    ChunkRecord,
    DroppedRecord,
    EndRecord,
    Header,
    MessageRecord,
    NoteRecord,
    PartEnd,
    PreviousPart,
    Reader,
    Record,
    whole_records,
)
from receiver.journal.spool import Spool
from receiver.journal.writer import JournalWriter
from receiver.lifecycle.ledger_thread import LedgerThread
from receiver.lifecycle.pauses import Pause, Pauses
from receiver.media import DtmfMode, EndReason, GapKind, PauseEnd, Track, clipped
from receiver.rate_limit import LogThrottle, RefusalThrottle
from receiver.recording.store import REMEMBERED_SECONDS
from receiver.tap.hub import Hub
from receiver.wire import parse
from receiver.wire.messages import MessageRejected, Start

REFUSALS_SECONDS: Final = 10.0
"""How often a line is logged of one call that is refused whenever it connects."""
MOST_REMEMBERED: Final = 20_000
"""So many streams that ended are remembered, about 1 KiB each; the oldest are forgotten first."""
_DONE: Final = 1000
_GOING_AWAY: Final = 1001
_WRITTEN_SECONDS: Final = 0.5
"""After this a journal of another process holds what came for it by now."""
_ENDS_BYTES: Final = 2**18
"""So much of a journal's beginning and end is read to see where its stream stands."""
_FRESH: Final = "fresh-"
_SWEPT_AFTER: Final = 1000
"""So many files are written between two removals of old ones."""
_LONGEST_STEP_SECONDS: Final = 2.0
"""Between two checks. More has not passed for us: this process was stopped, or held up."""


_Key = tuple[str, str]

log = structlog.get_logger("receiver.parts")


class LiveSession(Protocol):
    """A session whose socket is open, as far as its recorder acts on it."""

    @property
    def recording_id(self) -> str | None:
        """Return the id of the recording that is open, if any."""
        ...

    @property
    def may_still_record(self) -> bool:
        """Whether a recording is open, or may yet be opened on a socket that is new."""
        ...

    @property
    def chunks(self) -> int:
        """Return how many chunks came for the recording that is open."""
        ...

    def unanswered_seconds(self, passed: float) -> float:
        """Count `passed` seconds; return for how long nothing shows that the call is there.

        While a recording is open that is for how long the other end answers no pings, however
        silent the call is; without one, for how long there is none.
        """
        ...

    def pause(self, pause: Pause) -> LiveRecording | None:
        """Keep nothing from now on, if this is the call; return the recording that is paused."""
        ...

    def resume(self, call_sid: str, end: PauseEnd) -> LiveRecording | None:
        """Keep again what comes, if this is the call; return the recording that goes on."""
        ...

    @property
    def call_sid(self) -> str:
        """Return the call, as far as it is known."""
        ...

    @property
    def recording(self) -> LiveRecording | None:
        """Return the recording that is open, if any."""
        ...

    def close(self, reason: EndReason, *, code: int, text: str) -> None:
        """End the open recording and ask the peer to close the socket."""
        ...


class Parts:
    """Where streams stood when their recordings ended, or stand, by stream and call id.

    Args:
        now: a clock that never goes back, in seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._open: dict[_Key, LiveRecording] = {}
        self._ended: OrderedDict[_Key, tuple[float, PreviousPart]] = OrderedDict()

    def remember(self, key: _Key, part: PreviousPart, seconds_ago: float) -> None:
        """Add a part that an earlier process recorded; to be called oldest first."""
        self._ended[key] = (self._now() - max(0.0, seconds_ago), part)

    def start(self, key: _Key, recording: LiveRecording) -> PreviousPart | None:
        """Add a recording that has its name; return the part of its stream before it, if any.

        That one may still be open: nobody has noticed that its socket is dead.
        """
        before = self._open.get(key)
        self._open[key] = recording
        if before is not None and before is not recording:
            return before.as_part()
        at, part = self._ended.pop(key, (0.0, None))
        return part if self._now() - at <= REMEMBERED_SECONDS else None

    def end(self, key: _Key, recording: LiveRecording, part: PreviousPart) -> None:
        """Remember where a recording ended, unless its stream has gone on elsewhere already."""
        if self._open.get(key) is not recording:
            return
        del self._open[key]
        self._ended[key] = (self._now(), part)
        oldest = self._now() - REMEMBERED_SECONDS
        while self._ended:
            at, _ = next(iter(self._ended.values()))
            if at >= oldest and len(self._ended) <= MOST_REMEMBERED:
                break
            self._ended.popitem(last=False)


class PartStore:
    """Where the streams of all workers, and of receivers before this one, stood: files in a folder.

    Each recording that has a name has a small file, which says where its journal is, and in the
    end where its stream stood. So a stream may go on in another process. Nothing of it is synced:
    after a power cut the journals themselves say it (`load`). All of it happens in one thread.

    Raises:
        ConfigurationError: the folder cannot be used.
    """

    def __init__(self, folder: Path, spool: Path) -> None:
        make_private_folder(folder)
        self._folder = folder
        self._spool = spool
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="parts")
        self._throttle = LogThrottle(REFUSALS_SECONDS)
        self._writes = itertools.count(1)

    def load(self) -> list[tuple[_Key, PreviousPart]]:
        """Return where streams stood that ended within the last hour, and forget older ones.

        The journals in the spool count, too: those of a receiver that was killed say it nowhere
        else. To be called before any of them is published, in a thread.
        """
        for journal in waiting(self._spool):
            with contextlib.suppress(OSError, JournalError):
                if _is_recent(journal) and (found := _stands(journal)) is not None:
                    self._write(*found)
        self._forget_old()
        entries = [_read(path) for path in self._folder.iterdir()]
        ended = [(each.key, each.part) for each in entries if each and each.part]
        return sorted(ended, key=lambda found: found[1].latest_at_ms)

    def _forget_old(self) -> None:
        for path in self._folder.iterdir():
            if not _is_recent(path):
                path.unlink(missing_ok=True)

    def start(self, key: _Key, recording_id: str, found: Callable[[PreviousPart], object]) -> None:
        """Remember where a journal is, and look for the part of its stream before it.

        `found` is called in the event loop, half a second later, where there is one. It may still
        be open in another process, which writes its journal five times a second.
        """
        loop, now_ms = asyncio.get_running_loop(), time.time() * 1000

        def look() -> None:
            part = self._latest(key, recording_id, now_ms)
            if part is not None:
                with contextlib.suppress(RuntimeError):  # the event loop has ended
                    loop.call_soon_threadsafe(found, part)

        def begin() -> None:
            self._write(key, PreviousPart(recording_id, key[0], 0, {}), is_open=True)
            if self._others(key, recording_id):
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(loop.call_later, _WRITTEN_SECONDS, again)

        def again() -> None:
            self._submit(look)

        self._submit(begin)

    def end(self, key: _Key, part: PreviousPart) -> None:
        """Remember where a stream stood at the end of a recording."""
        self._submit(lambda: self._write(key, part))

    def close(self) -> None:
        """Write what was submitted, and end the thread behind it; does not wait."""
        self._thread.shutdown(wait=False)

    def _submit(self, work: Callable[[], None]) -> None:
        def attempt() -> None:
            try:
                work()
            except (OSError, JournalError) as error:
                if times := self._throttle.count("", time.monotonic()):
                    log.warning("parts_not_remembered", error=str(error), times=times)

        with contextlib.suppress(RuntimeError):  # it is closed: the process ends
            self._thread.submit(attempt)

    def _latest(self, key: _Key, recording_id: str, now_ms: float) -> PreviousPart | None:
        """Return where the newest other part of a stream ended, or stood at some time."""
        found = []
        for entry in self._others(key, recording_id):
            part = entry.part
            if part is None:
                journal = Path(entry.spool, journal_name(entry.recording_id))
                with contextlib.suppress(JournalError):  # it is gone
                    part = (_stands(journal, now_ms) or (key, None))[1]
            if part is not None:
                found.append(part)
        return max(found, key=lambda part: part.latest_at_ms, default=None)

    def _others(self, key: _Key, recording_id: str) -> list[_Entry]:
        paths = self._folder.glob(f"{_name(key)}.*")
        entries = [_read(path) for path in paths if _is_recent(path)]
        return [found for found in entries if found and found.recording_id != recording_id]

    def _write(self, key: _Key, part: PreviousPart, *, is_open: bool = False) -> None:
        path = self._folder / f"{_name(key)}.{part.id}"
        fresh = path.with_name(f"{_FRESH}{part.id}")
        fresh.unlink(missing_ok=True)
        entry = _Entry(key, part.id, str(self._spool.absolute()), None if is_open else part)
        with create_private(fresh) as file:
            write_all(file, msgspec.json.encode(entry))
        fresh.replace(path)
        if next(self._writes) % _SWEPT_AFTER == 0:
            self._forget_old()


class _Entry(msgspec.Struct, frozen=True):
    """What the file of one recording says; `part` is `None` while it is open."""

    key: _Key
    recording_id: str
    spool: str
    part: PreviousPart | None


def _name(key: _Key) -> str:
    return hashlib.sha256(msgspec.json.encode(key)).hexdigest()[:32]


def _read(path: Path) -> _Entry | None:
    """Return what a file says; nothing where it is gone, or no whole one."""
    try:
        with open_regular(path) as file:
            return msgspec.json.decode(file.read(), type=_Entry)
    except (OSError, ValueError):
        return None


def _is_recent(path: Path) -> bool:
    try:
        return time.time() - path.lstat().st_mtime <= REMEMBERED_SECONDS
    except FileNotFoundError:
        return False


def _stands(journal: Path, until_ms: float = math.inf) -> tuple[_Key, PreviousPart] | None:
    """Return which stream a journal is of, and where it stood, by its beginning and its end.

    What came after `until_ms`, in milliseconds since 1970, does not count.

    Raises:
        JournalError: it cannot be opened.
        OSError: it cannot be read.
    """
    with open_journal(journal) as file:
        number = file.fileno()
        size = os.fstat(number).st_size
        head = os.pread(number, _ENDS_BYTES, 0)
        tail = os.pread(number, _ENDS_BYTES, max(0, size - _ENDS_BYTES))
    beginning = [record for _, record in Reader([head])]
    start = _start_in(beginning)
    if start is None or not start.stream_sid or not isinstance(beginning[0], Header):
        return None
    part = _part_in(beginning[0], start, whole_records(tail), until_ms)
    return (start.stream_sid, start.call_sid), part


def _start_in(beginning: list[Record]) -> Start | None:
    """Return the start message among records, with the ids that other messages have."""
    found, ids = None, ["", ""]
    for record in beginning:
        if isinstance(record, NoteRecord) and record.code == REPEATED_IDS:
            ids = msgspec.json.decode(record.detail, type=list[str])
        if isinstance(record, MessageRecord) and found is None:
            with contextlib.suppress(MessageRejected):
                parsed = parse.parse(record.message)
                found = parsed if isinstance(parsed, Start) else None
    if found is None:
        return None
    stream_sid, call_sid = found.stream_sid or ids[0], found.call_sid or ids[1]
    return msgspec.structs.replace(found, stream_sid=stream_sid, call_sid=call_sid)


def _part_in(
    header: Header, start: Start, records: Iterable[Record], until_ms: float
) -> PreviousPart:
    latest_ms, tracks, numbers, reason = 0, dict[Track, PartEnd](), [0], None
    for record in records:
        if isinstance(record, ChunkRecord):
            if header.started_at_ms + record.arrival_ms > until_ms:
                break
            end = part_end(record, start.media_format)
            latest_ms, tracks[record.track] = record.arrival_ms, end
            numbers.append(record.sequence_number or 0)
        if isinstance(record, DroppedRecord) and record.kind is GapKind.PAUSED:
            stamp = record.last_timestamp_ms
            tracks[record.track] = PartEnd(record.last_chunk, stamp, stamp)
        if isinstance(record, EndRecord):
            reason = record.reason
    return PreviousPart(
        id=header.recording_id,
        stream_sid=start.stream_sid,
        latest_at_ms=header.started_at_ms + latest_ms,
        tracks=tracks,
        sequence_number=max(numbers) or None,
        reason=reason,
    )


class Recorder:
    """Opens the journals of sessions, and keeps the set of those whose sockets are open.

    Args:
        spool: where journals are opened.
        hub: where the sessions' streams can be listened to.
        counters: what sessions count.
        journal_ended: receives the path of a journal that the disk holds in full, in the
            writer's thread.
        changed: is called with the number of open sessions whenever it has changed.
        now: a clock that never goes back, in seconds.
        elsewhere: where the streams of other processes stood.
        dtmf: what is kept of keys that are pressed.
        required: parameters without which nothing is recorded, as `NAME` or `NAME=VALUE`.
        ledger: where it is entered that a stream was not recorded.
    """

    def __init__(
        self,
        spool: Spool,
        hub: Hub,
        counters: Counters,
        *,
        journal_ended: Callable[[Path], None],
        changed: Callable[[int], None] = lambda _: None,
        now: Callable[[], float] = time.monotonic,
        elsewhere: PartStore | None = None,
        dtmf: DtmfMode = DtmfMode.KEEP,
        required: tuple[str, ...] = (),
        ledger: LedgerThread | None = None,
    ) -> None:
        self.hub = hub
        self.dtmf = dtmf
        self.required = required
        self.ledger = ledger
        self.counters = counters
        self.now = now
        self.journal_ended = journal_ended
        self.sessions: set[LiveSession] = set()
        self.pauses = Pauses(self.utc_ms)
        self.parts = Parts(now)  # of streams, so that they can go on on another socket
        self.refusals = RefusalThrottle(
            REFUSALS_SECONDS
        )  # of all sockets: peers come again and again
        self._spool = spool
        self._elsewhere = elsewhere
        self._changed = changed
        self._ended = False  # all sessions, by us
        self._checked_at = now()

    def load_parts(self) -> None:
        """Remember where streams stood when an earlier process ended; waits for the disk."""
        for key, part in self._elsewhere.load() if self._elsewhere else ():
            self.parts.remember(key, part, (self.utc_ms() - part.latest_at_ms) / 1000)

    def part_started(
        self, key: _Key, recording: LiveRecording, found: Callable[[PreviousPart], object]
    ) -> PreviousPart | None:
        """Add a recording that has its name; return the part of its stream before it, if any.

        `found` is called later with one that is known to another process only.
        """
        if self._elsewhere is not None:
            self._elsewhere.start(key, recording.header.recording_id, found)
        return self.parts.start(key, recording)

    def part_ended(self, key: _Key, recording: LiveRecording, part: PreviousPart) -> None:
        """Remember where a recording ended."""
        self.parts.end(key, recording, part)
        if self._elsewhere is not None:
            self._elsewhere.end(key, part)

    def close(self) -> None:
        """Write where streams ended, which is not waited for; nothing is opened any more."""
        if self._elsewhere is not None:
            self._elsewhere.close()

    def utc_ms(self) -> int:
        """Return UTC, in milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    def open_journal(self, header: Header) -> JournalWriter:
        """Open a journal in the spool; its file is made by the writer's thread."""
        return self._spool.open(header)

    def pause(self, pause: Pause) -> list[LiveRecording]:
        """Keep nothing of a call from now on; return its recordings that are open.

        A stream of it that starts while the pause lasts starts paused.
        """
        self.pauses.add(pause)
        self.counters.pauses += 1
        found = [session.pause(pause) for session in list(self.sessions)]
        return [recording for recording in found if recording is not None]

    def resume(self, call_sid: str, end: PauseEnd) -> list[LiveRecording]:
        """Keep again what comes of a call; return its recordings that go on."""
        self.pauses.remove(call_sid)
        found = [session.resume(call_sid, end) for session in list(self.sessions)]
        return [recording for recording in found if recording is not None]

    def has_call(self, call_sid: str) -> bool:
        """Whether a call is being recorded."""
        return bool(self.recordings_of(call_sid))

    def recordings_of(self, call_sid: str) -> list[LiveRecording]:
        """Return the open recordings of a call."""
        found = [each.recording for each in self.sessions if each.call_sid == call_sid]
        return [recording for recording in found if recording is not None]

    def count_unwanted(self, call_sid: str, missing: tuple[str, ...], times: int) -> None:
        """Count a stream that lacks required parameters; enter it, where it is logged, too."""
        self.counters.without_parameter += 1
        if self.ledger is not None and times:
            about = {"call": clipped(call_sid), "lacks": list(missing), "times": times}
            self.ledger.submit("not_recorded", who="receiver", via="stream", **about)

    def session_opened(self, session: LiveSession) -> None:
        """Add a session whose socket is open."""
        self.sessions.add(session)
        self._changed(len(self.sessions))
        if self._ended:  # it was admitted before
            self.end_all()

    def session_closed(self, session: LiveSession) -> None:
        """Remove a session whose socket is gone."""
        self.sessions.discard(session)
        self._changed(len(self.sessions))

    def live(self) -> LiveCounts:
        """Return how many recordings are open and what came for them; for any thread."""
        live = [session for session in list(self.sessions) if session.recording_id is not None]
        return LiveCounts(len(live), sum(session.chunks for session in live))

    @property
    def may_still_record(self) -> bool:
        """Whether a recording is open, or may yet be opened: a new socket soon sends its start."""
        return any(session.may_still_record for session in self.sessions)

    def end_unanswered(self, seconds: float) -> None:
        """End every session of which nothing has shown for so long that its call is there.

        To be called every second. Silence is no reason: a call on hold may send nothing for an
        hour. Time is counted in steps, none longer than `_LONGEST_STEP_SECONDS`, so that a
        process that was stopped meanwhile ends nobody for it.
        """
        checked_at, self._checked_at = self._checked_at, self.now()
        passed = min(self._checked_at - checked_at, _LONGEST_STEP_SECONDS)
        for session in list(self.sessions):
            if session.unanswered_seconds(passed) >= seconds:
                session.close(EndReason.IDLE, code=_DONE, text="no sign of life for too long")

    def end_all(self) -> None:
        """End every session, and each that is opened from now on; idempotent."""
        self._ended = True
        for session in list(self.sessions):
            session.close(EndReason.SHUTDOWN, code=_GOING_AWAY, text="the receiver was stopped")
