"""Files: private, new, written whole, and no link followed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
from io import FileIO
from pathlib import Path

import pytest

from receiver.disk import files
from receiver.disk.files import BLOCK_BYTES, create_private, open_folder, open_regular
from tests.bounds import at_most


class SmallWrites(FileIO):
    """A file that takes three bytes at a time, as a nearly full disk does."""

    def write(self, content: bytes) -> int:  # type: ignore[override]  # called with bytes only
        """Write at most three bytes."""
        return super().write(bytes(content)[:3])


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    """No link is followed, and opening a FIFO without a writer does not wait."""
    path, link, fifo = (tmp_path / name for name in ("file", "link", "fifo"))
    path.write_bytes(b"RIFF")
    link.symlink_to(path)
    os.mkfifo(fifo)
    with open_regular(path) as file:
        assert b"RIFF" == file.read()
    with pytest.raises(OSError, match="Too many levels"):
        open_regular(link)
    with pytest.raises(OSError, match="not a regular file") as refused:
        open_regular(fifo)
    assert errno.EINVAL == refused.value.errno
    with pytest.raises(IsADirectoryError, match="Is a directory"):
        open_regular(tmp_path)


def test_a_link_is_followed_where_the_operator_named_it(tmp_path: Path) -> None:
    """Secrets are mounted as links; what they lead to must still be a regular file."""
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / "link").symlink_to("secret")
    (tmp_path / "loop").symlink_to(".")
    with open_regular(tmp_path / "link", follow_links=True) as file:
        assert b"x" == file.read()
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path / "loop", follow_links=True)


def test_a_name_is_opened_and_created_in_an_open_folder(tmp_path: Path) -> None:
    """Renaming the folder meanwhile changes nothing."""
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    with open_folder(before) as folder:
        before.rename(after)
        files.write_private("a", b"content", within=folder)
        with open_regular("a", within=folder) as file:
            assert b"content" == file.read()
    assert b"content" == (after / "a").read_bytes()


def test_a_folder_is_opened_through_no_link(tmp_path: Path) -> None:
    """Unless the caller says so; a file is no folder."""
    (tmp_path / "link").symlink_to(".")
    (tmp_path / "file").touch()
    with open_folder(tmp_path / "link", follow_links=True) as folder:
        assert os.path.samestat(tmp_path.stat(), os.fstat(folder))
    for name in ("link", "file"):
        with pytest.raises(NotADirectoryError), open_folder(tmp_path / name):
            pass


def test_a_new_file_is_private_and_new(tmp_path: Path) -> None:
    """Whatever the umask is; what is there already is neither overwritten nor followed."""
    path, link = tmp_path / "a", tmp_path / "b"
    link.symlink_to("elsewhere")
    before = os.umask(0)
    try:
        create_private(path).close()
    finally:
        os.umask(before)
    assert 0o600 == path.stat().st_mode & 0o777
    for taken in (path, link):
        with pytest.raises(FileExistsError):
            create_private(taken)
    assert not (tmp_path / "elsewhere").exists()


def test_a_write_that_fails_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a document is worse than none."""

    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        files.write_private(tmp_path / "a", b"content")
    assert [] == list(tmp_path.iterdir())


def test_a_file_that_is_there_survives_a_refused_write(tmp_path: Path) -> None:
    """It is not ours to remove."""
    (tmp_path / "a").write_bytes(b"before")
    with pytest.raises(FileExistsError):
        files.write_private(tmp_path / "a", b"after")
    assert b"before" == (tmp_path / "a").read_bytes()


def test_everything_is_written_where_the_disk_takes_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the file's position, and at a given one, whose end is returned."""
    with SmallWrites(tmp_path / "a", "w") as file:
        files.write_all(file, b"0123456789")
    assert b"0123456789" == (tmp_path / "a").read_bytes()
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda at, block, start: write(at, block[:3], start))
    with create_private(tmp_path / "b") as file:
        assert 12 == files.write_at(file, b"0123456789", 2)
    assert b"\0\0" + b"0123456789" == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES, 2 * BLOCK_BYTES + 1])
def test_a_file_is_read_and_hashed_to_its_end(tmp_path: Path, size: int) -> None:
    """In blocks of bounded size, or up to a length; the hash is of the file from its start."""
    content = os.urandom(size)
    (tmp_path / "a").write_bytes(content)
    with open_regular(tmp_path / "a") as file:
        blocks = list(files.blocks_of(file))
        assert content == b"".join(blocks)
        assert all(len(block) <= BLOCK_BYTES for block in blocks)
        for length in (0, size // 2, size, size + 1):
            assert hashlib.sha256(content[:length]).hexdigest() == files.sha256(file, length)
        assert hashlib.sha256(content).hexdigest() == files.sha256(file)


def test_a_replacement_is_whole_or_not_there(tmp_path: Path) -> None:
    """Until the block ends the old file stands; where it raises or writes nothing, for ever."""
    (tmp_path / "a").write_bytes(b"old")
    with open_folder(tmp_path) as folder:
        with files.replacing("a", within=folder) as file:
            files.write_all(file, b"new")
            assert b"old" == (tmp_path / "a").read_bytes()
        assert b"new" == (tmp_path / "a").read_bytes()
        with contextlib.suppress(KeyError), files.replacing("a", within=folder) as file:
            files.write_all(file, b"newer")
            raise KeyError
        with files.replacing("a", within=folder):
            pass
    assert b"new" == (tmp_path / "a").read_bytes()
    assert ["a"] == [path.name for path in tmp_path.iterdir()]


def test_a_replacement_waits_for_the_one_before(tmp_path: Path) -> None:
    """So that what it reads is what it replaces."""
    started, order = threading.Event(), list[bytes]()

    def second() -> None:
        with open_folder(tmp_path) as folder:
            started.set()
            with files.replacing("a", within=folder) as file:
                order.append((tmp_path / "a").read_bytes())
                files.write_all(file, b"second")

    thread = threading.Thread(target=second)
    with open_folder(tmp_path) as folder, files.replacing("a", within=folder) as file:
        thread.start()
        assert started.wait(at_most(10))
        assert [] == order
        files.write_all(file, b"first")
    thread.join(at_most(10))
    assert [b"first"] == order
    assert b"second" == (tmp_path / "a").read_bytes()
