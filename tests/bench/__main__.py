"""`make bench`: one table from one run, on loopback, which ends by itself."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from tests.bench import aside, rendering, table
from tests.bench.rounds import Amount, interleaved
from tests.bench.subjects import SUBJECTS, Workshop
from tests.bench.table import Report

MOST_CALLS: Final = 2000
MOST_SECONDS: Final = 60.0
MOST_ROUNDS: Final = 20
RENDERED_HOURS: Final = 0.25
MARKS: Final = ("<!-- bench -->", "<!-- /bench -->")
FLOOR: Final = "floor"  # the one subject that is compiled
ASIDES: Final = ("tapreel", "tapreel-tls")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; every amount is bounded."""
    options = _options(arguments)
    processors = sorted(os.sched_getaffinity(0))
    several = len(processors) > 1
    with tempfile.TemporaryDirectory(prefix="tapreel-bench-") as name:
        workshop = Workshop(Path(name), processors[0] if several else None)
        report = _measure(options, workshop, processors[-1] if several else None)
    if options.json:
        print(json.dumps(report.as_json(), indent=2))  # noqa: T201  the result
    else:
        print(table.as_text(report))  # noqa: T201  the result
    if options.markdown:
        write_tables(Path(options.markdown), table.as_markdown(report))
    return 0


def write_tables(file: Path, tables: str) -> None:
    """Write the tables between the marks of a page, or all of a file that has none."""
    page = file.read_text("utf-8") if file.exists() else ""
    before, opening, rest = page.partition(MARKS[0] + "\n")
    _, closing, after = rest.partition(MARKS[1])
    if opening and closing:
        file.write_text(f"{before}{opening}{tables}\n{closing}{after}", "utf-8")
    else:
        file.write_text(tables + "\n", "utf-8")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    names = [subject.name for subject in SUBJECTS]
    parser.add_argument("--calls", type=int, default=150, help="calls of two tracks")
    parser.add_argument("--seconds", type=float, default=6, help="measured seconds of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", choices=names, help="measure only this; repeat")
    parser.add_argument("--chunks-only", action="store_true", help="leave out all but CPU time")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--markdown",
        metavar="FILE",
        help="also write the tables: between the marks of a page, or to a new file",
    )
    options = parser.parse_args(arguments)
    if not 1 <= options.calls <= MOST_CALLS or not 0.1 <= options.seconds <= MOST_SECONDS:
        parser.error(f"at most {MOST_CALLS} calls and {MOST_SECONDS:g} seconds")
    if not 1 <= options.rounds <= MOST_ROUNDS:
        parser.error(f"at most {MOST_ROUNDS} rounds")
    return options


def _measure(options: argparse.Namespace, workshop: Workshop, processor: int | None) -> Report:
    report = Report(options.calls, options.seconds, options.rounds)
    subjects = [s for s in SUBJECTS if not options.only or s.name in options.only]
    if any(s.name == FLOOR for s in subjects) and workshop.compile() is None:
        report.skipped[FLOOR] = "no C compiler"
        subjects = [subject for subject in subjects if subject.name != FLOOR]
    amount = Amount(calls=options.calls, seconds=options.seconds, processor=processor)
    report.per_chunk = interleaved(
        workshop, subjects, amount, rounds=options.rounds, progress=_progress
    )
    if not options.chunks_only:
        _measure_beside(report, workshop, amount)
    return report


def _measure_beside(report: Report, workshop: Workshop, amount: Amount) -> None:
    short = replace(amount, seconds=min(amount.seconds, 4.0))
    for subject in SUBJECTS:
        if subject.name not in ASIDES or subject.name not in report.per_chunk:
            continue
        _progress(f"memory and delays: {subject.name}")
        found = aside.memory(workshop, subject, short)
        if not subject.tls:
            found |= aside.delays(workshop, subject, short)
            found["serve_seconds"] = aside.serve_seconds(workshop, subject)
        report.asides[subject.name] = found
    _progress("rendering, starting")
    report.rendering = rendering.measure(RENDERED_HOURS)
    report.help_seconds = aside.help_seconds()


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201  a run takes minutes


if __name__ == "__main__":
    sys.exit(main())
