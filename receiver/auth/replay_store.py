"""Signed tokens that were used: each opens one stream, also across restarts and processes.

A used token is an empty file whose name is the hash of its id; creating it is what uses it,
so of any number of attempts at once exactly one succeeds. The file's time is when the token
expires, after which it is refused anyway and the file may go.
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

from receiver.disk.folders import make_private_folder, sync_folder

FORGET_INTERVAL_SECONDS: Final = 600.0
"""Between two looks for tokens that have expired."""
MARGIN_SECONDS: Final = 3600.0
"""For how long an expired token is remembered all the same: a file that is being made bears the
time of its making for a moment, and a clock may be set back."""

THREADS: Final = 4
"""That ask the disk at the same time; more than that wait, at most for their handshake's time."""

log = structlog.get_logger("receiver.used_tokens")


class ReplayStore:
    """The used tokens in one folder.

    Raises:
        ConfigurationError: the folder cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        make_private_folder(folder)
        self._folder = folder
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="used-tokens")

    async def use(self, jti: str, expires_at: float) -> bool:
        """Use a token up, and tell whether it was still unused; a slow disk delays only this.

        Raises:
            OSError: nobody can know; the caller must not admit it.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._use, jti, expires_at)

    def _use(self, jti: str, expires_at: float) -> bool:
        path = self._folder / hashlib.sha256(jti.encode("utf-8", "surrogatepass")).hexdigest()
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except FileExistsError:
            return False
        try:
            os.utime(descriptor, (expires_at, expires_at))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_folder(self._folder)  # it stays used after a power cut, too
        return True

    def forget_expired(self) -> None:
        """Remove what is refused anyway."""
        expired = time.time() - MARGIN_SECONDS
        for path in list(self._folder.iterdir()):
            with contextlib.suppress(FileNotFoundError):  # another worker looks, too
                if path.lstat().st_mtime < expired:
                    path.unlink()

    async def keep_small(self, interval_seconds: float = FORGET_INTERVAL_SECONDS) -> None:
        """Forget what has expired, now and from time to time, in a thread; runs for ever."""
        while True:
            try:
                await asyncio.to_thread(self.forget_expired)
            except OSError as error:
                log.error("used_tokens_unreadable", error=error.strerror)
            await asyncio.sleep(interval_seconds)
