"""Sends one script to a receiver over a WebSocket, each message at its time."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import struct
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.frames import Close

from starter.errors import ConfigError, RefusedError, StarterError, UnreachableError, error_class
from starter.simulator.script import Delivery, Plan, Step, write_script
from starter.simulator.stream_info import Identity

OPEN_TIMEOUT_SECONDS: Final = 10.0
CLOSE_TIMEOUT_SECONDS: Final = 5.0
_START_SEQUENCE: Final = 1  # a call that ends at once still has a start message
_BURST: Final = 32  # messages sent at full speed before other tasks run
_POLICY_VIOLATION: Final = 1008
_REGULAR_CODES: Final = (1000, 1001, 1005)  # done, going away, no code given

# the library's debug log prints the headers of the upgrade, and with them the token
_wire_log = logging.getLogger("starter.simulator.wire")
_wire_log.addFilter(lambda record: record.levelno > logging.DEBUG)


class Ending(Enum):
    """How the connection goes down after the last message."""

    CLOSE = auto()  # the WebSocket closing handshake
    RESET = auto()  # a TCP reset, as when a machine dies


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """How to reach the receiver: `speed` 1.0 is real time, 0 as fast as possible."""

    url: str
    ssl_context: ssl.SSLContext | None = None
    speed: float = 1.0
    ending: Ending = Ending.CLOSE


@dataclass(frozen=True, slots=True)
class CallReport:
    """What was sent: chunks by track and delivery, and messages that came back (none should)."""

    identity: Identity
    tracks: tuple[str, ...]
    chunks: Counter[tuple[str, Delivery]] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)

    def count(self, track: str) -> dict[str, int]:
        """Chunks of one track: different ones sent, and lost, doubled and reordered ones."""
        on_time, late = self.chunks[track, Delivery.SENT], self.chunks[track, Delivery.REORDERED]
        return {
            "sent": on_time + late,
            "lost": self.chunks[track, Delivery.LOST],
            "duplicated": self.chunks[track, Delivery.DUPLICATED],
            "reordered": late,
        }


class Player:
    """One call being sent; `stop` ends it early, with everything a regular end has."""

    def __init__(
        self, identity: Identity, plan: Plan, line: Line, *, bearer_token: str | None = None
    ) -> None:
        names = tuple(track.track for track in plan.tracks)
        self.report = CallReport(identity, names)
        self._plan = plan
        self._line = line
        self._bearer_token = bearer_token
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        """Hang up: of the call only its end is still sent."""
        self._stopped.set()

    async def play(self, *, on_open: Callable[[], None] = lambda: None) -> CallReport:
        """Send the whole call and return what was sent; `on_open` runs once the line is up.

        Raises UnreachableError, or an ApiError with the receiver's refusal.
        """
        connection = await self._connect()
        on_open()
        listening = asyncio.create_task(self._listen(connection))
        try:
            await self._send_call(connection)
        except ConnectionClosed as error:
            raise _closed(error.rcvd) from error
        finally:
            await connection.close()
            await listening
        # at full speed everything may be gone before the receiver's refusal is here
        close = connection.protocol.close_rcvd
        if close is not None and close.code not in _REGULAR_CODES:
            raise _closed(close)
        return self.report

    async def _connect(self) -> ClientConnection:
        line = self._line
        token = self._bearer_token
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        try:
            return await _Connect(
                line.url,
                ssl=line.ssl_context,
                additional_headers=headers,
                logger=_wire_log,
                compression=None,  # as the provider: audio hardly shrinks
                proxy=None,
                open_timeout=OPEN_TIMEOUT_SECONDS,
                close_timeout=CLOSE_TIMEOUT_SECONDS,
            )
        except InvalidStatus as error:
            raise _refused(error) from error
        except (OSError, WebSocketException, ValueError) as error:
            raise _unreachable(error, line.url) from error

    async def _send_call(self, connection: ClientConnection) -> None:
        started_at = asyncio.get_running_loop().time()
        sequence = 0
        for number, step in enumerate(write_script(self._plan)):
            await self._until(started_at, step, number)
            if self._stopped.is_set() and step.sequence > _START_SEQUENCE:
                break
            sequence = max(sequence, step.sequence)
            if step.delivery is not Delivery.LOST:
                await connection.send(step.message, text=True)
            if step.track is not None:
                self.report.chunks[step.track, step.delivery] += 1
        await self._hang_up(connection, sequence + 1)

    async def _until(self, started_at: float, step: Step, number: int) -> None:
        """Wait for the step's own time; being late once does not make the rest late."""
        if not self._line.speed:
            if number % _BURST == 0:
                await asyncio.sleep(0)
            return
        due = started_at + step.at_ms / 1000 / self._line.speed
        if due > asyncio.get_running_loop().time():
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._stopped.wait()

    async def _hang_up(self, connection: ClientConnection, sequence: int) -> None:
        if self._line.ending is Ending.RESET:
            # A reset may throw away what the peer has not read yet: wait for its pong first,
            # so that what is reported as sent has arrived.
            await (await connection.ping())
            _reset(connection)
        elif self._plan.with_stop:
            await connection.send(self._plan.dialect.stop(sequence), text=True)

    async def _listen(self, connection: ClientConnection) -> None:
        """Read and count what comes back, or pings and the closing would be left unread."""
        with suppress(ConnectionClosed):
            async for _ in connection:
                self.report.answers["messages"] += 1


class _Connect(connect):
    """A connection that follows no redirect: the token is for the URL that was given."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Return every refusal to the caller as it is."""
        return exc


def tls_context(ca_file: str | None, *, insecure: bool) -> ssl.SSLContext:
    """TLS towards the receiver: system authorities, or only those in `ca_file`, or unchecked.

    Raises ConfigError if the file cannot be read or holds no certificate.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except ssl.SSLError as error:
        raise ConfigError(f"{ca_file} holds no usable certificate") from error
    except OSError as error:
        raise ConfigError(f"{ca_file} cannot be read: {error.strerror}") from error
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _reset(connection: ClientConnection) -> None:
    tcp: socket.socket = connection.transport.get_extra_info("socket")
    linger_on_for_0_seconds = struct.pack("ii", 1, 0)
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_on_for_0_seconds)
    connection.transport.abort()


def _refused(error: InvalidStatus) -> StarterError:
    status = error.response.status_code
    reason = error.response.reason_phrase or "no reason given"
    return error_class(status)(f"the receiver refused the stream: {reason}", status=status)


def _unreachable(error: Exception, url: str) -> StarterError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return UnreachableError(f"the certificate of {url} is not trusted: {error.verify_message}")
    reason = str(error) or type(error).__name__
    return UnreachableError(f"no stream to {url}: {reason}")


def _closed(close: Close | None) -> StarterError:
    if close is None:
        return UnreachableError("the receiver broke the connection")
    text = f"the receiver closed the stream: {close.code} {close.reason}".rstrip()
    if close.code == _POLICY_VIOLATION:
        return RefusedError(text, status=None)
    return UnreachableError(text)
