"""What is asked of the provider, told beforehand to whoever waits for it: tapreel's console.

Before the provider is asked, an expectation is written: of which call, with which name and
parameters. After it, what the provider answered. So a stream that never comes is missed, also
where this program dies in between. A console that cannot be reached keeps no call from being
recorded: it is a warning.
"""

from __future__ import annotations

import base64
import json
import logging
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Protocol
from urllib.parse import urlsplit
from uuid import uuid4

import httpx

from starter.errors import (
    ApiError,
    ConfigError,
    OutcomeUnknownError,
    StarterError,
    UnavailableError,
)
from starter.models import StreamHandle, StreamRequest
from starter.tokens import StaticToken, token_from_file

TIMEOUT_SECONDS: Final = 5.0
WITHIN_MS: Final = 30_000
"""A stream that was written into the database is missing after this time."""
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_PATH: Final = "/api/v1/expectations"
_LONGEST_REASON: Final = 500
_DRIVERS: Final = MappingProxyType(
    {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg", "sqlite": "sqlite"}
)
_INSERT: Final = """
INSERT INTO expectations (id, call_sid, name, token_id, stream_sid, parameters, state, reason,
    asked_ms, due_ms, changed_ms, recording_id)
VALUES (:id, :call_sid, :name, :token_id, '', :parameters, 'asked', '', :now, :due, :now, '')
"""
_ANSWER: Final = """
UPDATE expectations SET stream_sid = :stream_sid, changed_ms = :now,
    state = CASE WHEN state = 'asked' THEN :state ELSE state END,
    reason = CASE WHEN state = 'asked' THEN :reason ELSE reason END,
    due_ms = CASE WHEN state = 'asked' THEN :due ELSE due_ms END
WHERE id = :id
"""

_log = logging.getLogger("starter.expectations")


class ExpectationStore(Protocol):
    """Where expectations are written."""

    def add(self, values: Mapping[str, Any]) -> str:
        """Write one, of the fields of the console's API; return its id."""
        ...

    def answer(self, expectation_id: str, values: Mapping[str, str]) -> None:
        """Write what the provider answered: `state`, `stream_sid`, `reason`."""
        ...


@dataclass(frozen=True, slots=True)
class ConsoleApi:
    """The API of a console; the token is one of `receiver user token`."""

    url: str
    token: StaticToken = field(repr=False)
    trust: ssl.SSLContext | None = field(default=None, repr=False)

    def add(self, values: Mapping[str, Any]) -> str:
        """Write one; return its id."""
        return str(self._ask("POST", _PATH, values)["id"])

    def answer(self, expectation_id: str, values: Mapping[str, str]) -> None:
        """Write what the provider answered."""
        self._ask("PATCH", f"{_PATH}/{expectation_id}", values)

    def _ask(self, method: str, path: str, values: Mapping[str, Any]) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.token.token}"}
        is_here = urlsplit(self.url).hostname in _LOOPBACK
        with httpx.Client(
            verify=self.trust or True, timeout=TIMEOUT_SECONDS, trust_env=not is_here
        ) as client:
            answer = client.request(method, self.url + path, json=dict(values), headers=headers)
        if not answer.is_success:
            raise ValueError(f"the console answered {answer.status_code}")
        found: dict[str, Any] = answer.json()
        return found


@dataclass(frozen=True, slots=True)
class CatalogueDatabase:
    """The catalogue's database, where it can be reached from here: SQLite or PostgreSQL."""

    url: str = field(repr=False)  # may hold a password

    def add(self, values: Mapping[str, Any]) -> str:
        """Write one; return its id."""
        expectation_id, now = f"exp_{uuid4().hex[:16]}", _now_ms()
        columns = {**values, "parameters": json.dumps(values["parameters"])}
        self._execute(
            _INSERT, {**columns, "id": expectation_id, "now": now, "due": now + WITHIN_MS}
        )
        return expectation_id

    def answer(self, expectation_id: str, values: Mapping[str, str]) -> None:
        """Write what the provider answered."""
        now = _now_ms()
        self._execute(_ANSWER, {**values, "id": expectation_id, "now": now, "due": now + WITHIN_MS})

    def _execute(self, statement: str, values: Mapping[str, Any]) -> None:
        import sqlalchemy as sa  # only here: whoever asks a console needs none of it

        url = sa.make_url(self.url)
        timeout = "timeout" if url.get_backend_name() == "sqlite" else "connect_timeout"
        engine = sa.create_engine(
            url.set(drivername=_DRIVERS[url.get_backend_name()]),
            connect_args={timeout: int(TIMEOUT_SECONDS)},
        )
        try:
            with engine.begin() as connection:
                connection.execute(sa.text(statement), dict(values))
        finally:
            engine.dispose()


@dataclass(slots=True)
class Announcement:
    """One expectation, from before the provider is asked until it has answered.

    Without a store, or where the store cannot be reached, nothing is written.
    """

    store: ExpectationStore | None
    _id: str | None = None

    def ask(self, sid: str, request: StreamRequest) -> None:
        """Write that a stream is about to be asked for."""
        if self.store is None:
            return
        try:
            self._id = self.store.add(
                {
                    "call_sid": sid,
                    "name": request.name or "",
                    "token_id": _token_id(request.bearer_token),
                    "parameters": dict(request.parameters),
                }
            )
        except Exception as error:  # whatever it is, the call is to be recorded
            _warn("the expectation is not written", error)

    def answered(self, handle: StreamHandle) -> None:
        """Write that the provider accepted it."""
        self._answer("accepted", stream_sid=handle.sid)

    def failed(self, error: StarterError) -> None:
        """Write why the provider does not send it; nothing where nobody knows whether it does."""
        if isinstance(error, OutcomeUnknownError):
            return
        is_refusal = isinstance(error, ApiError) and not isinstance(error, UnavailableError)
        self._answer("refused" if is_refusal else "failed", reason=str(error))

    def _answer(self, state: str, *, stream_sid: str = "", reason: str = "") -> None:
        if self.store is None or self._id is None:
            return
        values = {"state": state, "stream_sid": stream_sid, "reason": reason[:_LONGEST_REASON]}
        try:
            self.store.answer(self._id, values)
        except Exception as error:
            _warn("the provider's answer is not written to the expectation", error)


def store_of(
    url: str | None, token_file: str | None, ca_file: str | None, database_url: str | None
) -> ExpectationStore | None:
    """The store that is asked for, if one is. Raises ConfigError."""
    if url and database_url:
        raise ConfigError("choose one of --expect-url and --expect-database-url")
    if database_url:
        return CatalogueDatabase(_checked_database(database_url))
    if not url:
        return None
    if not token_file:
        raise ConfigError("--expect-url needs --expect-token-file: a token of the console's API")
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise ConfigError("--expect-url must be https; plain http is for this machine only")
    return ConsoleApi(url.rstrip("/"), token_from_file(Path(token_file)), _trust(ca_file))


def _trust(ca_file: str | None) -> ssl.SSLContext | None:
    try:
        return ssl.create_default_context(cafile=ca_file) if ca_file else None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{ca_file} holds no usable certificate") from error


def _checked_database(url: str) -> str:
    if url.partition(":")[0] not in _DRIVERS:
        raise ConfigError(
            "--expect-database-url must be postgresql://USER@HOST/NAME or sqlite:////PATH"
        )
    try:
        import sqlalchemy  # noqa: F401
    except ImportError as error:
        raise ConfigError("this needs an extra: pip install 'tapreel[catalogue]'") from error
    return url


def _token_id(token: str | None) -> str:
    """The id in a signed token; empty for any other one."""
    try:
        body = (token or "").split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return str(claims["jti"])
    except (ValueError, IndexError, KeyError, TypeError):
        return ""


def _warn(what: str, error: Exception) -> None:
    text = str(error).splitlines()[:1] or [type(error).__name__]
    _log.warning("%s: %s", what, text[0])


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
