"""Every case in a session whose clock is the case's own: what comes of it in files."""

from __future__ import annotations

import queue
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import mutagen.wave
import pytest
from structlog.testing import capture_logs

from receiver.auth.bearer import Grant
from receiver.counters import Counters
from receiver.ingest.recorder import Recorder
from receiver.ingest.session import Session
from receiver.journal.spool import Spool
from receiver.tap.local_hub import LocalHub
from tests.cases.expected import FILES
from tests.cases.played import NAMES, Played, Published, Step, read, steps
from tests.receiver.helpers.journals import STARTED_AT_MS, render
from tests.receiver.helpers.taps import ManualScheduler

# mutagen ships no types
read_wave: Callable[..., Any] = mutagen.wave.WAVE


class CaseRecorder(Recorder):
    """A recorder with a real spool, and the clock of a case."""

    def __init__(self, folder: Path) -> None:
        self.spool = Spool(folder)
        self.at_ms = 0.0
        self.ended: queue.Queue[Path] = queue.Queue()
        hub = LocalHub(ManualScheduler())
        super().__init__(
            self.spool, hub, Counters(), journal_ended=self.ended.put, now=self._seconds
        )

    def _seconds(self) -> float:
        return 100 + self.at_ms / 1000

    def utc_ms(self) -> int:
        return STARTED_AT_MS + round(self.at_ms)


class CaseSocket:
    """A connection that remembers how it was closed."""

    remote_address = "192.0.2.7"

    def __init__(self, closings: list[tuple[int, str]]) -> None:
        self._closings = closings

    def close(self, code: int, reason: str) -> None:
        self._closings.append((code, reason))

    def abort(self) -> None:
        self._closings.append((1006, ""))

    def send(self, message: bytes | str) -> None:
        raise AssertionError("a stream's socket never gets a message")


def play(name: str, folder: Path) -> Played:
    """Play a case, the part before it included, and render what it leaves."""
    played, recorder = Played(name), CaseRecorder(folder / "spool")
    parts = ("C31-part1", name) if name == "C31-part2" else (name,)
    with capture_logs() as played.log:
        for number, part in enumerate(parts):
            _play_part(recorder, steps(part), number * 3000.0, played)
    recorder.spool.close()
    journals = [recorder.ended.get_nowait() for _ in range(recorder.ended.qsize())]
    for number, journal in enumerate(journals):
        played.published.append(rendered(journal, folder / str(number)))
        played.raw += sorted((folder / str(number)).glob("*.raw"))
    played.published.sort(key=lambda one: one.document.started_at)
    return played


def _play_part(
    recorder: CaseRecorder, lines: Iterable[Step], start_ms: float, played: Played
) -> None:
    recorder.at_ms = start_ms
    session = Session(recorder, Grant(), remote_address="192.0.2.7")
    closed = len(played.closings)
    session.opened(CaseSocket(played.closings))  # type: ignore[arg-type]  # what a session uses
    for step in lines:
        recorder.at_ms = start_ms + step.at_ms
        if len(played.closings) > closed:
            break
        if step.end is None:
            session.message_received(step.sent)
        else:
            clean = step.end == "close"
            session.closed(code=1000 if clean else 1006, clean=clean)
    else:
        return
    session.closed(code=1000, clean=True)


def rendered(journal: Path, folder: Path) -> Published:
    """Render a journal into a new folder."""
    folder.mkdir()
    return read(folder, render(journal, folder))


@pytest.mark.parametrize("name", NAMES)
def test_what_a_case_leaves_is_right(name: str, tmp_path: Path) -> None:
    """By the rules of `expected.py`."""
    FILES[name](play(name, tmp_path))


@pytest.mark.needs("ffprobe", "exiftool")
def test_parameters_are_readable_in_the_files_of_any_script(tmp_path: Path) -> None:
    """Names and values, in programs that share no code with us."""
    parameters = play("C15-cjk", tmp_path).only().document.parameters
    path = tmp_path / "0" / "inbound.wav"
    entries = read_wave(path).tags.getall("TXXX")
    assert parameters == {entry.desc: entry.text[0] for entry in entries}
    for command in (["ffprobe", "-v", "error", "-show_format"], ["exiftool", "-a"]):
        shown = subprocess.run([*command, path], capture_output=True, check=True).stdout.decode()
        assert [] == [text for pair in parameters.items() for text in pair if text not in shown]


def test_every_case_has_its_right_value() -> None:
    """No file is without a rule, and no rule without a file."""
    assert set(NAMES) == set(FILES)
