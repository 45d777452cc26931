"""Figures for Prometheus, served on a listener of their own on loopback.

What the parts count becomes metrics when it is scraped. No sid is ever a label:
there would be as many time series as calls.
"""

from __future__ import annotations

import contextlib
import platform
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from receiver import __version__
from receiver.counters import Counters, LiveCounts
from receiver.errors import ConfigurationError
from receiver.journal.spool import SpoolCounters
from receiver.rate_limit import TokenBucket

HOST: Final = "127.0.0.1"
MOST_CONNECTIONS: Final = 4
LONGEST_SECONDS: Final = 5.0
"""For one connection, all in all."""
_LONGEST_REQUEST_BYTES: Final = 8192
_ANSWERS_AT_ONCE: Final = 20
_ANSWERS_PER_SECOND: Final = 20.0
_PAUSE_SECONDS: Final = 0.02
_CLOSED_SECONDS: Final = 0.5
"""How soon a close is noticed where nothing wakes the thread up."""
_SYNC_BUCKETS: Final = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


class _Collector:
    """Turns the parts' numbers into metrics when it is scraped."""

    def __init__(
        self,
        counters: Counters,
        spool: SpoolCounters,
        *,
        refused: Counter[str],
        live: Callable[[], LiveCounts],
        unpublished: Callable[[], int],
    ) -> None:
        self._unpublished = unpublished
        self._counters = counters
        self._spool = spool
        self._refused = refused
        self._live = live

    def collect(self) -> Iterator[Metric]:
        """Yield every metric but the histogram."""
        yield from self._streams()
        yield from self._recordings()
        yield from self._disk()
        yield from self._taps()
        counters = self._counters
        lag, counters.worst_lag_seconds = counters.worst_lag_seconds, 0.0
        yield _gauge("loop_lag_seconds", "Worst delay of the event loop since last asked", lag)
        if counters.certificate_expires_at is not None:
            text = "When the certificate expires, in seconds since 1970"
            yield _gauge("certificate_expiry_seconds", text, counters.certificate_expires_at)
        build = GaugeMetricFamily(
            "tapreel_build_info", "Versions", labels=("version", "python_version")
        )
        build.add_metric((__version__, platform.python_version()), 1)
        yield build

    def _streams(self) -> Iterator[Metric]:
        counters, live = self._counters, self._live()
        received = counters.chunks_received + live.chunks_received
        yield _gauge("streams_active", "Streams that are being recorded", live.streams)
        yield _counter("streams_started", "Streams begun", {(): counters.started})
        yield _counter("streams_ended", "Streams ended", _by(counters.ended), ("reason",))
        yield _counter("pauses", "Pauses of calls, by orders", {(): counters.pauses})
        text = "Chunks thrown away during pauses, counted when they end"
        yield _counter("chunks_withheld", text, {(): counters.chunks_withheld})
        text = "Streams not recorded, because a parameter is required that they lack"
        yield _counter("streams_without_parameter", text, {(): counters.without_parameter})
        yield _counter("chunks_received", "Chunks received", {(): received})
        yield _counter("handshakes_refused", "Upgrades refused", _by(self._refused), ("reason",))

    def _recordings(self) -> Iterator[Metric]:
        counters = self._counters
        text = "Chunks of published recordings, by what became of them; late ones are written too"
        yield _counter("chunks", text, dict(counters.chunks), ("track", "fate"))
        yield _counter("recordings", "Recordings published", _by(counters.published), ("state",))
        yield _counter("journals_quarantined", "Journals set aside", {(): counters.quarantined})
        text = "Journals removed because no start message named the call of the token"
        yield _counter("journals_discarded", text, {(): counters.discarded})
        text = "Attempts to publish that failed; the journal is kept and tried again"
        yield _counter("publishing_failed", text, {(): counters.failed})
        text = "Rendering processes that died in the midst of a journal, which is tried again"
        yield _counter("renderer_deaths", text, {(): counters.renderer_deaths})
        text = "Finished journals that are not yet published"
        yield _gauge("journals_unpublished", text, self._unpublished())

    def _disk(self) -> Iterator[Metric]:
        spool = self._spool
        yield _counter("journal_bytes", "Bytes written to journals", {(): spool.written_bytes})
        yield _counter("write_errors", "Failed disk calls", _by(spool.errors), ("errno",))
        yield _gauge("spool_held_bytes", "Bytes that the disk does not hold", spool.held_bytes)
        text = "Age of the oldest record that the disk does not hold"
        yield _gauge("spool_held_seconds", text, spool.held_seconds)
        text = "1 while the disk takes nothing and no streams are admitted"
        yield _gauge("spool_stalled", text, int(spool.stalled))
        yield _gauge("free_bytes", "Free disk space", self._counters.free_bytes)

    def _taps(self) -> Iterator[Metric]:
        taps = self._counters.taps
        text = "Live listeners, and those who watch all streams"
        yield _gauge("listeners", text, taps.listeners + taps.watchers)
        by_token = ("token_name",)
        yield _counter("listeners_started", "Listening begun", _by(taps.started), by_token)
        yield _counter("listeners_ended", "Listening ended", _by(taps.ended), by_token)
        seconds = {words: ms / 1000 for words, ms in _by(taps.listened_ms).items()}
        text = "Audio that listeners were sent, counted when they end"
        yield _counter("listened_seconds", text, seconds, by_token)
        text = "Pieces of audio that listeners did not read in time, counted when they end"
        yield _counter("listener_lost", text, _by(taps.lost), by_token)
        text = "Pieces of audio that listeners and consumers did not get"
        yield _counter("tap_dropped", text, _by(taps.dropped), ("reason",))
        text = "Listeners that were closed because they did not read"
        yield _counter("tap_closed_slow", text, {(): taps.closed_slow})
        yield _counter("listeners_refused", "Listeners refused", _by(taps.refused), ("reason",))


class _SyncSeconds(Histogram):
    """The histogram of sync times; it is fed from the spool's queue when it is scraped."""

    spool: SpoolCounters

    def collect(self) -> Iterable[Metric]:
        """Return the histogram, up to date."""
        while self.spool.sync_seconds:
            self.observe(self.spool.sync_seconds.popleft())
        return super().collect()


class MetricsListener:
    """Serves `/metrics` on loopback until it is closed.

    Whoever asks can cost little: so many connections at once (a further one is closed), each for
    so many seconds from its beginning to its end, and so many answers a second, for which a
    faster caller waits. All is done in threads that are never in the event loop's way for longer
    than it takes to make one answer.

    Raises:
        ConfigurationError: the port cannot be listened on.
    """

    def __init__(
        self,
        port: int,
        counters: Counters,
        spool: SpoolCounters,
        *,
        refused: Counter[str],
        live: Callable[[], LiveCounts],
        unpublished: Callable[[], int] = lambda: 0,
    ) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(
            _Collector(counters, spool, refused=refused, live=live, unpublished=unpublished)
        )
        histogram = _SyncSeconds(
            "tapreel_sync_seconds", "Time to sync", registry=None, buckets=_SYNC_BUCKETS
        )
        histogram.spool = spool
        self._registry.register(histogram)
        self._places = threading.Semaphore(MOST_CONNECTIONS)
        self._answers = TokenBucket(_ANSWERS_AT_ONCE, _ANSWERS_PER_SECOND)
        self._answering = threading.Lock()
        try:
            self._socket = socket.create_server((HOST, port), backlog=MOST_CONNECTIONS)
        except OSError as error:
            text = f"cannot listen on {HOST} port {port} for metrics: {error.strerror}"
            raise ConfigurationError(text.lower()) from error
        self._closed = threading.Event()
        self._socket.settimeout(_CLOSED_SECONDS)
        self.url = f"http://{HOST}:{self._socket.getsockname()[1]}/metrics"
        self._thread = threading.Thread(target=self._accept, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving; idempotent."""
        self._closed.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread up, on Linux
        self._thread.join()
        self._socket.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:  # closed, no descriptor left, or nobody came for a while
                self._closed.wait(_PAUSE_SECONDS)
                continue
            if not self._places.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        deadline = time.monotonic() + LONGEST_SECONDS
        try:
            with connection, contextlib.suppress(OSError):
                request = _read_request(connection, deadline)
                answer = self._answer(request, deadline)
                connection.settimeout(max(deadline - time.monotonic(), _PAUSE_SECONDS))
                connection.sendall(answer)
        finally:
            self._places.release()

    def _answer(self, request: bytes, deadline: float) -> bytes:
        line, _, rest = request.decode("latin-1").partition("\r\n")
        method, _, target = line.partition(" ")
        if method not in ("GET", "HEAD"):
            return _http("405 Method Not Allowed", "text/plain", b"")
        if target.split(" ")[0].partition("?")[0] not in ("/metrics", "/"):
            return _http("404 Not Found", "text/plain", b"figures are at /metrics\n")
        headers = (header.partition(":") for header in rest.split("\r\n"))
        accept = ",".join(value for name, _, value in headers if name.lower() == "accept")
        encode, content_type = choose_encoder(accept)
        with self._answering:
            while not self._answers.take(time.monotonic()):
                if time.monotonic() > deadline:
                    return _http("503 Service Unavailable", "text/plain", b"")
                time.sleep(_PAUSE_SECONDS)
            body = encode(self._registry)
        return _http("200 OK", content_type, body, is_head=method == "HEAD")


def _read_request(connection: socket.socket, deadline: float) -> bytes:
    """Return a request up to the end of its headers.

    Raises:
        OSError: it did not come in time, or is no request.
    """
    request = b""
    while b"\r\n\r\n" not in request:
        connection.settimeout(max(deadline - time.monotonic(), _PAUSE_SECONDS))
        block = connection.recv(_LONGEST_REQUEST_BYTES)
        request += block
        too_late = time.monotonic() > deadline
        if not block or too_late or len(request) > _LONGEST_REQUEST_BYTES:
            raise OSError("no request")
    return request


def _http(status: str, content_type: str, body: bytes, *, is_head: bool = False) -> bytes:
    lines = (
        f"HTTP/1.1 {status}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        "Connection: close",
    )
    return "\r\n".join((*lines, "", "")).encode() + (b"" if is_head else body)


def _by(counted: Counter[str]) -> dict[tuple[str, ...], float]:
    return {(word,): count for word, count in counted.copy().items()}


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"tapreel_{name}", text, value=value)


def _counter(
    name: str,
    text: str,
    values: dict[tuple[str, ...], float] | dict[tuple[()], int] | dict[tuple[str, str], int],
    labels: tuple[str, ...] = (),
) -> Metric:
    family = CounterMetricFamily(f"tapreel_{name}", text, labels=labels)
    for words, value in values.items():
        family.add_metric(words, value)
    return family
