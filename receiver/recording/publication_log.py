"""The publication log: what became of recordings, in the order in which it happened.

`<recordings>/.published/YYYY-MM.jsonl` has a line for each recording that was published, changed
or deleted. The line of a publication is on disk before the journal goes, so it is there at least
once, whatever was killed when. Followers (the catalogue, and whatever else must miss none) keep
a mark of their own, and read on from it; that a line comes twice must not matter to them.

- Appended by any process: the rendering process, commands, the console. A lock on the folder lets
  them in one by one, so a line is whole, and nothing is appended to a month behind which another
  has begun.
- Read by any thread or process, at any time, without a lock. Every call here may wait for the
  disk, so no event loop calls it.
- What was put into the recordings folder by hand is not in it: a follower compares with
  `recording.store` now and then.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Final, NamedTuple

import msgspec

from receiver.disk import layout
from receiver.disk.files import append_line, open_regular
from receiver.disk.folders import folder_within

PUBLISHED: Final = "published"
CHANGED: Final = "changed"
DELETED: Final = "deleted"
MOST_BYTES: Final = 1 << 20
"""Read at a time; thousands of lines."""
_MONTH: Final = re.compile(r"[0-9]{4}-[0-9]{2}\.jsonl")


class LogEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line: when (RFC 3339), which recording, and its folder below the recordings folder."""

    at: str
    id: str
    folder: str
    what: str = PUBLISHED


class LogMark(NamedTuple):
    """How far a follower has read: all files before `file`, and `position` bytes of it."""

    file: str = ""
    position: int = 0


_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(LogEntry)


def append(recordings: Path, folder: PurePath, what: str = PUBLISHED) -> None:
    """Append that the recording in `folder` was published, changed or deleted; it is synced.

    Args:
        recordings: The recordings folder.
        folder: The recording's folder, with the year, month and day that it is in.
        what: `PUBLISHED`, `CHANGED` or `DELETED`.

    Raises:
        UnsafeFolderError: others could put things into the log's folder.
        OSError: the disk failed; nothing of the line is left, unless it fails again.
    """
    name = PurePath(*folder.parts[-layout.LEVELS :]).as_posix()
    with _locked(recordings) as log:
        now = datetime.now(UTC)
        at = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = _encoder.encode(LogEntry(at, layout.recording_id_of(folder) or "", name, what))
        newest = max(_months(log), default="")
        month = max(newest, f"{now:%Y-%m}.jsonl")  # a clock that was set back begins no old one
        append_line(month, line, within=log)
        if month != newest:
            os.fsync(log)


@contextlib.contextmanager
def _locked(recordings: Path) -> Iterator[int]:
    with folder_within(recordings, PurePath(layout.PUBLISHED)) as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        yield log


def _months(log: int | Path) -> list[str]:
    """Return the names of all months, in order; none where there is no log."""
    with contextlib.suppress(FileNotFoundError), os.scandir(log) as entries:
        return sorted(entry.name for entry in entries if _MONTH.fullmatch(entry.name))
    return []


def read(recordings: Path, mark: LogMark) -> tuple[list[LogEntry], LogMark]:
    """Return some entries behind a mark, and the mark behind them; the same mark at the end.

    A line that cannot be read is passed over. A file that is shorter than the mark was replaced,
    for example from a backup: it is read from its beginning.

    Raises:
        OSError: the log cannot be read.
    """
    folder = recordings / layout.PUBLISHED
    # Listed before any is read: whatever has one behind it is not appended to any more.
    for name in _months(folder):
        if name >= mark.file:
            lines, start, end = _lines(folder / name, mark.position if name == mark.file else 0)
            mark = LogMark(name, end)
            if end > start:
                return [entry for line in lines for entry in _entry(line)], mark
    return [], mark


def _lines(path: Path, start: int) -> tuple[list[bytes], int, int]:
    """Return whole lines from byte `start` on, where they begin and where they end."""
    with open_regular(path) as file:
        if start > os.fstat(file.fileno()).st_size:
            start = 0
        file.seek(start)
        block = file.read(MOST_BYTES)
    end = block.rfind(b"\n") + 1
    if len(block) == MOST_BYTES and not end:
        end = len(block)  # no line of ours is that long
    return block[:end].splitlines(), start, start + end


def _entry(line: bytes) -> Iterator[LogEntry]:
    with contextlib.suppress(msgspec.MsgspecError):
        entry = _decoder.decode(line)
        path = PurePath(entry.folder)
        if layout.recording_id_of(path) == entry.id and layout.is_recording_folder(path):
            yield entry


def end(recordings: Path) -> LogMark:
    """Return the mark behind all that is in the log now.

    Raises:
        OSError: the log cannot be read.
    """
    folder = recordings / layout.PUBLISHED
    newest = max(_months(folder), default="")
    return LogMark(newest, (folder / newest).stat().st_size) if newest else LogMark()


def unread_bytes(recordings: Path, mark: LogMark) -> int:
    """Return how many bytes of the log are behind a mark.

    Raises:
        OSError: the log cannot be read.
    """
    folder = recordings / layout.PUBLISHED
    sizes = {n: (folder / n).stat().st_size for n in _months(folder) if n >= mark.file}
    return sum(sizes.values()) - min(mark.position, sizes.get(mark.file, 0))
