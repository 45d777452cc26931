"""`receiver serve --self-signed --demo`: what a newcomer meets first."""

from __future__ import annotations

import re
import shlex
import signal
import stat
import subprocess
import sys
from pathlib import Path

from receiver.media import EndReason
from tests.bounds import at_most
from tests.end_to_end.receiver_process import ReceiverProcess, read_document

WAIT_SECONDS = at_most(60)
README = Path(__file__).parents[2] / "README.md"


def newcomer(folder: Path) -> ReceiverProcess:
    """Start a receiver that makes its own certificate and token."""
    options = ("--self-signed", "--demo", "--console", "--console-port", "0")
    return ReceiverProcess(folder, *options, token_file=False)


def test_the_demo_call_is_recorded_and_everything_is_printed(tmp_path: Path) -> None:
    """The listening line, the recording, the token, and a command that places another call."""
    receiver = newcomer(tmp_path)
    try:
        assert receiver.listening.startswith("listening wss://127.0.0.1:")
        folder, document = receiver.published()
        assert document.complete
        assert document.end_reason is EndReason.STOP
        assert {"inbound", "outbound"} == {track.track.value for track in document.tracks}
        assert 18_000 < document.duration_ms < 25_000
        assert receiver.process.stdout is not None
        printed = [receiver.process.stdout.readline() for _ in range(7)]
        assert f"recording:    {folder.relative_to(tmp_path)}\n" in printed
        assert "token:        .tapreel/token\n" in printed
        page = README.read_text("utf-8").partition("$ make run\n")[2].partition("```")[0]
        programs = str(Path(sys.executable).parent)
        found = "".join([receiver.listening + "\n", *printed]).replace(programs, ".venv/bin")
        assert shown(page) == shown(found)
        for secret in ("token", "key.pem"):
            assert 0o600 == stat.S_IMODE((tmp_path / ".tapreel" / secret).stat().st_mode)
        (another,) = [line for line in printed if line.startswith("another call: ")]
        command = [*shlex.split(another.removeprefix("another call: ")), "--speed", "0"]
        subprocess.run(command, cwd=tmp_path, check=True, timeout=WAIT_SECONDS)
        assert receiver.published()[1].complete
        assert 0 == receiver.stop(signal.SIGINT)
        assert "Traceback" not in receiver.raw_log
    finally:
        receiver.release()


def shown(lines: str) -> list[str]:
    """Return lines, sorted, without what differs from run to run: ports, times, ids, codes."""
    return sorted(re.sub(r"[0-9a-f]{16}|[0-9]+|(?<=#).+", "0", lines).splitlines())


def test_ctrl_c_during_the_demo_call_ends_cleanly(tmp_path: Path) -> None:
    """The call in progress is published, its sender goes, nothing is left behind."""
    receiver = newcomer(tmp_path)
    try:
        receiver.wait_for("stream_started")
        assert 0 == receiver.stop(signal.SIGINT)
        (document,) = (tmp_path / "recordings").rglob("recording.json")
        assert read_document(document.parent).end_reason is EndReason.SHUTDOWN
        assert "Traceback" not in receiver.raw_log
        assert '"error"' not in receiver.raw_log
        assert receiver.process.stdout is not None
        printed = receiver.process.stdout.read()
        assert "recording:    recordings/" in printed
        assert "Ctrl-C" not in printed
    finally:
        receiver.release()
