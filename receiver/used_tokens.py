"""Signed tokens that were used: each opens one stream, also across restarts and processes.

A used token is an empty file whose name is the hash of its id; creating it is what uses it,
so of any number of attempts at once exactly one succeeds. The file's time is when the token
expires, after which it is refused anyway and the file may go.
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

from receiver.folders import make_private_folder


class UsedTokens:
    """The used tokens in one folder.

    Raises:
        ConfigurationError: the folder cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        make_private_folder(folder)
        self._folder = folder

    def use(self, jti: str, expires_at: float) -> bool:
        """Use a token up, and tell whether it was still unused.

        Raises:
            OSError: nobody can know; the caller must not admit it.
        """
        path = self._folder / hashlib.sha256(jti.encode("utf-8", "surrogatepass")).hexdigest()
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except FileExistsError:
            return False
        try:
            os.utime(descriptor, (expires_at, expires_at))
        finally:
            os.close(descriptor)
        return True

    def forget_expired(self) -> None:
        """Remove what is refused anyway."""
        now = time.time()
        for entry in os.scandir(self._folder):
            if entry.stat(follow_symlinks=False).st_mtime < now:
                Path(entry.path).unlink(missing_ok=True)
