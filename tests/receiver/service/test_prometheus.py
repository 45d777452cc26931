"""Figures for Prometheus: what is counted comes out, by the names that dashboards know."""

from __future__ import annotations

import contextlib
import socket
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from receiver import __version__
from receiver.counters import Counters, LiveCounts
from receiver.errors import ConfigurationError
from receiver.journal.spool import SpoolCounters
from receiver.media import ChunkCounts, Track
from receiver.recording import document as recording
from receiver.recording.document import Recording
from receiver.service import prometheus
from receiver.service.prometheus import HOST, MetricsListener
from receiver.service.server import count_published
from tests.bounds import at_most
from tests.receiver.helpers import recordings_builder as builder

pytestmark = pytest.mark.integration

Samples = dict[tuple[str, tuple[str, ...]], float]


@dataclass
class Parts:
    """What a receiver counts, and the listener that serves it."""

    counters: Counters = field(default_factory=Counters)
    spool: SpoolCounters = field(default_factory=SpoolCounters)
    refused: Counter[str] = field(default_factory=Counter)
    live: LiveCounts = field(default_factory=lambda: LiveCounts(streams=0, chunks_received=0))
    listener: MetricsListener = field(init=False)

    def __post_init__(self) -> None:
        self.listener = MetricsListener(
            0, self.counters, self.spool, refused=self.refused, live=lambda: self.live
        )

    def asked(self) -> Samples:
        """Return every sample by name, without the prefix, and the values of its labels."""
        families = text_string_to_metric_families(
            httpx.get(self.listener.url, timeout=at_most(60), trust_env=False).text
        )
        return {
            (sample.name.removeprefix("tapreel_"), tuple(sample.labels.values())): sample.value
            for family in families
            for sample in family.samples
        }


@pytest.fixture
def parts() -> Iterator[Parts]:
    """Return parts that have counted nothing yet."""
    made = Parts()
    yield made
    made.listener.close()


def document(folder: Path) -> Recording:
    """Return the document of a recording with two tracks."""
    published = builder.build(folder)
    return recording.decode((published / "recording.json").read_bytes())


def test_nothing_is_exported_as_nothing(parts: Parts) -> None:
    """Figures without labels are there from the start, as 0; the build has its version."""
    samples = parts.asked()
    for name in ("streams_active", "streams_started_total", "write_errors_total", "free_bytes"):
        assert 0 == samples.get((name, ()), 0)
    assert ("streams_started_total", ()) in samples
    assert [1] == [v for (name, labels), v in samples.items() if __version__ in labels]
    assert not any(name == "certificate_expiry_seconds" for name, _ in samples)


def raw(parts: Parts, request: bytes) -> bytes:
    """Return the whole answer to a request, or nothing where the connection is closed."""
    with socket.create_connection((HOST, port_of(parts)), timeout=at_most(60)) as connection:
        connection.sendall(request)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while block := connection.recv(65_536):
                answer += block
        return answer


def port_of(parts: Parts) -> int:
    """Return where the listener is."""
    return int(parts.listener.url.split(":")[2].partition("/")[0])


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET /metrics HTTP/1.1", b"200"),
        (b"GET / HTTP/1.0", b"200"),
        (b"HEAD /metrics?a=b HTTP/1.1", b"200"),
        (b"GET /other HTTP/1.1", b"404"),
        (b"POST /metrics HTTP/1.1", b"405"),
        (b"\xff\0", b"405"),
    ],
)
def test_what_is_asked_is_answered(parts: Parts, line: bytes, status: bytes) -> None:
    """Figures are at /metrics and nothing is elsewhere; HEAD gets no body."""
    head, _, body = raw(parts, line + b"\r\n\r\n").partition(b"\r\n\r\n")
    assert status == head.split()[1]
    assert (b"tapreel_streams_active" in body) == (status == b"200" and line.startswith(b"GET"))


def test_who_connects_and_asks_nothing_holds_up_nobody_for_long(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So many at once, each for so long; one more is closed, and later there is room again."""
    monkeypatch.setattr(prometheus, "LONGEST_SECONDS", 1.0)
    with contextlib.ExitStack() as stack:
        idle = [
            stack.enter_context(
                socket.create_connection((HOST, port_of(parts)), timeout=at_most(60))
            )
            for _ in range(prometheus.MOST_CONNECTIONS)
        ]
        idle[0].sendall(b"GET /metr")
        deadline = time.monotonic() + at_most(60)
        while raw(parts, b"GET /metrics HTTP/1.1\r\n\r\n"):  # until all of them have a place
            assert time.monotonic() < deadline
        assert [b""] * len(idle) == [connection.recv(1) for connection in idle]
    while not raw(parts, b"GET /metrics HTTP/1.1\r\n\r\n"):
        assert time.monotonic() < deadline


def test_a_request_without_an_end_is_closed(parts: Parts) -> None:
    """Neither memory nor time of ours is for it."""
    assert b"" == raw(parts, b"GET /metrics HTTP/1.1\r\nA: " + b"a" * 100_000)


def test_who_asks_again_and_again_is_slowed_down(parts: Parts) -> None:
    """Making an answer takes the interpreter from the event loop for a moment."""
    started = time.monotonic()
    for _ in range(30):
        assert raw(parts, b"GET /metrics HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 200")
    assert time.monotonic() - started > 0.4


def test_chunks_of_live_streams_count(parts: Parts) -> None:
    """Those of recordings that ended are added to them, so that the counter never goes back."""
    parts.counters.chunks_received = 50
    parts.live = LiveCounts(streams=2, chunks_received=7)
    samples = parts.asked()
    assert 57 == samples["chunks_received_total", ()]
    assert 2 == samples["streams_active", ()]


def test_what_ended_refused_or_failed_is_counted_by_reason(parts: Parts) -> None:
    """Each reason is a label's value."""
    parts.counters.ended.update(stop=3, idle=1)
    parts.refused["replayed"] += 4
    parts.spool.errors["ENOSPC"] += 5
    taps = parts.counters.taps
    taps.dropped["slow_listener"] += 6
    taps.started["support"] += 3
    taps.ended["support"] += 2
    taps.listened_ms["support"] += 1500
    taps.lost["support"] += 7
    samples = parts.asked()
    expected: Samples = {
        ("streams_ended_total", ("stop",)): 3,
        ("streams_ended_total", ("idle",)): 1,
        ("handshakes_refused_total", ("replayed",)): 4,
        ("write_errors_total", ("ENOSPC",)): 5,
        ("tap_dropped_total", ("slow_listener",)): 6,
        ("listeners_started_total", ("support",)): 3,
        ("listeners_ended_total", ("support",)): 2,
        ("listened_seconds_total", ("support",)): 1.5,
        ("listener_lost_total", ("support",)): 7,
    }
    assert expected == {key: value for key, value in samples.items() if key in expected}


def test_a_published_recording_is_counted_with_what_became_of_its_chunks(
    parts: Parts, tmp_path: Path
) -> None:
    """By track and fate; whether it is complete is another counter's label."""
    incomplete = document(tmp_path)
    count_published(parts.counters, incomplete)
    tracks = [
        msgspec.structs.replace(track, chunks=ChunkCounts(received=10, written=10))
        for track in incomplete.tracks
    ]
    count_published(
        parts.counters, msgspec.structs.replace(incomplete, tracks=tuple(tracks), complete=True)
    )
    samples = parts.asked()
    states = ("incomplete", "complete")
    assert [1, 1] == [samples["recordings_total", (state,)] for state in states]
    fates = {"written": 59, "duplicate": 1, "late": 2, "conflict": 1, "rejected": 1}
    assert {(fate, track.value): count for fate, count in fates.items() for track in Track} == {
        labels: value for (name, labels), value in samples.items() if name == "chunks_total"
    }


def test_journals_that_were_set_aside_removed_or_kept_are_counted(parts: Parts) -> None:
    """Each in a counter of its own."""
    parts.counters.count_quarantined()
    for _ in range(2):
        parts.counters.count_discarded()
    for _ in range(3):
        parts.counters.count_failed()
    samples = parts.asked()
    assert (1, 2, 3) == tuple(
        samples[f"{name}_total", ()]
        for name in ("journals_quarantined", "journals_discarded", "publishing_failed")
    )


def test_the_worst_lag_is_that_since_the_last_scrape(parts: Parts) -> None:
    """It starts over with every answer."""
    parts.counters.worst_lag_seconds = 1.5
    assert [1.5, 0.0] == [parts.asked()["loop_lag_seconds", ()] for _ in range(2)]


def test_sync_times_become_a_histogram_once(parts: Parts) -> None:
    """What was measured since the last scrape is added to what was served before."""
    parts.spool.sync_seconds.extend([0.002, 5.0])
    first = parts.asked()
    parts.spool.sync_seconds.append(0.002)
    second = parts.asked()
    assert [2, 3] == [samples["sync_seconds_count", ()] for samples in (first, second)]
    assert [0, 2, 2, 3] == [
        second["sync_seconds_bucket", (edge,)] for edge in ("0.001", "0.003", "3.0", "10.0")
    ]


def test_when_the_certificate_expires_is_exported_where_there_is_one(parts: Parts) -> None:
    """In seconds since 1970."""
    parts.counters.certificate_expires_at = 1_800_000_000.0
    assert 1_800_000_000.0 == parts.asked()["certificate_expiry_seconds", ()]


def test_it_listens_on_loopback_only_until_it_is_closed(parts: Parts) -> None:
    """Whoever else is on the network sees nothing; closing again does nothing."""
    assert parts.listener.url.startswith("http://127.0.0.1:")
    for _ in range(2):
        parts.listener.close()


def test_a_port_that_is_taken_is_a_setting_that_is_wrong() -> None:
    """The text names it."""
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"port {port} for metrics: address already"):
            MetricsListener(
                port, Counters(), SpoolCounters(), refused=Counter(), live=lambda: LiveCounts(0, 0)
            )
