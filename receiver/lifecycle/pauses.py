"""Pauses of calls: which last, and the files that say so after a crash.

A pause is of a call, not of a stream: one that starts again while its call is paused starts
paused. Each has a file in a folder of the spool that all workers share, so that a receiver which
is killed begins again with it. A file is removed when its pause ends; one whose time is over
counts no more.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from receiver.disk.files import open_regular, sync_folder, write_private
from receiver.disk.folders import make_private_folder

LONGEST_REASON: Final = 200
"""Characters of a reason: it goes into every notice, gap and entry."""
_FRESH: Final = ".fresh-"
_SUFFIX: Final = ".json"


class Pause(msgspec.Struct, frozen=True):
    """What somebody has asked for: nothing of a call is kept until then."""

    call_sid: str
    reason: str
    until_ms: int  # UTC, in milliseconds since 1970
    who: str = ""
    via: str = ""


class Pauses:
    """The pauses that last, by call; for the event loop's thread.

    Args:
        utc_ms: returns UTC, in milliseconds since 1970.
    """

    def __init__(self, utc_ms: Callable[[], int]) -> None:
        self._utc_ms = utc_ms
        self._by_call: dict[str, Pause] = {}

    def of(self, call_sid: str) -> Pause | None:
        """Return the pause of a call, if one lasts."""
        pause = self._by_call.get(call_sid) if self._by_call else None
        return pause if pause is not None and self._utc_ms() < pause.until_ms else None

    def add(self, pause: Pause) -> None:
        """Add a pause; it takes the place of the one that its call has."""
        self._by_call[pause.call_sid] = pause

    def remove(self, call_sid: str) -> None:
        """Remove the pause of a call; idempotent."""
        self._by_call.pop(call_sid, None)


class PauseStore:
    """The files of pauses; everything here waits for the disk.

    Raises:
        ConfigurationError: the folder cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        make_private_folder(folder)
        self._folder = folder

    def write(self, pause: Pause) -> None:
        """Write a pause, which is on disk when this returns.

        Raises:
            OSError: the disk failed.
        """
        fresh = self._folder / f"{_FRESH}{secrets.token_hex(8)}"
        try:
            write_private(fresh, msgspec.json.encode(pause))
            fresh.replace(self._path(pause.call_sid))
        except OSError:
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)
            raise
        sync_folder(self._folder)

    def remove(self, call_sid: str) -> None:
        """Remove the pause of a call, also from the disk; idempotent.

        Raises:
            OSError: the disk failed.
        """
        self._path(call_sid).unlink(missing_ok=True)
        sync_folder(self._folder)

    def load(self, now_ms: int) -> list[Pause]:
        """Return the pauses that last at a time, and remove all other files.

        Raises:
            OSError: the folder cannot be read.
        """
        found = []
        for path in sorted(self._folder.iterdir()):
            pause = _read(path)
            if pause is not None and now_ms < pause.until_ms:
                found.append(pause)
            else:
                path.unlink(missing_ok=True)
        return found

    def _path(self, call_sid: str) -> Path:
        name = hashlib.sha256(call_sid.encode("utf-8", "surrogatepass")).hexdigest()
        return self._folder / f"{name}{_SUFFIX}"


def _read(path: Path) -> Pause | None:
    """Return what a file says; nothing where it is no whole one, as after a crash."""
    if path.suffix != _SUFFIX or path.name.startswith(_FRESH):
        return None
    try:
        with open_regular(path) as file:
            return msgspec.json.decode(os.read(file.fileno(), 2**16), type=Pause)
    except (FileNotFoundError, ValueError):
        return None
