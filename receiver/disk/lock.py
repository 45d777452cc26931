"""A folder's lock: at most one living process owns the folder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final, Self

from receiver.disk.files import FILE_MODE
from receiver.disk.folders import make_private_folder
from receiver.errors import ConfigurationError

LOCK: Final = "lock"


class FolderLock:
    """Ownership of a folder by one living process, from construction until `close`.

    The folder is made if it is missing. The kernel releases the lock of a process that dies.
    `descriptor` is the lock file's: a descriptor on the disk that is older than all that the
    owner writes.

    Raises:
        ConfigurationError: another living process owns it, or it cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        make_private_folder(folder)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self.descriptor = os.open(folder / LOCK, flags, FILE_MODE)
        except OSError as error:
            raise ConfigurationError(f"cannot lock {folder}: {error.strerror}") from error
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            raise ConfigurationError(f"{folder} is in use by another receiver") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the folder; idempotent."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
