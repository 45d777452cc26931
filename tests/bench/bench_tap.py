"""What live listeners cost: latency from socket in to socket out, and CPU with and without them.

`python -m tests.bench.bench_tap` prints a small table; all ratios are from one run. A real
receiver is fed paced calls over loopback; every chunk carries the time at which it was sent. The
receiver has one processor, the calls and listeners another.
"""

from __future__ import annotations

import argparse
import base64
import logging
import os
import random
import select
import socket
import statistics
import struct
import tempfile
import time
import timeit
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from receiver.auth.bearer import Grant
from receiver.counters import Counters
from receiver.ingest.recorder import Recorder
from receiver.ingest.session import Session
from receiver.journal import records
from receiver.journal.records import Header
from receiver.journal.writer import JournalWriter
from receiver.media import Chunk
from receiver.tap.local_hub import LocalHub
from receiver.wire.messages import Message
from tests.bench.load import start_message
from tests.end_to_end.receiver_process import TOKEN, running_receiver
from tests.end_to_end.taps import TAP_TOKEN, secret_file
from tests.receiver.helpers.taps import ManualScheduler

PACKET_SECONDS: Final = 0.02
PAYLOAD_BYTES: Final = 160
_BINARY: Final = 0x82
_STAMP: Final = struct.Struct(">d")
_MICRO_CHUNKS: Final = 20_000


@dataclass
class Outcome:
    """One round: CPU seconds of the receiver, and the delays of what listeners received."""

    began: float = field(default_factory=time.perf_counter)
    sent: int = 0
    received: int = 0
    cpu_seconds: float = 0
    delays_ms: list[float] = field(default_factory=list)

    @property
    def cpu_us(self) -> float:
        """Return CPU time per chunk that came in."""
        return self.cpu_seconds / max(1, self.sent) * 1e6


class Calls:
    """Calls with and without listeners, driven by one loop."""

    def __init__(self, port: int, count: int) -> None:
        self.port = port
        self.outcome = Outcome()
        self._said = 0
        self._streams = [self._dial("/audio", TOKEN) for _ in range(count)]
        self._poll = select.epoll()
        self._rest: dict[int, bytes] = {}
        self._listeners: dict[int, socket.socket] = {}
        source = random.Random(5)
        for call, stream in enumerate(self._streams):
            stream.sendall(start_message(call, source))

    def _dial(self, path: str, token: str) -> socket.socket:
        stream = socket.create_connection(("127.0.0.1", self.port), 20)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream.sendall(
            f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            f"Authorization: Bearer {token}\r\n\r\n".encode()
        )
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += stream.recv(1)
        if not answer.startswith(b"HTTP/1.1 101 "):
            raise SystemExit(f"refused: {answer[:60]!r}")
        return stream

    def listen(self) -> None:
        """Open one listener for each call."""
        for call in range(len(self._streams)):
            self._follow(f"/tap/call-{call}?format=payload&wait=10")

    def watch(self) -> None:
        """Ask for the levels of all calls, as a console does while a live page is open."""
        self._follow("/tap/all?levels=yes")

    def _follow(self, path: str) -> None:
        listener = self._dial(path, TAP_TOKEN)
        listener.setblocking(False)
        self._listeners[listener.fileno()] = listener
        self._rest[listener.fileno()] = b""
        self._poll.register(listener, select.EPOLLIN)

    def run(self, seconds: float) -> None:
        """Send every call's chunks at their time, and receive what comes meanwhile."""
        step = PACKET_SECONDS / len(self._streams)
        began = time.perf_counter()
        for number in range(int(seconds / step)):
            due = began + number * step
            while (left := due - time.perf_counter()) > 0:
                self._receive(left)
            self._say(self._said)
            self._said += 1
        until = time.perf_counter() + 0.5  # what is on its way arrives
        while (left := until - time.perf_counter()) > 0:
            self._receive(left)

    def _say(self, number: int) -> None:
        tick, call = divmod(number, len(self._streams))
        stamp = _STAMP.pack(time.perf_counter())
        payload = base64.b64encode(stamp + bytes(PAYLOAD_BYTES - _STAMP.size)).decode()
        sent = b""
        for track in ("inbound", "outbound"):
            text = (
                f'{{"event":"media","sequenceNumber":"{2 * tick}","media":{{"track":"{track}",'
                f'"chunk":"{tick + 1}","timestamp":"{tick * 20}","payload":"{payload}"}}}}'
            ).encode()
            # A mask of zeros is as good as any other, and costs the sender nothing.
            sent += struct.pack(">BBH4x", 0x81, 0x80 | 126, len(text)) + text
        self._streams[call].sendall(sent)
        self.outcome.sent += 2

    def _receive(self, timeout_ms: float) -> None:
        for number, _ in self._poll.poll(max(0, timeout_ms)):
            arrived = time.perf_counter()
            content = self._rest[number] + self._listeners[number].recv(65536)
            position = 0
            while (message := _message_at(content, position)) is not None:
                start, end = message
                if content[position] == _BINARY:
                    self._count(_STAMP.unpack_from(content, start)[0], arrived)
                position = end
            self._rest[number] = content[position:]

    def _count(self, sent: float, arrived: float) -> None:
        if sent >= self.outcome.began:  # what was sent while warming up may come late
            self.outcome.received += 1
            self.outcome.delays_ms.append((arrived - sent) * 1000)

    def close(self) -> None:
        """Hang up."""
        for stream in (*self._streams, *self._listeners.values()):
            stream.close()
        self._poll.close()


def _message_at(content: bytes, position: int) -> tuple[int, int] | None:
    """Return where a listener's message starts and ends, or `None` where it is not all there."""
    if len(content) < position + 4:
        return None
    size, start = content[position + 1], position + 2
    if size == 126:
        size, start = int.from_bytes(content[start : start + 2], "big"), start + 2
    return (start, start + size) if len(content) >= start + size else None


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used, all threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(calls: int, seconds: float, prepare: Callable[[Calls], object]) -> Outcome:
    """Run one receiver with so many calls, prepared in one of the ways below."""
    with tempfile.TemporaryDirectory(prefix="tapreel-bench-") as name:
        folder = Path(name)
        tap = secret_file(folder / "tap", TAP_TOKEN)
        with running_receiver(folder, "--tap-token-file", str(tap)) as process:
            _pin(process.process.pid, first=True)
            load = Calls(process.port, calls)
            prepare(load)
            load.run(0.5)  # warm up
            load.outcome = Outcome()
            before = cpu_seconds(process.process.pid)
            load.run(seconds)
            load.outcome.cpu_seconds = cpu_seconds(process.process.pid) - before
            load.close()
            return load.outcome


def nobody(_: Calls) -> None:
    """Leave the calls to themselves."""


def _pin(pid: int, *, first: bool) -> None:
    processors = sorted(os.sched_getaffinity(0))
    if len(processors) > 1:
        os.sched_setaffinity(pid, processors[:1] if first else processors[1:])


class _RecorderOfNothing(Recorder):
    """A recorder whose journals nothing writes, so that only the session is measured."""

    def __init__(self) -> None:
        hub = LocalHub(ManualScheduler())
        super().__init__(None, hub, Counters(), journal_ended=lambda _: None)  # type: ignore[arg-type]  # no spool

    def open_journal(self, header: Header) -> JournalWriter:
        return JournalWriter(Path("nowhere"), header)


class _SessionWithoutTap(Session):
    """The session as it was before there was a tap."""

    def _receive(self, parsed: Message, message: bytes) -> None:
        super()._receive(parsed, message)
        recording = self._recordings.open

        def keep_chunk(chunk: Chunk) -> None:
            if recording is None:
                return
            arrival_ms = recording.latest_ms = recording.arrival_ms()
            recording.chunks += 1
            recording.journal.append(records.encode_chunk(chunk, arrival_ms))

        self._recordings.keep_chunk = keep_chunk


def ingest_us(kind: type[Session]) -> float:
    """Return how long a session takes for one chunk, from message to journal."""
    payload = base64.b64encode(bytes(PAYLOAD_BYTES)).decode()
    start = (
        b'{"event":"start","start":{"streamSid":"s","callSid":"c","mediaFormat":'
        b'{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1}}}'
    )
    media = (
        '{"event":"media","sequenceNumber":"2","media":{"track":"inbound","chunk":"1",'
        f'"timestamp":"0","payload":"{payload}"}}}}'
    ).encode()
    session = kind(_RecorderOfNothing(), Grant(), remote_address="")
    session.message_received(start)
    seconds = timeit.timeit(lambda: session.message_received(media), number=_MICRO_CHUNKS)
    return seconds / _MICRO_CHUNKS * 1e6


def lines(calls: int, seconds: float, rounds: int) -> Iterator[str]:
    """Measure, and yield the table."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    pairs = [(ingest_us(_SessionWithoutTap), ingest_us(Session)) for _ in range(9)]
    without, with_tap = (min(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(later / earlier for earlier, later in pairs)
    yield f"session, one chunk, no tap in the code      {without:8.2f} us"
    yield f"session, one chunk, nobody listens          {with_tap:8.2f} us   ratio {ratio:.3f}"
    _pin(0, first=False)
    ways = (nobody, Calls.watch, Calls.listen)
    outcomes = [[measure(calls, seconds, prepare) for prepare in ways] for _ in range(rounds)]
    alone, watched, heard = (
        statistics.median(outcome[way].cpu_us for outcome in outcomes) for way in range(len(ways))
    )
    delays = sorted(delay for outcome in outcomes for delay in outcome[-1].delays_ms)
    missing = sum(outcome[-1].sent // 2 - outcome[-1].received for outcome in outcomes)
    yield f"{calls} calls, nobody listens: CPU per chunk    {alone:8.2f} us"
    more = f"ratio {watched / alone:.2f}"
    yield f"{calls} calls, an open live page: CPU per chunk {watched:8.2f} us   {more}"
    more = f"ratio {heard / alone:.2f}"
    yield f"{calls} calls, {calls} listeners: CPU per chunk      {heard:8.2f} us   {more}"
    for name, share in (("median", 0.5), ("99th percentile", 0.99), ("worst", 1.0)):
        delay = delays[min(len(delays) - 1, int(len(delays) * share))] if delays else 0.0
        yield f"socket in to socket out, {name:<15}    {delay:8.2f} ms"
    yield f"chunks that listeners missed                {missing:8d}    of {len(delays) + missing}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; every amount is bounded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=150)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    if not (1 <= options.calls <= 500 and 0.1 <= options.seconds <= 30 and 0 < options.rounds < 10):
        parser.error("at most 500 calls, 30 seconds and 9 rounds")
    for line in lines(options.calls, options.seconds, options.rounds):
        print(line, flush=True)  # noqa: T201  the result
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
