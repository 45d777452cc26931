"""What a sync costs: one fdatasync per journal, or one syncfs for all of them.

Usage: python -m tests.faults.sync_cost [FOLDER]. Writes what live streams write in half a
second (two tracks, 50 chunks a second, 210 bytes each), syncs it, and prints the medians.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

from receiver.disk import files

_BATCH = bytes(210 * 50)
_ROUNDS = 15
_STREAMS = (1, 2, 4, 8, 50, 500)


def _each(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.fdatasync(descriptor)


def _at_once(descriptors: list[int]) -> None:
    files.sync_file_system(descriptors[0])


def median_ms(folder: str, streams: int, sync: Callable[[list[int]], None]) -> float:
    """Return how long the sync of so many journals usually takes."""
    with tempfile.TemporaryDirectory(dir=folder) as inner:
        flags = os.O_RDWR | os.O_CREAT
        descriptors = [os.open(f"{inner}/{n}.journal", flags, 0o600) for n in range(streams)]
        took = []
        for _ in range(_ROUNDS):
            for descriptor in descriptors:
                os.write(descriptor, _BATCH)
            began = time.perf_counter()
            sync(descriptors)
            took.append(1000 * (time.perf_counter() - began))
        for descriptor in descriptors:
            os.close(descriptor)
    return statistics.median(took)


if __name__ == "__main__":
    where = sys.argv[1] if len(sys.argv) > 1 else "."
    for streams in _STREAMS:
        figures = [median_ms(where, streams, files) for files in (_each, _at_once)]
        sys.stdout.write("| {} | {:.1f} ms | {:.1f} ms |\n".format(streams, *figures))
