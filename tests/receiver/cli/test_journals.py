"""`receiver recover` and `receiver render`, as a user runs them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from receiver.cli.archive import recover, render
from receiver.cli.main import main
from receiver.disk.folders import FolderLock
from receiver.errors import ConfigurationError, UnprovenError, UnreadableError
from receiver.journal import records
from receiver.journal.records import NoteRecord
from receiver.media import EndReason
from receiver.recording import publish
from receiver.recording.document import Postponed, Quarantined
from tests.receiver.helpers import journals


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A spool with one journal, in the default place of an empty folder."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "recordings" / ".spool"
    folder.mkdir(mode=0o700, parents=True)
    chunks = [journals.chunk(n, bytes(160), timestamp_ms=n * 20) for n in range(5)]
    journals.write(folder / "a.journal", journals.records(chunks, reason=EndReason.STOP))
    return folder


def run(command: object, *arguments: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(command, arguments)  # type: ignore[arg-type]  # a click command


def test_recover_publishes_and_says_where(spool: Path) -> None:
    """One line per recording; the second time there is nothing to do."""
    first, second = run(recover), run(recover)
    assert (0, 0) == (first.exit_code, second.exit_code)
    folder = Path(first.stdout.removeprefix("published ").strip())
    assert (folder / "recording.json").is_file()
    assert "nothing to recover\n" == second.stdout


def test_recover_without_a_spool_has_nothing_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder where no receiver ever ran is no error."""
    monkeypatch.chdir(tmp_path)
    assert (0, "nothing to recover\n") == (run(recover).exit_code, run(recover).stdout)


def test_recover_of_a_file_is_one_error(spool: Path) -> None:
    """The error for a journal says that the spool is meant."""
    result = run(recover, "--spool", str(spool / "a.journal"))
    assert isinstance(result.exception, ConfigurationError)
    assert "a.journal is not a folder: give the spool" in str(result.exception)


def test_recover_says_which_folder_of_a_worker_is_left(spool: Path, tmp_path: Path) -> None:
    """The others are recovered; the exit code says that something is left."""
    (tmp_path / "elsewhere").mkdir()
    (spool / "worker-2").symlink_to(tmp_path / "elsewhere")
    result = run(recover)
    assert result.stdout.startswith("published ")
    link = Path("recordings", ".spool", "worker-2")
    assert f"left {link}: {link} is a symbolic link" in result.stderr
    assert isinstance(result.exception, UnreadableError)


def test_recover_removes_an_empty_journal_without_alarm(spool: Path) -> None:
    """It held nothing, which is no trouble."""
    (spool / "b.journal").touch()
    result = run(recover)
    assert 0 == result.exit_code
    assert "published" in result.stdout
    assert f"removed {Path('recordings', '.spool', 'b.journal')}: it was empty\n" == result.stderr
    assert not (spool / "b.journal").exists()


def test_nothing_is_given_out_of_a_stream_that_its_token_is_not_for(spool: Path) -> None:
    """`render` refuses, `recover` removes the journal and prints why; neither makes a folder."""
    note = NoteRecord(0, records.CLAIMED_CALL, "another call")
    named = journals.records([])
    (spool / "a.journal").unlink()
    live = journals.write(spool / "b.journal", [named[0], note, *named[1:]])
    assert isinstance(run(render, str(live)).exception, UnprovenError)
    assert not Path("b").exists()
    result = run(recover)
    assert (0, "nothing to recover\n") == (result.exit_code, result.stdout)
    assert "b.journal: no start message named the call" in result.stderr
    assert not live.exists()


def test_recover_refuses_recordings_that_everybody_can_write_to(spool: Path) -> None:
    """One error, before any journal is touched."""
    spool.parent.chmod(0o777)
    result = run(recover)
    assert isinstance(result.exception, ConfigurationError)
    assert "can be written to by everybody" in str(result.exception)
    assert (spool / "a.journal").is_file()


def test_recover_prints_no_text_of_a_caller_raw(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reason may hold some of it, such as the format of a stream that nobody can decode."""
    odd = "\x1b[2J\u202e\u3164"
    outcome = Quarantined(spool / "a.journal", odd)
    monkeypatch.setattr(publish, "recover", lambda *_: iter([outcome, Postponed(spool, odd)]))
    result = run(recover)
    assert 2 == result.stderr.count("\\x1b[2J\\u202e\\u3164")
    assert not set(odd) & set(result.stderr) - set("[2J")


def test_recover_leaves_what_a_link_is_in_the_way_of(spool: Path, tmp_path: Path) -> None:
    """The journal stays, the reason is printed, and the exit code is 6."""
    (tmp_path / "elsewhere").mkdir()
    (spool.parent / "2026").symlink_to(tmp_path / "elsewhere")
    result = run(recover)
    assert isinstance(result.exception, UnreadableError)
    assert "a symbolic link" in result.stderr
    assert (spool / "a.journal").is_file()
    assert [] == list((tmp_path / "elsewhere").iterdir())


def test_recover_leaves_the_journals_of_a_living_receiver(spool: Path) -> None:
    """The process that holds the lock is alive, and its journals are its own."""
    with FolderLock(spool):
        result = run(recover)
    assert isinstance(result.exception, ConfigurationError)
    assert "in use by another receiver" in str(result.exception)
    assert (spool / "a.journal").is_file()


def test_recover_sets_aside_what_it_cannot_read(spool: Path) -> None:
    """The good journal is published, the bad one kept with a reason, and the exit code is 6."""
    (spool / "b.journal").write_bytes(b"\x07\0\0\0garbage")
    result = run(recover)
    assert isinstance(result.exception, UnreadableError)
    assert "published" in result.stdout
    assert (spool / "quarantine" / "b.journal").is_file()
    assert "not a journal" in (spool / "quarantine" / "b.txt").read_text()


def test_render_leaves_the_journal_as_it_is(spool: Path, tmp_path: Path) -> None:
    """The result is beside us, under the journal's name or the one that was asked for."""
    before = (spool / "a.journal").read_bytes()
    result = run(render, str(spool / "a.journal"), "--stereo", "--output", "out")
    assert (0, "out\n") == (result.exit_code, result.stdout)
    assert (tmp_path / "out" / "stereo.wav").is_file()
    assert before == (spool / "a.journal").read_bytes()
    assert "a\n" == run(render, str(spool / "a.journal")).stdout


@pytest.mark.parametrize(("first", "received"), [(0, 9), (1, 5)])
def test_render_reads_what_a_journal_that_was_written_again_holds(
    spool: Path, tmp_path: Path, first: int, received: int
) -> None:
    """Where that goes on with it; both stay as they are."""
    chunks = [journals.chunk(n, bytes(160), timestamp_ms=n * 20) for n in range(first, 9)]
    live = spool / "a.journal"
    again = journals.write(spool / "a.rewritten", journals.records(chunks, reason=EndReason.STOP))
    if not first:  # the disk holds less of the first one than of the second
        journals.write(live, journals.records(chunks[:5]))
    before = live.read_bytes(), again.read_bytes()
    assert 0 == run(render, str(live)).exit_code
    document = json.loads((tmp_path / "a" / "recording.json").read_bytes())
    assert received == document["tracks"][0]["chunks"]["received"]
    assert before == (live.read_bytes(), again.read_bytes())


def test_render_overwrites_nothing(spool: Path, tmp_path: Path) -> None:
    """An existing folder is refused."""
    (tmp_path / "a").mkdir()
    result = run(render, str(spool / "a.journal"))
    assert isinstance(result.exception, ConfigurationError)


@pytest.mark.parametrize("content", [b"", b"RIFF....", b"\0" * 100])
def test_render_refuses_what_is_no_journal(spool: Path, content: bytes) -> None:
    """One clear line, and no folder."""
    (spool / "c.journal").write_bytes(content)
    result = run(render, str(spool / "c.journal"))
    assert isinstance(result.exception, UnreadableError)
    assert not Path("c").exists()


@pytest.mark.parametrize(
    ("make", "reason"),
    [(Path.mkdir, "Is a directory"), (os.mkfifo, "not a regular file")],
    ids=["folder", "pipe"],
)
def test_render_refuses_what_is_no_file(
    spool: Path, make: Callable[[Path], object], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One clear line and the exit code of a file that is not what it should be."""
    make(Path("thing"))
    assert 6 == main(["render", "thing"])
    assert f"receiver: cannot read journal thing: {reason}\n" == capsys.readouterr().err


def test_one_journal_that_cannot_be_published_holds_up_no_other(spool: Path) -> None:
    """What is in the way of one is printed; the others are published, and nothing is lost."""
    header = journals.HEADER
    old = [type(header)("1" * 16, 1_000_000_000_000, 1, "0.1.0")]
    journals.write(spool / "old.journal", [*old, *journals.records([], reason=EndReason.STOP)[1:]])
    never = [type(header)("2" * 16, 2**60, 1, "0.1.0")]
    journals.write(spool / "never.journal", never)
    (spool.parent / "2001").write_text("in the way")
    result = run(recover)
    assert isinstance(result.exception, UnreadableError)
    assert 1 == result.stdout.count("published")
    assert "left" in result.stderr
    assert (spool / "old.journal").is_file()
    assert (spool / "quarantine" / "never.journal").is_file()


def test_recover_says_that_a_damaged_journal_was_set_aside(spool: Path) -> None:
    """What can be trusted is published; the exit code and a line report that there is more."""
    records = spool / "a.journal"
    content = bytearray(records.read_bytes())
    content[-100] ^= 1
    records.write_bytes(content)
    result = run(recover)
    assert isinstance(result.exception, UnreadableError)
    assert "published" in result.stdout
    assert "set aside" in result.stderr
