"""The publication log: every line comes at least once to whoever reads on from a mark."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePath
from typing import Any

import pytest

from receiver.disk import layout
from receiver.recording import publication_log
from receiver.recording.publication_log import CHANGED, DELETED, LogEntry, LogMark

FOLDER = PurePath("2026/12/01/20261201T090000Z-00112233aabbccdd")


def folder(number: int) -> PurePath:
    """Return the folder of one of many recordings."""
    return FOLDER.with_name(f"20261201T090000Z-{number:016x}")


def read_all(recordings: Path, mark: LogMark = LogMark()) -> list[LogEntry]:  # noqa: B008  immutable
    """Return all entries behind a mark."""
    found: list[LogEntry] = []
    while True:
        entries, behind = publication_log.read(recordings, mark)
        if behind == mark:
            return found
        found += entries
        mark = behind


def only_file(recordings: Path) -> Path:
    """Return the one month that there is."""
    (path,) = (recordings / layout.PUBLISHED).iterdir()
    return path


def test_lines_come_in_order_with_what_happened(tmp_path: Path) -> None:
    """A publication says only when, which and where."""
    publication_log.append(tmp_path, tmp_path / FOLDER)
    publication_log.append(tmp_path, FOLDER, CHANGED)
    publication_log.append(tmp_path, FOLDER, DELETED)
    entries = read_all(tmp_path)
    assert ["published", "changed", "deleted"] == [entry.what for entry in entries]
    assert {("00112233aabbccdd", str(FOLDER))} == {(e.id, e.folder) for e in entries}
    first = only_file(tmp_path).read_text().splitlines()[0]
    assert f'{{"at":"{entries[0].at}","id":"00112233aabbccdd","folder":"{FOLDER}"}}' == first


def test_it_is_private(tmp_path: Path) -> None:
    """Ids and times of calls are nobody's business."""
    publication_log.append(tmp_path, FOLDER)
    path = only_file(tmp_path)
    assert (0o600, 0o700) == (
        stat.S_IMODE(path.stat().st_mode),
        stat.S_IMODE(path.parent.stat().st_mode),
    )


def test_a_follower_goes_on_from_its_mark(tmp_path: Path) -> None:
    """And gets the same mark back where there is no more."""
    assert ([], LogMark()) == publication_log.read(tmp_path, LogMark())
    assert LogMark() == publication_log.end(tmp_path)
    publication_log.append(tmp_path, folder(1))
    entries, mark = publication_log.read(tmp_path, LogMark())
    assert [str(folder(1))] == [entry.folder for entry in entries]
    assert mark == publication_log.end(tmp_path)
    assert ([], mark) == publication_log.read(tmp_path, mark)
    assert 0 == publication_log.unread_bytes(tmp_path, mark)
    publication_log.append(tmp_path, folder(2))
    assert [str(folder(2))] == [entry.folder for entry in read_all(tmp_path, mark)]
    size = only_file(tmp_path).stat().st_size
    assert size - mark.position == publication_log.unread_bytes(tmp_path, mark)
    assert size == publication_log.unread_bytes(tmp_path, LogMark())


def test_months_follow_each_other(tmp_path: Path) -> None:
    """A month that has another one behind it is over, also where a clock was set back."""
    log = tmp_path / layout.PUBLISHED
    publication_log.append(tmp_path, folder(1))
    only_file(tmp_path).rename(log / "2025-01.jsonl")
    publication_log.append(tmp_path, folder(2))
    newest = max(log.iterdir())
    newest.rename(log / "2999-01.jsonl")
    publication_log.append(tmp_path, folder(3))
    (log / "notes.txt").write_text("something else")
    assert [str(folder(n)) for n in (1, 2, 3)] == [entry.folder for entry in read_all(tmp_path)]
    assert "2999-01.jsonl" == publication_log.end(tmp_path).file


def test_more_is_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a follower was away, memory holds a part."""
    for number in range(20):
        publication_log.append(tmp_path, folder(number))
    monkeypatch.setattr(publication_log, "MOST_BYTES", 300)
    entries, _ = publication_log.read(tmp_path, LogMark())
    assert 2 == len(entries)
    assert [str(folder(n)) for n in range(20)] == [e.folder for e in read_all(tmp_path)]


def test_lines_that_are_none_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a line of a power cut, one that leads elsewhere, one that is too long."""
    publication_log.append(tmp_path, folder(1))
    path = only_file(tmp_path)
    for line in (
        b'{"at":"x","id":"00112233aabbccdd","folder":"../../etc"}\n',
        b'{"at":"x","id":"1111111111111111","folder":"%s"}\n' % str(FOLDER).encode(),
        b'{"at":"x","id":"00112233aabbccdd","folder":"a/b/c/%s"}\n' % FOLDER.name.encode(),
        b"\xff\n",
        b"x" * 700,
    ):
        with open(path, "ab") as file:
            file.write(line)
    publication_log.append(tmp_path, folder(2))
    monkeypatch.setattr(publication_log, "MOST_BYTES", 300)
    assert [str(folder(1)), str(folder(2))] == [entry.folder for entry in read_all(tmp_path)]


def test_half_a_line_is_not_read_before_it_is_whole(tmp_path: Path) -> None:
    """It may be being written."""
    publication_log.append(tmp_path, folder(1))
    publication_log.append(tmp_path, folder(2))
    path = only_file(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    entries, mark = publication_log.read(tmp_path, LogMark())
    assert [str(folder(1))] == [entry.folder for entry in entries]
    assert ([], mark) == publication_log.read(tmp_path, mark)
    path.write_bytes(whole)
    assert [str(folder(2))] == [entry.folder for entry in read_all(tmp_path, mark)]


def test_a_log_that_was_replaced_by_a_shorter_one_is_read_anew(tmp_path: Path) -> None:
    """As from a backup."""
    publication_log.append(tmp_path, folder(1))
    mark = publication_log.end(tmp_path)
    later = LogMark(mark.file, mark.position + 1000)
    assert [str(folder(1))] == [entry.folder for entry in read_all(tmp_path, later)]


def test_a_disk_that_takes_a_part_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next line is whole, and the one that failed is not there."""
    publication_log.append(tmp_path, folder(1))
    before = only_file(tmp_path).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", _fails)
        with pytest.raises(OSError, match="broken"):
            publication_log.append(tmp_path, folder(2))
    assert before == only_file(tmp_path).read_bytes()


def _fails(*_: Any) -> None:
    raise OSError("broken")


def test_many_may_append_at_once(tmp_path: Path) -> None:
    """Every line is whole."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: publication_log.append(tmp_path, folder(n)), range(100)))
    assert {str(folder(n)) for n in range(100)} == {e.folder for e in read_all(tmp_path)}
    assert 100 == len(only_file(tmp_path).read_bytes().splitlines())
