"""Replay store: a signed stream token opens one stream, also across restarts and processes.

A used token is an empty file, named by the hash of its id (`jti`). Creating the file uses the
token, so of any number of attempts at once exactly one succeeds. The file's time of change is when
the token expires; from then on the token is refused anyway, and the file may be removed.

That rests on the clock, which may be wrong at one start and right at the next. So what was removed
is remembered, too, as the latest of those times: a token that does not expire later is refused,
because it may be one of those whose files are gone. With a clock that is right all the time,
such a token has long expired. One that was ahead costs tokens of the time in which it removed
records, and opens none of them twice:

    clock            file of the token that expires at 12:00    removed up to    the token
    11:00            is made                                    -                opens a stream
    18:00 (ahead)    is removed                                 12:00            is expired
    11:05 (right)    is not there                               12:00            is refused
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import structlog

from receiver.disk.files import create_private, open_folder, sync_folder
from receiver.disk.folders import make_private_folder

CLEANUP_INTERVAL_SECONDS: Final = 600.0
"""Between two removals of expired tokens."""
MARGIN_SECONDS: Final = 3600.0
"""For how long an expired token is still remembered: a file that is being made has its time of
making first."""
_REMOVED_SUFFIX: Final = ".removed"
"""Of the file beside the folder whose time of change is up to when tokens were removed."""
THREADS: Final = 4
"""How many wait for the disk at the same time; others queue, at most for their handshake's time."""

log = structlog.get_logger("receiver.used_tokens")


class ReplayStore:
    """The used tokens in one folder, shared by all worker processes.

    Raises:
        ConfigurationError: the folder cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        make_private_folder(folder)
        self._folder = folder
        self._removed = folder.with_name(folder.name + _REMOVED_SUFFIX)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="replay-store")

    async def use(self, jti: str, expires_at: float) -> bool:
        """Record a token as used, and return whether it was unused before.

        The record is synced before this returns; a slow disk delays only the caller.

        Args:
            jti: the token's id, any text.
            expires_at: the second since 1970 from which on the token is refused.

        Raises:
            OSError: it could not be recorded; the caller must not admit the token.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._use, jti, expires_at)

    def _use(self, jti: str, expires_at: float) -> bool:
        path = self._folder / hashlib.sha256(jti.encode("utf-8", "surrogatepass")).hexdigest()
        try:
            file = create_private(path)
        except FileExistsError:
            return False
        with file:
            os.utime(file.fileno(), (expires_at, expires_at))
            os.fsync(file.fileno())
            expires_ns = os.fstat(file.fileno()).st_mtime_ns
        sync_folder(self._folder)  # it stays used after a power cut, too
        if expires_ns > _changed_at_ns(self._removed):  # read last: it is written before a removal
            return True
        log.warning("used_token_unknown", reason="a clock was ahead, and records were removed")
        return False

    def remove_expired(self) -> None:
        """Remove the records of tokens that are refused anyway.

        Raises:
            OSError: the folder cannot be read, or what is removed cannot be recorded.
        """
        expired_ns = int((time.time() - MARGIN_SECONDS) * 1e9)
        found = {path: _changed_at_ns(path) for path in self._folder.iterdir()}
        expired = {path: at for path, at in found.items() if 0 <= at < expired_ns}
        if not expired:
            return
        self._record_removed(max(expired.values()))
        for path in expired:
            path.unlink(missing_ok=True)  # another worker cleans up, too

    def _record_removed(self, until_ns: int) -> None:
        """Set up to when records are removed, on disk; never back."""
        with open_folder(self._folder) as locked:
            fcntl.flock(locked, fcntl.LOCK_EX)  # other workers do it, too
            if until_ns <= _changed_at_ns(self._removed):
                return
            fresh = self._removed.with_suffix(".fresh")
            fresh.unlink(missing_ok=True)
            with create_private(fresh) as file:
                os.utime(file.fileno(), ns=(until_ns, until_ns))
                os.fsync(file.fileno())
            fresh.replace(self._removed)
            sync_folder(self._removed.parent)

    async def clean_up(self, interval_seconds: float = CLEANUP_INTERVAL_SECONDS) -> None:
        """Remove what has expired, at each interval, in a thread; runs for ever.

        Not at the start: by the first time a clock that was not yet set is set.
        """
        while True:
            await asyncio.sleep(interval_seconds)
            try:
                await asyncio.to_thread(self.remove_expired)
            except OSError as error:
                log.error("used_tokens_unreadable", error=error.strerror)


def _changed_at_ns(path: Path) -> int:
    """Return a file's time of change; -1 where it is gone."""
    try:
        return path.lstat().st_mtime_ns
    except FileNotFoundError:
        return -1
