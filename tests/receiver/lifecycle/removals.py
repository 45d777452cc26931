"""What is on disk around a recording that is erased or deleted, and a process that is killed."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

_CALLS = frozenset(
    {"fsync", "rename", "unlink", "rmdir", "mkdir", "pwrite", "utime", "ftruncate", "write"}
)
"""Names of what changes a disk, in `os` and of open files."""


def killed_before(number: int, act: Callable[[], object]) -> bool:
    """Do something in a process that is killed before its disk call of this number, from 0 on.

    Returns:
        Whether it was killed: it has more calls than that.
    """
    child = os.fork()
    if child == 0:
        try:
            _count_down(number)
            act()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def _count_down(number: int) -> None:
    left = number

    def seen(_: FrameType, event: str, called: Any) -> None:
        nonlocal left
        if event == "c_call" and called.__name__ in _CALLS:
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    sys.setprofile(seen)


def hidden(recordings: Path) -> list[str]:
    """Return what is left over beside and in recordings."""
    return sorted(path.name for path in recordings.glob("2*/**/.*"))


def content(recordings: Path) -> bytes:
    """Return all bytes of all files below a folder."""
    return b"".join(p.read_bytes() for p in sorted(recordings.rglob("*")) if p.is_file())
