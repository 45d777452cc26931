"""Who gets in: every request is decided here, before any upgrade."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final

import structlog

from receiver.auth.replay_store import ReplayStore
from receiver.auth.stream_tokens import Grant, StreamTokens
from receiver.errors import Refused
from receiver.rate_limit import LogThrottle
from receiver.tap.query import is_tap
from receiver.tap.service import TapService
from receiver.transports.interface import Decision, HttpAnswer, Peer, UpgradeRequest

STREAMS_PATH: Final = "/audio"

_UNAUTHORIZED: Final = HttpAnswer(401, "Unauthorized\n", (("WWW-Authenticate", "Bearer"),))
_NOT_FOUND: Final = HttpAnswer(404, "Not found\n")
_NO_UPGRADE: Final = HttpAnswer(
    426, "a WebSocket upgrade is expected\n", (("Upgrade", "websocket"),)
)
_HEALTHY: Final = HttpAnswer(200, "ok\n")
_READY: Final = HttpAnswer(200, "ready\n")

log = structlog.get_logger("receiver.gate")


class Admission:
    """Answers health checks, and lets streams in that bring a token.

    `closed_for` says why no new stream is taken at the moment ("draining", "disk full");
    empty means that the gate is open. `tokens` may be replaced at any time. `pending_changed` is
    called when `pending` has changed, and may change `closed_for`.
    """

    def __init__(
        self,
        tokens: StreamTokens,
        used: ReplayStore,
        *,
        open_session: Callable[[Grant, str], Peer],
        taps: TapService | None = None,
        pending_changed: Callable[[], object] = lambda: None,
    ) -> None:
        self.tokens = tokens
        self.closed_for = "starting"
        self.pending = 0  # upgrades that wait for the disk; each has a stream's place already
        self.refused: Counter[str] = Counter()  # by reason
        self._used = used
        self._open_session = open_session
        self._taps = taps
        self._pending_changed = pending_changed
        self._throttle = LogThrottle()

    def admit(self, request: UpgradeRequest) -> Decision | Coroutine[Any, Any, Decision]:
        """Decide about one request; only `/audio` with a token leads to a session."""
        if request.path == "/healthz":
            return _HEALTHY
        if request.path == "/readyz":
            return _unavailable(self.closed_for) if self.closed_for else _READY
        if self._taps is not None and is_tap(request.path):
            return self._taps.admit(request)
        if request.path != STREAMS_PATH:
            self.count_refused("not_found", request.remote_address)
            return _NOT_FOUND
        try:
            grant = self.tokens.admit(request.authorization, now=time.time())
        except Refused as refused:
            self.count_refused(refused.reason.value, request.remote_address)
            return _UNAUTHORIZED
        if self.closed_for:
            return self._not_ready(request, self.closed_for)
        if grant.jti is None:
            return self._open_session(grant, request.remote_address)
        if not request.is_upgrade:
            self.count_refused("bad_request", request.remote_address)
            return _NO_UPGRADE  # the token is for the request that will be one
        return self._use_up(grant, grant.jti, request)

    async def _use_up(self, grant: Grant, jti: str, request: UpgradeRequest) -> Decision:
        """Let a stream in whose token opens one only."""
        if self.closed_for:  # who asked at the same time has taken the last place
            return self._not_ready(request, self.closed_for)
        try:
            with self._place_kept():
                unused = await self._used.use(jti, grant.expires_at or 0)
        except OSError as error:
            log.error("used_tokens_unwritable", error=error.strerror)
            return self._not_ready(request, "used tokens cannot be recorded")
        if not unused:
            self.count_refused("replayed", request.remote_address)
            return _UNAUTHORIZED
        if self.closed_for:  # meanwhile: we are to end, or the disk is full
            return self._not_ready(request, self.closed_for)
        return self._open_session(grant, request.remote_address)

    @contextlib.contextmanager
    def _place_kept(self) -> Iterator[None]:
        """Count a stream that may open soon; if it does, that follows at once (see the seam)."""
        self.pending += 1
        self._pending_changed()
        try:
            yield
        finally:
            self.pending -= 1
            self._pending_changed()

    def _not_ready(self, request: UpgradeRequest, reason: str) -> HttpAnswer:
        self.count_refused("not_ready", request.remote_address)
        return _unavailable(reason)

    def count_refused(self, reason: str, remote_address: str) -> None:
        """Count who is not let in, and tell of each address at most once a second."""
        self.refused[reason] += 1
        times = self._throttle.count(f"{remote_address} {reason}", time.monotonic())
        if times:
            log.warning(
                "handshake_refused", reason=reason, remote_address=remote_address, times=times
            )


def _unavailable(reason: str) -> HttpAnswer:
    return HttpAnswer(503, f"not ready: {reason}\n", (("Retry-After", "5"),))
