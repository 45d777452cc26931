"""What is handed over of a person: all of it, whole, to be heard without a server."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
import uuid
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import soundfile

from receiver.errors import ConfigurationError, LedgerError
from receiver.lifecycle import subject
from receiver.lifecycle.acts import Acts
from receiver.lifecycle.ledger import Ledger
from receiver.lifecycle.subject import Exported
from receiver.media import Track
from receiver.recording import store
from tests.receiver.helpers import recordings_builder as builder

CALL = builder.CALL_SID
FIRST, SECOND = builder.RECORDING_ID, "ffff000011112222"
CALLER = "<b>+49 30 1</b>"


@pytest.fixture
def folders(tmp_path: Path) -> Sequence[Path]:
    """Return two recordings of a call, the second one of one track."""
    recordings = tmp_path / "recordings"
    first = builder.build(recordings, parameters={"caller": CALLER}, stereo=True)
    Acts(recordings, who="ann", via="test").add_note(first, "asks <i>why</i>")
    second = builder.build(
        recordings,
        recording_id=SECOND,
        started_at_ms=builder.STARTED_AT_MS + 5000,
        tracks=[Track.INBOUND],
        parameters={"caller": CALLER},
    )
    return first, second


def export(folders: Sequence[Path], target: Path) -> Exported:
    """Export recordings of the caller."""
    return subject.export(
        map(store.read, folders),
        target,
        recordings=folders[0].parents[3],
        parameters={"caller": CALLER},
        who="ann",
        now_ms=builder.STARTED_AT_MS,
    )


def unpacked(target: Path) -> dict[str, bytes]:
    """Return what is in a folder or zip file, by name."""
    if target.is_dir():
        paths = [path for path in target.rglob("*") if path.is_file()]
        return {path.relative_to(target).as_posix(): path.read_bytes() for path in paths}
    with zipfile.ZipFile(target) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize("name", ["jane", "jane.zip"])
def test_everything_of_a_person_is_there(
    tmp_path: Path, folders: Sequence[Path], name: str
) -> None:
    """Audio, documents and notes, byte by byte, with a hash of each in the manifest."""
    target = tmp_path / name
    done = export(folders, target)
    assert (2, []) == (done.recordings, done.problems)
    found = unpacked(target)
    assert {
        *("index.html", "manifest.json", f"{CALL}.vcon.json"),
        *(f"{FIRST}/{each}" for each in ("inbound.wav", "outbound.wav", "stereo.wav")),
        *(f"{FIRST}/recording.json", f"{FIRST}/annotations.json"),
        *(f"{SECOND}/inbound.wav", f"{SECOND}/recording.json"),
    } == set(found)
    for folder, recording_id in zip(folders, (FIRST, SECOND), strict=True):
        assert (folder / "inbound.wav").read_bytes() == found[f"{recording_id}/inbound.wav"]
    manifest = json.loads(found.pop("manifest.json"))
    digests = {each: hashlib.sha256(content).hexdigest() for each, content in found.items()}
    assert digests == manifest["sha256"]
    assert {"caller": CALLER} == manifest["parameters"]
    assert [FIRST, SECOND] == [each["id"] for each in manifest["recordings"]]
    assert done.size == sum(map(len, found.values()))
    assert [] == [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    entries = list(Ledger(tmp_path / "recordings").read())
    assert {FIRST, SECOND} == {each.recording for each in entries if each.what == "exported"}


def test_the_page_plays_it_without_a_server(tmp_path: Path, folders: Sequence[Path]) -> None:
    """Every file that it names is beside it; no script, no other host, and nothing unescaped."""
    export(folders, tmp_path / "jane")
    page = (tmp_path / "jane" / "index.html").read_text()
    named = re.findall(r'src="([^"]+)"', page)
    assert [f"{FIRST}/inbound.wav", f"{FIRST}/outbound.wav", f"{SECOND}/inbound.wav"] == named
    for name in named:
        soundfile.info(tmp_path / "jane" / name)
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert CALLER not in page
    assert "&lt;b&gt;+49 30 1" in page
    assert "asks &lt;i&gt;why" in page


def test_a_call_is_a_vcon_document(tmp_path: Path, folders: Sequence[Path]) -> None:
    """With the audio of all its parts in it, and always the same id."""
    export(folders, tmp_path / "one")
    export(folders, tmp_path / "two")
    files = [tmp_path / each / f"{CALL}.vcon.json" for each in ("one", "two")]
    assert files[0].read_bytes() == files[1].read_bytes()
    vcon = json.loads(files[0].read_bytes())
    assert ("0.4.0", 8) == (vcon["vcon"], uuid.UUID(vcon["uuid"]).version)
    assert ["the caller", "the agent"] == [each["name"] for each in vcon["parties"]]
    assert [([0], 1), ([1], 1), ([0], 1)] == [
        (each["parties"], each["duration"]) for each in vcon["dialog"]
    ]
    for dialog in vcon["dialog"]:
        assert ("recording", "audio/x-wav", "base64url") == (
            *(dialog["type"], dialog["mediatype"], dialog["encoding"]),
        )
        audio = base64.urlsafe_b64decode(dialog["body"] + "==")
        assert builder.SAMPLES == soundfile.info(io.BytesIO(audio)).frames
    assert {"caller": CALLER} == vcon["attachments"][0]["body"]


def test_what_does_not_agree_is_said(tmp_path: Path, folders: Sequence[Path]) -> None:
    """And handed over all the same: it is his."""
    with open(folders[0] / "outbound.wav", "r+b") as file:
        file.seek(1000)
        file.write(b"\1")
    (folders[0] / "stereo.wav").unlink()
    done = export(folders, tmp_path / "jane")
    assert {
        f"{FIRST}/outbound.wav: its SHA-256 is not the document's",
        f"{FIRST}/stereo.wav is missing",
    } == set(done.problems)
    assert (tmp_path / "jane" / FIRST / "outbound.wav").exists()


def test_nothing_is_half_there(tmp_path: Path, folders: Sequence[Path]) -> None:
    """What is there already stays, and what fails leaves nothing."""
    full, taken = tmp_path / "full", tmp_path / "taken.zip"
    full.mkdir()
    (full / "x").touch()
    taken.touch()
    for target in (full, taken, tmp_path / "missing" / "jane"):
        with pytest.raises(ConfigurationError, match=str(target)):
            export(folders, target)
    shutil.rmtree(tmp_path / "recordings" / ".ledger")
    (tmp_path / "recordings" / ".ledger").touch()
    before = sorted(tmp_path.iterdir())
    with pytest.raises((LedgerError, ConfigurationError)):
        export(folders, tmp_path / "jane")
    assert before == sorted(tmp_path.iterdir())
