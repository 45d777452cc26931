"""The command of `--on-published`: a program of this machine that gets an event on its stdin.

It has a bounded time and a session of its own; what it writes is in the log. It succeeded when it
ended with 0. Whatever else comes of it, it is started again later, as a webhook is sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from receiver.config.settings import PREFIX
from receiver.media import visible
from receiver.notifications.http_client import PostAnswer

MOST_OUTPUT_BYTES: Final = 65_536
"""Of what it writes, so much is in the log; the rest is read and dropped."""
MOST_LINES: Final = 100
LONGEST_LINE: Final = 1000
_BLOCK_BYTES: Final = 16_384

log = structlog.get_logger("receiver.notifications")


async def run(
    command: Sequence[str], body: bytes, *, seconds: float, environ: Mapping[str, str], event: str
) -> PostAnswer:
    """Run a command with `body` on its stdin; return what came of it.

    Args:
        command: Program and arguments; no shell is involved.
        body: What it reads, as JSON.
        seconds: When these are over it is killed, with all processes of its session.
        environ: What it sees of the environment; secrets of ours are left out.
        event: The event's id, which it has as `TAPREEL_EVENT_ID`, too.
    """
    clean = {name: value for name, value in environ.items() if not name.startswith(PREFIX)}
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            env={**clean, f"{PREFIX}EVENT_ID": event},
        )
    except OSError as error:
        return PostAnswer(problem=f"it cannot be started: {error.strerror or error}")
    output = bytearray()
    try:
        async with asyncio.timeout(seconds):
            await asyncio.gather(_write(process, body), _read(process, output))
            code = await process.wait()
    except TimeoutError:
        return PostAnswer(problem=f"it did not end within {seconds:g} s, and was killed")
    finally:
        await _end(process)
        _log_output(bytes(output), command[0], event)
    if code == 0:
        return PostAnswer(0)
    return PostAnswer(code, f"it ended with {code}")


async def _write(process: asyncio.subprocess.Process, body: bytes) -> None:
    assert process.stdin is not None  # noqa: S101  it is a pipe
    with contextlib.suppress(ConnectionError):  # it need not read
        process.stdin.write(body)
        await process.stdin.drain()
    with contextlib.suppress(ConnectionError):
        process.stdin.close()
        await process.stdin.wait_closed()


async def _read(process: asyncio.subprocess.Process, output: bytearray) -> None:
    assert process.stdout is not None  # noqa: S101
    while block := await process.stdout.read(_BLOCK_BYTES):
        output += block[: MOST_OUTPUT_BYTES - len(output)]


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill whatever is left of its session, and wait for it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def _log_output(output: bytes, program: str, event: str) -> None:
    lines = output.decode("utf-8", "replace").splitlines()
    for line in lines[:MOST_LINES]:
        text = visible(line[:LONGEST_LINE])
        log.info("command_output", program=program, event_id=event, line=text)
    if len(lines) > MOST_LINES or len(output) >= MOST_OUTPUT_BYTES:
        log.info("command_output_cut", program=program, event_id=event)
