"""A folder's lock: one living process, and nobody's link."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from receiver.disk.folders import LOCK, FolderLock
from receiver.errors import ConfigurationError
from tests.bounds import at_most

WAIT_SECONDS = at_most(30)


@pytest.mark.integration
def test_a_lock_is_held_against_other_processes(tmp_path: Path) -> None:
    """Another process is refused while it is held, and let in afterwards."""
    ask = [
        *(sys.executable, "-c"),
        "import pathlib, sys, receiver.disk.folders as f; f.FolderLock(pathlib.Path(sys.argv[1]))",
        str(tmp_path / "spool"),
    ]
    with FolderLock(tmp_path / "spool"):
        refused = subprocess.run(
            ask, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False
        )
    admitted = subprocess.run(
        ask, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False
    )
    assert "is in use by another receiver" in refused.stderr
    assert 0 == admitted.returncode


def test_closing_a_lock_twice_gives_back_one_descriptor(tmp_path: Path) -> None:
    """The number may be another file's by then."""
    lock = FolderLock(tmp_path / "spool")
    number = lock.descriptor
    lock.close()
    other = os.open(tmp_path, os.O_RDONLY)
    assert number == other
    lock.close()
    fcntl.fcntl(other, fcntl.F_GETFD)
    os.close(other)


def test_a_lock_follows_no_symbolic_link(tmp_path: Path) -> None:
    """A lock file that leads elsewhere is refused, and its target stays as it was."""
    spool = tmp_path / "spool"
    spool.mkdir(0o700)
    (spool / LOCK).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="cannot lock"):
        FolderLock(spool)
    assert not (tmp_path / "elsewhere").exists()
