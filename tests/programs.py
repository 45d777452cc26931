"""The programs from outside of Python that tests call, and whether they are here.

A test that calls one of them is marked with `@pytest.mark.needs("sox")` and is skipped, by name,
where it is missing. Beside programs, a test may need `root`; `mount` is tried out, because
containers refuse it even to root.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

PACKAGES: Final = {
    "cc": "gcc libc6-dev",
    "chromium": "chromium",
    "exiftool": "libimage-exiftool-perl",
    "ffprobe": "ffmpeg",
    "initdb": "postgresql",
    "losetup": "mount",
    "mediainfo": "mediainfo",
    "mkfs.ext4": "e2fsprogs",
    "mount": "mount",
    "nginx": "nginx-light",
    "node": "nodejs npm",
    "postgres": "postgresql",
    "sox": "sox",
    "systemd-analyze": "systemd",
}
"""By program: the packages of Debian that install it."""
EVERYWHERE: Final = frozenset({"df", "nohup", "sh", "umount"})
"""Programs that every Debian has: they are in packages that cannot be removed. `umount` comes with
`mount`, which the tests that call it need anyway."""


_ELSEWHERE: Final = "/usr/lib/postgresql"
"""Debian keeps the programs of each version of PostgreSQL there, and out of the path."""


def find(program: str) -> str | None:
    """Return where a program is, or `None` where it is not installed."""
    newest = sorted(Path(_ELSEWHERE).glob("*/bin"), key=lambda folder: int(folder.parent.name))
    return shutil.which(program) or shutil.which(program, path=newest[-1] if newest else "")


@functools.cache
def missing(need: str) -> str:
    """Return why a need cannot be met on this machine, or nothing where it can."""
    if need == "root":
        return "" if os.geteuid() == 0 else "not root"
    if need not in PACKAGES:
        raise ValueError(f"{need!r} is not listed in tests/programs.py")
    if find(need) is None:
        return f"{need} is not installed"
    if need == "losetup" and not Path("/sys/block").exists():
        return "/sys is not mounted"
    return missing("root") or _mount_problem() if need in ("mount", "losetup") else ""


@functools.cache
def _mount_problem() -> str:
    """Mount a small file system and unmount it; return why that was refused, or nothing."""
    with tempfile.TemporaryDirectory() as folder:
        command = ("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"mount is refused: {done.stderr.strip()}"
        subprocess.run(("umount", "-l", folder), check=True)
    return ""


def unmet(needs: tuple[str, ...]) -> str:
    """Return all that is missing of some needs, or nothing."""
    return ", ".join(filter(None, map(missing, needs)))
