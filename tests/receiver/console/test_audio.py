"""Sources of audio: files, stereo that is woven while it is read, encoded copies, archives."""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

from receiver.catalogue import rows
from receiver.catalogue.rows import Row
from receiver.console import audio as module
from receiver.console.audio import (
    BlockStream,
    ByteSource,
    EncodedFiles,
    LoadedMinutes,
    ZipFolder,
    names_of,
    open_source,
    zip_blocks,
)
from receiver.console.problems import Problem
from receiver.media import Track
from receiver.recording import store
from tests.bounds import at_most
from tests.receiver.helpers import recordings_builder as builder


def row_of(folder: Path) -> Row:
    """Return the catalogue's row of a recording."""
    return rows.decoded(rows.read(folder.parents[3], folder.relative_to(folder.parents[3])))


def content(source: ByteSource, block: int = 1000) -> bytes:
    """Return all bytes of a source, in blocks of any size, and close it."""
    found = b""
    while part := source.read(len(found), block):
        assert len(part) <= block
        found += part
    source.close()
    assert source.size == len(found)
    return found


def opened(folder: Path, name: str, kind: str, encoded: EncodedFiles | None = None) -> ByteSource:
    """Open a source of a recording."""
    return open_source(encoded or EncodedFiles(), folder, row_of(folder), name, kind)


@pytest.mark.parametrize("name", ["inbound", "outbound"])
def test_a_track_is_the_file_to_the_byte(tmp_path: Path, name: str) -> None:
    """Its ETag is the hash that its document has."""
    folder = builder.build(tmp_path)
    source = opened(folder, name, "wav")
    found = content(source)
    assert (folder / f"{name}.wav").read_bytes() == found
    assert f'"{hashlib.sha256(found).hexdigest()}"' == source.etag


@pytest.mark.parametrize("block", [1, 3, 44, 45, 1000, 10**6])
def test_stereo_is_both_tracks_left_and_right(tmp_path: Path, block: int) -> None:
    """Whatever parts of it are read: the same bytes as the whole."""
    folder = builder.build(tmp_path)
    found = content(opened(folder, "stereo", "wav"), block)
    samples, rate = soundfile.read(io.BytesIO(found), dtype="int16")
    tracks = [soundfile.read(folder / f"{t}.wav", dtype="int16")[0] for t in Track]
    assert builder.RATE == rate
    assert np.array_equal(np.column_stack(tracks), samples)


def test_a_stereo_file_that_is_there_is_sent_as_it_is(tmp_path: Path) -> None:
    """It was rendered with the recording."""
    folder = builder.build(tmp_path, stereo=True)
    assert (folder / "stereo.wav").read_bytes() == content(opened(folder, "stereo", "wav"))


def test_a_track_that_is_missing_is_silence_in_stereo(tmp_path: Path) -> None:
    """And alone it is not there."""
    folder = builder.build(tmp_path, tracks=[Track.OUTBOUND], gaps=())
    samples, _ = soundfile.read(io.BytesIO(content(opened(folder, "stereo", "wav"))), dtype="int16")
    assert not samples[:, 0].any()
    assert samples[:, 1].any()
    with pytest.raises(Problem) as refused:
        opened(folder, "inbound", "wav")
    assert 404 == refused.value.status


def test_a_recording_without_tracks_has_no_audio(tmp_path: Path) -> None:
    """Not even silence."""
    folder = builder.build(tmp_path, tracks=[], gaps=())
    for name in ("inbound", "stereo"):
        with pytest.raises(Problem):
            opened(folder, name, "wav")


@pytest.mark.parametrize("name", ["inbound", "stereo"])
def test_flac_is_the_same_samples(tmp_path: Path, name: str) -> None:
    """It loses none."""
    folder = builder.build(tmp_path)
    packed = content(opened(folder, name, "flac"))
    plain = content(opened(folder, name, "wav"))
    assert b"fLaC" == packed[:4]
    found, expected = (soundfile.read(io.BytesIO(c), dtype="int16")[0] for c in (packed, plain))
    assert np.array_equal(expected, found)


def test_opus_is_as_long_and_much_smaller(tmp_path: Path) -> None:
    """In an Ogg container, as browsers play it."""
    folder = builder.build(tmp_path)
    packed = content(opened(folder, "stereo", "opus"))
    assert b"OggS" == packed[:4]
    assert b"OpusHead" in packed[:100]
    info = soundfile.info(io.BytesIO(packed))
    assert (2, pytest.approx(builder.SAMPLES / builder.RATE, abs=0.1)) == (
        info.channels,
        info.duration,
    )


def test_a_copy_is_encoded_once_and_given_up_when_there_are_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Players ask for parts of it; who still reads one that is given up reads on."""
    folder, encoded = builder.build(tmp_path), EncodedFiles()
    with ThreadPoolExecutor(4) as pool:
        sources = list(pool.map(lambda _: opened(folder, "inbound", "opus", encoded), range(4)))
    assert 1 == len({source.etag for source in sources})
    monkeypatch.setattr(module, "MOST_CACHED_BYTES", 1)
    other = opened(folder, "outbound", "opus", encoded)
    again = opened(folder, "inbound", "opus", encoded)
    assert again.etag != sources[0].etag
    assert 1 == len({content(source) for source in sources})
    for source in (other, again):
        source.close()
    encoded.close()
    encoded.close()


def test_an_archive_has_every_file_as_it_is(tmp_path: Path) -> None:
    """And none that is not the recording's."""
    folder = builder.build(tmp_path, stereo=True)
    (folder / "annotations.json").write_text("{}")
    (folder / "stray.txt").write_text("not ours")
    document = store.read(folder).recording
    blocks = list(zip_blocks([ZipFolder(folder, names_of(document))]))
    assert all(blocks)
    packed = b"".join(blocks)
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert archive.testzip() is None
        found = {Path(name).name: archive.read(name) for name in archive.namelist()}
        assert {folder.name} == {Path(name).parent.name for name in archive.namelist()}
    on_disk = {path.name: path.read_bytes() for path in folder.iterdir()}
    del on_disk["stray.txt"]
    assert on_disk == found


def test_an_archive_of_several_takes_contents_in_the_place_of_files(tmp_path: Path) -> None:
    """A folder is asked for only when those before it are packed."""
    folder, asked = builder.build(tmp_path), list[int]()

    def folders() -> Iterator[ZipFolder]:
        for number in range(2):
            asked.append(number)
            yield ZipFolder(folder.with_name(f"r{number}"), ["a.txt", "gone"], {"a.txt": b"new"})

    blocks = zip_blocks(folders())
    first = next(blocks)
    assert [0] == asked
    with zipfile.ZipFile(io.BytesIO(first + b"".join(blocks))) as archive:
        assert {"r0/a.txt": b"new", "r1/a.txt": b"new"} == {
            name: archive.read(name) for name in archive.namelist()
        }


def test_nothing_is_closed_while_a_block_is_made() -> None:
    """Whoever is gone does not wait; the thread that makes it closes behind it, once."""
    making, go_on, closed = threading.Event(), threading.Event(), list[int]()

    def made() -> Iterator[bytes]:
        making.set()
        go_on.wait(at_most(10))
        assert not closed
        yield b"last"

    blocks = BlockStream(made(), lambda: closed.append(1))
    with ThreadPoolExecutor(1) as pool:
        block = pool.submit(blocks.next)
        making.wait(at_most(10))
        blocks.close()
        assert [] == closed
        go_on.set()
        assert b"last" == block.result(at_most(10))
    blocks.close()
    assert ([1], b"") == (closed, blocks.next())


def test_each_minute_is_entered_once_a_minute() -> None:
    """Another person's is another; what is asked for again later is entered again."""
    loaded, jane = LoadedMinutes(), ("jane", "id", "inbound.wav")
    assert loaded.is_new(jane, range(2), 5.0)
    loaded.add(jane, range(2), 5.0)
    asked = [(range(1), 6.0), (range(1, 2), 64.9), (range(1, 3), 7.0), (range(1), 65.0)]
    assert [False, False, True, True] == [loaded.is_new(jane, *each) for each in asked]
    assert loaded.is_new(("john", *jane[1:]), range(1), 6.0)


def test_memory_of_what_was_loaded_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is forgotten, and would be entered once more."""
    monkeypatch.setattr(module, "_MOST_REMEMBERED", 2)
    loaded = LoadedMinutes()
    for name in "abc":
        loaded.add((name,), range(1), 1.0)
    assert [True, False] == [loaded.is_new((name,), range(1), 1.0) for name in "ac"]
