"""The ledger: what was done with recordings, by whom, when; a chain that shows what was changed.

`<recordings>/.ledger/YYYY-MM.jsonl` has one entry in each line. Each entry has the number behind
the one before, and the SHA-256 of the line before, through all months. So a line that is changed,
left out, put in or moved does not fit to the next one. The file `head` beside the months has the
number and hash of the last line, which has no next one. Whoever can write here can make the whole
chain anew, so the head should be kept elsewhere, too, now and then: `verify` takes it.

    {"at":"2026-12-01T10:00:00.000Z","details":{"from_s":0,"to_s":12.5},"n":7,"prev":"5f…",
     "recording":"00112233aabbccdd","via":"console","what":"heard","who":"ann"}

- `append` returns when the entry is on disk, and whoever calls it acts only then. Where it raises,
  nothing may be done. So what was done is in the ledger, and the ledger may have what a crash or a
  disk kept from being done.
- Any process appends: the renderer, commands, the console, receivers. A lock lets them in one by
  one. A crash in the middle of a line leaves a part of it, which stays; the next entry begins a
  line of its own, and has the hash of that part (`torn`).
- Everything here waits for the disk, so no event loop calls it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path, PurePath
from typing import Any, Final, Literal

import msgspec

from receiver.disk import layout
from receiver.disk.files import BLOCK_BYTES, FILE_MODE, open_regular, sha256, write_all
from receiver.disk.folders import folder_within
from receiver.errors import LedgerError, UnreadableError, UnsafeFolderError
from receiver.media import clipped, visible
from receiver.recording.document import Published, json_escape

HEAD: Final = "head"
FIRST: Final = "0" * 64
"""In the place of the hash before the first entry."""
LONGEST_LINE: Final = 2**16
MOST_PROBLEMS: Final = 100
"""More of them say nothing more."""
Act = (
    Literal[
        "published", "heard", "fetched", "downloaded", "exported", "listening_live", "listened_live"
    ]
    | Literal["labelled", "unlabelled", "noted", "note_removed", "held", "released"]
    | Literal[
        "not_recorded",
        "erased",
        "deleted",
        "paused",
        "resumed",
        "signed_in",
        "sign_in_failed",
        "signed_out",
    ]
    | Literal[
        "user_added", "user_changed", "user_removed", "token_made", "token_revoked", "link_made"
    ]
)
"""The words for what is done; a new one is added here and in the table of the README."""
_MONTH: Final = re.compile(r"[0-9]{4}-[0-9]{2}\.jsonl")
_HEAD: Final = re.compile(rb"([0-9]{1,18}) ([0-9a-f]{64})\n")
_HEAD_BYTES: Final = 128


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One entry. `what` is a word for what was done; later versions add words and details.

    `who` is a user, a token's name or an account of the system; `via` the way that it came.
    """

    n: int
    at: str  # RFC 3339 in UTC
    who: str
    via: str
    what: str
    prev: str
    recording: str = ""
    details: dict[str, Any] = {}  # msgspec copies it
    torn: str = ""


_decoder: Final = msgspec.json.Decoder(Entry)


@dataclass(frozen=True, slots=True)
class Head:
    """The last entry: its number, and its line's SHA-256. Before the first one it is 0."""

    n: int = 0
    sha256: str = FIRST

    def __str__(self) -> str:
        """Return it as people keep it."""
        return f"{self.n}:{self.sha256}"


@dataclass(frozen=True, slots=True)
class EntryFilter:
    """Which entries are wanted: those that agree with everything that is set."""

    recording: str = ""
    who: str = ""
    what: frozenset[str] = frozenset()
    since: str = ""  # RFC 3339 in UTC, as entries have it
    before: int | None = None  # the number of the first one that is not wanted any more

    def needle(self) -> bytes:
        """Return what stands in the line of every entry that is wanted; nothing for all."""
        if self.recording:
            return b'"recording":' + _json(self.recording)
        if self.who:
            return b'"who":' + _json(self.who)
        return b'"what":' + _json(*self.what) if len(self.what) == 1 else b""

    def accepts(self, entry: Entry) -> bool:
        """Whether an entry agrees."""
        return (
            self.recording in ("", entry.recording)
            and self.who in ("", entry.who)
            and (not self.what or entry.what in self.what)
            and entry.at >= self.since
            and (self.before is None or entry.n < self.before)
        )


@dataclass(slots=True)
class Verified:
    """What a ledger was found to be.

    `problems` is empty where no entry was changed, left out, put in or moved; `remarks` is what
    a crash explains.
    """

    entries: int = 0
    head: Head = Head()
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


class Ledger:
    """The ledger of a recordings folder; it is made with its first entry."""

    def __init__(self, recordings: Path) -> None:
        self._recordings = recordings
        self._folder = recordings / layout.LEDGER

    def append(
        self, what: Act, *, who: str, via: str, recording: str = "", **details: Any
    ) -> Entry:
        """Append an entry, and return it when it is on disk: then what it says may be done.

        Args:
            what: The word for what is about to be done.
            who: The user, token name or system account that does it.
            via: Which way it came, such as `console`, `tap` or `command`.
            recording: The id of the recording that it is about, if it is about one.
            details: What else is to be known, as JSON.

        Raises:
            LedgerError: it cannot be written; nothing may be done.
        """
        try:
            with self._locked() as (folder, head):
                return _append(folder, head, Entry(0, "", who, via, what, "", recording, details))
        except (LedgerError, UnsafeFolderError):
            raise
        except OSError as error:
            reason = error.strerror or error
            raise LedgerError(
                f"the ledger cannot be written, nothing was done: {reason}"
            ) from error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[tuple[int, FileIO]]:
        """Yield the folder's descriptor and the open file of the head, for this caller alone."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with folder_within(self._recordings, PurePath(layout.LEDGER)) as folder:
            descriptor = os.open(HEAD, flags, FILE_MODE, dir_fd=folder)
            with open(descriptor, "r+b", buffering=0) as head:
                fcntl.flock(head, fcntl.LOCK_EX)
                yield folder, head

    def read(self, wanted: EntryFilter = EntryFilter()) -> Iterator[Entry]:
        """Yield the entries that are wanted, the newest first; what is no entry is passed over.

        Raises:
            UnreadableError: it cannot be read.
        """
        try:
            needle = wanted.needle()
        except UnicodeEncodeError:  # half a character, which no entry has
            return
        with _failures_as_unreadable(self._folder):
            for line in _newest_first(self._folder, wanted.since, needle):
                entry = _decoded(line) if needle in line else None
                if entry is not None and wanted.accepts(entry):
                    yield entry

    def head(self) -> Head:
        """Return the last entry's number and hash, to be kept elsewhere.

        Raises:
            UnreadableError: it cannot be read.
        """
        with _failures_as_unreadable(self._folder):
            for line in _newest_first(self._folder):
                entry = _decoded(line)
                if entry is not None:
                    return Head(entry.n, _sha256(line))
        return Head()

    def verify(self, known: Head | None = None) -> Verified:
        """Return whether the ledger is as it was written, as far as that can be known.

        Args:
            known: A head that was kept elsewhere: that entry must be there and be the same.

        Raises:
            UnreadableError: it cannot be read.
        """
        with _failures_as_unreadable(self._folder):
            own = _read_head(self._folder)  # first: what is appended meanwhile is behind it
            verified = Verified()
            chain = _Chain(verified, [own, known or Head()])
            for name in _months(self._folder):
                chain.feed_file(name, self._folder / name)
            chain.finish()
            if not own.n and verified.entries > 1:
                text = f"{HEAD} is missing: nobody knows whether there were later entries"
                verified.problems.append(text)
        return verified


def enter_published(recordings: Path, published: Published) -> None:
    """Enter that a recording was published, with the hash of its document.

    Raises:
        LedgerError: it cannot be written.
        OSError: the document cannot be read.
    """
    document = published.recording
    with open_regular(published.folder / layout.RECORDING_JSON) as file:
        document_sha256 = sha256(file)
    try:
        Ledger(recordings).append(
            "published",
            who="receiver",
            via="publishing",
            recording=document.id,
            call=clipped(document.call_sid),
            duration_ms=document.duration_ms,
            complete=document.complete,
            document_sha256=document_sha256,
        )
    except LedgerError as error:
        reason = getattr(error.__cause__, "strerror", None) or error
        raise LedgerError(f"its journal stays until the ledger takes it: {reason}") from error


def _append(folder: int, head: FileIO, entry: Entry) -> Entry:
    """Complete an entry, write its line, and then the head."""
    now = datetime.now(UTC)
    months = _months(folder)
    month = max([f"{now:%Y-%m}.jsonl", *months])  # a clock that was set back begins no old one
    before, torn = _end(folder, months)
    last = _decoded(before) if before else None
    n = max(last.n if last else 0, _parsed_head(os.pread(head.fileno(), _HEAD_BYTES, 0)).n) + 1
    at = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    entry = msgspec.structs.replace(
        entry,
        n=n,
        at=at,
        prev=_sha256(before) if before else FIRST,
        torn=_sha256(torn) if torn else "",
    )
    line = _encoded(entry)
    _write_line(folder, month, line, is_new=month not in months)
    os.pwrite(head.fileno(), b"%d %s\n" % (n, _sha256(line).encode()), 0)
    if not months:
        os.fsync(head.fileno())  # from then on it is overwritten in its place, and never empty
    return entry


def _encoded(entry: Entry) -> bytes:
    """Return an entry's line without its end: JSON with sorted keys, and nothing unseen in it.

    Raises:
        LedgerError: it is too long, or no text.
    """
    try:
        line = _json(entry)
    except UnicodeEncodeError as error:
        raise LedgerError(f"the ledger takes no half characters: {error}") from error
    if len(line) > LONGEST_LINE:
        raise LedgerError(f"an entry of {len(line)} bytes is too long for the ledger")
    return line


def _json(value: object) -> bytes:
    """Return JSON with sorted keys, in which nothing is that a terminal would obey or not show."""
    text = msgspec.json.encode(value, order="sorted").decode()
    return visible(text, json_escape).encode()


def _write_line(folder: int, name: str, line: bytes, *, is_new: bool) -> None:
    """Append a line and sync it; of one that fails nothing is left, if the disk lets it go."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(name, flags, FILE_MODE, dir_fd=folder), "r+b", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        starts_line = end == 0 or os.pread(file.fileno(), 1, end - 1) == b"\n"
        try:
            write_all(file, (b"" if starts_line else b"\n") + line + b"\n")
            os.fsync(file.fileno())
            if is_new:
                os.fsync(folder)
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(end)
                os.fsync(file.fileno())
            raise


def _end(folder: int, months: list[str]) -> tuple[bytes, bytes]:
    """Return the last whole line of all months, and the part of one that stands behind it."""
    if not months:
        return b"", b""
    torn = bytearray()
    with open_regular(months[-1], within=folder) as file:
        last = next(_lines_backwards(file, torn), b"")
    before, torn_before = (last, b"") if last else _end(folder, months[:-1])
    return before, bytes(torn) or torn_before


def _newest_first(folder: Path, since: str = "", needle: bytes = b"") -> Iterator[bytes]:
    """Yield whole lines of all months that may have entries of that time or later.

    Of lines without `needle` some are left out.
    """
    month = len("YYYY-MM")
    for name in reversed(_months(folder)):
        if name[:month] < since[:month]:
            return  # a clock that was set back makes no month begin again
        with open_regular(folder / name) as file:
            yield from _lines_backwards(file, needle=needle)


def _lines_backwards(
    file: FileIO, torn: bytearray | None = None, needle: bytes = b""
) -> Iterator[bytes]:
    """Yield whole lines without their ends, the last one first; add what is behind to `torn`.

    Blocks without `needle` are not even cut into lines, so that a whole ledger is soon searched.
    """
    end, rest, is_last = os.fstat(file.fileno()).st_size, b"", True
    while end:
        start = max(0, end - BLOCK_BYTES)
        block = os.pread(file.fileno(), end - start, start) + rest
        rest, *lines = block.split(b"\n", -1 if needle in block else 1)
        end = start
        if not lines:
            continue
        if needle not in block:
            is_last = False
            continue
        if is_last:
            is_last = False
            if torn is not None:
                torn += lines[-1]
            del lines[-1]
        yield from reversed(lines)
    if not is_last:
        yield rest
    elif torn is not None:
        torn += rest


def _months(folder: int | Path) -> list[str]:
    """Return the names of all months, in order; none where there is no ledger."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if _MONTH.fullmatch(entry.name))
    return []


def _decoded(line: bytes) -> Entry | None:
    """Return the entry that a line is, or nothing."""
    try:
        return _decoder.decode(line)
    except (ValueError, RecursionError):  # msgspec's errors, and bad UTF-8
        return None


def _sha256(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def _read_head(folder: Path) -> Head:
    try:
        with open_regular(folder / HEAD) as file:
            return _parsed_head(file.read(_HEAD_BYTES))
    except FileNotFoundError:
        return Head()


def _parsed_head(content: bytes) -> Head:
    """Return what the file of the head says; a crash in the first append leaves it empty."""
    found = _HEAD.match(content)
    return Head(int(found[1]), found[2].decode()) if found else Head()


def parse_head(text: str) -> Head:
    """Return a head that somebody has kept, as `Head` shows it.

    Raises:
        ValueError: it is none.
    """
    number, colon, sha256 = text.strip().partition(":")
    found = _HEAD.fullmatch(f"{number} {sha256}\n".encode("utf-8", "replace"))
    if not colon or found is None:
        raise ValueError("not a head such as 17:5f70bf18…, which has 64 digits behind the colon")
    return Head(int(found[1]), found[2].decode())


@contextlib.contextmanager
def _failures_as_unreadable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UnreadableError(f"{folder} cannot be read: {error.strerror or error}") from error


@dataclass(frozen=True, slots=True)
class _LedgerLine:
    """A line of a ledger, and where it is."""

    where: str
    content: bytes
    entry: Entry | None
    is_whole: bool


class _Chain:
    """Follows a ledger line by line, each when the next one is known, which may explain it."""

    def __init__(self, verified: Verified, known: list[Head]) -> None:
        self._verified = verified
        self._known = [head for head in known if head.n]
        self._held: _LedgerLine | None = None
        self._has_part = False  # of a line, right before the next one

    def feed_file(self, name: str, path: Path) -> None:
        """Follow one month."""
        with open_regular(path) as file, io.BufferedReader(file) as lines:
            for number, line in enumerate(iter(lambda: lines.readline(2 * LONGEST_LINE), b""), 1):
                content = line.removesuffix(b"\n")
                is_whole = len(content) < len(line)
                self._feed(_LedgerLine(f"{name}:{number}", content, _decoded(content), is_whole))

    def _feed(self, line: _LedgerLine) -> None:
        held, self._held = self._held, line
        if held is None:
            return
        torn = line.entry.torn if line.entry is not None else ""
        if torn and torn == _sha256(held.content):
            text = f"{held.where}: {len(held.content)} bytes of an entry that was never finished"
            self._verified.remarks.append(text)
            self._has_part = True
        else:
            self._judge(held)

    def finish(self) -> None:
        """Judge the last line, and whether it is the last one that there was."""
        held, found = self._held, self._verified
        if held is not None and not held.is_whole:
            text = f"{held.where}: the last entry is not finished: a crash, or it is being written"
            found.remarks.append(text)
        elif held is not None:
            self._judge(held)
        for head in self._known:
            if head.n > found.head.n:
                text = f"it ended with entry {head.n}, and ends with {found.head.n} now"
                self._add(f"{text}: what was behind is missing")
        if len(found.problems) > MOST_PROBLEMS:
            more = len(found.problems) - MOST_PROBLEMS
            found.problems[MOST_PROBLEMS:] = [f"and {more} more"]

    def _judge(self, line: _LedgerLine) -> None:
        """Compare a line with the one before it."""
        before, sha256, entry = self._verified.head, _sha256(line.content), line.entry
        had_part, self._has_part = self._has_part, False
        if entry is None:
            self._add(f"{line.where}: is no entry")
            self._verified.head = Head(before.n + 1, sha256)
            return
        if entry.prev != before.sha256:
            text = "does not follow the line before: one was changed, left out, put in or moved"
            self._add(f"{line.where}: {text}")
        if entry.n > before.n + 1:
            self._add(
                f"{line.where}: {entry.n - before.n - 1} entries before {entry.n} are missing"
            )
        elif entry.n <= before.n:
            self._add(f"{line.where}: entry {entry.n} stands behind entry {before.n}")
        if entry.torn and not had_part:
            self._add(f"{line.where}: the part of a line that stood before it is missing")
        if any(head.n == entry.n and head.sha256 != sha256 for head in self._known):
            self._add(f"{line.where}: entry {entry.n} is not the one that was there")
        self._verified.entries += 1
        self._verified.head = Head(entry.n, sha256)

    def _add(self, problem: str) -> None:
        self._verified.problems.append(problem)
