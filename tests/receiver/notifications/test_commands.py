"""The command of `--on-published`: real programs that behave, and some that do not."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from receiver.notifications import commands
from receiver.notifications.http_client import PostAnswer
from tests.bounds import at_most

pytestmark = pytest.mark.integration
ENVIRON = {"PATH": "/usr/bin:/bin", "TAPREEL_TOKENS": "hush", "OTHER": "seen"}


async def ran(script: str, *, seconds: float = 20.0, body: bytes = b'{"a":1}') -> PostAnswer:
    """Return what comes of a shell's script."""
    command = ("sh", "-c", script)
    return await commands.run(command, body, seconds=seconds, environ=ENVIRON, event="evt_1")


async def test_it_reads_the_event(tmp_path: Path) -> None:
    """And sees the event's id, and no secret of ours."""
    out, env = tmp_path / "out", tmp_path / "env"
    assert PostAnswer(0) == await ran(f"cat > {out}; env > {env}", seconds=at_most(20))
    assert '{"a":1}' == out.read_text()
    seen = env.read_text()
    assert "TAPREEL_EVENT_ID=evt_1" in seen
    assert "OTHER=seen" in seen
    assert "hush" not in seen


async def test_what_it_writes_is_in_the_log() -> None:
    """Line by line, and no more than can be read."""
    with capture_logs() as logged:
        await ran("cat > /dev/null; echo one; printf 'two\\033[1m\\n' >&2", seconds=at_most(20))
        await ran("cat > /dev/null; yes | head -c 10000000", seconds=at_most(20))
    lines = [entry["line"] for entry in logged if entry["event"] == "command_output"]
    assert ["one", "two\\x1b[1m"] == [line.replace("\\u001b", "\\x1b") for line in lines[:2]]
    assert 2 + commands.MOST_LINES == len(lines)
    assert 1 == sum(entry["event"] == "command_output_cut" for entry in logged)


@pytest.mark.parametrize(
    ("script", "code", "problem"),
    [("exit 3", 3, "it ended with 3"), ("kill -9 $$", -9, "it ended with -9")],
)
async def test_another_end_than_0_is_a_failure(script: str, code: int, problem: str) -> None:
    """It is started again later."""
    assert PostAnswer(code, problem) == await ran(script, seconds=at_most(20))


async def test_it_need_not_read() -> None:
    """Not even an event that is longer than a pipe."""
    assert PostAnswer(0) == await ran("exit 0", seconds=at_most(20), body=b"x" * 1_000_000)


async def test_one_that_does_not_end_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    """Also where it ignores signals."""
    pid = tmp_path / "pid"
    began = time.monotonic()
    answer = await ran(f"trap '' TERM; sleep 600 & echo $! > {pid}; wait", seconds=1.0)
    assert "it did not end within 1 s, and was killed" == answer.problem
    assert time.monotonic() - began < at_most(10)
    assert not _lives(int(pid.read_text()))


def _lives(pid: int) -> bool:
    """Whether a process is more than a zombie, for which nobody has waited yet."""
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and "Z" != status.read_text().rpartition(")")[2].split()[0]


async def test_one_that_cannot_be_started_is_a_failure() -> None:
    """It may come back with the next upgrade."""
    answer = await commands.run(("/nowhere/sh",), b"", seconds=5, environ=ENVIRON, event="evt_1")
    assert "it cannot be started: No such file or directory" == answer.problem
