"""The ledger: on disk before anything is done, and nothing in it can be changed unseen."""

from __future__ import annotations

import contextlib
import hashlib
import json
import resource
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.errors import LedgerError, UnreadableError, UnsafeFolderError
from receiver.lifecycle import ledger as module
from receiver.lifecycle.ledger import (
    FIRST,
    Act,
    Entry,
    EntryFilter,
    Head,
    Ledger,
    Verified,
    enter_published,
    parse_head,
)
from receiver.recording import store
from receiver.recording.document import Published
from tests.bounds import at_most
from tests.receiver.helpers import recordings_builder as builder

ID, OTHER = "00112233aabbccdd", "ffffffffffffffff"
WRITER = """
import sys
from pathlib import Path
from receiver.lifecycle.ledger import Ledger
for number in range(int(sys.argv[3])):
    entry = Ledger(Path(sys.argv[1])).append("heard", who=sys.argv[2], via="test", number=number)
    print(entry.n, flush=True)
"""


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Return the ledger of a recordings folder that holds nothing yet."""
    return Ledger(tmp_path / "recordings")


def month(tmp_path: Path) -> Path:
    """Return the file of the only month."""
    (path,) = (tmp_path / "recordings" / ".ledger").glob("*.jsonl")
    return path


def fill(ledger: Ledger, count: int) -> list[Entry]:
    """Append so many entries, and return them."""
    return [
        ledger.append("heard", who="ann", via="console", recording=ID, from_s=n, to_s=n + 0.5)
        for n in range(count)
    ]


def clock(monkeypatch: pytest.MonkeyPatch, time: datetime) -> None:
    """Set the ledger's clock."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return time

    monkeypatch.setattr(module, "datetime", Clock)


def test_there_is_no_ledger_before_the_first_entry(ledger: Ledger, tmp_path: Path) -> None:
    """Reading makes none."""
    assert [] == list(ledger.read())
    assert Head() == ledger.head()
    assert Verified() == ledger.verify()
    assert not (tmp_path / "recordings").exists()


def test_an_entry_is_a_line_of_canonical_json(ledger: Ledger, tmp_path: Path) -> None:
    """With the hash of the line before; files are private, and the head names the last line."""
    ledger.append("signed_in", who="ann", via="console")
    second = ledger.append("heard", who="ann", via="console", recording=ID, from_s=0, to_s=1.5)
    first_line, second_line = month(tmp_path).read_bytes().splitlines()
    hashed = hashlib.sha256(first_line).hexdigest()
    assert {
        "at": second.at,
        "details": {"from_s": 0, "to_s": 1.5},
        "n": 2,
        "prev": hashed,
        "recording": ID,
        "via": "console",
        "what": "heard",
        "who": "ann",
    } == json.loads(second_line)
    for line in (first_line, second_line):
        canonical = json.dumps(json.loads(line), sort_keys=True, separators=(",", ":"))
        assert canonical.encode() == line
    assert FIRST == json.loads(first_line)["prev"]
    assert datetime.fromisoformat(second.at).tzinfo is not None
    assert f"{second.at[:7]}.jsonl" == month(tmp_path).name
    folder = month(tmp_path).parent
    assert 0o700 == stat.S_IMODE(folder.stat().st_mode)
    assert {0o600} == {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    head = Head(2, hashlib.sha256(second_line).hexdigest())
    assert head == ledger.head() == ledger.verify().head
    assert f"2 {head.sha256}\n" == (folder / "head").read_text()


def test_what_a_terminal_would_obey_is_escaped(ledger: Ledger, tmp_path: Path) -> None:
    """And is the same when it is read again."""
    name = "a\x1b[31m\u202e\nJörg"
    entry = ledger.append("labelled", who=name, via="api", label=name)
    assert month(tmp_path).read_text().rstrip("\n").isprintable()
    assert [entry] == list(ledger.read())
    assert name == entry.details["label"]


@pytest.mark.parametrize(("text", "problem"), [("x" * 70_000, "too long"), ("\ud800", "half char")])
def test_what_is_no_entry_is_refused(ledger: Ledger, text: str, problem: str) -> None:
    """Nothing of it is written, and the next one follows the one before."""
    fill(ledger, 1)
    with pytest.raises(LedgerError, match=problem):
        ledger.append("noted", who="ann", via="api", text=text)
    fill(ledger, 1)
    assert (2, []) == (ledger.verify().entries, ledger.verify().problems)


def test_entries_are_read_from_the_newest_on(ledger: Ledger) -> None:
    """Those that agree with everything that is asked for."""
    heard = ledger.append("heard", who="ann", via="console", recording=ID)
    held = ledger.append("held", who="bob", via="command", recording=ID)
    other = ledger.append("heard", who="ann", via="api", recording=OTHER)
    user = ledger.append("user_added", who="root", via="command", user=ID)
    for wanted, expected in (
        (EntryFilter(), [user, other, held, heard]),
        (EntryFilter(recording=ID), [held, heard]),
        (EntryFilter(who="ann"), [other, heard]),
        (EntryFilter(what=frozenset({"held", "user_added"})), [user, held]),
        (EntryFilter(before=3), [held, heard]),
        (EntryFilter(before=3, who="ann"), [heard]),
        (EntryFilter(since=heard.at), [user, other, held, heard]),
        (EntryFilter(since="9999-01-01T00:00:00.000Z"), []),
    ):
        assert expected == list(ledger.read(wanted)), wanted


def test_many_entries_are_read_in_blocks(ledger: Ledger, tmp_path: Path) -> None:
    """In the right order, and each whole."""
    first = fill(ledger, 1)
    padding = "x" * 9000
    rest = [ledger.append("noted", who="ann", via="api", text=padding) for _ in range(40)]
    assert [*reversed(rest), *first] == list(ledger.read())
    assert month(tmp_path).stat().st_size > 2 * 2**17
    assert (41, []) == (ledger.verify().entries, ledger.verify().problems)


@pytest.mark.parametrize("length", [100, 4099, 60_000])
def test_few_among_many_are_found(ledger: Ledger, length: int) -> None:
    """Wherever they are in the blocks in which the file is read."""
    for number in range(60):
        recording = f"{number % 7:016x}"
        who = "Jörg\x1b" if number % 5 else "ann"
        act: Act = "heard" if number % 3 else "held"
        ledger.append(act, who=who, via="api", recording=recording, text="x" * length)
    entries = list(ledger.read())
    assert 60 == len(entries)
    for wanted in (
        *(EntryFilter(recording=f"{number:016x}") for number in range(8)),
        *(EntryFilter(who=who) for who in ("Jörg\x1b", "ann", "x")),
        *(EntryFilter(what=frozenset(what)) for what in (["held"], ["erased"], ["held", "heard"])),
        EntryFilter(recording=f"{3:016x}", who="ann", what=frozenset(["held"])),
    ):
        assert [e for e in entries if wanted.accepts(e)] == list(ledger.read(wanted)), wanted


def test_a_month_follows_the_one_before(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first line of one has the hash of the last line of the other."""
    clock(monkeypatch, datetime(2026, 11, 30, 23, 59, 59, 999_000, tzinfo=UTC))
    fill(ledger, 2)
    clock(monkeypatch, datetime(2026, 12, 1, tzinfo=UTC))
    fill(ledger, 2)
    folder = tmp_path / "recordings" / ".ledger"
    assert ["2026-11.jsonl", "2026-12.jsonl", "head"] == sorted(p.name for p in folder.iterdir())
    assert (4, []) == (ledger.verify().entries, ledger.verify().problems)
    assert [4, 3, 2, 1] == [entry.n for entry in ledger.read()]
    assert [4, 3] == [e.n for e in ledger.read(EntryFilter(since="2026-12-01T00:00:00.000Z"))]
    (folder / "2026-11.jsonl").unlink()
    assert any("2 entries before 3 are missing" in p for p in ledger.verify().problems)


def test_a_clock_that_is_set_back_begins_no_old_month(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order is that of the numbers; the time is what the clock said."""
    clock(monkeypatch, datetime(2026, 12, 1, tzinfo=UTC))
    fill(ledger, 1)
    clock(monkeypatch, datetime(2026, 11, 1, tzinfo=UTC))
    (entry,) = fill(ledger, 1)
    assert "2026-12.jsonl" == month(tmp_path).name
    assert "2026-11-01T00:00:00.000Z" == entry.at
    assert [] == ledger.verify().problems
    assert [2, 1] == [e.n for e in ledger.read(EntryFilter(since="2026-11-01T00:00:00.000Z"))]


LINES = 8


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ledger, Path, list[bytes]]:
    """Return a ledger of two months, its folder, and its lines."""
    folder = tmp_path_factory.mktemp("written")
    ledger = Ledger(folder)
    with pytest.MonkeyPatch.context() as patch:
        clock(patch, datetime(2026, 11, 30, tzinfo=UTC))
        fill(ledger, 3)
        clock(patch, datetime(2026, 12, 1, tzinfo=UTC))
        fill(ledger, LINES - 3)
    months = sorted((folder / ".ledger").glob("*.jsonl"))
    lines = [line for path in months for line in path.read_bytes().splitlines(keepends=True)]
    return ledger, folder / ".ledger", lines


def changed(written: tuple[Ledger, Path, list[bytes]], lines: list[bytes]) -> Verified:
    """Return what is found in a ledger of these lines."""
    ledger, folder, _ = written
    (folder / "2026-11.jsonl").write_bytes(b"".join(lines[:3]))
    (folder / "2026-12.jsonl").write_bytes(b"".join(lines[3:]))
    return ledger.verify()


@given(st.data())
def test_any_byte_that_is_changed_is_found(
    written: tuple[Ledger, Path, list[bytes]], data: st.DataObject
) -> None:
    """In any line, the last one too."""
    lines = written[2].copy()
    number = data.draw(st.integers(0, LINES - 1))
    line = bytearray(lines[number])
    position = data.draw(st.integers(0, len(line) - 1))
    line[position] ^= 1 << data.draw(st.integers(0, 7))
    lines[number] = bytes(line)
    assert changed(written, lines).problems
    assert [] == changed(written, written[2]).problems


@given(st.data())
def test_any_line_that_is_left_out_put_in_or_moved_is_found(
    written: tuple[Ledger, Path, list[bytes]], data: st.DataObject
) -> None:
    """One or several, from anywhere to anywhere, made to fit or not."""
    lines = written[2].copy()
    first = data.draw(st.integers(0, LINES - 1))
    last = data.draw(st.integers(first + 1, LINES))
    taken = lines[first:last]
    match data.draw(st.sampled_from(["left out", "twice", "moved", "put in"])):
        case "left out":
            del lines[first:last]
        case "twice":
            lines[first:first] = taken
        case "moved":
            del lines[first:last]
            place = data.draw(st.integers(0, len(lines)))
            lines[place:place] = taken
        case "put in":
            entry = json.loads(lines[first])
            entry["n"] += data.draw(st.integers(-1, 1))
            entry["who"] = "mallory"
            lines.insert(first + data.draw(st.integers(0, 1)), json.dumps(entry).encode() + b"\n")
    assert bool(changed(written, lines).problems) == (lines != written[2])
    assert [] == changed(written, written[2]).problems


@given(st.lists(st.binary(max_size=60), max_size=6))
def test_whatever_stands_there_can_be_verified_and_read(
    written: tuple[Ledger, Path, list[bytes]], lines: list[bytes]
) -> None:
    """Any bytes are problems, never an error."""
    assert changed(written, [*lines, *written[2]]).problems == [] or lines
    list(written[0].read())
    written[0].head()


def test_what_is_found_says_where_and_what(written: tuple[Ledger, Path, list[bytes]]) -> None:
    """In words for people."""
    lines = written[2]
    assert [
        MOVED.format("2026-11.jsonl:2"),
        "2026-11.jsonl:2: 1 entries before 3 are missing",
    ] == changed(written, [lines[0], *lines[2:]]).problems
    assert ["2026-12.jsonl:4: is no entry", MOVED.format("2026-12.jsonl:5")] == (
        changed(written, [*lines[:6], b"no entry\n", *lines[7:]]).problems
    )
    assert ["it ended with entry 8, and ends with 7 now: what was behind is missing"] == (
        changed(written, lines[:-1]).problems
    )
    last = lines[-1].replace(b"ann", b"bob")
    assert ["2026-12.jsonl:5: entry 8 is not the one that was there"] == (
        changed(written, [*lines[:-1], last]).problems
    )
    assert 101 == len(changed(written, [b"x\n"] * 500 + lines).problems)


MOVED = "{}: does not follow the line before: one was changed, left out, put in or moved"


def test_a_head_that_was_kept_elsewhere_finds_a_chain_made_anew(
    ledger: Ledger, tmp_path: Path
) -> None:
    """As nothing inside of the folder can."""
    fill(ledger, 3)
    kept = parse_head(str(ledger.head()))
    fill(ledger, 1)
    assert [] == ledger.verify(kept).problems
    folder = month(tmp_path).parent
    for path in folder.iterdir():
        path.unlink()
    fill(ledger, 2)
    assert [] == ledger.verify().problems
    (problem,) = ledger.verify(kept).problems
    assert "it ended with entry 3, and ends with 2 now" in problem
    fill(ledger, 2)
    (problem,) = ledger.verify(kept).problems
    assert "entry 3 is not the one that was there" in problem


@pytest.mark.parametrize("text", ["", "3", "3:", ":" + "a" * 64, "3:" + "g" * 64, "3 " + "a" * 64])
def test_what_is_no_head_is_refused(text: str) -> None:
    """By what one looks like."""
    with pytest.raises(ValueError, match="not a head"):
        parse_head(text)


def test_a_missing_head_is_a_problem(ledger: Ledger, tmp_path: Path) -> None:
    """Whoever cuts the last lines off would remove it, too; the next entry makes it again."""
    fill(ledger, 2)
    (month(tmp_path).parent / "head").unlink()
    assert ["head is missing: nobody knows whether there were later entries"] == (
        ledger.verify().problems
    )
    fill(ledger, 1)
    assert [] == ledger.verify().problems


@pytest.mark.parametrize("kept", [1, 17, -1])
def test_half_an_entry_stays_and_is_told_from_a_change(
    ledger: Ledger, tmp_path: Path, kept: int
) -> None:
    """The next one begins a line of its own, and verify says what happened."""
    fill(ledger, 2)
    path = month(tmp_path)
    whole, head = path.read_bytes(), (path.parent / "head").read_bytes()
    fill(ledger, 1)
    third = path.read_bytes()[len(whole) :]
    path.write_bytes(whole + third[:kept])
    (path.parent / "head").write_bytes(head)
    found = ledger.verify()
    assert (2, []) == (found.entries, found.problems)
    assert ["the last entry is not finished: a crash, or it is being written"] == [
        remark.split(": ", 1)[1] for remark in found.remarks
    ]
    (after,) = fill(ledger, 1)
    assert (3, hashlib.sha256(third[:kept]).hexdigest()) == (after.n, after.torn)
    found = ledger.verify()
    length = len(third[:kept])
    assert (3, []) == (found.entries, found.problems)
    assert [f"{path.name}:3: {length} bytes of an entry that was never finished"] == found.remarks
    assert [3, 2, 1] == [entry.n for entry in ledger.read() if entry.n < 3 or entry.torn]
    fill(ledger, 1)
    assert (4, []) == (ledger.verify().entries, ledger.verify().problems)
    path.write_bytes(path.read_bytes().replace(third[:kept] + b"\n" + b"{", b"{", 1))
    assert any("part of a line" in problem for problem in ledger.verify().problems)


def test_half_an_entry_at_the_end_of_a_month(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one of the next month has its hash; an empty month is passed over."""
    clock(monkeypatch, datetime(2026, 10, 1, tzinfo=UTC))
    fill(ledger, 2)
    with month(tmp_path).open("ab") as file:
        file.write(b'{"at":')
    (tmp_path / "recordings" / ".ledger" / "2026-11.jsonl").touch(0o600)
    clock(monkeypatch, datetime(2026, 12, 1, tzinfo=UTC))
    assert 3 == fill(ledger, 1)[0].n
    found = ledger.verify()
    assert (3, []) == (found.entries, found.problems)
    assert ["2026-10.jsonl:3: 6 bytes of an entry that was never finished"] == found.remarks


def test_threads_append_one_after_the_other(ledger: Ledger) -> None:
    """Each number once."""
    threads = [threading.Thread(target=fill, args=(ledger, 20)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(at_most(60))
    assert list(range(80, 0, -1)) == [entry.n for entry in ledger.read()]
    assert [] == ledger.verify().problems


@pytest.mark.integration
def test_processes_append_and_are_killed(ledger: Ledger, tmp_path: Path) -> None:
    """What any of them has reported is there; the chain is whole whatever was killed when."""
    reported = set[int]()
    for _ in range(3):
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, tmp_path / "recordings", name, count],
                stdout=subprocess.PIPE,
                text=True,
            )
            for name, count in (("killed", "100000"), ("ann", "40"), ("bob", "40"))
        ]
        for writer in writers[1:]:
            out, _ = writer.communicate(timeout=at_most(60))
            assert 0 == writer.returncode
            reported |= set(map(int, out.split()))
        writers[0].send_signal(signal.SIGKILL)
        out, _ = writers[0].communicate(timeout=at_most(60))
        reported |= {int(line) for line in out.splitlines(keepends=True) if line.endswith("\n")}
    fill(ledger, 1)
    found = ledger.verify()
    assert [] == found.problems
    assert reported <= {entry.n for entry in ledger.read()}
    assert found.entries == found.head.n


@contextlib.contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Limit how much of any file the kernel takes; the rest of a write is refused."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 1, 100])
def test_a_disk_that_takes_no_more_is_one_clear_error(
    ledger: Ledger, tmp_path: Path, room: int
) -> None:
    """Nothing is entered, so nothing may be done; with space again it goes on."""
    fill(ledger, 2)
    before = month(tmp_path).read_bytes()
    with (
        files_up_to(len(before) + room),
        pytest.raises(LedgerError, match="nothing was done: File too large") as failed,
    ):
        fill(ledger, 1)
    assert 3 == failed.value.exit_code
    assert before == month(tmp_path).read_bytes()
    fill(ledger, 1)
    found = ledger.verify()
    assert (3, [], []) == (found.entries, found.problems, found.remarks)


def test_others_cannot_lead_it_elsewhere(ledger: Ledger, tmp_path: Path) -> None:
    """No link is followed, neither of the folder nor of a file."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "recordings").mkdir()
    (tmp_path / "recordings" / ".ledger").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafeFolderError, match="symbolic link"):
        fill(ledger, 1)
    (tmp_path / "recordings" / ".ledger").unlink()
    fill(ledger, 1)
    path = month(tmp_path)
    moved = path.rename(tmp_path / "moved")
    path.symlink_to(moved)
    with pytest.raises(LedgerError):
        fill(ledger, 1)
    for read in (ledger.verify, ledger.head, lambda: list(ledger.read())):
        with pytest.raises(UnreadableError, match="cannot be read"):
            read()


def test_what_is_published_is_entered_or_tried_again(ledger: Ledger, tmp_path: Path) -> None:
    """With the hash of its document; where that cannot be, the error says what follows."""
    recordings = tmp_path / "recordings"
    folder = builder.build(recordings)
    published = Published(folder, store.read(folder).recording)
    enter_published(recordings, published)
    (entry,) = ledger.read()
    assert ("published", "receiver", "publishing") == (entry.what, entry.who, entry.via)
    assert builder.RECORDING_ID == entry.recording
    assert builder.sha256(folder / "recording.json") == entry.details["document_sha256"]
    path = month(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(LedgerError, match="journal stays until the ledger takes it: Is a dir"):
        enter_published(recordings, published)


def test_nobody_is_called_by_half_a_character(ledger: Ledger) -> None:
    """As a terminal may give it that is not set to UTF-8."""
    fill(ledger, 1)
    assert [] == list(ledger.read(EntryFilter(who="\udcff")))
