"""The websockets library as a client: sockets that we open, to taps and to consumers."""

from __future__ import annotations

import random
import ssl
from typing import Final, Protocol

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from receiver.errors import ConfigurationError, DialError

OPEN_TIMEOUT_SECONDS: Final = 10.0
CLOSE_TIMEOUT_SECONDS: Final = 5.0
_BROKEN: Final = 1006
_LONGEST_ANSWER: Final = 200


class LineClosed(Exception):
    """The socket is closed; `code` is the other end's, or 1006 where it said nothing."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}".rstrip())
        self.code = code
        self.reason = reason


class Line(Protocol):
    """A socket that we opened."""

    async def send(self, message: bytes | str) -> None:
        """Send one message; waits while the other end does not read. Raises LineClosed."""
        ...

    async def receive(self) -> bytes | str:
        """Wait for one message. Raises LineClosed."""
        ...

    async def close(self) -> None:
        """Close it with 1000; idempotent."""
        ...

    def abort(self) -> None:
        """Drop it."""
        ...


class Backoff:
    """How long to wait before dialling again: longer each time, until a line has held."""

    def __init__(self, *, first_seconds: float, longest_seconds: float) -> None:
        self._first_seconds = first_seconds
        self._longest_seconds = longest_seconds
        self._seconds = first_seconds

    def next_seconds(self) -> float:
        """Return the next wait, at random: those cut off together should not return together."""
        seconds = self._seconds * random.uniform(0.5, 1)  # noqa: S311  no secret
        self._seconds = min(2 * self._seconds, self._longest_seconds)
        return seconds

    def note_held(self, seconds: float) -> None:
        """Learn how long a line held; one that breaks at once is no reason to begin anew."""
        if seconds >= self._longest_seconds:
            self._seconds = self._first_seconds


async def dial(url: str, *, token: str | None, trust: ssl.SSLContext | None = None) -> Line:
    """Open a socket; `trust` is for wss, by default the system's authorities.

    Raises:
        DialError: it cannot be reached, or it refuses.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        connection = await _Connect(
            url,
            ssl=(trust or True) if url.lower().startswith("wss:") else None,
            additional_headers=headers,
            compression=None,  # audio hardly shrinks
            proxy=None,
            open_timeout=OPEN_TIMEOUT_SECONDS,
            close_timeout=CLOSE_TIMEOUT_SECONDS,
            user_agent_header="tapreel",
        )
    except InvalidStatus as error:
        raise _refused(error) from error
    except ssl.SSLCertVerificationError as error:
        raise DialError(f"the certificate is not trusted: {error.verify_message}") from error
    except (OSError, WebSocketException, ValueError) as error:
        raise DialError(f"no connection: {str(error) or type(error).__name__}") from error
    return _Line(connection)


def trust_in(ca_file: str | None) -> ssl.SSLContext:
    """Return TLS settings that trust the system's authorities, or only those in `ca_file`.

    Raises:
        ConfigurationError: the file holds no certificate.
    """
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{ca_file} holds no usable certificate") from error


class _Connect(connect):
    """A connection that follows no redirect: the token is for the URL that was given."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Hand every refusal to the caller as it is."""
        return exc


def _refused(error: InvalidStatus) -> DialError:
    response = error.response
    text = response.body.decode("utf-8", "replace") if response.body else ""
    reason = " ".join(text[:_LONGEST_ANSWER].split()) or response.reason_phrase
    return DialError(f"refused with {response.status_code}: {reason}", status=response.status_code)


class _Line:
    """A websockets connection behind the seam."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def send(self, message: bytes | str) -> None:
        try:
            await self._connection.send(message)
        except ConnectionClosed as closed:
            raise _closed(closed) from closed

    async def receive(self) -> bytes | str:
        try:
            return await self._connection.recv()
        except ConnectionClosed as closed:
            raise _closed(closed) from closed

    async def close(self) -> None:
        await self._connection.close()

    def abort(self) -> None:
        self._connection.transport.abort()


def _closed(closed: ConnectionClosed) -> LineClosed:
    last = closed.rcvd
    return LineClosed(last.code, last.reason) if last else LineClosed(_BROKEN, "")
