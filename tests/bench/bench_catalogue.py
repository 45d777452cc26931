"""What finding costs among a million recordings: every kind of page, adding one, rebuilding.

`make bench-catalogue` prints a table: the delay of each kind of search at the 50th and 95th
percentile of many different ones, in one process, as the console's threads have it. The database
is SQLite, made through the code that follows the publication log; its rows are of documents like
those that the receiver writes, with four parameters each. `--keep FILE` keeps the database for
the next run, which is a matter of 20 minutes.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePath
from typing import Final

import msgspec

from receiver.catalogue import rows, upkeep
from receiver.catalogue.catalogue import Catalogue
from receiver.catalogue.database import FILE, FOLDER
from receiver.catalogue.query import parse
from receiver.catalogue.upkeep import Changes
from receiver.disk import layout
from receiver.media import Finding, Track, timestamp
from receiver.recording import publication_log
from receiver.recording.annotations import Annotations, Label
from receiver.recording.document import Recording, encode
from receiver.recording.store import Kept
from tests.receiver.helpers import recordings_builder

DAYS: Final = 365
BATCH: Final = 2000
EACH: Final = 40
"""Searches of each kind."""
ADDED: Final = 300
REBUILT: Final = 5000
MOST_PAGE_MS: Final = 50.0
MOST_ADD_MS: Final = 5.0
LEAST_REBUILT: Final = 500.0
NOW: Final = datetime(2026, 12, 1, 12, tzinfo=UTC)

QUEUES: Final = ("sales", "support", "billing", "claims", "orders", "retention", "legal", "vip")
CAMPAIGNS: Final = {
    queue: tuple(f"{queue}-{word}" for word in ("spring", "renewal", "survey")) for queue in QUEUES
}
FIRST: Final = ("Ana", "Ben", "Chloé", "Dmitri", "Emma", "Farid", "Greta", "Hugo", "Inès", "Jörg")
LAST: Final = ("García", "Smith", "Müller", "Nowak", "Rossi", "Okafor", "Tanaka", "Silva", "佐藤")
AGENTS: Final = tuple(f"{a} {b}" for a in FIRST for b in LAST for _ in range(4))
LABELS: Final = ("callback", "complaint", "training", "checked")


def document(source: random.Random, index: int, count: int) -> tuple[Recording, Annotations]:
    """Return what is known of one made-up recording; the last ones are the newest."""
    age = timedelta(days=DAYS) * (count - index) / count
    started_ms = int((NOW - age).timestamp() * 1000) - source.randrange(20_000)
    queue = source.choices(QUEUES, weights=(30, 25, 15, 10, 8, 6, 4, 2))[0]
    whole = source.random() < 0.92
    recording_id = f"{source.getrandbits(64):016x}"
    made = recordings_builder.a_document(
        recording_id,
        started_ms,
        {
            "queue": queue,
            "agent": source.choice(AGENTS),
            "caller": f"+1{source.choice((212, 312, 415, 555))}{source.randrange(1_000_000):07d}",
            "campaign": source.choice(CAMPAIGNS[queue]),
        },
    )
    labels = [source.choice(LABELS)] if source.random() < 0.05 else []
    return (
        msgspec.structs.replace(
            made,
            call_sid=f"{source.getrandbits(128):032x}",
            stream_sid=f"{source.getrandbits(128):032x}",
            duration_ms=round(source.lognormvariate(11.8, 1.1), 3),
            complete=whole,
            findings=() if whole else (Finding("audio_lost", "20 ms in 1 gaps", Track.INBOUND),),
        ),
        Annotations(labels=tuple(Label(name, "bench", timestamp(started_ms)) for name in labels)),
    )


def folder_of(made: Recording) -> PurePath:
    """Return where a recording belongs."""
    started = datetime.fromisoformat(made.started_at)
    return layout.recording_folder(made.id, round(started.timestamp() * 1000))


def fill(catalogue: Catalogue, count: int) -> float:
    """Add rows of made-up recordings; return the seconds that took."""
    began, source = time.perf_counter(), random.Random(1)
    for first in range(0, count, BATCH):
        columns = {}
        for index in range(first, min(count, first + BATCH)):
            made, added = document(source, index, count)
            folder = folder_of(made)
            kept = Kept(catalogue.recordings / folder, made, encode(made))
            columns[made.id] = rows.columns(kept, added, folder) | {"fingerprint": ""}
        with catalogue.database.writing() as connection:
            upkeep.apply(connection, columns, [], Changes())
        say(f"{first + len(columns)} of {count} rows, {time.perf_counter() - began:.0f} s")
    return time.perf_counter() - began


def say(text: str) -> None:
    """Say how far it is, where somebody watches."""
    if sys.stderr.isatty():
        print(f"\r{text}\033[K", end="", file=sys.stderr, flush=True)  # noqa: T201


@dataclass
class Samples:
    """Delays of one kind of act, in milliseconds; CPU time of this process; what was found."""

    ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    found: int = 0

    def time(self, act: Callable[[], int]) -> None:
        """Add how long an act takes, and what it found."""
        began, cpu = time.perf_counter(), time.process_time()
        self.found += act()
        self.cpu_ms.append((time.process_time() - cpu) * 1000)
        self.ms.append((time.perf_counter() - began) * 1000)

    def row(self, kind: str) -> str:
        """Return a line of the table."""
        figures = (*(percentile(self.ms, p) for p in (50, 95)), percentile(self.cpu_ms, 95))
        cells = " | ".join(f"{figure:.1f}" for figure in figures)
        return f"| {kind} | {self.found / len(self.ms):.0f} | {cells} |"


def percentile(values: list[float], percent: int) -> float:
    """Return a percentile."""
    return statistics.quantiles(values, n=100)[percent - 1]


Words = dict[str, str]


def searches(source: random.Random, some: Sequence[rows.Row]) -> Iterator[tuple[str, Words]]:
    """Yield many searches of every kind; `some` rows are there."""
    for _ in range(EACH):
        row = source.choice(some)
        queue, agent = row.parameters["queue"], row.parameters["agent"]
        caller = row.parameters["caller"]
        other = source.choice([name for name in QUEUES if name != queue])
        day = (NOW - timedelta(days=source.randrange(DAYS))).date()
        month = {"from": str(day - timedelta(days=30)), "to": str(day)}
        yield "the newest", {}
        yield "somewhere in the middle", {"after": str(rows.first_number(_ms(row)))}
        yield "the oldest", {"sort": "oldest"}
        yield "one of 8 values", {"param.queue": queue}
        yield "one of 90 values", {"param.agent": agent}
        yield "one of a million values", {"param.caller": caller}
        yield "two values", {"param.queue": queue, "param.agent": agent}
        yield (
            "two values that never meet",
            {
                "param.queue": queue,
                "param.campaign": CAMPAIGNS[other][0],
            },
        )
        yield "a short prefix", {"param.caller": caller[: source.randrange(3, 6)] + "*"}
        yield "a long prefix", {"param.caller": caller[: source.randrange(6, 11)] + "*"}
        yield "a word", {"q": source.choice((*QUEUES, agent.split()[0]))}
        yield "beginnings of two words", {"q": f"{queue[:2]} {agent.split()[0][:3]}"}
        yield (
            "the beginning of a long word",
            {"q": source.choice(("retentio", "campaign", "spring"))},
        )
        yield "a word without spaces around", {"q": "佐"}
        yield "a call", {"call": row.call_sid}
        yield "the id of a call, as words", {"q": row.call_sid}
        yield "not complete", {"complete": "no"}
        yield "a finding and a value", {"finding": "audio_lost", "param.queue": queue}
        yield "a label", {"label": source.choice(LABELS)}
        yield "a label and a value", {"label": source.choice(LABELS), "param.agent": agent}
        yield "long ones", {"min_duration": "10m"}
        yield (
            "durations and a value",
            {
                "min_duration": "2m",
                "max_duration": "3m",
                "param.queue": queue,
            },
        )
        yield "a month", month
        yield "a month and a value", {**month, "param.queue": queue}
        yield "nothing there", {"param.queue": "none", "complete": "yes"}
        yield "the longest of all", {"sort": "longest"}
        yield (
            "the longest of an agent in a month",
            {
                **month,
                "sort": "longest",
                "param.agent": agent,
            },
        )


def _ms(row: rows.Row) -> int:
    return round(datetime.fromisoformat(row.started_at).timestamp() * 1000)


def timed(samples: Samples, act: Callable[[], int]) -> None:
    """Add how long an act takes, and what it found."""
    began = time.perf_counter()
    found = act()
    samples.ms.append((time.perf_counter() - began) * 1000)
    samples.found += found


def measure_searches(catalogue: Catalogue) -> dict[str, Samples]:
    """Return the delays of every kind of search, in an order by chance, and of facets."""
    source = random.Random(2)
    newest = catalogue.page(parse([("limit", "500")], NOW), {}).rows
    some = newest + catalogue.page(parse([("limit", "500"), ("from", "2026-03-01"),
                                          ("sort", "oldest")], NOW), {}).rows  # fmt: skip
    todo = list(searches(source, some))
    source.shuffle(todo)
    found: dict[str, Samples] = {}

    def look(kind: str, words: Words, scope: Words | None = None) -> None:
        query = parse(words.items(), NOW)
        samples = found.setdefault(kind, Samples())
        samples.time(lambda: len(catalogue.page(query, scope or {}).rows))

    def count(kind: str, words: Words) -> None:
        query = parse(words.items(), NOW)
        found.setdefault(kind, Samples()).time(lambda: catalogue.facets(query, {}, NOW).counted)

    for kind, words in todo:
        look(kind, words)
    for row in source.choices(some, k=EACH):
        agent, year = {"param.agent": row.parameters["agent"]}, {"from": "2026-01-01"}
        look("by somebody who may see one queue", agent, {"queue": row.parameters["queue"]})
        count("facets of a week", {})
        count("facets of a year", year)
        count("facets of a value", {**agent, **year})
        count("facets of two words", {"q": "sal ana", **year})
        recording_id = row.id
        found.setdefault("one recording", Samples()).time(
            lambda: len([catalogue.get(recording_id, {})])  # noqa: B023  called at once
        )
    return found


def put(recordings: Path, source: random.Random, index: int) -> PurePath:
    """Put the folder of a recording there, as far as the catalogue reads it."""
    made, _ = document(source, index, 1_000_000)
    folder = folder_of(made)
    (recordings / folder).mkdir(parents=True)
    (recordings / folder / layout.RECORDING_JSON).write_bytes(encode(made))
    return folder


def measure_adding(catalogue: Catalogue) -> Samples:
    """Return the delays of adding one recording, from the line in the log to its row."""
    source, samples = random.Random(), Samples()
    for index in range(ADDED):
        publication_log.append(catalogue.recordings, put(catalogue.recordings, source, index))
        samples.time(lambda: catalogue.catch_up().added)
    return samples


def measure_rebuilding(catalogue: Catalogue, folders: int) -> tuple[float, float]:
    """Return how many folders get their rows in a second, and in a second of CPU time.

    A whole rebuild is faster: at its beginning there are few rows.
    """
    source, changes = random.Random(), Changes()
    batches = [
        [put(catalogue.recordings, source, i + first) for i in range(upkeep.BATCH)]
        for first in range(0, folders, upkeep.BATCH)
    ]
    began, cpu = time.perf_counter(), time.process_time()
    for batch in batches:
        upkeep.update(catalogue.database, catalogue.recordings, batch, changes)
    cpu_seconds, seconds = time.process_time() - cpu, time.perf_counter() - began
    return changes.added / seconds, changes.added / cpu_seconds


def machine() -> str:
    """Return what it ran on."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines()
             if line.startswith("model name")] if info.exists() else []  # fmt: skip
    system = os.uname()
    return (
        f"{len(names)} x {names[0] if names else system.machine}, {system.sysname} {system.release}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000, help="recordings")
    parser.add_argument("--rebuilt", type=int, default=REBUILT, help="folders that are read")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the database there")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        catalogue = Catalogue(None, (options.keep or Path(scratch)) / "recordings")
        if catalogue.status().recordings < options.count:
            say(f"rows made in {fill(catalogue, options.count):.0f} s")
        lines, is_met = report(catalogue, options.rebuilt)
        catalogue.close()
    print("\n".join(lines))  # noqa: T201  the result
    return 0 if is_met else 1


def report(catalogue: Catalogue, folders: int) -> tuple[list[str], bool]:
    """Measure everything; return the lines of the table, and whether every target is met."""
    found = measure_searches(catalogue)
    added = measure_adding(catalogue)
    rate, cpu_rate = measure_rebuilding(catalogue, folders)
    slowest = max(percentile(samples.ms, 95) for samples in found.values())
    adding = percentile(added.ms, 95)
    results = (
        ("every page, ms at the 95th percentile", slowest, slowest <= MOST_PAGE_MS),
        ("adding one, ms at the 95th percentile", adding, adding <= MOST_ADD_MS),
        ("recordings rebuilt in a second", rate, rate >= LEAST_REBUILT),
    )
    size = (catalogue.recordings / FOLDER / FILE).stat().st_size / 2**20
    return [
        "",
        f"{machine()}; load {os.getloadavg()[0]:.1f} in the last minute",
        f"{catalogue.status().recordings} recordings with 4 parameters, {size:.0f} MiB",
        "",
        "| search | rows found | p50 ms | p95 ms | p95 ms of CPU |",
        "|---|--:|--:|--:|--:|",
        *(samples.row(kind) for kind, samples in found.items()),
        added.row("adding one"),
        "",
        f"recordings rebuilt in a second of CPU time: {cpu_rate:.0f}",
        *(f"{'ok    ' if met else 'MISSED'}  {what}: {value:.1f}" for what, value, met in results),
    ], all(met for _, _, met in results)


if __name__ == "__main__":
    sys.exit(main())
