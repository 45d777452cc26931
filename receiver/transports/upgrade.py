"""One connection up to its upgrade: its request is read apart from all that comes behind it.

A client has to wait for the answer (RFC 6455, section 4.1), but not every one does: what an
admitted one has sent early is handed over with its connection, and what follows a refused
request is dropped.
"""

from __future__ import annotations

import asyncio
import http
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from receiver.transports import handshake
from receiver.transports.interface import Decision, HttpAnswer, Limits, Peer, UpgradePolicy
from receiver.transports.pending import PendingConnection

_END_OF_HEAD: Final = b"\r\n\r\n"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AcceptedUpgrade:
    """A connection that is to be upgraded; it has not been answered yet."""

    peer: Peer
    transport: Any  # of the event loop, or of a library that stands in for it
    key: str
    answer: bytes  # for adapters whose library does not give its own
    rest: bytes  # what came behind the request


@dataclass(slots=True)
class House:
    """What the doorways of one listener share."""

    gate: UpgradePolicy
    limits: Limits
    upgrade: Callable[[AcceptedUpgrade], None]
    left: Callable[[], None]  # called when a connection is no longer in a doorway
    doorways: set[UpgradeProtocol] = field(default_factory=set)


class UpgradeProtocol(asyncio.Protocol):
    """Reads one request, asks the gate, and answers or hands the connection over."""

    def __init__(self, house: House, waiting: PendingConnection) -> None:
        self._house = house
        self._waiting = waiting
        self._received = bytearray()
        self._end = 0  # of the request within it, once that is whole
        self._asked = False
        self._asking: asyncio.Task[None] | None = None  # the gate, where it takes its time
        self._answered = False

    def connection_made(self, transport: Any) -> None:
        """Start the clock."""
        self._transport = transport
        self._house.doorways.add(self)
        timeout = self._house.limits.handshake_timeout_seconds
        self._cut = asyncio.get_running_loop().call_later(timeout, self._time_out)

    def data_received(self, data: bytes) -> None:
        """Collect one request, of bounded length."""
        if self._answered:
            return  # what follows a refused request is for nobody
        searched = max(0, len(self._received) - len(_END_OF_HEAD))
        self._received += data
        if self._end:
            end = len(self._received)  # the gate still thinks about the request
        else:
            found = self._received.find(_END_OF_HEAD, searched)
            self._end = found + len(_END_OF_HEAD) if found >= 0 else 0
            end = self._end or len(self._received)
        if end > self._house.limits.max_handshake_bytes:
            self._waiting.turn_away("too_large")
            self.abort()
        elif self._end and not self._asked:
            self._asked = True
            self._ask(bytes(self._received[: self._end]))

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave, unless the connection was handed over."""
        if self._asking is not None:
            self._asking.cancel()
        self._leave()

    def abort(self) -> None:
        """Drop the socket."""
        self._transport.abort()

    def _time_out(self) -> None:
        self._waiting.turn_away("timeout")
        self.abort()

    def _ask(self, head: bytes) -> None:
        protocol = ServerProtocol()
        if handshake.OTHER_METHOD.match(head):
            self._waiting.turn_away("bad_method")
            self._refuse(handshake.method_refusal(protocol))
            return
        protocol.receive_data(head)
        request = next(iter(protocol.events_received()), None)
        if not isinstance(request, Request):
            self._waiting.turn_away("bad_request")
            self._answer(b"".join(protocol.data_to_send()))  # empty where it is no HTTP
            return
        try:
            decision = self._house.gate.admit(handshake.upgrade_request(request, self._address))
        except Exception as error:
            self._fail(protocol, error)
            return
        if isinstance(decision, Coroutine):
            self._asking = asyncio.create_task(self._wait(protocol, request, decision))
            # Where the connection is gone before the task's first turn, nobody awaits it.
            self._asking.add_done_callback(lambda _: decision.close())
        else:
            self._obey(protocol, request, decision)

    async def _wait(
        self, protocol: ServerProtocol, request: Request, deciding: Coroutine[Any, Any, Decision]
    ) -> None:
        """Wait for a decision, and act upon it before anything else can happen."""
        try:
            decision = await deciding
        except Exception as error:
            self._fail(protocol, error)
        else:
            self._obey(protocol, request, decision)

    def _obey(self, protocol: ServerProtocol, request: Request, decision: Decision) -> None:
        self._waiting.asked = True
        if isinstance(decision, HttpAnswer):
            self._refuse(handshake.refusal(protocol, decision))
            return
        response = protocol.accept(request)
        if response.status_code != http.HTTPStatus.SWITCHING_PROTOCOLS:
            self._house.gate.count_refused("bad_request", self._address)
            self._refuse(handshake.without_details(protocol, response))
            return
        self._leave()
        response.headers["Server"] = handshake.SERVER
        admitted = AcceptedUpgrade(
            decision,
            self._transport,
            key=request.headers["Sec-WebSocket-Key"],
            answer=response.serialize(),
            rest=bytes(self._received[self._end :]),
        )
        self._house.upgrade(admitted)

    def _fail(self, protocol: ServerProtocol, error: Exception) -> None:
        self._waiting.asked = True
        _log.error("the gate failed; a connection is refused", exc_info=error)
        status = http.HTTPStatus.INTERNAL_SERVER_ERROR
        self._refuse(protocol.reject(status, "internal error\n"))

    @property
    def _address(self) -> str:
        return handshake.address_of(self._transport.get_extra_info("peername"))

    def _refuse(self, response: Response) -> None:
        response.headers["Server"] = handshake.SERVER
        self._answer(response.serialize())

    def _answer(self, answer: bytes) -> None:
        """Answer, and wait for the other end to hang up: a body may still be on its way."""
        self._answered = True
        if answer:
            self._transport.write(answer)
        if answer and self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def _leave(self) -> None:
        self._cut.cancel()
        self._waiting.leave()
        self._house.doorways.discard(self)
        self._house.left()
