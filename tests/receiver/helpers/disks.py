"""A disk for tests that takes only so much, writes in pieces, and fails syncs on demand."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest

_pwrite, _fdatasync = os.pwrite, os.fdatasync


class Disk:
    """Stands between the receiver and the kernel; everything that goes through is real."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.room: int | None = None  # bytes it still takes; None is no limit
        self.largest_write = 2**30
        self.sync_errors: Iterator[OSError | None] = iter(())
        self.synced: list[int] = []  # the size of the file at each sync that worked
        patch.setattr(os, "pwrite", self._write)
        patch.setattr(os, "fdatasync", self._sync)

    def _write(self, descriptor: int, block: bytes, offset: int) -> int:
        size = min(len(block), self.largest_write)
        if self.room is not None:
            size = min(size, self.room)
            if not size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.room -= size
        return _pwrite(descriptor, memoryview(block)[:size], offset)

    def _sync(self, descriptor: int) -> None:
        error = next(self.sync_errors, None)
        if error is not None:
            raise error
        _fdatasync(descriptor)
        self.synced.append(os.fstat(descriptor).st_size)


def broken() -> OSError:
    """Return what a sync of a broken disk raises."""
    return OSError(errno.EIO, os.strerror(errno.EIO))
