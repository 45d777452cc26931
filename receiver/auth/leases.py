"""Leases: which grants to listen are in use, and when each of them ends.

A grant is checked again whenever something new would be opened with it: a call that was waited
for, the notice of another call. A connection that only waits or watches is closed as soon as its
token expires. A call that is being sent may go on to its end then; but when a token or key is
removed from the files and SIGHUP has them read again, every connection that came with it is
closed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog

from receiver.auth.tap_tokens import TapGrant, TapTokens

_LONGEST_WAIT_SECONDS: Final = 3600.0
"""Between two checks of the clock, which may be set meanwhile."""

log = structlog.get_logger("receiver.taps")


class Lease:
    """One grant in use by one connection; `dismiss` closes that connection."""

    def __init__(self, leases: Leases, grant: TapGrant, dismiss: Callable[[], None]) -> None:
        self._leases = leases
        self._grant = grant
        self._dismiss = dismiss
        self._is_kept = False  # until the connection closes, even if the token expires
        self._timer: asyncio.TimerHandle | None = None
        leases.open.add(self)
        self._check()

    def is_valid(self) -> bool:
        """Return whether something new may be opened now; if not, dismiss the connection."""
        valid = self._leases.tokens.still_admits(self._grant, now=time.time())
        if not valid:
            self._end()
        return valid

    def keep_until_closed(self) -> None:
        """Stop the timer: a call is being sent, which may go on when the token expires."""
        self._is_kept = True
        self._stop_timer()

    def recheck(self) -> None:
        """Dismiss the connection if its grant is not among the tokens, which have changed."""
        if not self._is_kept:
            self.is_valid()
        elif not self._leases.tokens.still_has(self._grant):
            self._end()

    def release(self) -> None:
        """Remove the connection, which is closed; idempotent."""
        self._leases.open.discard(self)
        self._stop_timer()

    def _check(self) -> None:
        self._timer = None
        expires_at = self._grant.expires_at
        if not self.is_valid() or expires_at is None:
            return
        wait = min(expires_at - time.time(), _LONGEST_WAIT_SECONDS)
        self._timer = asyncio.get_running_loop().call_later(max(wait, 0), self._check)

    def _end(self) -> None:
        if self in self._leases.open:
            self.release()
            reason = "the token is no longer valid"
            log.info("listener_dismissed", token_name=self._grant.name, reason=reason)
        self._dismiss()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Leases:
    """Every lease of an open connection, and the tokens that are valid at present.

    Everything here runs in the event loop; `dismiss` is called there, too, perhaps before `start`
    has returned and perhaps more than once.
    """

    def __init__(self, tokens: TapTokens) -> None:
        self.tokens = tokens
        self.open: set[Lease] = set()

    def start(self, grant: TapGrant, *, dismiss: Callable[[], None]) -> Lease:
        """Return the lease of a new connection, dismissed at once if its grant has ended."""
        return Lease(self, grant, dismiss)

    def replace(self, tokens: TapTokens) -> None:
        """Replace the valid tokens, and dismiss every connection that has lost its own."""
        self.tokens = tokens
        for lease in tuple(self.open):
            lease.recheck()
