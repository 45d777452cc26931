"""`receiver erase` and `delete`: what they change, print and refuse."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from receiver.cli import main
from receiver.recording import store
from tests.receiver.helpers import recordings_builder as builder

ID = builder.RECORDING_ID
OTHER = "ffff000011112222"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Return a folder with two recordings of a second."""
    builder.build(tmp_path / "recordings")
    builder.build(tmp_path / "recordings", recording_id=OTHER)
    return tmp_path / "recordings"


@pytest.fixture
def run(
    recordings: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Return what runs `receiver`, and returns exit code, stdout and stderr."""
    monkeypatch.delenv("TAPREEL_CONFIG", raising=False)
    monkeypatch.setenv("TAPREEL_RECORDINGS", str(recordings))

    def command(*arguments: str) -> tuple[int, str, str]:
        code = main.main(arguments)
        return (code, *capsys.readouterr())

    return command


def test_a_span_is_erased_and_verified(recordings: Path, run: Run) -> None:
    """Of the tracks that were asked for; it is printed what was done."""
    words = ("--from", "0:00.2", "--to", "0.7", "--reason", "card number")
    done = run("erase", ID[:4], *words, "--track", "outbound")
    assert (0, f"erased outbound from 0.2 s to 0.7 s of {ID}\n", "") == done
    assert 0 == run("verify", ID)[0]
    assert "erased" in run("show", ID)[1]
    document = store.read(store.find(recordings, ID)).recording
    assert ["outbound"] == [track.value for track in document.erased[0].tracks]


def test_several_are_deleted_and_what_cannot_be_is_said(recordings: Path, run: Run) -> None:
    """The others go all the same; the exit code is that of the first error."""
    assert 0 == run("hold", ID, "--reason", "case 1")[0]
    code, said, errors = run("delete", ID, "0000", OTHER, "--reason", "asked for")
    assert (6, f"deleted {OTHER}\n") == (code, said)
    held, missing = errors.splitlines()
    assert "is held by" in held
    assert "case 1" in held
    assert "no recording '0000'" in missing
    assert 0 == run("release", ID)[0]
    assert (0, f"deleted {ID}\n", "") == run("delete", ID, "--reason", "asked for")
    assert [] == list(store.folders(recordings))


@pytest.mark.parametrize(
    "words",
    [
        ("erase", ID, "--from", "1", "--to", "2"),
        ("erase", ID, "--from", "x", "--to", "2", "--reason", "r"),
        ("erase", ID, "--from", "1", "--to", "2", "--reason", "r", "--track", "third"),
        ("delete", ID),
        ("delete", "--reason", "r"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(run: Run, words: tuple[str, ...]) -> None:
    """Nothing is erased or deleted without a reason."""
    assert 2 == run(*words)[0]


def test_what_is_held_is_not_erased(run: Run) -> None:
    """One line says by whom it is held, and why."""
    run("hold", ID, "--reason", "case 1")
    code, _, error = run("erase", ID, "--from", "0", "--to", "1", "--reason", "r")
    assert 6 == code
    assert 1 == len(error.splitlines())
    assert "case 1; nothing of it may be erased or deleted until it is released" in error


RULES = """
retention_max_share = 100

[[retention]]
match = "param.Name=Jane"
keep = "1d"
"""


def test_retention_says_what_would_go_and_deletes_it(
    recordings: Path, run: Run, tmp_path: Path
) -> None:
    """By the rules of the file of settings; without any, nothing is asked for."""
    error = "receiver: no setting asks for anything to be deleted\n"
    assert (0, "", error) == run("retention", "run")
    settings = tmp_path / "settings.toml"
    settings.write_text(RULES)
    dry_run = ("retention", "--dry-run", "--config", str(settings))
    assert (0, "0 of 2 recordings would be deleted\n", "") == run(*dry_run)
    for number, folder in enumerate(store.folders(recordings)):
        assert isinstance(folder, Path)
        if number == 0:
            os.utime(folder / "recording.json", (builder.STARTED_AT_MS / 1000 - 9e8,) * 2)
            builder.change_document(folder, started_at="2026-01-01T00:00:00.000Z")
            os.utime(folder / "recording.json", (1.7e9, 1.7e9))
    assert 0 == run("catalogue", "rebuild")[0]
    code, said, _ = run(*dry_run)
    assert code == 0
    first, last = said.splitlines()
    assert first.endswith("  param.Name=Jane: 1d")
    assert "1 of 2 recordings would be deleted" == last
    shown = run("show", first[:16], "--config", str(settings))[1]
    assert "kept        until 2026-01-02T00:00Z by the rule param.Name=Jane: 1d" in shown
    done = run("retention", "run", "--config", str(settings))
    assert (0, "deleted 1 recordings; 0 stayed for now\n", "") == done
    assert 1 == len(list(store.folders(recordings)))
    settings.write_text(RULES.replace("param.Name", "parm.Name"))
    code, _, error = run(*dry_run)
    assert 3 == code
    assert "retention 1: match: 'parm.Name' is none of" in error
    assert 2 == run("retention")[0]
    assert 2 == run("retention", "run", "--dry-run")[0]


def test_a_person_is_handed_over_and_deleted(recordings: Path, run: Run, tmp_path: Path) -> None:
    """By a parameter; what is held stays, and what cannot be read might be his."""
    target = tmp_path / "jane"
    words = ("--param", "Name=Jane")
    code, said, errors = run("subject", "export", *words, "--to", str(target))
    assert (0, "") == (code, errors)
    assert said.startswith("2 recordings, ")
    assert {ID, OTHER} <= {path.name for path in target.iterdir()}
    code, _, error = run("subject", "export", *words, "--to", str(target))
    assert 3 == code
    assert "is there already" in error
    deleting = ("subject", "delete", *words, "--reason", "asked for")
    assert {ID, OTHER} == set(run(*deleting, "--dry-run")[1].split())
    run("hold", ID, "--reason", "case 1")
    code, said, errors = run(*deleting)
    assert (6, f"deleted {OTHER}\n") == (code, said)
    assert "case 1" in errors
    assert 5 == run("subject", "delete", "--param", "Name=Joe", "--reason", "r")[0]
    for wrong in ("Name", "Name=", "=Jane"):
        assert 2 == run("subject", "delete", "--param", wrong, "--reason", "r")[0]
    (store.find(recordings, ID) / "inbound.wav").write_bytes(b"")
    code, _, errors = run("subject", "export", *words, "--to", str(tmp_path / "damaged"))
    assert 6 == code
    assert "its SHA-256 is not the document's" in errors
    (store.find(recordings, ID) / "recording.json").write_text("{")
    code, _, error = run(*deleting)
    assert 6 == code
    assert "nobody knows whose they are" in error


def test_what_was_deleted_is_listed(run: Run) -> None:
    """With who did it, when and why; as JSON, too, and narrowed by words."""
    run("delete", ID, "--reason", "asked for")
    code, said, _ = run("list", "state=deleted")
    assert (0, 1) == (code, len(said.splitlines()))
    assert said.startswith(f"{ID}  2026-11-22T20:30:00Z  {builder.CALL_SID}  Deleted at ")
    assert said.endswith(": asked for.\n")
    (row,) = json.loads(run("list", "state=deleted", f"call={builder.CALL_SID}", "--json")[1])
    assert (ID, "deleted") == (row["id"], row["state"])
    assert (0, "", "") == run("list", "state=deleted", "call=other")
    assert 2 == run("list", "state=deleted", "limit=none")[0]
