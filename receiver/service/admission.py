"""Decides about every request before any upgrade: by its path, its token, and the capacity left.

Capacity is decided, counted and refused here and nowhere else. A stream takes a place from the
moment in which its single-use token is being written down, or else from its upgrade, to the end
of its socket. There are no places while the receiver starts, drains or stops, and none while
the disk is full, or takes nothing for another reason: without inodes, or because it hangs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Final

import structlog

from receiver.auth.bearer import Grant, StreamTokens
from receiver.auth.replay_store import ReplayStore
from receiver.disk import files, folders
from receiver.errors import Refused
from receiver.journal.spool import STALLED_SECONDS
from receiver.rate_limit import RefusalThrottle
from receiver.service.control import PATH as CONTROL_PATH
from receiver.service.control import ControlService
from receiver.tap.query import is_tap
from receiver.tap.service import TapService
from receiver.transports.interface import Decision, HttpAnswer, Peer, UpgradeRequest

STREAMS_PATH: Final = "/audio"

_UNAUTHORIZED: Final = HttpAnswer(401, "Unauthorized\n", (("WWW-Authenticate", "Bearer"),))
_NOT_FOUND: Final = HttpAnswer(404, "Not found\n")
_HEALTHY: Final = HttpAnswer(200, "ok\n")
_READY: Final = HttpAnswer(200, "ready\n")
_STARTING: Final = "starting"
_NOBODY: Final = Grant()
_LONGEST_UNLOGGED_SECONDS: Final = 60.0
"""Between two lines of an address that is refused again and again; the first are a second apart."""

log = structlog.get_logger("receiver.admission")


class Admission:
    """Answers health checks, and admits streams that bring a token while there is a place.

    Args:
        tokens: what a stream's token is compared with; may be replaced at any time.
        used: the single-use tokens that were used.
        open_session: makes the peer of an admitted stream.
        max_streams: how many places there are.
        min_free: below so many free bytes no stream is admitted.
        unsynced: returns how many journals the disk does not hold in full, which are of live
            and of ended streams; twice as many as there are places are too many.
        stalled: returns whether journals are held in memory because the disk does not take them.
        taps: serves listeners; `None` where there are none.
        control: carries out orders; `None` where there are none.
    """

    def __init__(
        self,
        tokens: StreamTokens,
        used: ReplayStore,
        *,
        open_session: Callable[[Grant, str], Peer],
        max_streams: int,
        min_free: int = 0,
        unsynced: Callable[[], int] = lambda: 0,
        stalled: Callable[[], bool] = lambda: False,
        taps: TapService | None = None,
        control: ControlService | None = None,
    ) -> None:
        self.tokens = tokens
        self.streams = 0  # with an open socket
        self.pending = 0  # upgrades that wait for the disk; each has a stream's place already
        self.disk_full = False
        self.disk_error = ""  # why a disk does not even take a small file
        self.refused: Counter[str] = Counter()  # by reason
        self._used = used
        self._open_session = open_session
        self._max_streams = max_streams
        self._min_free = min_free
        self._unsynced = unsynced
        self._stalled = stalled
        self._taps = taps
        self._control = control
        self._closed_for = _STARTING
        self._throttle = RefusalThrottle(longest_seconds=_LONGEST_UNLOGGED_SECONDS)

    @property
    def closed_for(self) -> str:
        """Return why no stream is admitted now; empty where one is."""
        if self._closed_for:
            return self._closed_for
        if self.disk_full:
            return "disk full"
        if self.disk_error or self._stalled():
            return "the disk takes nothing"
        taken = max(self.streams + self.pending, self._unsynced() / 2)
        return "too many streams" if taken >= self._max_streams else ""

    def open(self) -> None:
        """Admit streams, unless `close` was called before."""
        if self._closed_for == _STARTING:
            self._closed_for = ""

    def close(self, reason: str) -> None:
        """Admit no stream from now on."""
        self._closed_for = reason

    def disk_checked(self, free_bytes: int, error: str = "") -> None:
        """Admit streams only while the disk has space for them, and takes what is tried out."""
        if error and error != self.disk_error:
            log.error("disk_unwritable", error=error)
        elif self.disk_error and not error:
            log.info("disk_writable")
        self.disk_error = error
        was_full, self.disk_full = self.disk_full, free_bytes < self._min_free
        if self.disk_full and not was_full:
            log.error("disk_full", free_bytes=free_bytes, min_free=self._min_free)
        elif was_full and not self.disk_full:
            log.info("disk_has_space", free_bytes=free_bytes)

    def admit(self, request: UpgradeRequest) -> Decision | Coroutine[Any, Any, Decision]:
        """Decide about one request; only `/audio` with a token leads to a session."""
        if request.path == "/healthz":
            return _HEALTHY
        if request.path == "/readyz":
            reason = self.closed_for
            return _unavailable(reason) if reason else _READY
        if self._taps is not None and is_tap(request.path):
            return self._taps.admit(request)
        if self._control is not None and request.path == CONTROL_PATH:
            return self._admit_order(self._control, request)
        if request.path != STREAMS_PATH:
            self._count(request, "not_found")
            return _NOT_FOUND
        try:
            grant = self.tokens.admit(request.authorization, now=time.time())
        except Refused as refused:
            self._count(request, refused.reason.value)
            return _UNAUTHORIZED
        if grant.jti is None:
            return self._admit_now(grant, request)
        if reason := self.closed_for:
            return self._not_ready(request, reason, grant)
        if request.no_upgrade is not None:
            self._count(request, "bad_request", grant)
            return request.no_upgrade  # the token is for the request that will be one
        return self._admit_once(grant, grant.jti, request)

    def _admit_order(self, control: ControlService, request: UpgradeRequest) -> Decision:
        try:
            return control.admit(request)
        except Refused as refused:
            self._count(request, refused.reason.value)
            return _UNAUTHORIZED

    def _admit_now(self, grant: Grant, request: UpgradeRequest) -> Decision:
        if reason := self.closed_for:
            return self._not_ready(request, reason, grant)
        return self._open_session(grant, request.remote_address)

    async def _admit_once(self, grant: Grant, jti: str, request: UpgradeRequest) -> Decision:
        """Admit a stream whose token opens one only, once it is on disk that it was used."""
        if reason := self.closed_for:  # another one of the same moment has the last place
            return self._not_ready(request, reason, grant)
        try:
            with self._place_taken():
                unused = await self._used.use(jti, grant.expires_at or 0)
        except OSError as error:
            log.error("used_tokens_unwritable", error=error.strerror)
            return self._not_ready(request, "used tokens cannot be recorded", grant)
        if not unused:
            self._count(request, "replayed", grant)
            return _UNAUTHORIZED
        return self._admit_now(grant, request)  # meanwhile the receiver may be ending

    @contextlib.contextmanager
    def _place_taken(self) -> Iterator[None]:
        """Count a stream that may open soon; if it does, that follows at once (see the seam)."""
        self.pending += 1
        try:
            yield
        finally:
            self.pending -= 1

    def _not_ready(self, request: UpgradeRequest, reason: str, grant: Grant) -> HttpAnswer:
        self._count(request, "not_ready", grant)
        return _unavailable(reason)

    def _count(self, request: UpgradeRequest, reason: str, grant: Grant = _NOBODY) -> None:
        """Count a refusal by us; a request that is no upgrade either may show why it came."""
        detail = request.no_upgrade.body.strip() if request.no_upgrade else ""
        self.count_refused(reason, request.remote_address, detail, grant.call_sid)

    def count_refused(
        self, reason: str, remote_address: str, detail: str = "", call_sid: str | None = None
    ) -> None:
        """Count a refusal, and log each address, call and reason once a second, then less often."""
        self.refused[reason] += 1
        known = {"call_sid": call_sid, "detail": detail}
        times = self._throttle.count_peer(remote_address, call_sid, reason, time.monotonic())
        if times:
            log.warning(
                "handshake_refused",
                reason=reason,
                remote_address=remote_address,
                **{name: value for name, value in known.items() if value},
                times=times,
            )


class DiskWatch:
    """Whether the disk of one folder takes what is written, found out before a call needs it.

    Free bytes say nothing of inodes, quotas, rights, errors, or a disk that does not come back. So
    a small file is written in a thread: it leaves nothing, not even a name. Where the disk hangs,
    that thread hangs, and nothing else does.

    Args:
        folder: Where a small file is written.
        sync: Whether that waits until the disk holds it, as it does at the end of a receiver.
            Without a sync a disk may hang for long behind the system's memory, and a disk that is
            idle may rest.
        checked: Called after each time that it was tried out.
    """

    def __init__(
        self, folder: Path, *, sync: bool = False, checked: Callable[[], None] = lambda: None
    ) -> None:
        self.free_bytes = sys.maxsize  # as far as is known
        self.error = ""  # why it takes nothing, in the system's words
        self._folder = folder
        self._sync = sync
        self._checked = checked
        self._asked_at: float | None = None  # while there is no answer

    @property
    def hangs(self) -> bool:
        """Whether it has not answered for so long that it is to be taken for one that hangs."""
        asked_at = self._asked_at
        return asked_at is not None and time.monotonic() - asked_at >= STALLED_SECONDS

    async def check(self) -> None:
        """Try the disk out, however long that takes."""
        self._asked_at = time.monotonic()
        self.free_bytes, self.error = await asyncio.to_thread(self._look)
        self._asked_at = None
        self._checked()

    def _look(self) -> tuple[int, str]:
        free_bytes = self.free_bytes
        try:
            free_bytes = folders.free_bytes(self._folder)
            files.try_out(self._folder, sync=self._sync)
        except OSError as error:
            return free_bytes, error.strerror or os.strerror(error.errno or 0)
        return free_bytes, ""


def _unavailable(reason: str) -> HttpAnswer:
    return HttpAnswer(503, f"not ready: {reason}\n", (("Retry-After", "5"),))
