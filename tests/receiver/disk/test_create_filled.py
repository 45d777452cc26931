"""A recording's folder is there as a whole or not at all, and nothing half made stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from receiver.disk import folders, layout
from receiver.disk.files import write_private
from tests.receiver.helpers.journals import HEADER, STARTED_AT_MS

NAME = layout.recording_folder(HEADER.recording_id, STARTED_AT_MS)
HIDDEN = layout.hidden_folder(NAME)


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Return a recordings folder that holds nothing yet."""
    folder = tmp_path / "recordings"
    folder.mkdir(0o700)
    return folder


def fill(folder: int) -> str:
    """Write one file."""
    write_private("a.wav", b"RIFF", within=folder)
    return "filled"


def files(folder: Path) -> list[str]:
    """Return the files below a folder."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_folder_has_its_name_once_it_is_full(recordings: Path) -> None:
    """Until then it is hidden, and others cannot look into it."""

    def look(folder: int) -> str:
        assert (recordings / HIDDEN).samefile(f"/proc/self/fd/{folder}")
        assert not (recordings / NAME).exists()
        return fill(folder)

    assert "filled" == folders.create_filled(recordings, NAME, look)
    assert [str(NAME / "a.wav")] == files(recordings)
    assert 0o700 == (recordings / NAME).stat().st_mode & 0o777


def test_a_folder_that_is_there_is_left_as_it_is(recordings: Path) -> None:
    """Nothing that is published is ever replaced."""
    folders.create_filled(recordings, NAME, fill)
    assert folders.create_filled(recordings, NAME, lambda _: pytest.fail("it is there")) is None
    assert [str(NAME / "a.wav")] == files(recordings)


def test_what_a_crash_left_is_thrown_away(recordings: Path) -> None:
    """The journal has all of it."""
    (recordings / HIDDEN).mkdir(parents=True)
    (recordings / HIDDEN / "half.wav").touch()
    assert folders.create_filled(recordings, NAME, fill)
    assert [str(NAME / "a.wav")] == files(recordings)


def test_filling_that_fails_leaves_nothing(recordings: Path) -> None:
    """Live journals may need the space."""

    def fail(folder: int) -> None:
        fill(folder)
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        folders.create_filled(recordings, NAME, fail)
    assert [] == list((recordings / NAME.parent).iterdir())
