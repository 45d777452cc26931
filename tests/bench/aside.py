"""What is measured beside the cost of a chunk: memory, delays, and how long a start takes."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any, Final

from tests.bench.rounds import Amount, loaded
from tests.bench.subjects import RECEIVER, ROOT, Subject, Workshop
from tests.bounds import at_most

WAIT_SECONDS: Final = at_most(20.0)
STARTS: Final = 3


def memory(workshop: Workshop, subject: Subject, amount: Amount) -> dict[str, float]:
    """Return KiB of resident memory per stream: open but silent, and with media."""
    with workshop.running(subject) as process:
        with loaded(workshop, subject, process, replace(amount, calls=1, seconds=1)) as load:
            load.go_on()  # one call first: what is imported or cached once is no stream's
            load.wait_for("begin")
            load.wait_for("end")
        before = process.resident_kib()
        with loaded(workshop, subject, process, amount) as load:
            idle = process.resident_kib()
            load.go_on()
            load.wait_for("begin")
            load.wait_for("end")
            active = process.resident_kib()
    streams = amount.calls
    return {"idle_kib": (idle - before) / streams, "active_kib": (active - before) / streams}


def delays(workshop: Workshop, subject: Subject, amount: Amount) -> dict[str, float]:
    """Return 99th percentiles: chunk to journal, chunk to disk, and event loop lag."""
    figures = workshop.folder / f"delays-{subject.name}.json"
    python = ["-m", "tests.bench.observed", str(figures)]
    with (
        workshop.running(subject, python=python) as process,
        loaded(workshop, subject, process, amount) as load,
    ):
        load.go_on()
        load.wait_for("begin")
        load.wait_for("end")
        os.kill(process.pid, signal.SIGUSR1)
        give_up = time.monotonic() + WAIT_SECONDS
        while not figures.exists() and time.monotonic() < give_up:
            time.sleep(0.02)
        document: dict[str, Any] = json.loads(figures.read_text())
    return {name: float("nan") if v is None else v for name, v in document.items()}


def help_seconds() -> float:
    """Return how long `receiver --help` takes."""
    command = [sys.executable, "-m", RECEIVER, "--help"]
    return statistics.median(_timed(command) for _ in range(STARTS))


def _timed(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    return time.perf_counter() - began


def serve_seconds(workshop: Workshop, subject: Subject) -> float:
    """Return how long `receiver serve` takes to its `listening` line."""
    return statistics.median(_started(workshop, subject) for _ in range(STARTS))


def _started(workshop: Workshop, subject: Subject) -> float:
    began = time.perf_counter()
    with workshop.running(subject) as process:
        return process.listening_at - began
