"""Whether a folder's disk takes what is written, found out by a small file that leaves nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from receiver.disk import files
from receiver.service import admission
from receiver.service.admission import DiskWatch
from tests.bounds import at_most
from tests.faults.faulty_disk import small_disk, without_inodes


def is_empty(folder: Path) -> bool:
    """Whether nothing is in a folder."""
    return not list(folder.iterdir())


@pytest.mark.parametrize("sync", [False, True])
async def test_a_disk_that_takes_a_file_has_no_error_and_keeps_nothing(
    tmp_path: Path, sync: bool
) -> None:
    """Not even a name."""
    disk = DiskWatch(tmp_path, sync=sync)
    await disk.check()
    assert ("", False) == (disk.error, disk.hangs)
    assert disk.free_bytes > 0
    assert is_empty(tmp_path)


async def test_a_folder_that_is_gone_is_an_error_and_free_bytes_are_as_before(
    tmp_path: Path,
) -> None:
    """Nobody knows how many there are; the error closes by itself."""
    folder = tmp_path / "folder"
    folder.mkdir()
    disk = DiskWatch(folder)
    await disk.check()
    before = disk.free_bytes
    folder.rmdir()
    await disk.check()
    assert ("No such file or directory", before) == (disk.error, disk.free_bytes)


@pytest.mark.needs("mount")
async def test_without_an_inode_free_bytes_are_of_no_use(tmp_path: Path) -> None:
    """And with one again, the disk is as good as before."""
    with small_disk(tmp_path / "disk", megabytes=1, inodes=64) as folder:
        disk = DiskWatch(folder)
        with without_inodes(folder):
            await disk.check()
            assert "No space left on device" == disk.error
            assert disk.free_bytes > 2**19
        await disk.check()
        assert "" == disk.error


async def test_a_disk_that_does_not_answer_hangs_until_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event loop goes on meanwhile."""
    loop, asked, may_answer = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

    def hang(_folder: Path, *, sync: bool) -> None:
        assert not sync
        loop.call_soon_threadsafe(asked.set)
        asyncio.run_coroutine_threadsafe(may_answer.wait(), loop).result(at_most(60))

    monkeypatch.setattr(files, "try_out", hang)
    monkeypatch.setattr(admission, "STALLED_SECONDS", 0.05)
    disk = DiskWatch(tmp_path)
    checking = asyncio.create_task(disk.check())
    async with asyncio.timeout(at_most(60)):
        await asked.wait()
        while not disk.hangs:  # noqa: ASYNC110  what is awaited is time
            await asyncio.sleep(0.01)
        may_answer.set()
        await checking
    assert not disk.hangs
