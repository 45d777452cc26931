"""The console of a real `receiver serve --console`: its process, its line, whether it answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.bounds import at_most
from tests.end_to_end.receiver_process import ReceiverProcess


def children_of(pid: int) -> Iterator[int]:
    """Yield the children of a process that run the console's code."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "status").read_text()
            maps = (folder / "maps").read_text()
        except OSError:
            continue
        if f"PPid:\t{pid}\n" in status and "sqlite" in maps:
            yield int(folder.name)


def console_line(receiver: ReceiverProcess) -> str:
    """Return the URL of the next line about the console."""
    assert receiver.process.stdout is not None
    for line in receiver.process.stdout:
        if line.startswith("console "):
            return line.split()[1]
    raise AssertionError(receiver.raw_log)


def is_healthy(url: str) -> bool:
    """Return whether a console answers."""
    try:
        return httpx.get(f"{url}healthz", timeout=at_most(10)).status_code == 200
    except httpx.HTTPError:
        return False
