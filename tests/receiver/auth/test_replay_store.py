"""Signed tokens that were used: each once, in any process and at any time."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import time
from pathlib import Path

import pytest

from receiver.auth.replay_store import MARGIN_SECONDS, ReplayStore
from receiver.errors import ConfigurationError
from tests.bounds import at_most


async def test_a_token_can_be_used_once(tmp_path: Path) -> None:
    """The second use is refused, also by another process that comes later."""
    later = time.time() + 60
    assert await ReplayStore(tmp_path / "used").use("a", later)
    assert not await ReplayStore(tmp_path / "used").use("a", later)
    assert await ReplayStore(tmp_path / "used").use("b", later)


async def test_a_used_token_is_on_disk_before_its_stream_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut makes no token new: its file and the folder are synced."""
    used, sync, synced = ReplayStore(tmp_path / "used"), os.fsync, []

    def record(descriptor: int) -> None:
        synced.append(stat.S_IFMT(os.fstat(descriptor).st_mode))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    assert await used.use("a", time.time() + 60)
    assert [stat.S_IFREG, stat.S_IFDIR] == synced


async def test_of_many_at_once_exactly_one_succeeds(tmp_path: Path) -> None:
    """A replay at the same time is still a replay."""
    several = [ReplayStore(tmp_path / "used") for _ in range(2)]  # as in two workers
    attempts = [used.use("a", time.time() + 60) for used in several * 10]
    assert 1 == (await asyncio.gather(*attempts)).count(True)


async def test_ids_never_become_paths(tmp_path: Path) -> None:
    """Any text is an id; what is on disk is its hash."""
    used = ReplayStore(tmp_path / "used")
    for jti in ("../../etc/passwd", "", "\0", "\ud800", "x" * 10_000):
        assert await used.use(jti, time.time() + 60)
    names = [path.name for path in (tmp_path / "used").iterdir()]
    assert 5 == len(names)
    assert all(len(name) == 64 for name in names)


async def test_expired_tokens_are_removed(tmp_path: Path) -> None:
    """What is refused for its age need not be remembered."""
    used = ReplayStore(tmp_path / "used")
    await used.use("old", time.time() - MARGIN_SECONDS - 60)
    await used.use("new", time.time() + 60)
    used.remove_expired()
    assert not await used.use("new", time.time() + 60)
    assert 1 == len(list((tmp_path / "used").iterdir()))


async def test_a_token_is_remembered_for_a_while_longer(tmp_path: Path) -> None:
    """A file that is being made has no later time yet, and a clock may be set back."""
    used = ReplayStore(tmp_path / "used")
    await used.use("just expired", time.time() - 60)
    used.remove_expired()
    assert not await used.use("just expired", time.time() - 60)


async def test_expired_tokens_are_removed_from_time_to_time(tmp_path: Path) -> None:
    """A receiver that runs for months does not collect them, and a lost folder ends nothing."""
    used, folder = ReplayStore(tmp_path / "used"), tmp_path / "used"
    cleaning = asyncio.create_task(used.clean_up(interval_seconds=0.001))
    async with asyncio.timeout(at_most(30)):
        for name in ("first", "second"):
            await used.use(name, time.time() - MARGIN_SECONDS - 60)
            while list(folder.iterdir()):  # noqa: ASYNC110  no event to wait for
                await asyncio.sleep(0)
            folder.rename(tmp_path / name)
            folder.mkdir(0o700)
    cleaning.cancel()
    assert not cleaning.done()


def test_a_folder_that_others_can_write_is_refused(tmp_path: Path) -> None:
    """A user that can remove a record can use the token again."""
    (tmp_path / "used").mkdir()
    (tmp_path / "used").chmod(0o777)
    with pytest.raises(ConfigurationError, match="chmod 700"):
        ReplayStore(tmp_path / "used")


async def test_a_clock_that_was_ahead_frees_no_used_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records that were removed too early are not taken for tokens that were never used."""
    now = time.time()
    used = ReplayStore(tmp_path / "used")
    assert await used.use("a", now + 600)
    assert await used.use("late", now + 7 * 86_400)
    with monkeypatch.context() as ahead:
        ahead.setattr(time, "time", lambda: now + 86_400)
        used.remove_expired()
    assert 1 == len(list((tmp_path / "used").iterdir()))
    again = ReplayStore(tmp_path / "used")  # at the next start
    assert not await again.use("a", now + 600)
    assert not await again.use("late", now + 7 * 86_400)
    assert await again.use("b", now + 601)


async def test_up_to_when_tokens_were_removed_never_goes_back(tmp_path: Path) -> None:
    """Nor is it later than the latest token that was removed, whatever the clock says."""
    used, mark = ReplayStore(tmp_path / "used"), tmp_path / "used.removed"
    long_ago = time.time() - 10 * MARGIN_SECONDS
    for age in (0, 50, 20):
        assert await used.use(str(age), long_ago + age) == (age != 20)
        used.remove_expired()
        assert long_ago + max(0, 50 * bool(age)) == pytest.approx(mark.stat().st_mtime, abs=1)
    assert [] == list((tmp_path / "used").iterdir())
    used.remove_expired()
    assert long_ago + 50 == pytest.approx(mark.stat().st_mtime, abs=1)


async def test_what_is_removed_is_recorded_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that does not take the record keeps all of them."""
    used = ReplayStore(tmp_path / "used")
    assert await used.use("a", time.time() - 2 * MARGIN_SECONDS)

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        used.remove_expired()
    assert 1 == len(list((tmp_path / "used").iterdir()))
