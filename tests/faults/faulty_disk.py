"""Disks that are slow, full or broken: a preloaded shim, small file systems, what they need."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.bounds import at_most

_SHIM = Path(__file__).with_name("shim.c")
_WAIT_SECONDS = at_most(60.0)


def _run(*command: str | Path) -> str:
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        timeout=_WAIT_SECONDS,
        check=True,
    )
    return done.stdout.strip()


class Orders:
    """What the shim is to do with a process's disk calls; may change at any time."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / "orders"
        self._library = folder / "shim.so"
        _run("cc", "-shared", "-fPIC", "-O1", "-o", self._library, _SHIM, "-ldl")
        self.give()

    @property
    def environment(self) -> dict[str, str]:
        """Return what the process must be started with."""
        return {"LD_PRELOAD": str(self._library), "TAPREEL_FAULTS": str(self._file)}

    def give(self, *lines: str) -> None:
        """Replace all orders at once."""
        fresh = self._file.with_suffix(".fresh")
        fresh.write_text("".join(line + "\n" for line in lines))
        fresh.rename(self._file)


@contextlib.contextmanager
def small_disk(folder: Path, *, megabytes: int, inodes: int = 4096) -> Iterator[Path]:
    """Mount a small file system in memory for the length of a `with` block."""
    folder.mkdir(parents=True)
    options = f"size={megabytes}m,nr_inodes={inodes},mode=0700"
    _run("mount", "-t", "tmpfs", "-o", options, "tmpfs", folder)
    try:
        yield folder
    finally:
        _run("umount", "-l", folder)


@contextlib.contextmanager
def filled(folder: Path, *, spare_bytes: int = 0) -> Iterator[None]:
    """Fill a folder's file system, but for some bytes, until the end of the `with` block."""
    ballast = folder / "ballast"
    with open(ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (2**20, 2**12, 1):
            with contextlib.suppress(OSError):
                while file.write(b"\xff" * size) == size:
                    pass
    os.truncate(ballast, max(0, ballast.stat().st_size - spare_bytes))
    try:
        yield
    finally:
        ballast.unlink()


@contextlib.contextmanager
def without_inodes(folder: Path) -> Iterator[None]:
    """Leave a folder's file system with space and no inode, until the end of the `with` block."""
    ballast = folder / "inodes"
    ballast.mkdir()
    with contextlib.suppress(OSError):
        for number in itertools.count():
            (ballast / str(number)).touch(exist_ok=False)
    try:
        yield
    finally:
        shutil.rmtree(ballast)


@contextlib.contextmanager
def ext4_image(image: Path, folder: Path, *, megabytes: int = 32) -> Iterator[str]:
    """Mount a disk image, new or existing; yield the name of its loop device."""
    if not image.exists():
        with open(image, "wb") as file:
            file.truncate(megabytes * 2**20)
        _run("mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", image)
    folder.mkdir(parents=True)
    device = _run("losetup", "--find", "--show", image)
    try:
        _run("mount", "-t", "ext4", device, folder)
        try:
            yield device
        finally:
            _run("umount", folder)
    finally:
        _run("losetup", "--detach", device)


def sectors_written(device: str) -> int:
    """Return how much a block device has ever written."""
    return int(Path("/sys/block", Path(device).name, "stat").read_text().split()[6])
