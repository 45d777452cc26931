"""`receiver catalogue`, and `receiver list` where there is a catalogue."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from receiver.catalogue import database, upkeep
from receiver.catalogue.catalogue import Catalogue
from receiver.cli import catalogue as module
from receiver.cli import main
from receiver.disk import layout
from receiver.recording import publication_log, store
from receiver.recording.annotations import add_label, change
from tests.receiver.helpers import recordings_builder as builder

HOUR_MS = 3_600_000
AT = "2026-12-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Return a recordings folder with three recordings, one in each hour."""
    folder = tmp_path / "recordings"
    for number in range(3):
        put(folder, number)
    return folder


def put(folder: Path, number: int) -> Path:
    """Put a recording there; the lowest number is the newest."""
    return builder.put(
        folder,
        f"{number:04x}000000000000",
        started_at_ms=builder.STARTED_AT_MS - number * HOUR_MS,
        parameters={"queue": "sales", "n": str(number), "empty": "", "star": "5*"},
        call_sid=f"call-{number}",
    )


@pytest.fixture
def run(
    recordings: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Return what runs `receiver` with the recordings folder in the environment."""
    for name in ("TAPREEL_CONFIG", "TAPREEL_DATABASE_URL", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TAPREEL_RECORDINGS", str(recordings))

    def command(*arguments: str) -> Outcome:
        code = main.main(arguments)
        printed = capsys.readouterr()
        return Outcome(code, printed.out, printed.err)

    return command


@pytest.fixture
def rebuilt(run: Run) -> Run:
    """Return the same, where there is a catalogue."""
    assert Outcome(0, "3 recordings in the catalogue\n", "") == run("catalogue", "rebuild")
    return run


def listed(outcome: Outcome) -> list[int]:
    """Return the numbers of the recordings that `list --json` printed."""
    assert 0 == outcome.code, outcome.err
    return [int(document["id"][:4], 16) for document in json.loads(outcome.out)]


def test_without_a_catalogue_there_is_none_to_look_at(run: Run) -> None:
    """And the text says how to make one."""
    for command in ("check", "status"):
        outcome = run("catalogue", command)
        assert (5, "") == (outcome.code, outcome.out)
        assert "receiver catalogue rebuild" in outcome.err


def test_status_says_where_it_is_and_how_far(rebuilt: Run, recordings: Path) -> None:
    """For people, and for programs."""
    publication_log.append(recordings, put(recordings, 9))
    found = json.loads(rebuilt("catalogue", "status", "--json").out)
    assert (3, "Z") == (found["recordings"], found["compared_at"][-1])
    assert 50 < found["unread_bytes"]
    lines = rebuilt("catalogue", "status").out.splitlines()
    assert ["database", "schema", "recordings", "not", "compared"] == [
        each.split()[0] for each in lines
    ]
    assert str(recordings / layout.CATALOGUE) in lines[0]
    assert "bytes of its log" in lines[3]


def test_check_tells_what_differs(rebuilt: Run, recordings: Path) -> None:
    """By name, with exit code 6; and rebuilding mends it."""
    assert Outcome(0, "3 recordings checked\n", "") == rebuilt("catalogue", "check")
    put(recordings, 9)
    outcome = rebuilt("catalogue", "check")
    assert (6, "4 recordings checked\n") == (outcome.code, outcome.out)
    assert "0009000000000000: it is not in the catalogue" in outcome.err
    assert "1 recordings are missing" in outcome.err
    assert 0 == rebuilt("catalogue", "rebuild").code
    assert 0 == rebuilt("catalogue", "check").code


def test_what_cannot_be_read_is_told(rebuilt: Run, recordings: Path) -> None:
    """With exit code 6, and the rest is there."""
    (put(recordings, 9) / layout.RECORDING_JSON).write_text("\x1b[2J")
    for command in ("rebuild", "check"):
        outcome = rebuilt("catalogue", command)
        assert 6 == outcome.code
        assert "0009000000000000: not a recording.json" in outcome.err
        assert "1 recordings could not be read" in outcome.err
        assert "\x1b" not in outcome.err
    assert [0, 1, 2] == listed(rebuilt("list", "--json"))


def test_many_problems_are_counted(
    run: Run, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A screen is enough for any number."""
    monkeypatch.setattr(upkeep, "MOST_NAMED", 1)
    for number in range(3):
        (recordings / layout.recording_folder(
            f"{number:04x}000000000000", builder.STARTED_AT_MS - number * HOUR_MS
        ) / layout.RECORDING_JSON).unlink()  # fmt: skip
    assert "and 2 more" in run("catalogue", "rebuild").err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], [0, 1, 2]),
        (["param.queue=sales", "sort=oldest"], [2, 1, 0]),
        (["q=call-1"], []),
        (["call=call-1"], [1]),
        (["--call-sid", "call-1"], [1]),
        (["--param", "n=2", "--param", "queue=sales"], [2]),
        (["--param", "star=5*"], [0, 1, 2]),
        (["--param", "queue=sal*"], []),
        (["--param", "empty="], [0, 1, 2]),
        (["--param", "queue="], []),
        (["param.queue=sal*", "limit=2"], [0, 1]),
        (["--since", "2026-11-22T19:00"], [0, 1]),
        (["from=2026-11-22T19:00", "to=2026-11-22T20:00"], [1]),
        (["min_duration=1h"], []),
    ],
)
def test_list_takes_all_words(rebuilt: Run, arguments: list[str], expected: list[int]) -> None:
    """As options as before, and as words."""
    assert expected == listed(rebuilt("list", "--json", *arguments))


def test_list_is_the_same_from_disk(rebuilt: Run, recordings: Path) -> None:
    """Line by line; folders that the catalogue does not know yet are there, too."""
    assert rebuilt("list") == rebuilt("list", "--disk")
    assert rebuilt("list", "--json") == rebuilt("list", "--json", "--disk")
    put(recordings, 9)
    assert [0, 1, 2] == listed(rebuilt("list", "--json"))
    assert [0, 1, 2, 9] == listed(rebuilt("list", "--json", "--disk"))


def test_list_has_what_was_published_a_moment_ago(rebuilt: Run, recordings: Path) -> None:
    """It lets the catalogue follow first; once an hour it compares all folders, too."""
    publication_log.append(recordings, put(recordings, 8))
    assert [0, 1, 2, 8] == listed(rebuilt("list", "--json"))
    put(recordings, 9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upkeep, "RECONCILE_SECONDS", 0)
        assert [0, 1, 2, 8, 9] == listed(rebuilt("list", "--json"))


def test_one_is_found_without_walking_through_all(
    rebuilt: Run, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the catalogue does not know is looked for in the folders, and so is all without one."""
    walked, folders = list[Path](), store.folders

    def seen(folder: Path) -> Iterator[Path | store.Damaged]:
        walked.append(folder)
        yield from folders(folder)

    monkeypatch.setattr(store, "folders", seen)
    for command in ("show", "verify"):
        assert "0001000000000000" in rebuilt(command, "0001").out
    assert [] == walked
    put(recordings, 9)
    assert "0009000000000000" in rebuilt("show", "0009").out
    assert 5 == rebuilt("show", "ffff").code
    shutil.rmtree(recordings / ".catalogue")
    assert "0001000000000000" in rebuilt("show", "0001").out
    assert 3 == len(walked)


def test_list_goes_through_all_pages(rebuilt: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are."""
    monkeypatch.setattr(module, "MOST_ROWS", 1)
    assert [0, 1, 2] == listed(rebuilt("list", "--json"))


def test_list_tells_what_has_gone_meanwhile(rebuilt: Run, recordings: Path) -> None:
    """As it tells of any other folder that cannot be read."""
    shutil.rmtree(recordings / "2026")
    outcome = rebuilt("list")
    assert (0, "") == (outcome.code, outcome.out)
    assert 3 == outcome.err.count("recording.json cannot be read")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["queue"], "'queue' is no word"),
        (["=x"], "is no word"),
        (["lable=x"], "did you mean label"),
        (["from=whenever"], "from: it must be a date"),
        (["--param", "x"], "NAME=VALUE"),
        (["--disk", "label=x", "q=y"], "label, q: only a catalogue knows; leave --disk out"),
        (["--disk", "param.x=y*"], "param.x: only a catalogue knows"),
    ],
)
def test_what_cannot_be_asked_is_refused(rebuilt: Run, arguments: list[str], problem: str) -> None:
    """As wrong usage."""
    outcome = rebuilt("list", *arguments)
    assert (2, "") == (outcome.code, outcome.out)
    assert problem in outcome.err


def test_words_that_need_a_catalogue_say_so(run: Run, recordings: Path) -> None:
    """Also where there is a database, and no recording was ever put into it."""
    assert [1] == listed(run("list", "--json", "call=call-1"))
    Catalogue(None, recordings).close()
    assert [0, 1, 2] == listed(run("list", "--json"))
    outcome = run("list", "q=jane")
    assert 2 == outcome.code
    assert "q: only a catalogue knows; `receiver catalogue rebuild` makes one" in outcome.err


def test_a_locked_catalogue_is_read_as_it_is(
    rebuilt: Run, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a word of warning."""
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.02)
    publication_log.append(recordings, put(recordings, 9))
    other = sqlite3.connect(
        recordings / layout.CATALOGUE / layout.CATALOGUE_SQLITE, isolation_level=None
    )
    other.execute("BEGIN IMMEDIATE")
    outcome = rebuilt("list", "--json")
    assert [0, 1, 2] == listed(outcome)
    assert "may be out of date" in outcome.err
    other.close()


def test_a_catalogue_that_cannot_be_used_is_an_error(
    rebuilt: Run, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line; the folders can be read all the same."""
    (recordings / layout.CATALOGUE / layout.CATALOGUE_SQLITE).write_bytes(b"nonsense" * 999)
    outcome = rebuilt("list")
    assert (7, "") == (outcome.code, outcome.out)
    assert "not a database" in outcome.err
    assert [0, 1, 2] == listed(rebuilt("list", "--json", "--disk"))
    monkeypatch.setenv("TAPREEL_DATABASE_URL", "mysql://x")
    assert 3 == rebuilt("list").code


def test_without_the_extra_folders_are_read(rebuilt: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what needs it says how to install it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert [0, 1, 2] == listed(rebuilt("list", "--json"))
    for arguments in (("rebuild",), ("check",), ("status",)):
        outcome = rebuilt("catalogue", *arguments)
        assert (3, "") == (outcome.code, outcome.out)
        assert "pip install 'tapreel[catalogue]'" in outcome.err


def test_labels_are_found(rebuilt: Run, recordings: Path) -> None:
    """As soon as they are there: the log says that something changed."""
    folder = next(recordings.glob("*/*/*/*-0001000000000000"))
    change(folder, lambda now: add_label(now, "x y", by="me", at=AT))
    assert [1] == listed(rebuilt("list", "--json", "label=x y"))


@pytest.mark.parametrize("is_watched", [True, False])
def test_long_work_shows_how_far_it_is(
    run: Run, monkeypatch: pytest.MonkeyPatch, is_watched: bool
) -> None:
    """On one line of a terminal; in a log, on lines of their own."""
    monkeypatch.setattr(module, "_PROGRESS_SECONDS", 0)
    monkeypatch.setattr(module, "_QUIET_PROGRESS_SECONDS", 0)
    monkeypatch.setattr(module, "_is_watched", lambda: is_watched)
    outcome = run("catalogue", "rebuild")
    assert "3 recordings read, " in outcome.err
    assert is_watched == ("\r" in outcome.err)
