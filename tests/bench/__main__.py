"""`make bench`: one table from one run."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from tests.bench.rounds import Amount, interleaved
from tests.bench.subjects import SUBJECTS, Workshop


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--calls", type=int, default=150)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", default=[])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tapreel-bench-") as name:
        processors = sorted(os.sched_getaffinity(0))
        workshop = Workshop(Path(name), processors[0] if len(processors) > 1 else None)
        workshop.compile()
        amount = Amount(calls=options.calls, seconds=options.seconds,
                        processor=processors[-1] if len(processors) > 1 else None)
        subjects = [s for s in SUBJECTS if not options.only or s.name in options.only]
        figures = interleaved(workshop, subjects, amount, rounds=options.rounds,
            progress=lambda line: print(line, file=sys.stderr))
        for n, f in figures.items():
            print(n, round(f.median, 1), [round(x,1) for x in f.rounds], round(f.calls_per_core), f.late_ms)


if __name__ == "__main__":
    main()
