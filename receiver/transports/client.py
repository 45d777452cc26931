"""WebSocket connections that we open, to taps and to consumers.

Kernels buffer minutes of audio unless they are limited, and then nobody knows that the other
end, or our own program, does not keep up. So the buffers of both directions are small, as those
of accepted connections are, and the queue rules of the tap hold behind them.

The library's pings are off: a pong waits behind audio, and says nothing about a peer that is
merely slow. Ours are marks in what we send: a pong shows how far the other end has read, however
much its kernel holds.

    sent      ... audio  ping "16384"  audio  ping "32768"  audio ...
    received                                  pong "16384"            so 16,384 bytes were read

Where more than `_MOST_UNREAD_BYTES` are unread, `send` returns false until half of that is read.
An end that answers no ping is judged by its socket alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol, cast

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.frames import Frame, Opcode
from websockets.protocol import Event, State
from websockets.uri import parse_uri

from receiver.errors import ConfigurationError, DialError, LineClosed
from receiver.transports.interface import Connection, Limits
from receiver.transports.tcp import prepare_dialling

OPEN_TIMEOUT_SECONDS: Final = 10.0
ANSWER_TIMEOUT_SECONDS: Final = 15.0
"""For a receiver to carry an order out; it takes at most 5 s for its disk, and asks others."""
_OK: Final = 200
CLOSE_TIMEOUT_SECONDS: Final = 10.0
"""From our close message to the end of the socket."""
FINAL_CLOSE_SECONDS: Final = 30.0
"""The same where nothing went wrong: it waits behind audio that may still be played."""
RECEIVE_BUFFER_BYTES: Final = 16_384
"""In the kernel: a second of samples at 8 kHz, and enough for ten if the way is 100 ms long."""
_SEND_BUFFER_BYTES: Final = Limits().send_buffer_bytes
_WAITING_MESSAGES: Final = 16
_MARK_BYTES: Final = 16_384
"""Between two pings: half a second of a forwarded call."""
_MOST_UNREAD_BYTES: Final = 131_072
"""That may be on their way to somebody who answers pings."""
_DONE: Final = 1000
_BROKEN: Final = 1006
_LONGEST_ANSWER: Final = 200


class Line(Connection, Protocol):
    """A socket that we opened: what is sent follows the rules of a `Connection`."""

    async def receive(self) -> bytes | str:
        """Wait for one message. Raises LineClosed."""
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

    def record_held(self, seconds: float) -> None:
        """Start again from the first wait, unless the line broke after too few `seconds`."""
        if seconds >= self._longest_seconds:
            self._seconds = self._first_seconds


async def dial(
    url: str,
    *,
    token: str | None,
    trust: ssl.SSLContext | None = None,
    receive_buffer_bytes: int = RECEIVE_BUFFER_BYTES,
) -> Line:
    """Open a socket; `trust` is for wss, by default the system's authorities.

    Raises:
        DialError: it cannot be reached, or it refuses.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        async with asyncio.timeout(OPEN_TIMEOUT_SECONDS):
            connection = await _Connect(
                url,
                ssl=(trust or True) if url.lower().startswith("wss:") else None,
                sock=await _connect_tcp(url, receive_buffer_bytes),
                additional_headers=headers,
                compression=None,  # audio hardly shrinks
                open_timeout=None,
                ping_interval=None,
                max_queue=_WAITING_MESSAGES,
                write_limit=_SEND_BUFFER_BYTES,
                user_agent_header="tapreel",
                create_connection=_ClientSocket,
            )
    except InvalidStatus as error:
        raise _refused(error) from error
    except ssl.SSLCertVerificationError as error:
        raise DialError(f"the certificate is not trusted: {error.verify_message}") from error
    except (OSError, WebSocketException, ValueError) as error:
        raise DialError(f"no connection: {str(error) or type(error).__name__}") from error
    return _Line(cast(_ClientSocket, connection))


async def give_order(
    url: str, order: dict[str, Any], *, token: str, trust: ssl.SSLContext | None = None
) -> dict[str, Any]:
    """Give a receiver one order, and return its answer.

    Args:
        url: of the receiver: scheme, host and port.
        order: `order` ("pause" or "resume"), `call_sid`, and what else the order has.
        token: a control token for it.
        trust: for wss; by default the system's authorities.

    Raises:
        DialError: the receiver cannot be reached, or refuses; `status` is why.
    """
    line = await dial(f"{url}/control", token=token, trust=trust)
    try:
        line.send(msgspec.json.encode(order).decode())
        async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
            answer: dict[str, Any] = msgspec.json.decode(await line.receive())
    except (LineClosed, TimeoutError, msgspec.DecodeError) as error:
        raise DialError(f"no answer: {str(error) or 'it took too long'}") from error
    finally:
        line.abort()
    if answer["status"] != _OK:
        raise DialError(str(answer.get("error", "refused")), status=answer["status"])
    return answer


def trust_in(ca_file: str | None) -> ssl.SSLContext:
    """Return TLS settings that trust the system's authorities, or only those in `ca_file`.

    Raises:
        ConfigurationError: the file holds no certificate.
    """
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{ca_file} holds no usable certificate") from error


def trust_only(certificate: Path) -> ssl.SSLContext:
    """Return TLS settings that trust this very certificate, whatever name it has.

    Raises:
        ConfigurationError: the file holds no certificate.
    """
    context = trust_in(str(certificate))
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it may be no authority's own
    return context


async def _connect_tcp(url: str, receive_buffer_bytes: int) -> socket.socket:
    """Return a connected socket with small buffers, of the first address that answers."""
    place = parse_uri(url)
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    problem: OSError = OSError("the name has no address")
    for family, kind, protocol, _, address in found:
        tcp = socket.socket(family, kind, protocol)
        try:
            prepare_dialling(
                tcp,
                receive_buffer_bytes=receive_buffer_bytes,
                send_buffer_bytes=_SEND_BUFFER_BYTES,
            )
            await loop.sock_connect(tcp, address)
        except OSError as error:
            tcp.close()
            problem = error
        except BaseException:
            tcp.close()
            raise
        else:
            return tcp
    raise problem


class _Connect(connect):
    """A connection that follows no redirect: the token is for the URL that was given."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Return every refusal as it is."""
        return exc


def _refused(error: InvalidStatus) -> DialError:
    response = error.response
    text = response.body.decode("utf-8", "replace") if response.body else ""
    reason = " ".join(text[:_LONGEST_ANSWER].split()) or response.reason_phrase
    return DialError(f"refused with {response.status_code}: {reason}", status=response.status_code)


class _ClientSocket(ClientConnection):
    """The library's connection, but `send_message` never waits: a callback says when to go on."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._resume: Callable[[], None] = lambda: None
        self._abort_timer: asyncio.TimerHandle | None = None
        self._sent_bytes = 0
        self._marked_bytes = 0  # up to the last ping
        self._read_bytes: int | None = None  # up to the last pong, if there ever was one
        self._held = False  # because too much is unread

    def start_sending(self, resume: Callable[[], None]) -> None:
        """Keep what is called when the socket takes more."""
        self._resume = resume

    def resume_writing(self) -> None:
        """Call back: the socket takes more."""
        super().resume_writing()
        self._resume_if_ready()

    def process_event(self, event: Event) -> None:
        """Process a frame; a pong to one of our pings shows what has been read."""
        super().process_event(event)
        if isinstance(event, Frame) and event.opcode is Opcode.PONG:
            with contextlib.suppress(ValueError):  # not one of ours
                self._read_bytes = min(int(event.data), self._marked_bytes)
                self._resume_if_ready()

    def _resume_if_ready(self) -> None:
        if self._can_send() and not self.paused and not self._is_ahead():
            self._held = False
            self._resume()

    def send_message(self, message: bytes | str) -> bool:
        """Write one message; return whether another one may follow now."""
        if not self._can_send():
            return False
        if isinstance(message, str):
            self.protocol.send_text(message.encode())
        else:
            self.protocol.send_binary(message)
        self._sent_bytes += len(message)
        if self._sent_bytes - self._marked_bytes >= _MARK_BYTES:
            self._marked_bytes = self._sent_bytes
            self.protocol.send_ping(str(self._sent_bytes).encode())
        self.send_data()
        self._held = self._held or self._is_ahead()
        return not (self.paused or self._held)

    def _is_ahead(self) -> bool:
        """Whether too much is unread; once held, until half of it has been read."""
        most = _MOST_UNREAD_BYTES // 2 if self._held else _MOST_UNREAD_BYTES
        return self._read_bytes is not None and self._sent_bytes - self._read_bytes > most

    def start_closing(self, code: int, reason: str) -> None:
        """Send a close message; whether it arrives or not, the socket ends in time."""
        if self._abort_timer is None:
            seconds = FINAL_CLOSE_SECONDS if code == _DONE else CLOSE_TIMEOUT_SECONDS
            self._abort_timer = self.loop.call_later(seconds, self.transport.abort)
        if self._can_send():
            self.protocol.send_close(code, reason)
            self.send_data()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the time-out."""
        super().connection_lost(exc)
        if self._abort_timer is not None:
            self._abort_timer.cancel()

    def _can_send(self) -> bool:
        return self.protocol.state is State.OPEN and not self.transport.is_closing()


class _Line:
    """A websockets connection behind the seam."""

    def __init__(self, library: _ClientSocket) -> None:
        self._library = library
        self.start_sending = library.start_sending
        self.send = library.send_message
        self.close = library.start_closing

    @property
    def remote_address(self) -> str:
        return str(self._library.remote_address[0])

    def unanswered_seconds(self, passed: float) -> float:
        return 0.0  # our own marks show whether the other end reads

    def abort(self) -> None:
        self._library.transport.abort()

    async def receive(self) -> bytes | str:
        try:
            return await self._library.recv()
        except ConnectionClosed as closed:
            raise _closed(closed) from closed


def _closed(closed: ConnectionClosed) -> LineClosed:
    last = closed.rcvd
    return LineClosed(last.code, last.reason) if last else LineClosed(_BROKEN, "")
