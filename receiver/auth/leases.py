"""Who was let in with which token, and for how long that counts.

A token is looked at again whenever something new would be opened to its bearer: a call that was
waited for, the news of another one. Whoever waits or watches is dismissed as soon as the token
expires. A call that is being listened to may be heard to its end then; but when a token or key
is taken away, by SIGHUP, everybody who came with it goes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog

from receiver.auth.tap_tokens import TapGrant, TapTokens

_LONGEST_WAIT_SECONDS: Final = 3600.0
"""Between two looks at the clock, which may be set meanwhile."""

log = structlog.get_logger("receiver.taps")


class Lease:
    """One bearer's ticket, while the socket is open; `dismiss` closes that."""

    def __init__(self, tickets: Leases, ticket: TapGrant, dismiss: Callable[[], None]) -> None:
        self._tickets = tickets
        self._ticket = ticket
        self._dismiss = dismiss
        self._settled = False
        self._timer: asyncio.TimerHandle | None = None
        tickets.holds.add(self)
        self._look()

    def is_good(self) -> bool:
        """Whether something new may be opened now; if not, the bearer is dismissed."""
        good = self._tickets.tokens.accept(self._ticket, now=time.time())
        if not good:
            self._part()
        return good

    def settle(self) -> None:
        """Learn that the bearer is on a call, which may be heard to its end."""
        self._settled = True
        self._stop_timer()

    def review(self) -> None:
        """Learn that tokens have changed: whose token was taken away is dismissed."""
        if not self._settled:
            self.is_good()
        elif not self._tickets.tokens.know(self._ticket):
            self._part()

    def release(self) -> None:
        """Learn that the socket is gone."""
        self._tickets.holds.discard(self)
        self._stop_timer()

    def _look(self) -> None:
        self._timer = None
        expires_at = self._ticket.expires_at
        if not self.is_good() or expires_at is None:
            return
        wait = min(expires_at - time.time(), _LONGEST_WAIT_SECONDS)
        self._timer = asyncio.get_running_loop().call_later(max(wait, 0), self._look)

    def _part(self) -> None:
        if self in self._tickets.holds:
            self.release()
            log.info("listener_dismissed", reason="the token is no longer valid")
        self._dismiss()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Leases:
    """All bearers whose sockets are open, and the tokens that count."""

    def __init__(self, tokens: TapTokens) -> None:
        self.tokens = tokens
        self.holds: set[Lease] = set()

    def hold(self, ticket: TapGrant, *, dismiss: Callable[[], None]) -> Lease:
        """Look after one bearer; who came with a token that counts no longer is dismissed now."""
        return Lease(self, ticket, dismiss)

    def replace(self, tokens: TapTokens) -> None:
        """Have other tokens count from now on."""
        self.tokens = tokens
        for hold in tuple(self.holds):
            hold.review()
