"""One live call of another process, received through its tap and sent on to a consumer."""

from __future__ import annotations

import asyncio
import ssl

from receiver.errors import DialError, LineClosed, PeerError
from receiver.forwarding.relay import Consumer, ForwardOptions, Relay
from receiver.media import Chunk, MediaFormat
from receiver.tap.encoding.format import OutMessage
from receiver.tap.feed import Sink
from receiver.tap.hub import Unsubscribe
from receiver.tap.listener import DONE, NO_SUCH_STREAM
from receiver.transports.client import Line, dial
from receiver.wire import messages, parse
from receiver.wire.messages import Connected, Start


class RemoteSource:
    """Puts what comes over a tap's socket, in the provider's shape, into sinks."""

    def __init__(self, line: Line) -> None:
        self.call_sid = ""
        self._line = line
        self._sinks: tuple[Sink, ...] = ()
        self._opening: list[OutMessage] = []  # for sinks that are attached later
        self._media = MediaFormat()

    def attach(self, sink: Sink) -> Unsubscribe:
        """Start to fill a sink."""
        for item in self._opening:
            sink.put(item)
        self._sinks += (sink,)

        def detach() -> None:
            self._sinks = tuple(known for known in self._sinks if known is not sink)

        return detach

    async def wait_for_start(self) -> None:
        """Return when the stream has started.

        Raises:
            DialError: there is none.
        """
        while not self.call_sid:
            try:
                self._receive(await self._line.receive())
            except LineClosed as closed:
                status = 404 if closed.code == NO_SUCH_STREAM else None
                raise DialError(closed.reason or "the receiver is gone", status=status) from closed

    async def run(self) -> bool:
        """Receive the stream to its end; return false where the receiver broke off before it."""
        while True:
            try:
                self._receive(await self._line.receive())
            except LineClosed as closed:
                for sink in self._sinks:
                    sink.end()
                return closed.code == DONE

    def _receive(self, message: bytes | str) -> None:
        text = message if isinstance(message, str) else message.decode("utf-8", "replace")
        item = self._item(text)
        if item is not None:
            for sink in self._sinks:
                sink.put(item)

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
            self._opening.append(OutMessage(text))
        if isinstance(parsed, Start):
            self._media = parsed.media_format
            self.call_sid = parsed.call_sid or parsed.stream_sid or "-"
        return OutMessage(text)


async def carry_call(
    url: str, consumer: Consumer, options: ForwardOptions, *, token: str, trust: ssl.SSLContext
) -> None:
    """Carry one live call to a consumer until either has had enough.

    Raises:
        DialError: there is no such call, or the receiver refuses, or it broke off; or the
            consumer could not be reached when the call ended.
    """
    line = await dial(url, token=token, trust=trust)
    source = RemoteSource(line)
    try:
        await source.wait_for_start()
        relay = Relay(consumer, source.attach, options, call_sid=source.call_sid)
        relaying = asyncio.create_task(relay.run())
        receiving = asyncio.create_task(source.run())
        await asyncio.wait((relaying, receiving), return_when=asyncio.FIRST_COMPLETED)
        relay.stop()
        await relaying
        if receiving.done() and not receiving.result():
            raise DialError("the receiver broke off")
        if relay.trouble is not None:
            text = f"the consumer was not there at the end: {relay.trouble}"
            raise DialError(text, status=relay.trouble.status)
        receiving.cancel()
    finally:
        line.abort()
