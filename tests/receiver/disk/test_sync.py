"""Syncs: they work, and their errors are the system's own."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from receiver.disk import files
from receiver.disk.folders import FolderLock


def test_a_sync_that_fails_raises_its_error(tmp_path: Path) -> None:
    """The error is the system's own."""
    with pytest.raises(OSError, match=r"\w") as failed:
        files.sync_file_system(-1)
    assert failed.value.errno in (errno.EBADF, errno.ENOSYS)
    with pytest.raises(FileNotFoundError):
        files.sync_folder(tmp_path / "nowhere")


def test_syncs_work(tmp_path: Path) -> None:
    """A folder, and on Linux a whole file system."""
    files.sync_folder(tmp_path)
    if sys.platform == "linux":
        with FolderLock(tmp_path / "spool") as lock:
            files.sync_file_system(lock.descriptor)


@pytest.mark.parametrize(
    ("release", "there"),
    [("5.7.19", False), ("4.18.0-553.el8", False), ("5.8.0", True), ("6.18", True), ("x", False)],
)
def test_a_system_call_that_hides_errors_is_not_used(
    monkeypatch: pytest.MonkeyPatch, release: str, there: bool
) -> None:
    """Before Linux 5.8, syncfs succeeded whatever became of the writes."""
    real = os.uname()
    fake = os.uname_result((real.sysname, real.nodename, release, real.version, real.machine))
    monkeypatch.setattr(os, "uname", lambda: fake)
    assert (there and sys.platform == "linux") == (files._find_syncfs() is not None)
