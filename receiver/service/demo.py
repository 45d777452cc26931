"""`receiver serve --demo`: places one call as a provider would, and prints what to look at.

The call is placed by `starter simulate --demo`, a process of its own, over the real socket
with the real bearer token: what works here works for a provider.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import sys
from pathlib import Path
from urllib.parse import urlsplit

import structlog

from receiver.auth import credentials, tls
from receiver.config.settings import Config
from receiver.media import visible
from receiver.recording.document import Published

log = structlog.get_logger("receiver.demo")


class Demo:
    """One demo call, and the lines that are printed about it."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._task: asyncio.Task[None] | None = None
        self._command: list[str] = []
        self._ending = False

    def start(self, url: str) -> None:
        """Place the call at a receiver that listens on `url`."""
        self._command = ["simulate", url, "--demo", "--bearer-token-file", str(self._token_file)]
        if urlsplit(url).scheme == "wss":
            self._command += ["--ca-file", str(self._certificate)]
        _print("placing a demo call of about 20 seconds ...")
        self._task = asyncio.create_task(self._place())

    @property
    def _token_file(self) -> Path:
        return self._config.token_file or credentials.demo_token_file(self._config.state)

    @property
    def _certificate(self) -> Path:
        return tls.pair(self._config)[0]

    async def _place(self) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "starter", *self._command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for us; we end it
        )
        try:
            _, errors = await process.communicate()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
            raise
        if process.returncode and not self._ending:
            log.error("demo_call_failed", output=errors.decode("utf-8", "replace").strip())

    def published(self, outcome: Published) -> None:
        """Print where the recording is, and how to place another call."""
        _print(f"recording:    {outcome.folder}")
        if self._ending:
            return  # there is no receiver for another call
        _print(f"token:        {self._token_file}")
        _print(f"another call: {shlex.join([_starter(), *self._command])}")
        _print("Ctrl-C ends the receiver.")

    def shutdown_started(self) -> None:
        """Print no advice any more: the receiver ends, and the call may fail with it."""
        self._ending = True

    async def close(self) -> None:
        """End the call if it still runs; idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def _starter() -> str:
    """Return the command as this environment has it, relative where that is shorter."""
    command = Path(sys.executable).with_name("starter")
    with contextlib.suppress(ValueError):
        command = command.relative_to(Path.cwd())
    return str(command)


def _print(text: str) -> None:
    print(visible(text), flush=True)  # noqa: T201  text for the person at the terminal
