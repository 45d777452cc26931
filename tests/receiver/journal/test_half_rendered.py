"""Where a journal's recording belongs, and what a killed process has left there."""

from __future__ import annotations

from pathlib import Path, PurePath

import pytest

from receiver.disk import layout
from receiver.errors import JournalError
from receiver.journal import backlog
from receiver.journal.records import Header
from tests.receiver.helpers.journals import HEADER, STARTED_AT_MS, records, write

NAME = layout.recording_folder(HEADER.recording_id, STARTED_AT_MS)
HIDDEN = layout.hidden_folder(NAME)


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Return a recordings folder that holds nothing yet."""
    folder = tmp_path / "recordings"
    folder.mkdir(0o700)
    return folder


@pytest.mark.parametrize("started_at_ms", [2**62, -(2**62)])
def test_a_time_that_there_is_not_names_no_folder(started_at_ms: int) -> None:
    """A header of another program may say anything."""
    with pytest.raises(JournalError, match="no time that there is"):
        backlog.recording_folder(Header("0" * 16, started_at_ms, 1, ""))
    assert PurePath("2026/11/22/20261122T203000Z-00112233aabbccdd") == backlog.recording_folder(
        HEADER
    )


def test_what_a_killed_process_was_rendering_goes(tmp_path: Path, recordings: Path) -> None:
    """The hidden folder goes, the journal and finished recordings stay; also the second time."""
    journal = write(tmp_path / "a.journal", records([]))
    (recordings / NAME).mkdir(mode=0o700, parents=True)
    (recordings / HIDDEN).mkdir()
    (recordings / HIDDEN / "half.wav").touch()
    for _ in range(2):
        backlog.discard_half_rendered(journal, recordings)
        assert not (recordings / HIDDEN).exists()
    assert journal.exists()
    assert (recordings / NAME).exists()


@pytest.mark.parametrize("content", [None, b"", b"junk", b"\0" * 100])
def test_a_journal_that_names_nothing_is_no_trouble(
    tmp_path: Path, recordings: Path, content: bytes | None
) -> None:
    """It is gone, or none; the next start will see."""
    journal = tmp_path / "a.journal"
    if content is not None:
        journal.write_bytes(content)
    backlog.discard_half_rendered(journal, recordings)
    assert [] == list(recordings.iterdir())


def test_discarding_makes_no_folders(tmp_path: Path, recordings: Path) -> None:
    """There is nothing in what is not there, and a disk that hangs is touched once less."""
    journal = write(tmp_path / "a.journal", records([]))
    backlog.discard_half_rendered(journal, recordings)
    assert [] == list(recordings.iterdir())
    backlog.discard_half_rendered(journal, tmp_path / "none")
    assert not (tmp_path / "none").exists()
