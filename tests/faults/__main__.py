"""`make faults`: every fault, several times, and a table of what became of every chunk.

SEEDS (default 2) is how often the commonest faults are tried; the slow ones are tried less
often. FAULT limits the run to faults with that word in their names. In the table, `oldest` is
the age of the oldest chunk that was in flight at a cut.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TextIO

from tests import programs
from tests.faults import catalogues, consoles, crashes, disks, floods, power, resets, signals
from tests.faults.accounting import Tally, summed

COLUMNS = ("sent", "kept", "listed", "in_flight", "lost", "doubled", "misplaced", "foreign")
_MOST_PROBLEMS = 5


@dataclass(frozen=True, slots=True)
class Fault:
    """One row of the table; it runs `share` times SEEDS, but at least `least` times."""

    name: str
    run: Callable[[Path, int], Tally]
    share: float = 1.0
    least: int = 1
    needs: tuple[str, ...] = ()

    def skipped(self) -> str:
        """Return what is missing here to try it."""
        return programs.unmet(self.needs)


FAULTS = (
    Fault("SIGKILL during calls", crashes.killed),
    Fault("SIGKILL while syncs take 3 s", crashes.killed_while_syncing, 0.1, 2, ("cc",)),
    Fault("SIGKILL twice", crashes.killed_twice, 0.5),
    Fault("SIGKILL of one of two workers", crashes.worker_killed, 0.2),
    Fault(
        "SIGKILL while publishing",
        crashes.killed_while_publishing,
        0.5,
        len(crashes.DEATHS),
        ("cc",),
    ),
    Fault("SIGKILL while rewriting (EIO)", crashes.killed_while_rewriting, 0.1, 2, ("cc",)),
    Fault(
        "SIGKILL while a worker rewrites (EIO)",
        crashes.killed_while_a_worker_rewrites,
        0.1,
        2,
        ("cc",),
    ),
    Fault("SIGKILL of the renderer, twice", crashes.renderer_killed, 0.05, 1, ("cc",)),
    Fault("recovery beside a living receiver", crashes.recovered_too_early, 0.05),
    Fault("power cut", power.cut, 0.5, 1, ("mount", "losetup", "mkfs.ext4")),
    Fault("disk full for 10 s", disks.full, 0.02, 1, ("mount",)),
    Fault("disk full for too long (2 s bound)", disks.full_for_too_long, 0.1, 1, ("mount",)),
    Fault(
        "disk full for 40 s (the real bound)",
        partial(disks.full_for_too_long, limit=30.0, seconds=40.0),
        0,
        1,
        ("mount",),
    ),
    Fault("no inodes for 8 s", disks.out_of_inodes, 0.1, 1, ("mount",)),
    Fault("no inodes while there is no call", disks.idle_without_inodes, 0.1, 1, ("mount",)),
    Fault("no space for recordings", disks.full_for_files, 0.1, 1, ("mount",)),
    Fault("syncs fail (EIO)", disks.failing, 0.2, 2, ("cc",)),
    Fault("syncs take 3 s", disks.slow, 0.05, 1, ("cc",)),
    Fault("a sync hangs", disks.sync_hangs, 0.05, 1, ("cc",)),
    Fault("a write hangs for too long", disks.hanging, 0.05, 1, ("cc",)),
    Fault("3000 chunks, then a reset", resets.burst, 0.2, 1, ("cc",)),
    Fault("paused for 4 s (2 s bound)", signals.frozen, 0.1, 1, ("cc",)),
    Fault(
        "paused for 100 s (the real bound)",
        partial(signals.frozen, limit=30.0, seconds=100.0),
        0,
        1,
        ("cc",),
    ),
    Fault("SIGHUP while it starts", signals.reloaded_at_the_start, 0.1),
    Fault("SIGTERM", signals.drained, 0.1),
    Fault("SIGTERM twice", signals.stopped, 0.1),
    Fault(
        "SIGTERM twice, and the disk hangs",
        signals.stopped_while_the_disk_hangs,
        0.02,
        len(signals.HANGS),
        ("cc",),
    ),
    Fault("SIGKILL of the catalogue's console", catalogues.killed, 0.1),
    Fault("the catalogue is locked", catalogues.locked, 0.05),
    Fault("the catalogue's disk is full", catalogues.disk_full, 0.05, 1, ("mount",)),
    Fault("PostgreSQL is away", catalogues.server_away, 0.05, 1, ("postgres", "initdb")),
    Fault("floods", floods.flood, 0.12, len(floods.FLOODS)),
    Fault("the console attacked", consoles.attacked, 0.1, len(consoles.ATTACKS)),
)


def try_out(fault: Fault, runs: int, progress: TextIO) -> Tally:
    """Run one fault with seeds from 0 on."""
    tallies = []
    for seed in range(runs):
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="tapreel-faults-") as folder:
            try:
                tally = fault.run(Path(folder, "trial"), seed)
            except Exception:
                tally = Tally(problems=[traceback.format_exc()])
        tally.problems[:] = [f"seed {seed}: {problem}" for problem in tally.problems]
        if not tally.passed and not tally.problems:
            tally.problems.append(f"seed {seed}: {tally}")
        tallies.append(tally)
        verdict = "ok" if tally.passed else "FAILED"
        took = time.monotonic() - began
        figures = "".join(f", {figure}" for figure in tally.figures)
        print(f"{fault.name}, seed {seed}: {verdict}, {took:.1f} s{figures}", file=progress)
    return summed(tallies)


def row(*cells: object) -> str:
    """Return one line of the table."""
    first, *others = map(str, cells)
    return f"| {first:<36} |" + "".join(f" {cell:>9} |" for cell in others)


def main() -> int:
    """Try every fault, print the table, and return the exit code."""
    seeds, word = int(os.environ.get("SEEDS", "2")), os.environ.get("FAULT", "")
    rows, problems = [], []
    for fault in FAULTS:
        if word not in fault.name:
            continue
        if reason := fault.skipped():
            rows.append(row(fault.name, 0, *("" for _ in COLUMNS), "", f"skipped: {reason}"))
            continue
        runs = max(fault.least, round(fault.share * seeds))
        tally = try_out(fault, runs, sys.stderr)
        counts = [getattr(tally, column) for column in COLUMNS]
        worst = f"{tally.worst_seconds:.2f} s" if tally.in_flight else ""
        rows.append(row(fault.name, runs, *counts, worst, "ok" if tally.passed else "FAILED"))
        problems += [f"{fault.name}: {problem}" for problem in tally.problems[:_MOST_PROBLEMS]]
    heads = [column.replace("_", " ") for column in COLUMNS]
    lines = [
        row("fault", "runs", *heads, "oldest", "verdict"),
        row("---", *["--:"] * 11),
        *rows,
        *problems,
    ]
    print("\n".join(lines))  # noqa: T201  the table is what this program is for
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
