"""Conformance to the seam: what `interface.py` promises, with TLS and without, on real sockets."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import re
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trustme

from receiver.errors import ConfigurationError
from receiver.transports.interface import Connection, Limits, UpgradeRequest
from receiver.transports.listener import SocketListener, listen
from tests.bounds import at_most
from tests.receiver.helpers.wire import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Caller,
    KeepingPeer,
    KeepingPolicy,
    call,
    fill_and_reset,
    frame,
    request,
    send_and_reset,
    unacknowledged,
    upgraded,
    vanish,
)

pytestmark = pytest.mark.integration

AUTHORITY = trustme.CA()
LIMITS = Limits(max_message_bytes=2048, close_timeout_seconds=0.2, pong_delay_seconds=0.05)
PATIENT = replace(LIMITS, close_timeout_seconds=20)


@dataclass
class Running:
    """A listener under test."""

    listener: SocketListener
    policy: KeepingPolicy
    client_context: ssl.SSLContext | None

    async def caller(self) -> Caller:
        """Connect to it."""
        return await call(self.listener.port, self.client_context)

    async def stream(self) -> tuple[Caller, KeepingPeer]:
        """Open a stream."""
        caller = await self.caller()
        assert (await caller.upgrade()).startswith(b"HTTP/1.1 101 ")
        peer = self.policy.peers[-1]
        await peer.was_opened.wait()
        return caller, peer


Start = Callable[..., AbstractAsyncContextManager[Running]]


@functools.cache
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return what servers and clients use; made once, since a client's takes 40 ms."""
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    AUTHORITY.issue_cert("localhost").configure_cert(server)
    AUTHORITY.configure_trust(client)
    return server, client


@pytest.fixture(params=["plain", "tls"])
def start(request: pytest.FixtureRequest) -> Start:
    """Return what starts a listener."""
    server_context, client_context = contexts() if request.param == "tls" else (None, None)

    @asynccontextmanager
    async def running(
        policy: KeepingPolicy | None = None, limits: Limits = LIMITS
    ) -> AsyncIterator[Running]:
        policy = policy or KeepingPolicy()
        listener = await listen(
            policy, host="127.0.0.1", port=0, ssl_context=server_context, limits=limits
        )
        try:
            yield Running(listener, policy, client_context)
        finally:
            await listener.close()

    return running


@pytest.fixture
async def running(start: Start) -> AsyncIterator[Running]:
    """A listener with the limits of this module."""
    async with start() as started:
        yield started


def errors(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return what was logged as an error; asyncio's debug mode may warn of slow steps besides."""
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


# Messages.


async def test_messages_arrive_whole_and_in_order(running: Running) -> None:
    """Text, binary and fragmented messages arrive as bytes, in the order sent."""
    caller, peer = await running.stream()
    caller.writer.write(frame(TEXT, b'{"a":1}') + frame(BINARY, b"\x00\xff") + frame(TEXT, b""))
    caller.writer.write(frame(TEXT, b"one ", final=False))
    caller.writer.write(frame(CONTINUATION, b"two ", final=False) + frame(PING))
    caller.writer.write(frame(CONTINUATION, b"three") + frame(CLOSE, struct.pack(">H", 1000)))
    await peer.was_closed.wait()
    await caller.leave()
    assert [b'{"a":1}', b"\x00\xff", b"", b"one two three"] == peer.messages
    assert [(1000, True)] == peer.ends
    assert all(type(message) is bytes for message in peer.messages)


async def test_text_is_not_decoded(running: Running) -> None:
    """Bytes that are not UTF-8 are the messages' business, not the transport's."""
    caller, peer = await running.stream()
    caller.writer.write(frame(TEXT, b"\xff\xfe") + frame(TEXT, b"next") + frame(CLOSE))
    await peer.was_closed.wait()
    await caller.leave()
    assert [b"\xff\xfe", b"next"] == peer.messages
    assert [(1005, True)] == peer.ends


async def test_messages_sent_with_the_request_are_kept(running: Running) -> None:
    """A sender that does not wait for the answer loses nothing."""
    caller = await running.caller()
    caller.writer.write(request() + frame(TEXT, b"early") + frame(TEXT, b"late"))
    await running.policy.admitted.wait()
    peer = running.policy.peers[0]
    await peer.was_opened.wait()
    caller.writer.write(frame(TEXT, b"later") + frame(CLOSE))
    await peer.was_closed.wait()
    await caller.leave()
    assert [b"early", b"late", b"later"] == peer.messages


async def test_a_message_of_the_limit_arrives(running: Running) -> None:
    """The limit itself is allowed."""
    caller, peer = await running.stream()
    caller.writer.write(frame(TEXT, b"x" * 2048) + frame(CLOSE))
    await peer.was_closed.wait()
    await caller.leave()
    assert [b"x" * 2048] == peer.messages


@pytest.mark.parametrize("in_fragments", [False, True])
async def test_an_oversized_message_ends_with_1009(running: Running, in_fragments: bool) -> None:
    """What came before an oversized message is kept; the peer gets 1009."""
    caller, peer = await running.stream()
    sent = frame(TEXT, b"before")
    if in_fragments:
        sent += frame(TEXT, b"x" * 2000, final=False) + frame(CONTINUATION, b"x" * 49)
    else:
        sent += frame(TEXT, b"x" * 2049)
    answer = await caller.exchange(sent)
    await peer.was_closed.wait()
    assert b"\x88" + struct.pack(">H", 1009) == answer[:1] + answer[2:4]
    assert [b"before"] == peer.messages
    assert [(1009, False)] == peer.ends


async def test_a_protocol_error_ends_with_1002(running: Running) -> None:
    """Bytes that are no WebSocket close the connection; what came before is kept."""
    caller, peer = await running.stream()
    await caller.exchange(frame(TEXT, b"before") + b"\xff" * 20)
    await peer.was_closed.wait()
    assert [b"before"] == peer.messages
    assert [(1002, False)] == peer.ends


async def test_end_of_socket_without_close(running: Running) -> None:
    """A socket that just ends gives 1006, after every message."""
    caller, peer = await running.stream()
    caller.writer.write(b"".join(frame(TEXT, b"%d" % n) for n in range(500)))
    await caller.leave()
    await peer.was_closed.wait()
    assert [b"%d" % n for n in range(500)] == peer.messages
    assert [(1006, False)] == peer.ends


@pytest.mark.parametrize("pings", [False, True])
async def test_all_that_arrived_before_a_reset_is_kept(pings: bool) -> None:
    """A burst of 3000 messages, with pings among them, then a reset: all 3000 arrive."""
    policy = KeepingPolicy()
    listener = await listen(
        policy, host="127.0.0.1", port=0, ssl_context=None, limits=Limits(pong_delay_seconds=0.2)
    )
    sent = [b"%04d" % n + b"x" * 320 for n in range(3000)]
    burst = [frame(TEXT, message) for message in sent]
    if pings:
        burst = [part for each in burst for part in (each, frame(PING, b"?"))]
    await asyncio.to_thread(send_and_reset, listener.port, burst)
    await policy.peers[0].was_closed.wait()
    await listener.close()
    assert sent == policy.peers[0].messages
    assert [(1006, False)] == policy.peers[0].ends


async def test_what_the_kernel_holds_at_a_reset_is_kept() -> None:
    """We were busy meanwhile, and it is more than is read at once; the end comes right behind."""
    policy = KeepingPolicy()
    listener = await listen(
        policy, host="127.0.0.1", port=0, ssl_context=None, limits=Limits(pong_delay_seconds=0.2)
    )
    sender = await asyncio.to_thread(upgraded, listener.port)
    arrived = fill_and_reset(sender, frame(TEXT, b"x" * 320))  # the event loop waits for this
    await policy.peers[0].was_closed.wait()
    await listener.close()
    assert 0 < arrived <= len(policy.peers[0].messages)
    assert {b"x" * 320} == set(policy.peers[0].messages)
    assert [(1006, False)] == policy.peers[0].ends


async def test_pings_are_answered_with_one_pong(running: Running) -> None:
    """The most recent of several pings is answered."""
    caller, peer = await running.stream()
    caller.writer.write(frame(PING, b"one") + frame(PING, b"two"))
    assert b"\x8a\x03two" == await caller.reader.readexactly(5)
    caller.writer.write(frame(PING, b"six"))
    assert b"\x8a\x03six" == await caller.reader.readexactly(5)
    await caller.leave()
    await peer.was_closed.wait()
    assert [] == peer.messages


async def test_a_silent_end_is_pinged_and_lives(start: Start) -> None:
    """Its TCP acknowledges the ping, also where no pong follows."""
    async with start(limits=replace(LIMITS, ping_seconds=2)) as running:
        caller, peer = await running.stream()
        assert peer.connection is not None
        for _ in range(3):
            for _ in range(2):
                assert 0 == peer.connection.unanswered_seconds(1.0)
            assert b"\x89\x00" == await caller.reader.readexactly(2)
            async with asyncio.timeout(at_most(10)):
                while peer.connection.unanswered_seconds(0.001):  # noqa: ASYNC110  the kernel's turn
                    await asyncio.sleep(0)
        await caller.leave()
        await peer.was_closed.wait()


async def test_one_that_talks_is_not_pinged(start: Start) -> None:
    """Nothing is written that need not be."""
    async with start(limits=replace(LIMITS, ping_seconds=2)) as running:
        caller, peer = await running.stream()
        assert peer.connection is not None
        for count in range(1, 5):
            caller.writer.write(frame(TEXT, b"x"))
            async with asyncio.timeout(at_most(10)):
                while len(peer.messages) < count:  # noqa: ASYNC110  no event for one message
                    await asyncio.sleep(0)
            assert 0 == peer.connection.unanswered_seconds(1.0)
        answer = await caller.exchange(frame(CLOSE))
        assert b"\x88\x00" == answer


@pytest.mark.needs("root")
async def test_an_end_that_has_vanished_does_not_answer(start: Start) -> None:
    """Neither by a pong nor by TCP, and the seconds add up from the first ping on."""
    async with start(limits=replace(LIMITS, ping_seconds=2)) as running:
        caller, peer = await running.stream()
        assert peer.connection is not None
        vanish(caller.writer.get_extra_info("socket"))
        seconds = [peer.connection.unanswered_seconds(1.0) for _ in range(7)]
        assert [0, 0, 1, 2, 3, 4, 5] == seconds
        peer.connection.abort()
        await peer.was_closed.wait()
        caller.writer.transport.abort()


async def test_what_was_not_read_yet_is_a_sign_of_life(start: Start) -> None:
    """And nothing is written that could lose it."""
    async with start(limits=replace(LIMITS, ping_seconds=2)) as running:
        caller, peer = await running.stream()
        assert peer.connection is not None
        assert 0 == peer.connection.unanswered_seconds(1.0)
        tcp = caller.writer.get_extra_info("socket")
        caller.writer.write(frame(TEXT, b"waits"))
        while unacknowledged(tcp):
            pass
        assert [0, 0] == [peer.connection.unanswered_seconds(1.0) for _ in range(2)]
        assert b"\x88\x00" == await caller.exchange(frame(CLOSE))
        assert [b"waits"] == peer.messages


async def test_a_pong_waits_while_much_is_arriving(start: Start) -> None:
    """While reads are large there is more in the kernel, and a write could lose it."""
    async with start(limits=Limits(pong_delay_seconds=0.01)) as running:
        caller, peer = await running.stream()
        large = frame(TEXT, b"x" * 200_000)
        for _ in range(20):
            caller.writer.write(frame(PING, b"one") + large)
            await caller.writer.drain()
        caller.writer.write(frame(PING, b"two"))
        seen = b""
        while not seen.endswith(b"\x8a\x03two"):
            seen += await caller.reader.readexactly(5)
        await caller.leave()
        await peer.was_closed.wait()
        assert 20 == len(peer.messages)


async def test_a_pong_follows_when_nothing_more_arrives(start: Start) -> None:
    """A large read with nothing behind it does not hold the pong back for good."""
    async with start(limits=Limits(pong_delay_seconds=0.01)) as running:
        caller, peer = await running.stream()
        caller.writer.write(frame(TEXT, b"x" * 200_000) + frame(PING, b"one"))
        assert b"\x8a\x03one" == await caller.reader.readexactly(5)
        await caller.leave()
        await peer.was_closed.wait()


@pytest.mark.parametrize("kind", ["pings", "pongs", "one message", "small messages"])
async def test_too_many_small_frames_end_with_1008(start: Start, kind: str) -> None:
    """They would keep the event loop from all others; what came before is kept."""
    begun, ended = frame(TEXT, b"{", final=False), frame(CONTINUATION, b"}")
    beginning, each = {
        "pings": (b"", frame(PING)),
        "pongs": (b"", frame(PONG, b"x" * 100)),
        "one message": (begun, frame(CONTINUATION, final=False)),
        "small messages": (b"", begun + ended),
    }[kind]
    limits = replace(LIMITS, max_small_frames=100, small_frames_per_second=0)
    async with start(limits=limits) as running:
        caller, peer = await running.stream()
        answer = await caller.exchange(frame(TEXT, b"before") + beginning + each * 1000)
        await peer.was_closed.wait()
        close = answer[answer.index(b"\x88") :]  # a pong may come before it
        assert struct.pack(">H", 1008) == close[2:4]
        assert b"before" == peer.messages[0]
        assert len(peer.messages) <= 51
        assert [(1008, False)] == peer.ends


@pytest.mark.parametrize("size", [125, 20])
async def test_audio_in_fragments_is_no_flood(start: Start, size: int) -> None:
    """Some libraries send in small fragments, or end each message with an empty one."""
    message = b"x" * 300
    parts = [message[at : at + size] for at in range(0, len(message), size)]
    first, *rest = [frame(CONTINUATION, part, final=False) for part in parts]
    frames = bytes([first[0] | TEXT]) + first[1:] + b"".join(rest) + frame(CONTINUATION)
    limits = replace(LIMITS, max_small_frames=10, small_frames_per_second=1)
    async with start(limits=limits) as running:
        caller, peer = await running.stream()
        await caller.exchange(frames * 1000 + frame(CLOSE, b"\x03\xe8"))
        await peer.was_closed.wait()
        assert [message] * 1000 == peer.messages
        assert [(1000, True)] == peer.ends


async def test_a_peer_that_sends_faster_than_any_call_is_read_no_faster(start: Start) -> None:
    """Reading pauses; nothing is lost, and others are served meanwhile."""
    limits = replace(LIMITS, max_burst_bytes=100_000, bytes_per_second=2_500_000)
    message = frame(TEXT, b"x" * 2000)
    async with start(limits=limits) as running:
        caller, peer = await running.stream()
        other, another = await running.stream()
        began = asyncio.get_running_loop().time()
        caller.writer.write(message * 1000)
        await other.exchange(frame(TEXT, b"hello") + frame(CLOSE, b"\x03\xe8"))
        await another.was_closed.wait()
        assert len(peer.messages) < 1000
        await caller.exchange(frame(CLOSE, b"\x03\xe8"))
        await peer.was_closed.wait()
        assert asyncio.get_running_loop().time() - began > 0.3
        assert [b"x" * 2000] * 1000 == peer.messages
        assert [b"hello"] == another.messages


async def test_hanging_up_while_reading_pauses_loses_nothing(start: Start) -> None:
    """The end of a connection, TLS or not, comes behind all that was sent before it."""
    limits = replace(LIMITS, max_burst_bytes=100_000, bytes_per_second=1_000_000)
    async with start(limits=limits) as running:
        caller, peer = await running.stream()
        caller.writer.write(frame(TEXT, b"x" * 2000) * 250)
        await caller.leave()
        await peer.was_closed.wait()
        assert 250 == len(peer.messages)
        assert [(1006, False)] == peer.ends


async def test_few_small_frames_are_no_flood(start: Start) -> None:
    """Fragments of audio, and pings now and then, are within the limit."""
    limits = replace(LIMITS, max_small_frames=10, small_frames_per_second=1)
    async with start(limits=limits) as running:
        caller, peer = await running.stream()
        large = frame(TEXT, b"x" * 128, final=False) + frame(CONTINUATION, b"y" * 128)
        await caller.exchange(frame(PING) * 5 + large * 50 + frame(CLOSE, b"\x03\xe8"))
        await peer.was_closed.wait()
        assert [b"x" * 128 + b"y" * 128] * 50 == peer.messages
        assert [(1000, True)] == peer.ends


async def test_a_peer_that_goes_on_sending_after_our_close_is_not_read_for_long(
    start: Start,
) -> None:
    """It still gets our close message, and its socket ends after the close time-out."""
    limits = replace(LIMITS, max_bytes_after_close=10_000)
    async with start(limits=limits) as running:
        caller, peer = await running.stream()
        caller.writer.write(frame(TEXT, b"close") + frame(TEXT, b"x" * 1000) * 1000)
        assert struct.pack(">H", 4000) == (await caller.reader.readexactly(4))[2:]
        await peer.was_closed.wait()
        await caller.leave()
        assert len(peer.messages) < 100
        assert [(4000, False)] == peer.ends


async def test_pongs_are_ignored(running: Running) -> None:
    """An unasked pong is no message and no error."""
    caller, peer = await running.stream()
    caller.writer.write(frame(PONG, b"?") + frame(TEXT, b"on") + frame(CLOSE))
    await peer.was_closed.wait()
    await caller.leave()
    assert [b"on"] == peer.messages


async def test_nothing_is_sent_to_the_other_end(running: Running) -> None:
    """After the upgrade the only bytes sent are those of the closing handshake."""
    caller, _ = await running.stream()
    answer = await caller.exchange(frame(TEXT, b"x") + frame(CLOSE, struct.pack(">H", 1000)))
    assert b"\x88\x02" + struct.pack(">H", 1000) == answer


# Sending, for peers that serve a listener.


async def test_messages_are_sent_whole(running: Running) -> None:
    """Text goes out as text, bytes as binary, and pings are still answered."""
    caller, peer = await running.stream()
    assert peer.connection is not None
    peer.connection.start_sending(lambda: None)
    assert peer.connection.send("é")
    assert peer.connection.send(b"\x00\xff")
    assert b"\x81\x02\xc3\xa9" + b"\x82\x02\x00\xff" == await caller.reader.readexactly(8)
    caller.writer.write(frame(PING, b"one"))
    assert b"\x8a\x03one" == await caller.reader.readexactly(5)
    await caller.leave()
    await peer.was_closed.wait()


async def test_a_slow_reader_is_noticed_and_resumed(running: Running) -> None:
    """`send` says when the socket is full; `resume` says when it takes more; nothing is lost.

    A ping that is read while the socket is full stays without its pong.
    """
    caller, peer = await running.stream()
    caller.writer.transport.pause_reading()  # type: ignore[attr-defined]
    resumed = asyncio.Event()
    assert peer.connection is not None
    peer.connection.start_sending(resumed.set)
    sent = attempts = 0
    while not sent or resumed.is_set():  # the kernels took some more while we filled them
        resumed.clear()
        attempts += 1
        sent = fill(peer.connection, sent)
        caller.writer.write(frame(PING, b"unread-%d" % attempts) + frame(TEXT, b"behind the ping"))
        while len(peer.messages) < attempts:  # noqa: ASYNC110  the ping was read before it
            await asyncio.sleep(0)
    caller.writer.transport.resume_reading()  # type: ignore[attr-defined]
    received: list[tuple[int, bytes]] = []
    while sum(each == (0x82, b"x" * 60_000) for each in received) < sent:
        received.append(await read_frame(caller.reader))
    await resumed.wait()
    assert peer.connection.send("again")
    while received[-1] != (0x81, b"again"):
        received.append(await read_frame(caller.reader))
    assert (0x8A, b"unread-%d" % attempts) not in received
    await caller.leave()
    await peer.was_closed.wait()


def fill(connection: Connection, sent: int) -> int:
    """Send until the socket is full, and return how many messages were sent, `sent` before."""
    while connection.send(b"x" * 60_000):
        sent += 1
        assert sent < 1000
    return sent + 1


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Return the first byte and the payload of the next frame, which is not masked."""
    first, length = await reader.readexactly(2)
    if length == 126:
        (length,) = struct.unpack(">H", await reader.readexactly(2))
    return first, await reader.readexactly(length)


async def test_a_vanished_listener_is_noticed(running: Running) -> None:
    """By TCP, since a client that only listens may be silent for ever."""
    caller, peer = await running.stream()
    ends = [caller.writer.get_extra_info(end)[1] for end in ("peername", "sockname")]
    assert not is_watched(*ends)
    assert peer.connection is not None
    peer.connection.start_sending(lambda: None)
    async with asyncio.timeout(at_most(10)):
        while not is_watched(*ends):  # noqa: ASYNC110  the kernel waits for what is on its way
            await asyncio.sleep(0)
    await caller.leave()
    await peer.was_closed.wait()


def is_watched(ours: int, theirs: int) -> bool:
    """Whether the socket between these ports has a keep-alive timer (/proc/net/tcp)."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    (timer,) = [
        row[5].partition(":")[0]
        for row in rows
        if row[1].endswith(f":{ours:04X}") and row[2].endswith(f":{theirs:04X}") and row[3] == "01"
    ]
    return bool(timer == "02")


async def test_nothing_is_sent_once_closing(running: Running) -> None:
    """A message for a connection that is closing or gone is dropped, and `send` says so."""
    caller, peer = await running.stream()
    assert peer.connection is not None
    peer.connection.start_sending(lambda: None)
    peer.connection.close(1000, "")
    assert not peer.connection.send("late")
    assert b"\x88\x02" + struct.pack(">H", 1000) == await caller.exchange(frame(CLOSE))
    await peer.was_closed.wait()
    assert not peer.connection.send(b"too late")


# Closing.


async def test_the_peer_can_close(start: Start) -> None:
    """Closing sends the first code and reason, and a later call does nothing."""
    async with start(limits=PATIENT) as running:
        caller, peer = await running.stream()
        caller.writer.write(frame(TEXT, b"close please"))
        assert b"\x88\x0e" + struct.pack(">H", 4000) + b"close please" == (
            await caller.reader.readexactly(16)
        )
        caller.writer.write(frame(TEXT, b"on its way") + frame(CLOSE, struct.pack(">H", 4000)))
        await caller.leave()
        await peer.was_closed.wait()
    assert [b"close please", b"on its way"] == peer.messages
    assert [(4000, True)] == peer.ends


async def test_a_long_reason_is_cut_between_characters(running: Running) -> None:
    """The reason takes at most 123 bytes and stays UTF-8."""
    caller, peer = await running.stream()
    caller.writer.write(frame(TEXT, b"close" + "ä".encode() * 100))
    head = await caller.reader.readexactly(4)
    reason = await caller.reader.readexactly(head[1] - 2)
    assert "close" + "ä" * 59 == reason.decode()
    await caller.leave()
    await peer.was_closed.wait()


async def test_a_client_that_does_not_answer_a_close_is_dropped(running: Running) -> None:
    """The close time-out ends a closing handshake that hangs."""
    caller, peer = await running.stream()
    caller.writer.write(frame(TEXT, b"close"))
    await peer.was_closed.wait()
    assert [(4000, False)] == peer.ends
    await caller.leave()


async def test_a_client_that_never_hangs_up_is_dropped(running: Running) -> None:
    """After its close message, the other end has the close time-out to end the connection."""
    caller, peer = await running.stream()
    caller.writer.write(frame(CLOSE, struct.pack(">H", 1000)))
    await peer.was_closed.wait()
    assert [(1000, True)] == peer.ends
    await caller.leave()


MEANT_FOR_THE_WIRE = [1000, 1003, 1007, 1014, 3000, 4999]


@pytest.mark.parametrize("code", MEANT_FOR_THE_WIRE)
async def test_a_close_code_is_accepted_and_echoed(running: Running, code: int) -> None:
    """Those of RFC 6455, section 7.4, and of the registry it founded."""
    caller, peer = await running.stream()
    answer = await caller.exchange(frame(CLOSE, struct.pack(">H", code) + "schön".encode()))
    await peer.was_closed.wait()
    assert b"\x88\x08" + struct.pack(">H", code) + "schön".encode() == answer
    assert [(code, True)] == peer.ends


NOT_FOR_THE_WIRE = [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65535]
BAD_CLOSES = {str(code): (1002, struct.pack(">H", code)) for code in NOT_FOR_THE_WIRE} | {
    "0 with a reason": (1002, b"\x00\x00why"),
    "half a code": (1002, b"\x03"),
    "no text": (1007, b"\x03\xe8\xff\xfe"),
}


@pytest.mark.parametrize(("sent", "payload"), BAD_CLOSES.values(), ids=BAD_CLOSES)
async def test_an_invalid_close_message_is_a_protocol_error(
    running: Running, sent: int, payload: bytes
) -> None:
    """What must not be sent is no clean end, and is not repeated."""
    caller, peer = await running.stream()
    answer = await caller.exchange(frame(TEXT, b"before") + frame(CLOSE, payload))
    await peer.was_closed.wait()
    assert b"\x88" + struct.pack(">H", sent) == answer[:1] + answer[2:4]
    assert [b"before"] == peer.messages
    assert [(sent, False)] == peer.ends


async def test_an_invalid_close_message_ends_our_closing_too(running: Running) -> None:
    """The end is then the one that we have sent, and not a clean one."""
    caller, peer = await running.stream()
    caller.writer.write(frame(TEXT, b"close"))
    await caller.reader.readexactly(4 + len("close"))
    assert b"" == await caller.exchange(frame(CLOSE, struct.pack(">H", 1006)))
    await peer.was_closed.wait()
    assert [(4000, False)] == peer.ends


async def test_the_peer_can_abort(running: Running) -> None:
    """Aborting drops the socket without a handshake."""
    caller, peer = await running.stream()
    assert b"" == await caller.exchange(frame(TEXT, b"abort"))
    await peer.was_closed.wait()
    assert [(1006, False)] == peer.ends


async def test_closing_after_an_abort_does_nothing(running: Running) -> None:
    """A connection that is gone can be closed again."""
    caller, peer = await running.stream()
    assert peer.connection is not None
    peer.connection.abort()
    peer.connection.close(1000, "late")
    await peer.was_closed.wait()
    peer.connection.close(1000, "too late")
    assert [(1006, False)] == peer.ends
    await caller.leave()


async def test_a_failing_peer_ends_its_own_connection_only(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    """An error of ours closes that socket with 1011, is logged once, and others live on."""
    other_caller, other = await running.stream()
    caller, peer = await running.stream()
    with caplog.at_level(logging.ERROR, "receiver"):
        answer = await caller.exchange(frame(TEXT, b"fail") * 3)
        await peer.was_closed.wait()
    assert b"\x88" + struct.pack(">H", 1011) == answer[:1] + answer[2:4]
    assert [b"fail"] == peer.messages
    assert [(1011, False)] == peer.ends
    assert 1 == len(errors(caplog))
    other_caller.writer.write(frame(TEXT, b"alive") + frame(CLOSE))
    await other.was_closed.wait()
    await other_caller.leave()
    assert [b"alive"] == other.messages


async def test_a_peer_that_fails_at_its_beginning_and_end(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """Errors in opened and closed are logged and end that connection."""
    async with start(KeepingPolicy(opening_fails=True, closing_fails=True)) as running:
        caller = await running.caller()
        with caplog.at_level(logging.ERROR, "receiver"):
            await caller.exchange(request() + frame(TEXT, b"dropped"))
            await running.policy.peers[0].was_closed.wait()
        assert [] == running.policy.peers[0].messages
        assert [(1011, False)] == running.policy.peers[0].ends
        assert 2 == len(errors(caplog))


async def test_shutting_down_closes_with_1001(start: Start) -> None:
    """Closing the listener closes every stream, ends half-open requests, and can be repeated."""
    async with start(limits=PATIENT) as running:
        caller, peer = await running.stream()
        waiting = await running.caller()
        waiting.writer.write(b"GET /au")
        closing = asyncio.create_task(running.listener.close())
        head = await caller.reader.readexactly(4)
        assert b"\x88" + struct.pack(">H", 1001) == head[:1] + head[2:]
        caller.writer.write(frame(TEXT, b"last") + frame(CLOSE, struct.pack(">H", 1001)))
        assert b"" == await waiting.exchange(b"")
        await caller.leave()
        await closing
        await running.listener.close()
    assert [b"last"] == peer.messages
    assert [(1001, True)] == peer.ends


async def test_stop_accepting_leaves_streams_alone(running: Running) -> None:
    """No new connection is taken, and an open stream goes on."""
    caller, peer = await running.stream()
    running.listener.stop_accepting()
    with pytest.raises(ConnectionRefusedError):
        await running.caller()
    caller.writer.write(frame(TEXT, b"still here") + frame(CLOSE))
    await peer.was_closed.wait()
    await caller.leave()
    assert [b"still here"] == peer.messages


# Requests.


async def test_the_policy_gets_the_request(running: Running) -> None:
    """Method, path, query, address and every Authorization value come as sent."""
    caller = await running.caller()
    caller.writer.write(
        request(b"Authorization: Bearer one", b"AUTHORIZATION:  two ", path=b"/audio?a=%20b?c")
    )
    await caller.reader.readuntil(b"\r\n\r\n")
    await caller.leave()
    seen = UpgradeRequest("GET", "/audio", "a=%20b?c", ("Bearer one", "two"), "127.0.0.1")
    assert [seen] == running.policy.requests
    assert "Bearer" not in repr(running.policy.requests)
    await running.policy.peers[0].was_closed.wait()


async def test_an_upgrade_is_answered_without_the_library_name(running: Running) -> None:
    """The answer names neither library nor version."""
    caller = await running.caller()
    head = (await caller.upgrade()).lower()
    await caller.leave()
    assert head.startswith(b"http/1.1 101 ")
    assert b"server: tapreel\r\n" in head
    assert b"websockets/" not in head
    assert b"sec-websocket-extensions" not in head


async def test_a_refusal_is_answered_as_the_policy_decides(running: Running) -> None:
    """Status, body and headers are the policy's; its headers replace our own."""
    caller = await running.caller()
    answer = await caller.exchange(b"GET /elsewhere HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert answer.endswith(b"\r\n\r\nnothing here\n")
    assert 1 == answer.count(b"\r\nX-Kind: test\r\n")
    assert 1 == answer.lower().count(b"\r\ndate: today\r\n") == answer.lower().count(b"\r\ndate:")


async def test_an_admitted_request_without_upgrade_gets_426(running: Running) -> None:
    """The policy decides first; a peer whose upgrade then fails is never called."""
    caller = await running.caller()
    answer = await caller.exchange(b"GET /audio HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 426 ")
    assert b"\r\nUpgrade: websocket\r\n" in answer
    assert answer.endswith(b"headers are missing: is a proxy in front without them?\n")
    assert ("bad_request", "127.0.0.1") == await running.policy.refusals.get()
    assert answer.endswith(running.policy.details[0].encode() + b"\n")
    peer = running.policy.peers[0]
    assert not peer.was_opened.is_set()
    assert [] == peer.ends


@pytest.mark.parametrize("name", [b"Connection", b"Upgrade", b"Sec-WebSocket-Version"])
async def test_a_refusal_repeats_nothing_of_the_request(running: Running, name: bytes) -> None:
    """A token in the wrong header is not in the answer, nor in a log of it."""
    caller = await running.caller()
    answer = await caller.exchange(request().replace(name + b": ", name + b": canary"))
    assert answer.startswith(b"HTTP/1.1 4")
    assert b"canary" not in answer
    assert b"\r\nServer: tapreel\r\n" in answer


async def test_a_policy_may_take_its_time(running: Running) -> None:
    """Others are served meanwhile, and what was sent with the request is kept."""
    slow = await running.caller()
    slow.writer.write(request(path=b"/slow/audio") + frame(TEXT, b"early"))
    await running.policy.was_asked.wait()
    other, peer = await running.stream()
    slow.writer.write(frame(TEXT, b"later"))
    running.policy.may_answer.set()
    assert (await slow.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    await slow.exchange(frame(CLOSE, b"\x03\xe8"))
    await running.policy.peers[1].was_closed.wait()
    assert [b"early", b"later"] == running.policy.peers[1].messages
    await other.leave()
    await peer.was_closed.wait()


@pytest.mark.parametrize(("path", "status"), [(b"/slow/no", b"404"), (b"/slow/fail", b"500")])
async def test_a_slow_policy_may_refuse_or_fail(
    running: Running, path: bytes, status: bytes
) -> None:
    """As one that answers at once."""
    running.policy.may_answer.set()
    caller = await running.caller()
    answer = await caller.exchange(request(path=path))
    assert answer.startswith(b"HTTP/1.1 " + status)


async def test_a_client_may_leave_or_time_out_while_the_policy_decides(start: Start) -> None:
    """No connection that is gone is admitted."""
    policy = KeepingPolicy()
    async with start(policy, limits=replace(LIMITS, handshake_timeout_seconds=0.2)) as running:
        slow = await running.caller()
        assert b"" == await slow.exchange(request(path=b"/slow/audio"))
        assert ("timeout", "127.0.0.1") == await policy.refusals.get()
    policy.was_asked.clear()
    async with start(policy, limits=replace(LIMITS, handshake_timeout_seconds=1)) as running:
        leaving = await running.caller()
        leaving.writer.write(request(path=b"/slow/audio"))
        await policy.was_asked.wait()
        await leaving.leave()
    policy.may_answer.set()
    assert [] == policy.peers


UNASKED = {
    "a line break": b"\r\n",
    "another request": request(),
    "an unmasked frame": b"\x81\x02hi",
    "much": b"z" * 100_000,
}


@pytest.mark.parametrize("unasked", UNASKED.values(), ids=UNASKED)
@pytest.mark.parametrize("path", [b"/nowhere", b"/slow/nowhere"])
async def test_a_refusal_is_answered_whatever_comes_behind_the_request(
    running: Running, caplog: pytest.LogCaptureFixture, path: bytes, unasked: bytes
) -> None:
    """That is dropped, and no error of ours."""
    running.policy.may_answer.set()
    for _ in range(3):
        caller = await running.caller()
        answer = await caller.exchange(request(path=path) + unasked)
        assert answer.startswith(b"HTTP/1.1 404 ")
        assert 1 == answer.count(b"HTTP/1.1")
    await running.listener.close()
    gc.collect()  # asyncio logs an exception that was never fetched when it is dropped
    assert 3 == len(running.policy.requests)
    assert [] == errors(caplog)


@pytest.mark.parametrize("unasked", UNASKED.values(), ids=UNASKED)
async def test_an_upgrade_is_answered_whatever_comes_behind_the_request(
    running: Running, caplog: pytest.LogCaptureFixture, unasked: bytes
) -> None:
    """It is read as frames, which it is not; the first one is a protocol error."""
    caller = await running.caller()
    answer = await caller.exchange(request() + unasked)
    head, _, close = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"\x88" + struct.pack(">H", 1002) == close[:1] + close[2:4]
    await running.policy.peers[0].was_closed.wait()
    assert [(1002, False)] == running.policy.peers[0].ends
    assert [] == errors(caplog)


@pytest.mark.parametrize("path", [b"/audio", b"/slow/audio"])
async def test_a_whole_stream_may_come_with_the_request(
    running: Running, caplog: pytest.LogCaptureFixture, path: bytes
) -> None:
    """A client that does not wait for the answer gets it, and loses nothing, down to the close."""
    running.policy.may_answer.set()
    messages = [b"%03d" % n + b"x" * 320 for n in range(300)]
    frames = [frame(PING, b"?"), *(frame(TEXT, m) for m in messages), frame(CLOSE, b"\x03\xe8")]
    caller = await running.caller()
    answer = await caller.exchange(request(path=path) + b"".join(frames))
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert answer.endswith(b"\x88\x02\x03\xe8")
    peer = running.policy.peers[0]
    await peer.was_closed.wait()
    assert messages == peer.messages
    assert [(1000, True)] == peer.ends
    assert [] == errors(caplog)


async def test_a_frame_may_be_cut_by_the_end_of_a_read(running: Running) -> None:
    """Its beginning comes with the request, its end behind the answer."""
    caller = await running.caller()
    whole = frame(TEXT, b"early")
    caller.writer.write(request() + whole[:4])
    await caller.reader.readuntil(b"\r\n\r\n")
    await caller.exchange(whole[4:] + frame(CLOSE, b"\x03\xe8"))
    await running.policy.peers[0].was_closed.wait()
    assert [b"early"] == running.policy.peers[0].messages


async def test_what_comes_before_the_answer_is_bounded(running: Running) -> None:
    """While the policy decides, as much is kept as a request may have."""
    caller = await running.caller()
    answer = await caller.exchange(request(path=b"/slow/audio") + frame(TEXT, b"x" * 1000) * 400)
    assert b"" == answer
    assert ("too_large", "127.0.0.1") == await running.policy.refusals.get()
    assert [] == running.policy.peers


async def test_too_many_headers_are_answered(running: Running) -> None:
    """With 431, and none of them comes back."""
    caller = await running.caller()
    answer = await caller.exchange(request(*(b"X-Canary: %d" % n for n in range(200))))
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b"Canary" not in answer
    assert ("bad_request", "127.0.0.1") == await running.policy.refusals.get()


@pytest.mark.parametrize(
    ("sent", "status", "detail"),
    [
        (b"GET /audio HTTP/1.1\r\nX: a\0b\r\n\r\n", 400, "a header line holds a NUL"),
        (b"GET /audio HTTP/1.1\r\nX: a\r\n b\r\n\r\n", 400, "a header line is folded"),
        (b"GET /audio HTTP/1.1\r\nno colon\r\n\r\n", 400, "a header line has no colon"),
        (b"GET /audio HTTP/1.1\r\nX: a\x01\r\n\r\n", 400, "a header line has a character"),
        (b"GET /audio HTTP/1.1\r\nX y: a\r\n\r\n", 400, "a header line has a character"),
        (b"GET /audio HTTP/1.1\nHost: x\n\n", 400, "each line must end with CR LF"),
        (b"GET /a\xff HTTP/1.1\r\n\r\n", 400, "the first line is no request line"),
        (b"canary-garbage\r\n\r\n", 400, "the first line is no request line"),
        (b"\x16\x03\x01\x02\x00\x01", 400, "TLS came to a port that speaks plain HTTP"),
        (b"\0\0", 400, "what came is no HTTP"),
        (request(b"Content-Length: 5"), 413, "a request has a body"),
        (request(b"Transfer-Encoding: chunked"), 413, "a request has a body"),
        (b"GET /audio HTTP/2.0\r\n\r\n", 505, "HTTP/2.0 is not spoken here"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "HTTP/2.0 is not spoken here"),
        (request().replace(b"HTTP/1.1", b"HTTP/1.0"), 505, "HTTP/1.0 opens no WebSocket"),
        (request().replace(b"Upgrade: websocket\r\n", b""), 426, "a WebSocket upgrade is exp"),
        (request().replace(b"Connection: Upgrade", b"Connection: close"), 426, "a WebSocket up"),
        (request().replace(b"Upgrade: websocket", b"Upgrade: h2c"), 426, "a WebSocket upgrade"),
        (request().replace(b"Version: 13", b"Version: 8"), 400, "Sec-WebSocket-Key or"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + request(), 400, "the PROXY protocol is"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", 400, "an empty line came first; the PROXY"),
        (b"SSH-2.0-canary\r\n", 400, "the first line is no request line"),
        (b"EHLO canary\n", 400, "the first line is no request line"),
        (b'{"event": "canary"}\n', 400, "the first line is no request line"),
        (b"GET /audio\r\n", 400, "the first line is no request line"),
        (b"POST /audio HTTP/1.1\r\n", 405, "only GET and HEAD are served"),
        (b"GET /audio HTTP/1.1\r\nX: " + b"a" * 200_000, 431, "the request is longer than"),
    ],
)
async def test_a_request_that_cannot_be_served_is_answered_with_what_is_wrong(
    running: Running, sent: bytes, status: int, detail: str
) -> None:
    """The log gets the same words, in which nothing of the request comes back."""
    caller = await running.caller()
    answer = await caller.exchange(sent)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert 1 == head.count(b"\r\nServer: tapreel")
    assert body.startswith(detail.encode())
    assert b"canary" not in answer
    await running.policy.refusals.get()
    assert [body.decode().strip()] == running.policy.details


async def test_an_empty_body_is_none(running: Running) -> None:
    """Some devices say so with every request."""
    caller = await running.caller()
    assert (await caller.upgrade(b"Content-Length: 0")).startswith(b"HTTP/1.1 101 ")
    await caller.leave()
    await running.policy.peers[0].was_closed.wait()


@pytest.mark.parametrize("path", [b"/nowhere", b"/audio", b"/fail"])
async def test_head_is_answered_as_get_without_the_body(running: Running, path: bytes) -> None:
    """With the same status and headers; it opens no WebSocket."""
    answers = []
    for method in (b"GET", b"HEAD"):
        caller = await running.caller()
        answers.append(await caller.exchange(method + b" " + path + b" HTTP/1.1\r\n\r\n"))
    get, head = (re.sub(rb"\r\nDate: [^\r]*", b"", answer) for answer in answers)
    assert get.partition(b"\r\n\r\n")[0] == head.removesuffix(b"\r\n\r\n")
    assert ["GET", "HEAD"] == [seen.method for seen in running.policy.requests]


async def test_head_opens_no_websocket(running: Running) -> None:
    """However complete its headers are."""
    caller = await running.caller()
    answer = await caller.exchange(request(method=b"HEAD"))
    assert answer.startswith(b"HTTP/1.1 405 ")
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("method", [b"POST", b"OPTIONS"])
@pytest.mark.parametrize("body", [b"", b"Content-Length: 3\r\n\r\nabc"])
async def test_only_get_is_served(running: Running, method: bytes, body: bytes) -> None:
    """Other methods get 405 with Allow, with and without a body, and never reach the policy."""
    caller = await running.caller()
    answer = await caller.exchange(method + b" /audio HTTP/1.1\r\n" + (body or b"\r\n"))
    assert answer.startswith(b"HTTP/1.1 405 ")
    assert b"\r\nAllow: GET, HEAD\r\n" in answer
    assert [] == running.policy.requests


async def test_another_method_sent_bit_by_bit(running: Running) -> None:
    """A method that comes in two parts is refused all the same."""
    caller = await running.caller()
    caller.writer.write(b"PO")
    await caller.writer.drain()
    # A second round trip over the same loop: the listener has read the first part by then.
    other = await running.caller()
    await other.exchange(b"GET /elsewhere HTTP/1.1\r\n\r\n")
    answer = await caller.exchange(b"ST /audio HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 405 ")
    assert 1 == len(running.policy.requests)


@pytest.mark.parametrize("length", [9_000, 60_000, 120_000])
async def test_long_headers_reach_the_policy(running: Running, length: int) -> None:
    """A token that is far too long is for the policy to refuse."""
    caller = await running.caller()
    await caller.upgrade(b"Authorization: Bearer " + b"a" * length)
    await caller.leave()
    assert ("Bearer " + "a" * length,) == running.policy.requests[0].authorization
    await running.policy.peers[0].was_closed.wait()


async def test_bytes_above_ascii_reach_the_policy(running: Running) -> None:
    """Header bytes that are not ASCII come as Latin-1."""
    caller = await running.caller()
    await caller.upgrade(b"Authorization: Bearer \xff\xc3\xa4")
    await caller.leave()
    assert ("Bearer \xff\xc3\xa4",) == running.policy.requests[0].authorization
    await running.policy.peers[0].was_closed.wait()


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"garbage\r\n\r\n",
        b"GET /audio HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /audio HTTP/2.0\r\n\r\n",
        b"GET /audio HTTP/1.1\r\nX: " + b"a" * 200_000,
        b"\r\n" * 70_000,
        request(*(b"X: %d" % n for n in range(200))),
        request(b"Sec-WebSocket-Key: second"),
    ],
)
async def test_garbage_opens_no_stream(running: Running, sent: bytes) -> None:
    """Whatever cannot be a request is dropped or refused, and no peer is opened."""
    caller = await running.caller()
    answer = await caller.exchange(sent)
    assert not answer.startswith(b"HTTP/1.1 101 ")
    assert not any(peer.was_opened.is_set() for peer in running.policy.peers)


async def test_plain_http_at_a_tls_port_is_named() -> None:
    """Nobody can answer that, but the log has it."""
    policy, (server, _) = KeepingPolicy(), contexts()
    listener = await listen(policy, host="127.0.0.1", port=0, ssl_context=server, limits=LIMITS)
    caller = await call(listener.port, None)
    await caller.exchange(request())
    assert ("tls_failed", "127.0.0.1") == await policy.refusals.get()
    assert ["plain HTTP came to a port that speaks TLS"] == policy.details
    await listener.close()


@pytest.mark.parametrize("sent", [b"GET /audio HTTP/1.1\r\n", b"GET /audio HTTP/1.1\r\r", b"G"])
async def test_half_a_request_is_answered_when_its_time_is_up(start: Start, sent: bytes) -> None:
    """What is not whole within the handshake time-out is ended, with an answer that says so."""
    async with start(limits=Limits(handshake_timeout_seconds=0.1)) as running:
        caller = await running.caller()
        answer = await caller.exchange(sent)
        detail = "no empty line ended the request within 0.1 s"
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert answer.endswith(b"\r\n\r\n" + detail.encode() + b"\n")
        assert [] == running.policy.requests
        assert ("timeout", "127.0.0.1") == await running.policy.refusals.get()
        assert [detail] == running.policy.details


async def test_a_connection_that_sends_nothing_is_dropped(start: Start) -> None:
    """There is nothing to answer, within the handshake time-out."""
    async with start(limits=Limits(handshake_timeout_seconds=0.1)) as running:
        caller = await running.caller()
        assert b"" == await caller.exchange(b"")
        assert ("timeout", "127.0.0.1") == await running.policy.refusals.get()


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"garbage\r\n\r\n", "bad_request"),
        (b"POST /audio HTTP/1.1\r\n\r\n", "bad_method"),
        (b"GET /audio HTTP/1.1\r\nX: " + b"a" * 200_000, "too_large"),
    ],
)
async def test_connections_without_a_valid_request_are_counted(
    running: Running, sent: bytes, reason: str
) -> None:
    """Each is counted once, with the reason and the address."""
    caller = await running.caller()
    await caller.exchange(sent)
    assert (reason, "127.0.0.1") == await running.policy.refusals.get()
    await running.listener.close()
    assert running.policy.refusals.empty()


async def test_what_hangs_up_or_is_answered_is_not_counted_as_refused(running: Running) -> None:
    """Refusals by the policy are counted there, and a caller may hang up."""
    for sent in (b"", b"GET /audio HT", request(path=b"/nowhere"), request(path=b"/fail")):
        caller = await running.caller()
        caller.writer.write(sent)
        await caller.writer.drain()
        caller.writer.write_eof() if caller.writer.can_write_eof() else caller.writer.close()
        await caller.leave()
    await running.listener.close()
    assert running.policy.refusals.empty()


async def test_a_failing_policy_answers_500(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    """An error in the policy refuses that request and is logged without its headers."""
    caller = await running.caller()
    answer = await caller.exchange(request(b"Authorization: Bearer canary", path=b"/fail"))
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert "made to fail" in caplog.text
    assert "canary" not in caplog.text


async def test_an_address_in_use_is_one_clear_error(running: Running) -> None:
    """A second listener on the same port says which port, and why not."""
    port = running.listener.port
    with pytest.raises(ConfigurationError) as caught:
        await listen(KeepingPolicy(), host="127.0.0.1", port=port, ssl_context=None, limits=LIMITS)
    assert f"cannot listen on 127.0.0.1 port {port}: address already in use" == str(caught.value)
    assert ("127.0.0.1",) == running.listener.addresses


@pytest.mark.parametrize("host", ["192.0.2.1", "no host", "x" * 300])
async def test_an_unusable_host_is_one_clear_error(host: str) -> None:
    """Addresses of other machines and names of none are settings to correct."""
    with pytest.raises(ConfigurationError, match=f"^cannot listen on {host} port 0: .+"):
        await listen(KeepingPolicy(), host=host, port=0, ssl_context=None, limits=LIMITS)
