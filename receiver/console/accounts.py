"""Accounts, and what opens them: passwords, sign-in links, sessions, API tokens.

Called in threads: everything here waits for the database. Of secrets only digests are kept. A
password has an Argon2 hash; what we make up ourselves has 256 bits, for which SHA-256 does.
What is taken back (an account, its role, its tokens) counts from the next request on, in every
process, since each request asks the database.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, insert, select, update

from receiver.catalogue.database import Database
from receiver.catalogue.schema import api_tokens, login_links, sessions, users
from receiver.console.who import Role, Who, account_name, joined_scope
from receiver.errors import ConfigurationError, NotFoundError

LINK_MS: Final = 15 * 60_000
IDLE_MS: Final = 12 * 3_600_000
"""A session that nobody used for this long has ended."""
SESSION_MS: Final = 7 * 86_400_000
"""... and one that is this old, however much it was used."""
SHORTEST_PASSWORD, LONGEST_PASSWORD = 10, 1000
TOKEN_PREFIX: Final = "tapreel_"  # noqa: S105  no secret
"""Tokens begin with it, so that scanners for leaked secrets find them."""
_SEEN_EVERY_MS: Final = 60_000
_SECRET_BYTES: Final = 32
_HASHED_AT_ONCE: Final = 2  # each takes 64 MiB
_LONGEST_LABEL: Final = 200
_TOKEN: Final = re.compile(TOKEN_PREFIX + r"[A-Za-z0-9_-]{20,100}")


@dataclass(frozen=True, slots=True)
class User:
    """An account."""

    name: str
    role: Role
    scope: Mapping[str, str]
    has_password: bool
    created_ms: int


@dataclass(frozen=True, slots=True)
class ApiToken:
    """An API token, without its secret; `role` and `scope` limit the account's further."""

    id: str
    user: str
    role: Role
    scope: Mapping[str, str]
    label: str
    created_ms: int
    expires_ms: int | None
    used_ms: int | None


@dataclass(frozen=True, slots=True)
class BrowserSession:
    """A signed-in browser."""

    user: str
    created_ms: int
    seen_ms: int
    address: str
    agent: str
    key: str = field(repr=False)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class Passwords:
    """Argon2 with the library's parameters, so many at once that memory is bounded."""

    def __init__(self) -> None:
        from argon2 import PasswordHasher  # only here: whoever asks for a token needs it not

        self._hasher = PasswordHasher()
        self._places = threading.Semaphore(_HASHED_AT_ONCE)
        self._nobody = self._hasher.hash(secrets.token_hex())

    def hash(self, password: str) -> str:
        """Return the hash of a password.

        Raises:
            ConfigurationError: it is too short or too long.
        """
        if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
            raise ConfigurationError(
                f"a password has {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters"
            )
        with self._places:
            return self._hasher.hash(password)

    def matches(self, password: str, known: str | None) -> bool:
        """Return whether a password has this hash; it takes as long where there is none."""
        from argon2.exceptions import InvalidHashError, VerificationError

        if len(password) > LONGEST_PASSWORD:
            return False
        with self._places:
            try:
                return self._hasher.verify(known or self._nobody, password) and known is not None
            except (VerificationError, InvalidHashError):
                return False


class Accounts:
    """All accounts of one database; `now_ms` gives milliseconds since 1970."""

    def __init__(self, database: Database, *, now_ms: Callable[[], int] = _now_ms) -> None:
        self._database = database
        self._now_ms = now_ms
        self._passwords: Passwords | None = None

    @property
    def passwords(self) -> Passwords:
        """Hashes of passwords, prepared when the first one is needed."""
        if self._passwords is None:
            self._passwords = Passwords()
        return self._passwords

    def add(
        self, name: str, role: Role, scope: Mapping[str, str], *, password: str | None = None
    ) -> User:
        """Make an account; without a password it is opened by a link, a token or a proxy.

        Raises:
            ConfigurationError: the name is taken or no name, or the password is too short.
        """
        try:
            name = account_name(name)
        except ValueError as error:
            raise ConfigurationError(str(error)) from None
        hashed = None if password is None else self.passwords.hash(password)
        made = {"name": name, "role": role, "scope": _json(scope), "created_ms": self._now_ms()}
        with self._database.writing() as connection:
            if _find(connection, name) is not None:
                raise ConfigurationError(f"there is an account {name!r} already")
            connection.execute(insert(users).values(**made, password=hashed))
        return self.user(name)

    def all(self) -> list[User]:
        """Return every account by name."""
        with self._database.reading() as connection:
            return [_user(row) for row in connection.execute(select(users).order_by(users.c.name))]

    def user(self, name: str) -> User:
        """Return an account; letters of either case name it.

        Raises:
            NotFoundError: there is none of this name.
        """
        with self._database.reading() as connection:
            return _user(_known(connection, name))

    def change(
        self,
        name: str,
        *,
        role: Role | None = None,
        scope: Mapping[str, str] | None = None,
        password: str | None = None,
    ) -> User:
        """Change what is given; a new password ends the account's sessions.

        Raises:
            NotFoundError: there is none of this name.
            ConfigurationError: the password is too short, or nobody would be admin any more.
        """
        values: dict[str, Any] = {} if role is None else {"role": role}
        values |= {} if scope is None else {"scope": _json(scope)}
        values |= {} if password is None else {"password": self.passwords.hash(password)}
        with self._database.writing() as connection:
            found = _known(connection, name)
            if values:
                connection.execute(update(users).where(users.c.name == found.name).values(**values))
            if password is not None:
                _end_sessions(connection, found.name)
        return self.user(found.name)

    def remove(self, name: str) -> User:
        """Remove an account with its tokens, sessions and links.

        Raises:
            NotFoundError: there is none of this name.
        """
        with self._database.writing() as connection:
            found = _known(connection, name)
            connection.execute(delete(users).where(users.c.name == found.name))
        return _user(found)

    def check_password(self, name: str, password: str) -> User | None:
        """Return the account that this password opens."""
        with self._database.reading() as connection:
            found = _find(connection, name)
        known = None if found is None else found.password
        return _user(found) if self.passwords.matches(password, known) and found else None

    def of_subject(self, issuer: str, subject: str, name: str) -> User | None:
        """Return the account of a subject of OpenID Connect.

        The first time, it is the account of this name, which nobody else's subject has; from then
        on the subject counts, whatever its name is at the provider.
        """
        key = json.dumps([issuer, subject])
        with self._database.writing() as connection:
            row = connection.execute(select(users).where(users.c.subject == key)).one_or_none()
            if row is None:
                row = _find(connection, name)
                if row is None or row.subject is not None:
                    return None
                bound = update(users).where(users.c.name == row.name).values(subject=key)
                connection.execute(bound)
            return _user(row)

    def make_link(self, name: str, *, lifetime_ms: int = LINK_MS) -> str:
        """Return the code of a link that signs in once, for some minutes.

        Raises:
            NotFoundError: there is no such account.
        """
        code = secrets.token_urlsafe(_SECRET_BYTES)
        with self._database.writing() as connection:
            user = _known(connection, name).name
            connection.execute(delete(login_links).where(login_links.c.expires_ms < self._now_ms()))
            expires_ms = self._now_ms() + lifetime_ms
            link = {"digest": _digest(code), "account": user, "expires_ms": expires_ms}
            connection.execute(insert(login_links).values(**link))
        return code

    def use_link(self, code: str) -> User | None:
        """Return whose link it is, once; of two at the same time one gets it."""
        with self._database.writing() as connection:
            gone = delete(login_links).where(login_links.c.digest == _digest(code))
            row = connection.execute(gone.returning(*login_links.c)).one_or_none()
            if row is None or row.expires_ms < self._now_ms():
                return None
            found = _find(connection, row.account)
            return None if found is None else _user(found)


class Sessions:
    """Browsers that are signed in."""

    def __init__(self, database: Database, *, now_ms: Callable[[], int] = _now_ms) -> None:
        self._database = database
        self._now_ms = now_ms

    def open(self, name: str, *, address: str, agent: str) -> str:
        """Return the secret of a new session; old ones that have ended are removed."""
        secret, now = secrets.token_urlsafe(_SECRET_BYTES), self._now_ms()
        made = {"digest": _digest(secret), "account": name, "created_ms": now, "seen_ms": now}
        with self._database.writing() as connection:
            ended = (sessions.c.seen_ms < now - IDLE_MS) | (
                sessions.c.created_ms < now - SESSION_MS
            )
            connection.execute(delete(sessions).where(ended))
            made |= {"address": address[:100], "agent": agent[:300]}
            connection.execute(insert(sessions).values(**made))
        return secret

    def who(self, secret: str) -> Who | None:
        """Return whose session it is, with the role and limits that the account has now."""
        now, digest = self._now_ms(), _digest(secret)
        with self._database.reading() as connection:
            both = select(sessions.c.created_ms, sessions.c.seen_ms, users).join(
                users, users.c.name == sessions.c.account
            )
            row = connection.execute(both.where(sessions.c.digest == digest)).one_or_none()
        if row is None or now - row[0] > SESSION_MS or now - row[1] > IDLE_MS:
            return None
        if now - row[1] > _SEEN_EVERY_MS:
            with self._database.writing() as connection:
                seen = update(sessions).where(sessions.c.digest == digest).values(seen_ms=now)
                connection.execute(seen)
        return Who(row.name, Role(row.role), "session", digest, json.loads(row.scope))

    def of(self, name: str) -> list[BrowserSession]:
        """Return the sessions of an account, the last used first."""
        mine = select(sessions).where(sessions.c.account == name)
        with self._database.reading() as connection:
            rows = connection.execute(mine.order_by(sessions.c.seen_ms.desc())).all()
        return [
            BrowserSession(r.account, r.created_ms, r.seen_ms, r.address, r.agent, r.digest)
            for r in rows
        ]

    def close(self, key: str) -> None:
        """End the session with this key; idempotent."""
        with self._database.writing() as connection:
            connection.execute(delete(sessions).where(sessions.c.digest == key))

    def close_all(self, name: str) -> int:
        """End all sessions of an account, on every machine; return how many there were."""
        with self._database.writing() as connection:
            return _end_sessions(connection, name)


class ApiTokens:
    """Tokens with which programs ask."""

    def __init__(self, database: Database, *, now_ms: Callable[[], int] = _now_ms) -> None:
        self._database = database
        self._now_ms = now_ms

    def make(
        self,
        name: str,
        *,
        role: Role | None = None,
        scope: Mapping[str, str] | None = None,
        label: str = "",
        expires_ms: int | None = None,
    ) -> tuple[str, ApiToken]:
        """Return a new token and what is known of it; the token itself is not kept.

        Raises:
            NotFoundError: there is no such account.
            ConfigurationError: role or scope would permit more than the account's, or nothing.
        """
        token, token_id = TOKEN_PREFIX + secrets.token_urlsafe(_SECRET_BYTES), secrets.token_hex(4)
        with self._database.writing() as connection:
            user = _user(_known(connection, name))
            role = role or user.role
            if not user.role.includes(role):
                raise ConfigurationError(
                    f"{user.name} is {user.role}: no token of it can be {role}"
                )
            _check_limits(user.scope, scope or {})
            row: dict[str, object] = {
                "id": token_id,
                "account": user.name,
                "role": role,
                "scope": _json(scope or {}),
            }
            row |= {"label": label[:_LONGEST_LABEL], "digest": _digest(token)}
            row |= {"created_ms": self._now_ms(), "expires_ms": expires_ms}
            connection.execute(insert(api_tokens).values(**row))
            made = connection.execute(select(api_tokens).where(api_tokens.c.id == token_id)).one()
        return token, _token(made)

    def all(self, name: str | None = None) -> list[ApiToken]:
        """Return the tokens of one account, or of all, the oldest first."""
        wanted = select(api_tokens).order_by(api_tokens.c.created_ms)
        if name is not None:
            wanted = wanted.where(api_tokens.c.account == name)
        with self._database.reading() as connection:
            return [_token(row) for row in connection.execute(wanted)]

    def revoke(self, token_id: str) -> ApiToken:
        """Revoke a token.

        Raises:
            NotFoundError: there is none with this id.
        """
        with self._database.writing() as connection:
            gone = delete(api_tokens).where(api_tokens.c.id == token_id)
            row = connection.execute(gone.returning(*api_tokens.c)).one_or_none()
        if row is None:
            raise NotFoundError(f"no token {token_id[:40]!r}: `receiver user list` shows their ids")
        return _token(row)

    def who(self, token: str) -> Who | None:
        """Return whose token it is: with the lesser of both roles, and the limits of both."""
        if not _TOKEN.fullmatch(token):
            return None
        now, digest = self._now_ms(), _digest(token)
        with self._database.reading() as connection:
            both = select(
                api_tokens, users.c.role.label("users_role"), users.c.scope.label("users_scope")
            )
            both = both.join(users, users.c.name == api_tokens.c.account)
            row = connection.execute(both.where(api_tokens.c.digest == digest)).one_or_none()
        if row is None or (row.expires_ms is not None and row.expires_ms < now):
            return None
        if row.used_ms is None or now - row.used_ms > _SEEN_EVERY_MS:
            with self._database.writing() as connection:
                used = update(api_tokens).where(api_tokens.c.id == row.id).values(used_ms=now)
                connection.execute(used)
        try:
            scope = joined_scope(json.loads(row.users_scope), json.loads(row.scope))
        except ValueError:  # the account was limited otherwise since
            return None
        role = min(Role(row.role), Role(row.users_role), key=list(Role).index)
        return Who(row.account, role, f"token {row.id}", digest, scope)


def _check_limits(of_user: Mapping[str, str], of_token: Mapping[str, str]) -> None:
    try:
        joined_scope(of_user, of_token)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def _find(connection: Connection, name: str) -> Row[Any] | None:
    try:
        wanted = select(users).where(users.c.name == account_name(name))
    except ValueError:
        return None
    return connection.execute(wanted).one_or_none()


def _known(connection: Connection, name: str) -> Row[Any]:
    found = _find(connection, name)
    if found is None:
        raise NotFoundError(f"no account {name[:100]!r}: `receiver user list` shows all")
    return found


def _end_sessions(connection: Connection, name: str) -> int:
    for table in (sessions, login_links):
        ended = connection.execute(delete(table).where(table.c.account == name)).rowcount
        if table is sessions:
            count = ended
    return count


def _user(row: Row[Any]) -> User:
    has_password = row.password is not None
    return User(row.name, Role(row.role), json.loads(row.scope), has_password, row.created_ms)


def _token(row: Row[Any]) -> ApiToken:
    return ApiToken(
        *(row.id, row.account, Role(row.role), json.loads(row.scope), row.label),
        *(row.created_ms, row.expires_ms, row.used_ms),
    )


def _json(scope: Mapping[str, str]) -> str:
    return json.dumps(dict(sorted(scope.items())), ensure_ascii=False)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
