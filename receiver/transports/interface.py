"""The seam between sockets and sessions: what a transport tells, and what it is told.

A transport accepts connections, asks the `Admission` about each request before it upgrades, and
hands every whole message to the `Peer` it was given. All of it is synchronous and on the
event loop.

A peer that records sends nothing: the other end gets control traffic of the protocol only. A
peer that serves a listener says `start_sending` once, in `opened`, and from then on sends
whole messages, as many as the socket takes: after a `send` that returns false it waits for its
`resume` to be called. So what a slow listener has not taken waits with its peer, who knows what
may be dropped, and not in the transport.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Protocol

TOO_MANY_SMALL_FRAMES: Final = 1008
FAILURES: Final = {
    1002: "the connection did not speak WebSocket",
    1007: "the reason of a close message was no text",
    TOO_MANY_SMALL_FRAMES: "too many units that carry next to nothing",
    1009: "a message was too long",
}
"""Why a transport itself closes a connection, by the code it closes with."""


@dataclass(frozen=True, slots=True)
class UpgradeRequest:
    """One HTTP request; only GET requests reach a gate."""

    method: str
    path: str  # without the query, as sent
    query: str  # without the question mark; empty where there is none
    authorization: tuple[str, ...]  # every value of that header; bytes above 127 as Latin-1
    remote_address: str  # without the port
    is_upgrade: bool = True  # to a WebSocket: an admitted one that is not is answered with 4xx

    def __repr__(self) -> str:
        """Leave out what may be a secret."""
        return f"<UpgradeRequest {self.method} {self.path!r} from {self.remote_address}>"


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A plain-text answer in place of an upgrade."""

    status: int
    body: str
    headers: tuple[tuple[str, str], ...] = ()


class Connection(Protocol):
    """One open socket, as far as its `Peer` may act on it."""

    @property
    def remote_address(self) -> str:
        """Return the other end's address, without the port."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Start the closing handshake and return at once; later calls do nothing.

        `reason` is cut to the 123 bytes that fit. Messages that are still on their way may be
        delivered. A peer that does not answer is cut after the close time-out; of one that goes
        on sending, `Limits.max_bytes_after_close` are read at most.
        """
        ...

    def abort(self) -> None:
        """Drop the socket; `closed` follows."""
        ...

    def start_sending(self, resume: Callable[[], None]) -> None:
        """Prepare the socket for messages of ours; called at most once, before the first `send`.

        `resume` is called, on the event loop, each time the socket takes more again after a
        `send` that returned false; never once the connection is closing. The transport keeps
        what it and the kernel buffer small (`Limits.send_buffer_bytes` each), so that the
        answer of `send` says soon whether the other end reads.
        """
        ...

    def send(self, message: bytes | str) -> bool:
        """Send one whole message, `str` as text and bytes as binary, and return at once.

        Returns whether the socket takes more now. The message itself is accepted also when the
        answer is false; it is dropped only where the connection is closing or gone, and the
        answer is false then too.
        """
        ...


class Peer(Protocol):
    """Takes what one accepted socket sends."""

    def opened(self, connection: Connection) -> None:
        """Learn that the upgrade is done. Never called where it failed."""
        ...

    def message_received(self, message: bytes) -> None:
        """Take one whole message; text comes as the bytes that were sent, unchecked."""
        ...

    def closed(self, *, code: int, clean: bool) -> None:
        """Learn that no more messages come; called once, and only after `opened`.

        `clean` says that the other end sent a close message, and `code` is its code; else
        `code` is the one we closed with (1011 an error of ours, one of `FAILURES`, or what
        `Connection.close` was given), or 1006 for a connection that broke.
        """
        ...


class UpgradePolicy(Protocol):
    """Decides who may open a stream."""

    def admit(self, request: UpgradeRequest) -> Decision | Coroutine[Any, Any, Decision]:
        """Return the peer that takes the messages, or the answer that refuses.

        Where that asks for a disk, what is returned has to be awaited; the handshake's time-out
        goes on, and cancels it. The peer is `opened` in the same turn of the event loop in which
        the decision is there: no other request comes between, so it can be counted then.
        """
        ...

    def count_refused(self, reason: str, remote_address: str) -> None:
        """Learn of a connection that ended before it was upgraded, but not by `admit`.

        `reason` is "crowded" (too many wait), "timeout", "too_large", "bad_request" (no HTTP,
        or no upgrade), "bad_method" or "tls_failed".
        """
        ...


Decision = HttpAnswer | Peer


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one socket may take of us."""

    max_message_bytes: int = 262_144
    handshake_timeout_seconds: float = 5  # from the first byte to the upgrade, and for TLS
    close_timeout_seconds: float = 5  # from the first close message to the end of the socket
    max_handshake_bytes: int = 131_072  # of the whole request
    max_pending: int = 256  # connections that nobody has admitted yet; then the oldest goes
    max_pending_per_address: int | None = 16  # `None`: no bound, as behind a proxy
    pong_delay_seconds: float = 0.5  # pings that come meanwhile share one pong
    send_buffer_bytes: int = 65_536  # of messages of ours, in the process and in the kernel
    max_bytes_after_close: int = 65_536  # that may still come when we have sent a close message
    max_burst_bytes: int = 16_777_216  # read without a pause ...
    bytes_per_second: int = 4_194_304  # ... and in the long run
    small_frame_bytes: int = 16  # control units, and fragments shorter than this, are small
    max_small_frames: int = (
        5_000  # that may come at once without large ones; then the connection is cut
    )
    small_frames_per_second: float = 500  # that may come in the long run
