"""Folders: private, and safe from others."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from receiver.disk import folders
from receiver.disk.folders import make_folder, make_private_folder, make_recordings_folder
from receiver.errors import ConfigurationError

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="not root")


def mode(path: Path) -> int:
    """Return a file's permission bits."""
    return path.stat().st_mode & 0o777


def test_a_new_folder_is_private(tmp_path: Path) -> None:
    """Its owner alone may look into it; making it again is fine."""
    make_private_folder(tmp_path / "a" / "b")
    make_private_folder(tmp_path / "a" / "b")
    assert 0o700 == mode(tmp_path / "a" / "b")


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    """The error names the folder and the reason."""
    (tmp_path / "a").write_text("")
    with pytest.raises(ConfigurationError, match=r"cannot use folder .*a: File exists"):
        make_folder(tmp_path / "a")
    with pytest.raises(ConfigurationError, match=r"cannot use folder .*b: Not a directory"):
        make_folder(tmp_path / "a" / "b")


@pytest.mark.parametrize("bits", [0o702, 0o777, 0o1777])
def test_recordings_where_everybody_can_write_are_refused(tmp_path: Path, bits: int) -> None:
    """One line says why and what to do, and the sticky bit does not help."""
    tmp_path.chmod(bits)
    with pytest.raises(ConfigurationError, match="can be written to by everybody: chmod o-w"):
        make_recordings_folder(tmp_path)


@pytest.mark.parametrize("bits", [0o700, 0o755, 0o775])
def test_recordings_may_be_open_to_readers_and_to_a_group(tmp_path: Path, bits: int) -> None:
    """With a umask of 002, as Ubuntu has it, a fresh clone's folder is 0775."""
    (tmp_path / "mount").mkdir()
    (tmp_path / "mount").chmod(bits)
    (tmp_path / "recordings").symlink_to("mount")
    make_recordings_folder(tmp_path / "mount")
    make_recordings_folder(tmp_path / "recordings")


@needs_root
def test_recordings_of_another_user_are_refused(tmp_path: Path) -> None:
    """Their owner could put anything in the way of ours."""
    os.chown(tmp_path, 12345, 12345)
    with pytest.raises(ConfigurationError, match="belongs to another user"):
        make_recordings_folder(tmp_path)


@pytest.mark.parametrize("bits", [0o770, 0o702, 0o777])
def test_a_folder_that_others_can_write_to_is_refused(tmp_path: Path, bits: int) -> None:
    """They could put journals there."""
    folder = tmp_path / "spool"
    folder.mkdir()
    folder.chmod(bits)
    with pytest.raises(ConfigurationError, match="others can write"):
        make_private_folder(folder)


def test_a_folder_that_others_can_read_is_taken(tmp_path: Path) -> None:
    """What is in it is private by itself."""
    folder = tmp_path / "spool"
    folder.mkdir()
    folder.chmod(0o755)
    make_private_folder(folder)


def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    """It could lead anywhere, and elsewhere tomorrow."""
    (tmp_path / "real").mkdir(0o700)
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(ConfigurationError, match="symbolic link"):
        make_private_folder(tmp_path / "link")


@needs_root
def test_somebody_elses_folder_is_refused(tmp_path: Path) -> None:
    """Its owner could change it at any time."""
    folder = tmp_path / "spool"
    folder.mkdir(0o700)
    os.chown(folder, 12345, 12345)
    with pytest.raises(ConfigurationError, match="belongs to another user"):
        make_private_folder(folder)


@pytest.mark.integration
def test_free_space_is_what_the_system_says(tmp_path: Path) -> None:
    """As df counts it for an ordinary user."""
    said = subprocess.run(
        ["df", "--output=avail", "-B1", tmp_path], capture_output=True, text=True, check=True
    )
    expected = int(said.stdout.split()[1])
    assert folders.free_bytes(tmp_path) == pytest.approx(expected, rel=0.05)
