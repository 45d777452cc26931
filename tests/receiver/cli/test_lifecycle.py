"""`receiver label`, `note`, `hold`, `release`, `ledger`: what they change, print and refuse."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from receiver.cli import main
from receiver.media import EndReason
from receiver.recording import store
from receiver.recording.annotations import Annotations
from receiver.recording.annotations import read as read_annotations
from tests.receiver.helpers import recordings_builder as builder
from tests.receiver.helpers.journals import chunk, records, write

ID = builder.RECORDING_ID
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Return a folder with one recording of a second."""
    builder.build(tmp_path / "recordings")
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


def added(recordings: Path) -> Annotations:
    """Return what was added to the recording."""
    return read_annotations(store.find(recordings, ID))


def test_a_label_comes_and_goes(recordings: Path, run: Run) -> None:
    """All labels are printed each time; the system's account put it there, now."""
    assert (0, "labels: complaint\n", "") == run("label", ID[:4], "complaint")
    (label,) = added(recordings).labels
    assert pwd.getpwuid(os.getuid()).pw_name == label.by
    assert abs(datetime.now(UTC) - datetime.fromisoformat(label.at)) < timedelta(minutes=1)
    assert (0, "labels: complaint, b\n", "") == run("label", ID, "b")
    assert (0, "labels: b\n", "") == run("label", ID, "complaint", "--remove")
    assert (0, "labels: none\n", "") == run("label", ID, "b", "--remove")


@pytest.mark.parametrize(
    ("arguments", "t_ms"),
    [((), None), (("--at", "0"), 0), (("--at", "0.25"), 250), (("--at", "0:00:01"), 1000)],
)
def test_a_note_stands_where_it_was_put(
    recordings: Path, run: Run, arguments: tuple[str, ...], t_ms: int | None
) -> None:
    """Its id is printed, and removes it."""
    code, out, _ = run("note", ID, "promises a refund", *arguments)
    (note,) = added(recordings).notes
    assert (0, f"note {note.id}\n") == (code, out)
    assert ("promises a refund", t_ms) == (note.text, note.t_ms)
    assert (0, f"removed note {note.id}\n", "") == run("note", ID, "--remove", note.id)
    assert () == added(recordings).notes


def test_a_hold_comes_and_goes(recordings: Path, run: Run) -> None:
    """It is there when the command says so."""
    assert (0, "held: case 4711\n", "") == run("hold", ID, "--reason", "case 4711")
    assert added(recordings).hold is not None
    assert (0, "released\n", "") == run("release", ID)
    assert added(recordings).hold is None


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (("label", ID, " "), 6, "a label is empty"),
        (("label", ID, "missing", "--remove"), 5, "no label 'missing'"),
        (("label", "ffffffff", "a"), 5, "no recording 'ffffffff'"),
        (("note", ID), 2, "give TEXT"),
        (("note", ID, "text", "--remove", "0a"), 2, "give TEXT"),
        (("note", ID, "text", "--at", "soon"), 2, "give seconds"),
        (("note", ID, "text", "--at", "1.001"), 6, "the recording ends at 1 s"),
        (("note", ID, "--remove", "0a"), 5, "no note '0a'"),
        (("hold", ID), 2, "--reason"),
        (("hold", ID, "--reason", "a\nb"), 6, "U+000A"),
        (("release", ID), 5, "not held"),
    ],
)
def test_what_is_refused_is_one_line(
    recordings: Path, run: Run, arguments: tuple[str, ...], code: int, problem: str
) -> None:
    """And nothing is written."""
    found, out, err = run(*arguments)
    assert (code, "") == (found, out)
    assert 1 == len(err.splitlines())
    assert problem in err
    assert Annotations() == added(recordings)


def test_a_folder_that_cannot_be_written_is_one_line(recordings: Path, run: Run) -> None:
    """As on a disk that is mounted for reading."""
    folder = store.find(recordings, ID)
    (folder / ".annotations.json.new").mkdir()
    code, _, err = run("label", ID, "a")
    assert 3 == code
    assert f"the annotations in {folder} cannot be written" in err
    assert 1 == len(err.splitlines())


def test_show_has_all_of_it(recordings: Path, run: Run) -> None:
    """What a terminal would obey is escaped; what cannot be read is said on stderr."""
    run("label", ID, "com\u202eplaint")
    run("note", ID, "first\nsecond", "--at", "0.25")
    run("hold", ID, "--reason", "case 4711")
    lines = run("show", ID)[1].splitlines()
    name = pwd.getpwuid(os.getuid()).pw_name
    assert f"  com\\u202eplaint ({name})" == lines[lines.index("labels") + 1]
    assert f"0:00.25  first\\nsecond ({name})" in lines[lines.index("notes") + 1]
    assert lines[lines.index("held") + 1].startswith(f"  case 4711 ({name}, 20")
    (store.find(recordings, ID) / "annotations.json").write_bytes(b"{")
    code, out, err = run("show", ID)
    assert 0 == code
    assert "labels" not in out
    assert "not an annotations.json" in err


NAME = pwd.getpwuid(os.getuid()).pw_name


def test_what_commands_do_is_in_the_ledger(recordings: Path, run: Run) -> None:
    """The newest first, each in one line, by the system's account."""
    assert (0, "") == run("ledger", "show")[:2]
    assert "no such entries" in run("ledger", "show")[2]
    run("label", ID, "com\u202eplaint")
    run("hold", ID, "--reason", "case 1")
    code, out, err = run("ledger", "show")
    assert (0, "") == (code, err)
    heading, held, labelled = out.splitlines()
    assert ["N", "AT", "WHAT", "WHO", "(VIA)", "RECORDING", "DETAILS"] == heading.split()
    assert ["2", "held", NAME, "(command)", ID, "reason=case", "1"] == (
        held.split()[:1] + held.split()[2:]
    )
    assert "label=com\\u202eplaint" in labelled


def test_the_ledger_is_shown_in_part(recordings: Path, run: Run) -> None:
    """By recording, what, who, since when, and at most so many; as JSON, too."""
    for name in "abc":
        run("label", ID, name)
    run("hold", ID, "--reason", "case 1")

    def shown(*arguments: str) -> list[int]:
        code, out, _ = run("ledger", "show", "--json", *arguments)
        assert 0 == code
        return [entry["n"] for entry in json.loads(out)]

    assert [4, 3, 2, 1] == shown() == shown(ID[:4]) == shown(ID) == shown("--who", NAME)
    assert [] == shown("f" * 16) == shown("--who", "nobody") == shown("--since", "9999-01-01")
    assert [4] == shown("--what", "held")
    assert [4, 3, 2, 1] == shown("--what", "held", "--what", "labelled", "--since", "1h")
    assert [4, 3] == shown("--limit", "2")
    assert "there are older ones" in run("ledger", "show", "--limit", "2")[2]
    assert 5 == run("ledger", "show", "ffff")[0]
    assert 2 == run("ledger", "show", "--since", "soon")[0]


def test_the_ledger_is_verified(recordings: Path, run: Run) -> None:
    """The head is printed, and given back another time; what is wrong is exit code 6."""
    assert (0, f"ok: 0 entries, head 0:{'0' * 64}\n", "") == run("ledger", "verify")
    run("label", ID, "a")
    code, out, _ = run("ledger", "verify")
    assert (0, "ok: 1 entries, head 1:") == (code, out[:22])
    head = out.split()[-1]
    run("label", ID, "b")
    assert 0 == run("ledger", "verify", "--head", head)[0]
    code, out, err = run(
        "ledger", "verify", "--head", head[:-1] + ("0" if head[-1] != "0" else "1")
    )
    assert (6, "") == (code, err)
    assert "entry 1 is not the one that was there" in out
    assert "damaged: 2 entries" in out
    code, _, err = run("ledger", "verify", "--head", "1")
    assert 2 == code
    assert "not a head" in err


def test_half_an_entry_is_a_remark(recordings: Path, run: Run) -> None:
    """A crash is no damage."""
    run("label", ID, "a")
    (month,) = (recordings / ".ledger").glob("*.jsonl")
    with month.open("ab") as file:
        file.write(b"{")
    code, out, _ = run("ledger", "verify")
    assert 0 == code
    assert out.startswith("remark: ")


def test_what_recover_publishes_is_in_the_ledger(tmp_path: Path, run: Run) -> None:
    """With the hash of its document."""
    spool, where = tmp_path / "spool", ("--recordings", str(tmp_path / "other"))
    spool.mkdir(0o700)
    rows = [chunk(n, bytes(160), timestamp_ms=20 * n) for n in range(5)]
    write(spool / "1122334455667788.journal", records(rows, reason=EndReason.STOP))
    code, out, err = run("recover", *where, "--spool", str(spool))
    assert 0 == code, err
    folder = Path(out.removeprefix("published ").strip())
    (entry,) = json.loads(run("ledger", "show", *where, "--json", "--what", "published")[1])
    document = (folder / "recording.json").read_bytes()
    assert hashlib.sha256(document).hexdigest() == entry["details"]["document_sha256"]
    assert json.loads(document)["id"] == entry["recording"]
    assert ("receiver", "publishing") == (entry["who"], entry["via"])


def test_what_cannot_be_entered_is_one_line(recordings: Path, run: Run) -> None:
    """And not done."""
    (recordings / ".ledger" / "head").mkdir(parents=True)
    code, out, err = run("hold", ID, "--reason", "case 1")
    assert (3, "") == (code, out)
    assert "receiver: the ledger cannot be written, nothing was done: Is a directory\n" == err
    assert Annotations() == added(recordings)


def test_a_signed_head_shows_a_ledger_that_was_made_anew(
    recordings: Path, run: Run, tmp_path: Path
) -> None:
    """To whoever has kept it, and the public key; whatever else agrees with itself."""
    key = Ed25519PrivateKey.generate()
    file = tmp_path / "ledger.pem"
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    file.chmod(0o600)
    signing = ("ledger", "checkpoint", "--ledger-key-file", str(file), "--origin", "here")
    run("label", ID, "one")
    code, verifier, _ = run(*signing, "--key")
    assert (0, True) == (code, verifier.startswith("here+"))
    note = tmp_path / "kept.checkpoint"
    note.write_text(run(*signing)[1])
    witness = ("ledger", "verify", "--checkpoint", str(note), "--key", verifier.strip())
    run("label", ID, "two")
    assert 0 == run(*witness)[0]
    shutil.rmtree(recordings / ".ledger")
    run("label", ID, "three")
    assert 0 == run("ledger", "verify")[0]
    code, said, _ = run(*witness)
    assert 6 == code
    assert "entry 1 is not the one that was there" in said
    note.write_text(note.read_text().replace("\n1\n", "\n2\n"))
    code, _, error = run(*witness)
    assert 6 == code
    assert "kept.checkpoint: its signature is wrong" in error
    assert 2 == run("ledger", "verify", "--checkpoint", str(note))[0]
    assert 2 == run(*witness[:-1], "nokey")[0]
    assert 3 == run("ledger", "checkpoint")[0]
    missing = ("ledger", "verify", "--checkpoint", "missing", "--key", verifier.strip())
    assert 3 == run(*missing)[0]
