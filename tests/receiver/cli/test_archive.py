"""`receiver list`, `show`, `verify`: what people see, what programs get, how commands end."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from receiver.cli import archive, main
from receiver.media import Finding, GapKind, Track, TrackGap, visible
from receiver.recording import store
from receiver.recording.document import Level, PreviousRecording, RefusedAudio, RefusedPart
from tests.receiver.helpers import recordings_builder as builder

FIRST, SECOND = "aaaa111111111111", "bbbb222222222222"
HOUR_MS = 3_600_000
ESCAPES = "\x1b[31mred\x07\x9b2J\u202egnp\r\n\0"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """Return what was printed, line by line."""
        return self.out.splitlines()


Run = Callable[..., Outcome]


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Return the path of a recordings folder, which is not there yet."""
    return tmp_path / "recordings"


@pytest.fixture
def run(
    recordings: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Return what runs `receiver` with the recordings folder in the environment."""
    for name in ("TAPREEL_CONFIG", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TAPREEL_RECORDINGS", str(recordings))

    def command(*arguments: str) -> Outcome:
        code = main.main(arguments)
        printed = capsys.readouterr()
        return Outcome(code, printed.out, printed.err)

    return command


@pytest.fixture
def two(recordings: Path) -> Path:
    """Return a recordings folder with two recordings, one hour apart."""
    builder.build(recordings, recording_id=FIRST, parameters={"Name": "Jörg", "n": 5})
    builder.build(
        recordings,
        recording_id=SECOND,
        started_at_ms=builder.STARTED_AT_MS - HOUR_MS,
        tracks=(Track.INBOUND,),
        gaps=(),
        complete=True,
        findings=(),
        call_sid="another",
        parameters={},
    )
    return recordings


def test_list_is_a_table(two: Path, run: Run) -> None:
    """One line each, newest first, with what distinguishes recordings."""
    outcome = run("list")
    assert (0, "") == (outcome.code, outcome.err)
    heading, first, second = outcome.lines
    assert ["ID", "STARTED", "DURATION", "TRACKS", "CALL", "COMPLETE"] == heading.split()[:6]
    assert [FIRST, "2026-11-22T20:30:00Z", "0:01.00", "both", builder.CALL_SID, "audio_lost"] == (
        first.split()[:6]
    )
    assert first.endswith("  Name=Jörg n=5")
    assert [SECOND, "2026-11-22T19:30:00Z", "0:01.00", "inbound", "another", "yes"] == (
        second.split()
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], [FIRST, SECOND]),
        (["--call-sid", "another"], [SECOND]),
        (["--param", "n=5"], [FIRST]),
        (["--param", "n=5", "--param", "Name=Jörg"], [FIRST]),
        (["--param", "n=5", "--param", "Name=J"], []),
        (["--since", "2026-11-22T20:00:00Z"], [FIRST]),
        (["--since", "2026-11-22"], [FIRST, SECOND]),
        (["--since", "2026-11-23"], []),
    ],
)
def test_list_filters(two: Path, run: Run, arguments: list[str], expected: list[str]) -> None:
    """Every filter that is given must agree."""
    outcome = run("list", "--json", *arguments)
    assert 0 == outcome.code
    assert expected == [document["id"] for document in json.loads(outcome.out)]


def test_list_selects_by_age(recordings: Path, run: Run) -> None:
    """An age counts back from now, and these recordings are either old or not yet made."""
    builder.build(recordings, recording_id=FIRST, started_at_ms=0)
    builder.build(recordings, recording_id=SECOND, started_at_ms=253_402_300_000_000)
    (document,) = json.loads(run("list", "--json", "--since", "2h").out)
    assert SECOND == document["id"]


def test_list_as_json_is_whole_documents(two: Path, run: Run) -> None:
    """With the folder, and with what a later version may have added."""
    folder = next(two.glob(f"*/*/*/*{FIRST}"))
    document = folder / "recording.json"
    document.write_bytes(document.read_bytes().replace(b"{", b'{"added_later": 1,', 1))
    first = json.loads(run("list", "--json").out)[0]
    assert json.loads(document.read_bytes()) | {"folder": str(folder)} == first


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize(("arguments", "printed"), [((), ""), (("--json",), "[]\n")])
def test_list_of_nothing_says_so(
    recordings: Path, run: Run, exists: bool, arguments: tuple[str, ...], printed: str
) -> None:
    """An empty or missing folder is no error, but a line says so."""
    if exists:
        recordings.mkdir()
    outcome = run("list", *arguments)
    assert (0, printed) == (outcome.code, outcome.out)
    assert f"receiver: no recordings found in {recordings}\n" == outcome.err


def test_list_reports_damaged_documents_on_stderr(two: Path, run: Run) -> None:
    """The others are listed, and the output stays what programs expect."""
    document = next(two.glob(f"*/*/*/*{SECOND}/recording.json"))
    document.write_text("{")
    outcome = run("list", "--json")
    assert 0 == outcome.code
    assert [FIRST] == [found["id"] for found in json.loads(outcome.out)]
    assert f"receiver: {document.parent}: not a recording.json" in outcome.err


@pytest.mark.parametrize(
    "arguments", [("--param", "novalue"), ("--param", "=v"), ("--since", "yesterday"), ("extra",)]
)
def test_list_refuses_what_it_cannot_read(two: Path, run: Run, arguments: tuple[str, ...]) -> None:
    """A slip in a filter must not look like an empty archive."""
    outcome = run("list", *arguments)
    assert (2, "") == (outcome.code, outcome.out)
    assert ["receiver: "] == [line[:10] for line in outcome.err.splitlines()]


def test_list_shortens_parameters_to_the_terminal(
    recordings: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wide letters count twice; nothing before the parameters is cut."""
    builder.build(recordings, parameters={"名前": "山田" * 50, "n": "x"})
    row = run("list").lines[1]
    assert row.endswith("田 n=x")
    before = row[: row.index("名")]
    for columns in (len(before) + 30, len(before) + 31, 20):
        monkeypatch.setenv("COLUMNS", str(columns))
        shown = run("list").lines[1]
        assert shown.startswith(before + "名前=山田")
        assert shown.endswith("…")
        limit = max(columns, len(before) + 20)
        assert limit - 1 <= width(shown) <= limit


def width(text: str) -> int:
    """Return how many columns wide a line of ASCII and CJK is."""
    return sum(2 if "一" <= letter <= "龥" else 1 for letter in text)


def test_list_fits_parameters_that_just_fit(
    recordings: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No mark where nothing is cut."""
    builder.build(recordings, parameters={"a": "b" * 30})
    row = run("list").lines[1]
    monkeypatch.setenv("COLUMNS", str(len(row)))
    assert row == run("list").lines[1]
    monkeypatch.setenv("COLUMNS", str(len(row) - 1))
    assert row[:-2] + "…" == run("list").lines[1]


def test_text_from_the_wire_does_not_reach_the_terminal(recordings: Path, run: Run) -> None:
    """Escape sequences, control characters and reordering marks are shown, not obeyed."""
    builder.build(
        recordings,
        call_sid=ESCAPES,
        account_sid=ESCAPES,
        stream_sid=ESCAPES,
        provider=ESCAPES,
        parameters={ESCAPES: ESCAPES},
        findings=(Finding(ESCAPES, ESCAPES),),
    )
    for arguments in (("list",), ("show", builder.RECORDING_ID)):
        printed = run(*arguments).out
        assert [] == [c for c in printed.replace("\n", "") if not c.isprintable()]
        assert "\\x1b[31mred\\x07\\x9b2J\\u202egnp\\r\\n\\x00" in printed


def test_text_beyond_the_terminals_letters_is_escaped(
    two: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal of another character set is no reason to fail."""
    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    assert 0 == main.main(["list"])
    stream.seek(0)
    assert "Name=J\\xf6rg" in stream.read()


def test_show_is_a_page(recordings: Path, run: Run) -> None:
    """Ids, times, format, findings, and where the files are."""
    folder = builder.build(recordings, stereo=True)
    outcome = run("show", builder.RECORDING_ID)
    assert (0, "") == (outcome.code, outcome.err)
    for expected in (
        f"recording   {builder.RECORDING_ID}",
        "started     2026-11-22T20:30:00.000Z",
        "ended       2026-11-22T20:30:01.000Z (stop)",
        "duration    0:01.00",
        "complete    no, see findings",
        (
            "verdict     Not complete. 20 ms of the caller are missing at 0:00.1: the packets never"
            " arrived. Everything else that was sent is here."
        ),
        f"call        {builder.CALL_SID}",
        f"account     {builder.ACCOUNT_SID}",
        "format      audio/x-mulaw, 8000 Hz",
        f"inbound     {folder}/inbound.wav",
        "  52 chunks received, 49 written, 2 late, 1 duplicate, 1 conflict, 1 rejected",
        "  20 ms of silence in 1 gaps: 1 lost",
        "    0:00.10  20 ms  lost",
        f"outbound    {folder}/outbound.wav",
        f"stereo      {folder}/stereo.wav",
        f"document    {folder}/recording.json",
        "findings",
        "  audio_lost (inbound): 20 ms in 1 gaps",
        "parameters",
        "  Name: Jane",
        "keys",
        "  0:00.25  5",
        "marks",
        "  0:00.50  greeting",
    ):
        assert expected in outcome.lines


def test_show_leaves_out_what_is_not_there(two: Path, run: Run) -> None:
    """No findings, no gaps, no parameters: no headings for them."""
    lines = run("show", SECOND).lines
    assert "complete    yes" in lines
    assert "findings" not in lines
    assert "parameters" not in lines
    assert [] == [line for line in lines if "silence" in line]


def test_show_prints_the_clock_and_the_byte_order(recordings: Path, run: Run) -> None:
    """Where they are known."""
    folder = builder.build(recordings, findings=(Finding("connection_lost", "code 1006"),))
    document = builder.as_l16(store.read(folder).recording)
    builder.write_document(folder, document)
    builder.change_track(folder, drift_ppm=-12.5)
    lines = run("show", builder.RECORDING_ID).lines
    assert "format      audio/x-L16, 8000 Hz, big-endian" in lines
    assert "  the sender's clock is off by -12.5 ppm" in lines
    assert "  connection_lost: code 1006" in lines


def test_show_names_what_is_in_no_track_and_the_recording_before(
    recordings: Path, run: Run
) -> None:
    """Where the audio is that could not be used, and where the stream began."""
    part = RefusedPart("unknown_track", "mixed", 3, 0, 480, 0, 40)
    folder = builder.build(
        recordings,
        refused=RefusedAudio("refused.raw", 480, "0" * 64, (part,)),
        previous=PreviousRecording("0" * 16, "s", 1500),
    )
    lines = run("show", builder.RECORDING_ID).lines
    assert f"refused     {folder}/refused.raw" in lines
    assert "  unknown_track mixed: 3 payloads, 480 bytes" in lines
    assert f"before      {'0' * 16}, 0:01.50 between the two" in lines


def test_show_names_the_recording_behind(recordings: Path, run: Run) -> None:
    """The first part was published before there was one, and is as it was."""
    builder.build(recordings, recording_id=FIRST)
    document = next(recordings.rglob("recording.json")).read_bytes()
    builder.build(
        recordings,
        recording_id=SECOND,
        started_at_ms=builder.STARTED_AT_MS + 9000,
        previous=PreviousRecording(FIRST, "s", 1500),
    )
    assert f"behind      {SECOND}, 0:01.50 between the two" in run("show", FIRST).lines
    assert document == run("show", FIRST, "--json").out.encode()


@pytest.mark.parametrize(
    ("level", "share", "line"),
    [
        (
            Level(-23.4, -3.1),
            0.256,
            "  level -23.4 dBFS, highest -3.1 dBFS, silent for 26% of the time",
        ),
        (Level(None, -60.2), 1, "  nothing but silence"),
        (None, None, ""),
    ],
)
def test_show_says_how_loud_a_track_is(
    recordings: Path, run: Run, level: Level | None, share: float | None, line: str
) -> None:
    """Where it was measured: earlier versions did not."""
    folder = builder.build(recordings)
    builder.change_track(folder, level_dbfs=level, silence_share=share)
    builder.change_document(folder, peaks={"file": "peaks.dat", "sha256": "0"})
    lines = run("show", builder.RECORDING_ID).lines
    assert [line] * bool(line) == [each for each in lines if "silen" in each and "gaps" not in each]
    assert f"peaks       {folder / 'peaks.dat'}" in lines


def test_show_lists_the_first_gaps_only(recordings: Path, run: Run) -> None:
    """A bad line has thousands."""
    gaps = [TrackGap(20 * n, 10, GapKind.LOST) for n in range(25)]
    builder.build(recordings, gaps=gaps)
    lines = run("show", builder.RECORDING_ID).lines
    assert 10 == len([line for line in lines if line.endswith("10 ms  lost")])
    assert "    and 15 more" in lines


@pytest.mark.parametrize(
    ("duration_ms", "expected"),
    [(0, "0:00.00"), (59_994, "0:59.99"), (59_996, "1:00.00"), (3_600_000, "1:00:00.00")],
)
def test_durations_are_rounded_once(
    recordings: Path, run: Run, duration_ms: int, expected: str
) -> None:
    """No sixtieth second."""
    builder.change_document(builder.build(recordings), duration_ms=duration_ms)
    assert f"duration    {expected}" in run("show", builder.RECORDING_ID).lines


def test_show_as_json_is_the_file(two: Path, run: Run) -> None:
    """Byte for byte, by any beginning of the id."""
    document = next(two.glob(f"*/*/*/*{FIRST}/recording.json"))
    assert document.read_text() == run("show", "--json", "aaaa").out


@pytest.mark.parametrize("command", ["show", "verify"])
@pytest.mark.parametrize("unknown_id", ["cccc", "a", "../..", "\x1b[31m\n"])
def test_an_unknown_id_is_exit_code_5(two: Path, run: Run, command: str, unknown_id: str) -> None:
    """With one line on stderr, and no traceback."""
    outcome = run(command, unknown_id)
    assert (5, "") == (outcome.code, outcome.out)
    assert outcome.err.startswith("receiver: ")
    assert 1 == outcome.err.count("\n")
    assert "\x1b" not in outcome.err


def test_show_of_a_damaged_document_is_exit_code_6(two: Path, run: Run) -> None:
    """It is there, but it is not what it should be."""
    next(two.glob(f"*/*/*/*{FIRST}/recording.json")).write_text("{")
    outcome = run("show", FIRST)
    assert (6, "") == (outcome.code, outcome.out)
    assert outcome.err.startswith("receiver: not a recording.json")


def test_verify_says_ok_of_each(two: Path, run: Run) -> None:
    """One line per recording."""
    outcome = run("verify")
    expected = [f"20261122T203000Z-{FIRST}  ok", f"20261122T193000Z-{SECOND}  ok"]
    assert (0, expected, "") == (outcome.code, outcome.lines, outcome.err)
    assert expected[1:] == run("verify", "bbbb").lines


def test_verify_says_what_is_damaged(two: Path, run: Run) -> None:
    """All problems of a recording, and the others are still looked at."""
    folder = next(two.glob(f"*/*/*/*{FIRST}"))
    (folder / "inbound.wav").unlink()
    (folder / "stray\x1b").touch(0o600)
    outcome = run("verify")
    assert 6 == outcome.code
    expected = "damaged  inbound.wav is missing; a stray file 'stray\\x1b'"
    assert f"20261122T203000Z-{FIRST}  {expected}" == outcome.lines[0]
    assert f"20261122T193000Z-{SECOND}  ok" == outcome.lines[1]
    assert 0 == run("verify", SECOND).code


@pytest.mark.parametrize("arguments", [(), (FIRST,)])
def test_verify_says_so_of_a_damaged_document(
    two: Path, run: Run, arguments: tuple[str, ...]
) -> None:
    """There is nothing to compare the files with."""
    next(two.glob(f"*/*/*/*{FIRST}/recording.json")).write_text("{")
    outcome = run("verify", *arguments)
    assert 6 == outcome.code
    assert outcome.lines[0].startswith(f"20261122T203000Z-{FIRST}  damaged  not a recording.json")


def test_verify_reads_the_hash_of_the_document(two: Path, run: Run) -> None:
    """One changed letter that every program would believe is found."""
    path = next(two.glob(f"*/*/*/*{FIRST}/recording.json"))
    path.write_bytes(path.read_bytes().replace(b'"call_sid": "', b'"call_sid": "X', 1))
    outcome = run("verify", FIRST)
    assert 6 == outcome.code
    assert outcome.lines[0].endswith("damaged  recording.json: its SHA-256 is not the one it says")


def test_verify_says_which_documents_have_no_hash(two: Path, run: Run) -> None:
    """Those of an earlier version, which are sound as far as anybody can say."""
    path = next(two.glob(f"*/*/*/*{FIRST}/recording.json"))
    path.write_bytes(path.read_bytes().rpartition(b',\n  "document_sha256"')[0] + b"\n}\n")
    outcome = run("verify")
    assert 0 == outcome.code
    remark = "recording.json is of an earlier version, without a hash of its own"
    assert outcome.lines[0].endswith(f"  ok  {remark}")
    assert outcome.lines[1].endswith("  ok")


@pytest.mark.parametrize("arguments", [("list",), ("show", FIRST), ("verify",), ("list", "--json")])
@pytest.mark.parametrize("damaged", [False, True])
def test_no_command_passes_on_what_a_terminal_obeys_or_hides(
    two: Path, run: Run, arguments: tuple[str, ...], damaged: bool
) -> None:
    """Control, bidirectional and invisible characters, from wherever in a document."""
    path = next(two.glob(f"*/*/*/*{FIRST}/recording.json"))
    document = json.loads(path.read_bytes())
    odd = "\x1b[2J\x7f\x9b\u202e\u2066\u200b\u200f\ufeff\u00ad\u3164\ufe0f\U000e0041"
    document |= {"call_sid": odd, "provider": odd, "parameters": {odd: odd}}
    document["findings"] = [{"code": odd, "detail": odd}]
    document["marks"] = [{"at_ms": 0, "name": odd}]
    document["duration_ms"] = odd if damaged else document["duration_ms"]
    path.write_text(json.dumps(document, ensure_ascii=False))
    outcome = run(*arguments)
    assert outcome.lines or outcome.err
    assert set("\n") >= {c for c in outcome.out + outcome.err if c != visible(c)}


def test_verify_of_nothing_says_so(recordings: Path, run: Run) -> None:
    """An empty archive is in order."""
    outcome = run("verify")
    assert (0, "") == (outcome.code, outcome.out)
    assert f"receiver: no recordings found in {recordings}\n" == outcome.err


def test_show_as_json_escapes_an_older_document_for_a_terminal(
    two: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It means the same; into a file or a pipe it goes as it is."""
    path = next(two.glob(f"*/*/*/*{FIRST}/recording.json"))
    document = json.loads(path.read_bytes()) | {"call_sid": "\u202e\x7f\U000e0041"}
    path.write_text(json.dumps(document, ensure_ascii=False, indent=2))
    assert path.read_text() == run("show", FIRST, "--json").out
    monkeypatch.setattr(archive, "_is_terminal", lambda: True)
    out = run("show", FIRST, "--json").out
    assert document == json.loads(out)
    assert "\\u202e\\u007f\\udb40\\udc41" in out
