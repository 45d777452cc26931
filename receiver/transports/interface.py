"""The seam between sockets and sessions: what a transport calls, and what it offers.

A transport accepts connections, asks its `UpgradePolicy` about each request before it upgrades,
and hands every whole message of an accepted connection to the `Peer` that the policy returned.

**Who calls, in which thread.** Everything here runs on the event loop's thread, in callbacks of
the loop. A transport calls `UpgradePolicy` and `Peer`; a peer calls its `Connection`, also from
within a callback. Nothing but `UpgradePolicy.admit` may be awaited.

**What must never happen.**

- A peer that waits: while `message_received` runs, no other socket is read.
- A call to a peer before `opened` or after `closed`, or a second one of either.
- Another request decided about between a decision and `opened`: a policy counts its streams.
- Anything sent to a peer that records but control frames, or a pong written while the kernel
  still holds data of that connection: a write to a socket that was reset loses it.
- Messages kept in the transport for a peer that sends: what a slow listener has not read waits
  with its peer, which knows what may be dropped.
- An error of one peer that ends another connection: it is logged, and closes its own with 1011.

A peer that serves a listener calls `start_sending` once, in `opened`, and from then on sends
whole messages, as many as the socket takes: after a `send` that returns false it waits for its
`resume` to be called.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Any, Final, Protocol

TOO_MANY_SMALL_FRAMES: Final = 1008
FAILURES: Final = {
    1002: "the connection did not speak WebSocket",
    1007: "the reason of a close message was no text",
    TOO_MANY_SMALL_FRAMES: "too many frames that carry next to nothing",
    1009: "a message was too long",
}
"""Why a transport itself closes a connection, by the code it closes with (RFC 6455, 7.4.1)."""


@dataclass(frozen=True, slots=True)
class UpgradeRequest:
    """One HTTP request; only GET and HEAD reach a policy, and HEAD is never an upgrade."""

    method: str
    path: str  # without the query, as sent
    query: str  # without the question mark; empty where there is none
    authorization: tuple[str, ...]  # every value of that header; bytes above 127 as Latin-1
    remote_address: str  # the caller's, without the port; as a trusted proxy says
    no_upgrade: HttpAnswer | None = None  # to one that is admitted, but no upgrade: what is wrong

    @property
    def is_upgrade(self) -> bool:
        """Whether this asks for a WebSocket."""
        return self.no_upgrade is None

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
    """One open connection, as far as its `Peer` may act on it."""

    @property
    def remote_address(self) -> str:
        """Return the other end's address, without the port; a proxy's, where there is one."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Start the closing handshake and return at once; later calls do nothing.

        Messages that are still on their way may be delivered. The socket is dropped where the
        other end does not answer within `Limits.close_timeout_seconds`; of one that goes on
        sending, `Limits.max_bytes_after_close` are read at most.

        Args:
            code: a close code of RFC 6455, section 7.4.
            reason: cut to the 123 bytes that fit.
        """
        ...

    def abort(self) -> None:
        """Drop the socket; `closed` follows."""
        ...

    def unanswered_seconds(self, passed: float) -> float:
        """Return for how long the other end has given no sign of life although it was asked.

        An other end that is silent for `Limits.ping_seconds` is pinged, and again after as long.
        Whatever it sends is a sign of life, a pong too, and so is that its TCP acknowledges a
        ping.

        Args:
            passed: seconds since the last call of this method. Time in which this process did
                not run itself must not be counted.
        """
        ...

    def start_sending(self, resume: Callable[[], None]) -> None:
        """Prepare the socket for messages of ours; called at most once, before the first `send`.

        The transport keeps what it and the kernel buffer small (`Limits.send_buffer_bytes`
        each), so that `send` soon shows whether the other end reads.

        Args:
            resume: called, on the event loop, each time the socket takes more again after a
                `send` that returned false; never once the connection is closing.
        """
        ...

    def send(self, message: bytes | str) -> bool:
        """Send one whole message, `str` as text and bytes as binary, and return at once.

        Returns:
            Whether the socket takes more now. The message itself is accepted also where it does
            not; it is dropped only where the connection is closing or gone.
        """
        ...


class Peer(Protocol):
    """Receives what one accepted connection brings."""

    def opened(self, connection: Connection) -> None:
        """Start: the upgrade is done. Never called where it failed."""
        ...

    def message_received(self, message: bytes) -> None:
        """Process one whole message; text comes as the bytes that were sent, unchecked."""
        ...

    def closed(self, *, code: int, clean: bool) -> None:
        """End: no more messages come. Called once, and only after `opened`.

        Args:
            clean: whether the other end sent a close message.
            code: the code of that message; else the one we closed with (1011 for an error of
                ours, one of `FAILURES`, or what `Connection.close` was given); else 1006, for a
                connection that broke.
        """
        ...


class UpgradePolicy(Protocol):
    """Decides about requests: who may open a connection, and who receives its messages."""

    def admit(self, request: UpgradeRequest) -> Decision | Coroutine[Any, Any, Decision]:
        """Return the peer that receives the messages, or the answer that refuses.

        Where that asks for a disk, a coroutine is returned, to be awaited. The handshake's
        time-out goes on and cancels it. The peer is `opened` in the same turn of the event loop
        in which the decision is there: no other request comes between, so it can be counted then.
        """
        ...

    def count_refused(self, reason: str, remote_address: str, detail: str = "") -> None:
        """Count a connection that ended before its upgrade, but not by a decision of `admit`.

        Args:
            reason: "crowded" (too many are pending), "timeout", "too_large", "bad_request" (no
                HTTP, or no upgrade), "bad_method" or "tls_failed".
            remote_address: without the port.
            detail: what was wrong, in words of ours; empty where the reason says all.
        """
        ...


Decision = HttpAnswer | Peer


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one connection, and all that are pending, may cost."""

    max_message_bytes: int = 262_144
    handshake_timeout_seconds: float = 5  # from the first byte to the upgrade, and for TLS
    close_timeout_seconds: float = 5  # from the first close message to the end of the socket
    max_handshake_bytes: int = 131_072  # of the request, and of what comes before it is answered
    max_pending: int = 256  # connections not yet upgraded or refused; then the oldest is dropped
    max_pending_per_address: int | None = 16  # `None`: no bound, as behind a proxy
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()  # they say who calls
    pong_delay_seconds: float = 0.5  # pings that come meanwhile share one pong
    ping_seconds: float = 25  # of silence, on a connection whose peer asks `unanswered_seconds`
    send_buffer_bytes: int = 65_536  # of messages of ours, in the process and in the kernel
    max_bytes_after_close: int = 65_536  # that may still come when we have sent a close message
    max_burst_bytes: int = 16_777_216  # read without a pause ...
    bytes_per_second: int = 4_194_304  # ... and in the long run
    small_frame_bytes: int = 16  # control frames, and fragments shorter than this, are small
    max_small_frames: int = 5_000  # at once, without large ones; then the connection is closed ...
    small_frames_per_second: float = 500  # ... and in the long run
