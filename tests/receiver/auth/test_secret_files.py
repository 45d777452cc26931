"""Secret files: which are read, which are refused, and how they are written."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from receiver.auth.credentials import read_secret, state_folder, write_secret
from receiver.errors import ConfigurationError
from tests.receiver.helpers.secret_files import secret

TOKEN = "a-token-0123456789"
ANOTHER = 54_321
"""A user that is neither ours nor root."""


def refusal(path: Path) -> str:
    """Return why `path` is refused."""
    with pytest.raises(ConfigurationError) as caught:
        read_secret(path)
    return str(caught.value)


def test_a_file_of_our_own_is_read(tmp_path: Path) -> None:
    """A file that only its owner can read is fine, also through a link."""
    link = tmp_path / "link"
    link.symlink_to(secret(tmp_path / "file", "content\n", 0o400))
    assert b"content\n" == read_secret(link)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o644])
def test_a_file_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    """The error says what to do."""
    path = secret(tmp_path / "file", TOKEN, mode)
    assert f"others can read {path}: chmod 600 {path}" == refusal(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="not root")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    """Its owner can read and change it, whatever its mode."""
    path = secret(tmp_path / "file", TOKEN)
    os.chown(path, ANOTHER, -1)
    assert f"{path} belongs to another user: chown it to your own" == refusal(path)


def test_unusable_files_are_refused(tmp_path: Path) -> None:
    """Missing, empty, too long, a folder and a pipe: one line each, and no waiting."""
    missing = tmp_path / "missing"
    assert f"cannot read {missing}: No such file or directory" == refusal(missing)
    empty = secret(tmp_path / "empty", " \n")
    assert f"{empty} is empty" == refusal(empty)
    long = secret(tmp_path / "long", "x" * 1_048_577)
    assert f"{long} is longer than 1 MiB" == refusal(long)
    assert f"cannot read {tmp_path}: Is a directory" == refusal(tmp_path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    assert f"cannot read {pipe}: not a regular file" == refusal(pipe)


def test_the_state_folder_is_ours_alone(tmp_path: Path) -> None:
    """It is made with 0700 whatever the umask, and used again."""
    before = os.umask(0)
    try:
        folder = state_folder(tmp_path / "a" / "state")
    finally:
        os.umask(before)
    assert 0o700 == stat.S_IMODE(folder.stat().st_mode)
    assert folder == state_folder(folder)


def test_a_state_folder_of_others_is_refused(tmp_path: Path) -> None:
    """Open to others, a link, or a file in its place: each is refused."""
    wide = tmp_path / "wide"
    wide.mkdir()
    wide.chmod(0o755)
    with pytest.raises(ConfigurationError, match=f"^others can look into {wide}: chmod 700"):
        state_folder(wide)
    wide.chmod(0o700)
    link = tmp_path / "link"
    link.symlink_to(wide)
    with pytest.raises(ConfigurationError, match="is not a folder of our own"):
        state_folder(link)
    with pytest.raises(ConfigurationError, match=r"^cannot make the folder .*: File exists"):
        state_folder(secret(tmp_path / "file", "x"))


def test_secrets_are_written_for_us_alone(tmp_path: Path) -> None:
    """The mode is 0600, a link is replaced and not followed, and nothing else is left."""
    target = secret(tmp_path / "target", "untouched")
    path = tmp_path / "secret"
    path.symlink_to(target)
    write_secret(path, b"content")
    assert b"content" == read_secret(path)
    assert not path.is_symlink()
    assert "untouched" == target.read_text()
    assert {path, target} == set(tmp_path.iterdir())


def test_a_secret_that_cannot_be_written(tmp_path: Path) -> None:
    """The error names the file, and no half of it stays."""
    (tmp_path / "secret" / "x").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match=f"^cannot write {tmp_path / 'secret'}: "):
        write_secret(tmp_path / "secret", b"content")
    assert [tmp_path / "secret"] == list(tmp_path.iterdir())
    with pytest.raises(ConfigurationError, match="No such file or directory"):
        write_secret(tmp_path / "none" / "secret", b"content")
