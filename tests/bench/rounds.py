"""Rounds of load on one subject after the other, so that ratios come from the same minute."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tests.bench.subjects import ROOT, TOKEN, Process, Subject, Workshop
from tests.bounds import at_most

CHUNKS_PER_CALL_SECOND: Final = 100
MICRO: Final = 1e6
LONGEST_BACKLOG_SECONDS: Final = at_most(30.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """How much load: that many calls for that many seconds, after a warm-up."""

    calls: int = 150
    seconds: float = 6.0
    warm: float = 1.0
    processor: int | None = None  # where the load runs; None: anywhere


@dataclass(frozen=True, slots=True)
class Figures:
    """What several rounds gave, in microseconds per chunk, and how late the load was."""

    rounds: list[float] = field(default_factory=list)
    late_ms: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Return the median of the rounds."""
        return statistics.median(self.rounds)

    @property
    def calls_per_core(self) -> float:
        """Return how many calls of two tracks fill one processor."""
        return MICRO / (self.median * CHUNKS_PER_CALL_SECOND)


class Load:
    """The load's process, step by step; see tests/bench/load.py."""

    def __init__(self, workshop: Workshop, subject: Subject, port: int, amount: Amount) -> None:
        options = {"--calls": amount.calls, "--seconds": amount.seconds, "--warm": amount.warm}
        command = [sys.executable, "-m", "tests.bench.load", str(port)]
        command += [str(part) for pair in options.items() for part in pair]
        if subject.tls:
            command += ["--tls", workshop.authority]
        if amount.processor is not None:
            command += ["--processor", str(amount.processor)]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "BENCH_TOKEN": TOKEN},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, word: str) -> None:
        """Wait until the load prints a word."""
        line = self._line()
        if line != word:
            raise RuntimeError(f"the load failed: it printed {line!r} for {word!r}")

    def result(self) -> dict[str, Any]:
        """Return what the load measured."""
        result: dict[str, Any] = json.loads(self._line())
        return result

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go_on(self) -> None:
        """Start the load's next step: play, and then hang up."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()


@contextlib.contextmanager
def loaded(
    workshop: Workshop, subject: Subject, process: Process, amount: Amount
) -> Iterator[Load]:
    """Run a load with its streams open for the length of a `with` block."""
    load = Load(workshop, subject, process.port, amount)
    try:
        load.wait_for("ready")
        yield load
    finally:
        load.process.kill()
        load.process.communicate()


def one_round(workshop: Workshop, subject: Subject, amount: Amount) -> tuple[float, float]:
    """Return microseconds of processor time per chunk, and how late the load was."""
    with (
        workshop.running(subject) as process,
        loaded(workshop, subject, process, amount) as load,
    ):
        load.go_on()
        load.wait_for("begin")
        before = process.cpu_seconds()
        load.wait_for("end")
        _wait_until_read(process)
        spent = process.cpu_seconds() - before
        result = load.result()
    return spent * MICRO / result["chunks"], result["late_p99_ms"]


def _wait_until_read(process: Process) -> None:
    """Wait until a subject that is behind has read everything, so that its cost is known."""
    give_up = time.monotonic() + LONGEST_BACKLOG_SECONDS
    while process.unread_bytes():
        if time.monotonic() > give_up:
            raise RuntimeError("the subject does not keep up: measure with fewer calls")
        time.sleep(0.05)


def interleaved(
    workshop: Workshop,
    subjects: Sequence[Subject],
    amount: Amount,
    *,
    rounds: int,
    progress: Callable[[str], None],
) -> dict[str, Figures]:
    """Measure every subject in every round."""
    figures = {subject.name: Figures() for subject in subjects}
    for number in range(rounds):
        for subject in subjects:
            per_chunk, late = one_round(workshop, subject, amount)
            figures[subject.name].rounds.append(per_chunk)
            figures[subject.name].late_ms.append(late)
            progress(f"round {number + 1}: {subject.name} {per_chunk:.1f} us")
    return figures
