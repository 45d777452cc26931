"""One live call of another process, heard through its tap and sent on to a consumer."""

from __future__ import annotations

import asyncio
import ssl
from typing import Final

from receiver.errors import DialError, LineClosed, PeerError
from receiver.forwarding.relay import Consumer, ForwardOptions, Relay
from receiver.media import Chunk, MediaFormat
from receiver.tap.feed import Sink
from receiver.tap.hub import Unsubscribe
from receiver.tap.queue import OutMessage
from receiver.transports.client import Line, dial
from receiver.wire import messages, parse
from receiver.wire.messages import Connected, Start

_DONE: Final = 1000
_NO_SUCH_STREAM: Final = 4404


class RemoteSource:
    """Gives what comes over a tap's socket, in the provider's shape, to outlets."""

    def __init__(self, line: Line) -> None:
        self.call_sid = ""
        self._line = line
        self._outlets: tuple[Sink, ...] = ()
        self._head: list[OutMessage] = []  # connected and start, for those who join later
        self._media = MediaFormat()

    def attach(self, outlet: Sink) -> Unsubscribe:
        """Begin to fill an outlet."""
        for item in self._head:
            outlet.put(item)
        self._outlets += (outlet,)

        def leave() -> None:
            self._outlets = tuple(known for known in self._outlets if known is not outlet)

        return leave

    async def hear_start(self) -> None:
        """Wait for the stream to begin.

        Raises:
            DialError: there is none.
        """
        while not self.call_sid:
            try:
                self._take(await self._line.receive())
            except LineClosed as closed:
                status = 404 if closed.code == _NO_SUCH_STREAM else None
                raise DialError(closed.reason or "the receiver is gone", status=status) from closed

    async def run(self) -> bool:
        """Hear the stream to its end; false where the receiver broke off before it."""
        while True:
            try:
                self._take(await self._line.receive())
            except LineClosed as closed:
                for outlet in self._outlets:
                    outlet.end()
                return closed.code == _DONE

    def _take(self, message: bytes | str) -> None:
        text = message if isinstance(message, str) else message.decode("utf-8", "replace")
        item = self._item(text)
        if item is not None:
            for outlet in self._outlets:
                outlet.put(item)

    def _item(self, text: str) -> OutMessage | None:
        """Return what is to be sent on; a tap's own notices are not the provider's."""
        try:
            parsed = parse.parse(text.encode())
        except PeerError:
            return None
        if isinstance(parsed, Chunk):
            length_ms = len(parsed.payload) / self._media.bytes_per_ms
            return OutMessage(text, parsed.track.value, parsed.timestamp_ms or 0, length_ms)
        if isinstance(parsed, messages.Unknown) and parsed.event == "gap":
            return None
        if isinstance(parsed, Connected | Start):
            self._head.append(OutMessage(text))
        if isinstance(parsed, Start):
            self._media = parsed.media_format
            self.call_sid = parsed.call_sid or parsed.stream_sid or "-"
        return OutMessage(text)


async def carry_call(
    source: str, consumer: Consumer, way: ForwardOptions, *, token: str, trust: ssl.SSLContext
) -> None:
    """Carry one live call to a consumer until either has had enough.

    Raises:
        DialError: there is no such call, or the receiver refuses, or it broke off; or the
            consumer could not be reached when the call ended.
    """
    line = await dial(source, token=token, trust=trust)
    feed = RemoteSource(line)
    try:
        await feed.hear_start()
        relay = Relay(consumer, feed.attach, way, call_sid=feed.call_sid)
        relaying = asyncio.create_task(relay.run())
        hearing = asyncio.create_task(feed.run())
        await asyncio.wait((relaying, hearing), return_when=asyncio.FIRST_COMPLETED)
        relay.stop()
        await relaying
        if hearing.done() and not hearing.result():
            raise DialError("the receiver broke off")
        if relay.trouble is not None:
            text = f"the consumer was not there at the end: {relay.trouble}"
            raise DialError(text, status=relay.trouble.status)
        hearing.cancel()
    finally:
        line.abort()
