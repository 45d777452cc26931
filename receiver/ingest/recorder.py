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

import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from receiver.counters import Counters, LiveCounts
from receiver.ingest.live_recording import LiveRecording
from receiver.journal.records import Header, PreviousPart
from receiver.journal.spool import Spool
from receiver.journal.writer import JournalWriter
from receiver.media import EndReason
from receiver.rate_limit import RefusalThrottle
from receiver.tap.hub import Hub

REFUSALS_SECONDS: Final = 10.0
"""How often a line is logged of one call that is refused whenever it connects."""
REMEMBERED_SECONDS: Final = 3600.0
"""For how long a stream that has ended can go on as another recording."""
MOST_REMEMBERED: Final = 20_000
"""So many streams that ended are remembered, about 1 KiB each; the oldest are forgotten first."""
_DONE: Final = 1000
_GOING_AWAY: Final = 1001
_LONGEST_STEP_SECONDS: Final = 2.0
"""Between two checks. More has not passed for us: this process was stopped, or held up."""


_Key = tuple[str, str]


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
    ) -> None:
        self.hub = hub
        self.counters = counters
        self.now = now
        self.journal_ended = journal_ended
        self.sessions: set[LiveSession] = set()
        self.parts = Parts(now)  # of streams, so that they can go on on another socket
        self.refusals = RefusalThrottle(
            REFUSALS_SECONDS
        )  # of all sockets: peers come again and again
        self._spool = spool
        self._changed = changed
        self._ended = False  # all sessions, by us
        self._checked_at = now()

    def utc_ms(self) -> int:
        """Return UTC, in milliseconds since 1970."""
        return time.time_ns() // 1_000_000

    def open_journal(self, header: Header) -> JournalWriter:
        """Open a journal in the spool; its file is made by the writer's thread."""
        return self._spool.open(header)

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
