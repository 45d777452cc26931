"""Replay store: a signed stream token opens one stream, also across restarts and processes.

A used token is an empty file, named by the hash of its id (`jti`). Creating the file uses the
token, so of any number of attempts at once exactly one succeeds. The file's time of change is when
the token expires; from then on the token is refused anyway, and the file may be removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import structlog

from receiver.disk.files import create_private, sync_folder
from receiver.disk.folders import make_private_folder

CLEANUP_INTERVAL_SECONDS: Final = 600.0
"""Between two removals of expired tokens."""
MARGIN_SECONDS: Final = 3600.0
"""For how long an expired token is still remembered: a file that is being made has its time of
making first, and a clock may be set back."""
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
        sync_folder(self._folder)  # it stays used after a power cut, too
        return True

    def remove_expired(self) -> None:
        """Remove the records of tokens that are refused anyway."""
        expired = time.time() - MARGIN_SECONDS
        for path in list(self._folder.iterdir()):
            with contextlib.suppress(FileNotFoundError):  # another worker cleans up, too
                if path.lstat().st_mtime < expired:
                    path.unlink()

    async def clean_up(self, interval_seconds: float = CLEANUP_INTERVAL_SECONDS) -> None:
        """Remove what has expired, now and at each interval, in a thread; runs for ever."""
        while True:
            try:
                await asyncio.to_thread(self.remove_expired)
            except OSError as error:
                log.error("used_tokens_unreadable", error=error.strerror)
            await asyncio.sleep(interval_seconds)
