"""Who asks, and what that permits: roles, limits by parameters, the names of accounts.

Pure. A role includes those below it. A scope names custom parameters with the value that a
recording must have; what it leaves out does not exist for who is limited by it.

What a role may not see is decided here (`Who.hears`, `Who.search`, `Who.seen`), and what a limit
hides, by the scope that every read of the catalogue takes; handlers ask, and decide nothing.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import msgspec

from receiver.catalogue.query import Query, parse
from receiver.media import visible
from receiver.rate_limit import TokenBuckets
from receiver.recording.annotations import Annotations, Hold

LONGEST_NAME: Final = 100


class Role(enum.StrEnum):
    """What somebody may do, the least first; each includes those before it."""

    VIEWER = "viewer"  # sees that a recording exists
    LISTENER = "listener"  # hears, downloads
    MANAGER = "manager"  # labels, notes, holds, pauses, deletes
    ADMIN = "admin"  # users, retention, erasing, the ledger

    def includes(self, other: Role) -> bool:
        """Return whether whoever has this role may do what the other one permits."""
        ladder = list(Role)
        return ladder.index(self) >= ladder.index(other)


@dataclass(frozen=True, slots=True)
class Who:
    """Somebody who was recognized.

    `via` says how: "session", "token NAME", or "proxy". `key` stands for the credential, without
    giving it away: CSRF tokens and rate limits hang on it.
    """

    name: str
    role: Role
    via: str
    key: str = field(repr=False)
    scope: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_ambient(self) -> bool:
        """Whether a browser sends the credential by itself, whichever page makes it do so."""
        return not self.via.startswith("token")

    @property
    def way(self) -> str:
        """Which way it comes, as the ledger has it: by a page, or as a program by its token."""
        return "console" if self.is_ambient else f"api, {self.via}"

    @property
    def hears(self) -> bool:
        """Whether he hears recordings, and reads what was said: notes, keys, why it is held."""
        return self.role.includes(Role.LISTENER)

    @property
    def manages(self) -> bool:
        """Whether he changes what people add to recordings, and sees who has heard them."""
        return self.role.includes(Role.MANAGER)

    def search(self, pairs: Iterable[tuple[str, str]], now: datetime) -> Query:
        """Return the query that words mean; who may read no notes finds nothing by their words.

        Args:
            pairs: words and values, as in the query of a URL.
            now: what ages count back from.

        Raises:
            BadWord: a word cannot be used.
        """
        return parse(pairs, now, in_notes=self.hears)

    def seen(self, added: Annotations) -> Annotations:
        """Return of what people added to a recording that which he may see.

        A viewer sees its labels, and that it is held, but not why.
        """
        if self.hears:
            return added
        hold = None if added.hold is None else Hold("", "", "")
        return msgspec.structs.replace(added, notes=(), hold=hold)

    def is_csrf_token(self, given: str, secret: bytes) -> bool:
        """Return whether a form brings back what it got."""
        return hmac.compare_digest(given.encode(), self.csrf_token(secret).encode())

    def csrf_token(self, secret: bytes) -> str:
        """Return what a form of ours must bring back; `secret` is the console's own."""
        return hmac.new(secret, self.key.encode(), hashlib.sha256).hexdigest()[:32]


class SignInThrottle:
    """How often somebody may be wrong; whoever is right gets back what it cost.

    It is counted for each account, for each address, and most of all for both together, so that
    nobody is locked out by somebody elsewhere.
    """

    PAIR, ACCOUNT, ADDRESS = (5, 1 / 30), (20, 1 / 5), (30, 1 / 2)
    """Wrong tries at once, and a second in the long run."""

    def __init__(self) -> None:
        self._buckets = [TokenBuckets(*size) for size in (self.PAIR, self.ACCOUNT, self.ADDRESS)]

    def take(self, name: str, address: str, now: float) -> bool:
        """Count one try; return whether it may be made."""
        subjects = self._subjects(name, address)
        taken = [b.take(s, now) for b, s in zip(self._buckets, subjects, strict=True)]
        return all(taken)

    def give_back(self, name: str, address: str) -> None:
        """It was right: count it no more."""
        for bucket, subject in zip(self._buckets, self._subjects(name, address), strict=True):
            bucket.give_back(subject)

    @staticmethod
    def _subjects(name: str, address: str) -> tuple[str, str, str]:
        return f"{name.strip().casefold()[:100]}\n{address}", name.strip().casefold()[:100], address


def account_name(text: str) -> str:
    """Return the name of an account as it is kept: letters of either case are the same.

    Raises:
        ValueError: the text says what a name must be.
    """
    name = unicodedata.normalize("NFKC", text.strip()).casefold()
    if not name or len(name) > LONGEST_NAME or visible(name) != name:
        raise ValueError(f"a name has 1 to {LONGEST_NAME} visible characters")
    return name


def joined_scope(one: Mapping[str, str], other: Mapping[str, str]) -> dict[str, str]:
    """Return the limits of both together.

    Raises:
        ValueError: they name one parameter with two values, so nothing would be left.
    """
    for name in one.keys() & other.keys():
        if one[name] != other[name]:
            raise ValueError(f"the limit {name}={one[name]} leaves nothing of {name}={other[name]}")
    return {**one, **other}
