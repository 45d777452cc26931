"""Secret files: refused where others can read them, written for their owner alone."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from receiver.disk.files import open_regular, write_private
from receiver.errors import ConfigurationError

_ROOT: Final = 0
_LONGEST_FILE: Final = 1_048_576


def read_secret(path: Path) -> bytes:
    """Return the content of a secret file.

    Raises:
        ConfigurationError: it is missing, unreadable, empty, not a regular file, belongs to
            another user than ours or root, or others than its owner can read it.
    """
    return _read(path, _check_access)


def read_plain(path: Path) -> bytes:
    """Return the content of a file that is no secret, such as a certificate.

    Raises:
        ConfigurationError: it is missing, unreadable, empty, or not a regular file.
    """
    return _read(path, lambda *_: None)


def _read(path: Path, check: Callable[[Path, os.stat_result], None]) -> bytes:
    try:
        with open_regular(path, follow_links=True) as file:
            check(path, os.fstat(file.fileno()))
            content = file.read(_LONGEST_FILE + 1)
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    if not content.strip():
        raise ConfigurationError(f"{path} is empty")
    if len(content) > _LONGEST_FILE:
        raise ConfigurationError(f"{path} is longer than 1 MiB")
    return content


def _check_access(path: Path, status: os.stat_result) -> None:
    if status.st_uid not in (os.geteuid(), _ROOT):  # its owner could read and change it
        raise ConfigurationError(f"{path} belongs to another user: chown it to your own")
    if status.st_mode & 0o077:
        raise ConfigurationError(f"others can read {path}: chmod 600 {path}")


def state_folder(path: Path) -> Path:
    """Return the folder of generated secrets, created with mode 0700 if it is missing.

    Raises:
        ConfigurationError: it cannot be created, is not our own, or others can read it.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise ConfigurationError(f"cannot make the folder {path}: {error.strerror}") from error
    if stat.S_ISLNK(found.st_mode) or found.st_uid != os.geteuid():
        raise ConfigurationError(f"{path} is not a folder of our own: name another with --state")
    if found.st_mode & 0o077:
        raise ConfigurationError(f"others can look into {path}: chmod 700 {path}")
    return path


def write_secret(path: Path, content: bytes) -> None:
    """Replace `path` by a file of mode 0600 in one step; a link there is replaced, not followed.

    Raises:
        ConfigurationError: it cannot be written.
    """
    hidden = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        write_private(hidden, content)
        hidden.replace(path)
    except OSError as error:
        hidden.unlink(missing_ok=True)
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from error
