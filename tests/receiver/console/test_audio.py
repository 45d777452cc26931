"""Sources of audio: files, stereo that is woven while it is read, encoded copies, archives."""

from __future__ import annotations

import hashlib
import io
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

from receiver.catalogue import rows
from receiver.catalogue.rows import Row
from receiver.console import audio as module
from receiver.console.audio import ByteSource, EncodedFiles, Sent, names_of, open_source, zip_blocks
from receiver.console.problems import Problem
from receiver.media import Track
from receiver.recording import store
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
    packed = b"".join(zip_blocks(folder, names_of(document)))
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert archive.testzip() is None
        found = {Path(name).name: archive.read(name) for name in archive.namelist()}
        assert {folder.name} == {Path(name).parent.name for name in archive.namelist()}
    on_disk = {path.name: path.read_bytes() for path in folder.iterdir()}
    del on_disk["stray.txt"]
    assert on_disk == found


def test_what_was_sent_is_entered_once_and_again_when_it_is_long_ago() -> None:
    """Parts that touch become one; another person's is another."""
    sent, key = Sent(), ("jane", "id", "inbound.wav")
    spans = [(0.0, 10.0), (2.0, 5.0), (10.0, 20.0), (5.0, 15.0), (5.0, 25.0)]
    assert [True, False, True, False, True] == [sent.is_new(key, span, 1.0) for span in spans]
    assert sent.is_new(("john", "id", "inbound.wav"), (2.0, 5.0), 1.0)
    assert not sent.is_new(key, (0.0, 25.0), 3600.0)
    assert sent.is_new(key, (0.0, 25.0), 3602.0)


def test_memory_of_what_was_sent_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is forgotten, and would be entered once more."""
    monkeypatch.setattr(module, "_MOST_REMEMBERED", 2)
    sent = Sent()
    for name in "abc":
        assert sent.is_new((name, "", ""), (0.0, 1.0), 1.0)
    assert [True, False] == [sent.is_new((name, "", ""), (0.0, 1.0), 1.0) for name in "ac"]
