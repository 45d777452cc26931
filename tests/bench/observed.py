"""A receiver that records how long a chunk takes to its journal and to the disk, and loop lag.

The first argument is the file for the figures, which SIGUSR1 asks for. Every write is read as
journal records, whose arrival times are compared with now; that costs time of its own, so
nothing else is measured in such a run.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

from receiver.config.settings import Config
from receiver.disk import files
from receiver.journal.records import ChunkRecord, Header, Reader
from receiver.service import run as process

LAG_SECONDS: Final = 0.01

_started_at: dict[int, float] = {}
_unsynced: dict[int, list[float]] = defaultdict(list)
to_journal: list[float] = []
to_disk: list[float] = []
lags: list[float] = []

_pwrite, _fdatasync, _syncfs = os.pwrite, os.fdatasync, files.sync_file_system


def _note_write(descriptor: int, block: bytes, offset: int) -> int:
    written = _pwrite(descriptor, block, offset)
    now = time.time()
    for _, record in Reader([bytes(block)]):
        if isinstance(record, Header):
            _started_at[descriptor] = record.started_at_ms / 1000
        elif isinstance(record, ChunkRecord):
            arrived = _started_at[descriptor] + record.arrival_ms / 1000
            to_journal.append(now - arrived)
            _unsynced[descriptor].append(arrived)
    return written


def _note_sync(descriptor: int) -> None:
    written = [_unsynced.pop(descriptor, [])]
    _fdatasync(descriptor)
    _settle(written)


def _note_syncfs(descriptor: int) -> None:
    written = [_unsynced.pop(each) for each in list(_unsynced)]
    _syncfs(descriptor)
    _settle(written)


def _settle(written: list[list[float]]) -> None:
    now = time.time()
    for arrivals in written:
        to_disk.extend(now - arrived for arrived in arrivals)


async def _measure_lag() -> None:
    while True:
        due = time.monotonic() + LAG_SECONDS
        await asyncio.sleep(LAG_SECONDS)
        lags.append(time.monotonic() - due)


def percentile_ms(seconds: list[float], share: float = 0.99) -> float | None:
    """Return the value that all but a few stay below, in milliseconds."""
    ordered = sorted(seconds)
    return round(ordered[int(len(ordered) * share)] * 1000, 2) if ordered else None


def main() -> int:
    """Run `receiver` with the given arguments, and write what was measured on SIGUSR1."""
    from receiver.cli.main import main as receiver

    figures = Path(sys.argv[1])
    os.pwrite = _note_write  # type: ignore[assignment]  # called with bytes only
    os.fdatasync = _note_sync  # type: ignore[assignment]  # called with descriptors only
    files.sync_file_system = _note_syncfs
    run = process._run

    async def run_observed(config: Config, *arguments: Any) -> None:
        lag_meter = asyncio.create_task(_measure_lag())
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, _write, figures)
        await run(config, *arguments)
        lag_meter.cancel()

    process._run = run_observed  # type: ignore[assignment]  # it passes on what it gets
    return receiver(sys.argv[2:])


def _write(figures: Path) -> None:
    found = {"journal_p99_ms": to_journal, "synced_p99_ms": to_disk, "lag_p99_ms": lags}
    document = {name: percentile_ms(values) for name, values in found.items()}
    document["lag_worst_ms"] = percentile_ms(lags, 0.999999)
    fresh = figures.with_suffix(".new")
    fresh.write_text(json.dumps(document))
    fresh.rename(figures)


if __name__ == "__main__":
    sys.exit(main())
