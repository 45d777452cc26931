"""Journals of the version before are published as that version would have published them.

Below `journal/old` are journals as bytes, and what the version before made of each: how it ended,
the document, and the SHA-256 of the samples of each file. They were written and published once
by that version's own code, and nothing here writes them again:

- `clean`: both tracks, a key, a mark, parameters; published with `stereo`.
- `torn`: L16 in pieces of odd sizes, one out of order, one twice, cut within the last record.
- `dropped`: a rejected chunk, a row of dropped ones, one that was lost, a note.
- `failed`: the disk lost its end, and a `.rewritten` journal holds all of it.
- `damaged`: one bit of a record in its middle is another one.
- `unproven`: no start message names the call of the token.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import wave
from pathlib import Path
from typing import Any

import pytest

from receiver.disk import layout
from receiver.recording.document import Discarded, Outcome, Published, RenderOptions
from receiver.recording.publish import publish_journal
from receiver.recording.verify import verify

OLD = Path(__file__).parent.parent / "journal" / "old"
EXPECTED: dict[str, dict[str, Any]] = json.loads((OLD / "expected.json").read_bytes())
OF_THIS_VERSION = {"receiver_version", "sha256", "document_sha256"}
"""What a file says of who wrote it, and so its hash; the hash of its samples is compared."""
ADDED = {"level_dbfs", "silence_share", "peaks", "timeline"}
"""What that version did not measure."""
FOUND_SINCE = {"track_silent"}
"""Findings that it did not make."""


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """Return a spool as the version before left it."""
    return shutil.copytree(OLD, tmp_path / "spool")


def facts(document: Any) -> Any:
    """Return what a document says, but for who wrote it and what is measured since."""
    match document:
        case dict():
            return {k: facts(v) for k, v in document.items() if k not in OF_THIS_VERSION | ADDED}
        case list():
            return [facts(value) for value in document if not _is_found_since(value)]
    return document


def _is_found_since(value: Any) -> bool:
    return isinstance(value, dict) and value.get("code") in FOUND_SINCE


def sound(path: Path) -> str:
    """Return the SHA-256 of a file's samples."""
    with wave.open(str(path)) as file:
        return hashlib.sha256(file.readframes(file.getnframes())).hexdigest()


def reason(outcome: Outcome) -> str:
    """Return why the journal was not simply removed."""
    if isinstance(outcome, Published):
        return outcome.quarantined.reason if outcome.quarantined else ""
    assert isinstance(outcome, Discarded)
    return outcome.reason


@pytest.mark.parametrize("name", EXPECTED)
def test_a_journal_of_the_version_before_is_published_as_it_was(
    tmp_path: Path, spool: Path, name: str
) -> None:
    """The same samples, the same facts, the same end of the journal."""
    expected = EXPECTED[name]
    options = RenderOptions(stereo=name == "clean.journal")
    outcome = publish_journal(spool / name, tmp_path / "recordings", options)
    assert expected["outcome"] == type(outcome).__name__
    assert expected["reason"] == reason(outcome)
    assert not (spool / name).exists()
    assert not (spool / name).with_suffix(layout.REWRITTEN_SUFFIX).exists()
    if isinstance(outcome, Published):
        found = json.loads((outcome.folder / layout.RECORDING_JSON).read_bytes())
        assert expected["document"] == facts(found)
        assert expected["samples"] == {p.name: sound(p) for p in outcome.folder.glob("*.wav")}
        assert () == verify(outcome.folder, outcome.recording)


def test_there_is_a_journal_for_each_expectation() -> None:
    """And each is small enough to be kept."""
    journals = {path.name for path in OLD.glob("*.journal")}
    assert set(EXPECTED) == journals
    assert max(path.stat().st_size for path in OLD.iterdir() if path.suffix != ".json") < 10_000
