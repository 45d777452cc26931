"""A real `receiver serve`, started as a user would, watched through its own output."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from receiver.disk import layout
from receiver.recording.document import Recording
from tests.bounds import at_most

TOKEN = "a-token-for-tests-only"
WAIT_SECONDS = at_most(120.0)


class ReceiverProcess:
    """One receiver process; `url` is where it listens, `recordings` where it publishes."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        environment: dict[str, str] | None = None,
        token_file: bool = True,
        program: tuple[str, ...] = ("-m", "receiver"),
        started: Callable[[int], object] = lambda _: None,
    ) -> None:
        self.folder = folder
        self.recordings = folder / "recordings"
        self.spool = self.recordings / layout.SPOOL
        self.token_file = folder / "tokens"
        if token_file and not self.token_file.exists():
            self.token_file.write_text(TOKEN + "\n")
            self.token_file.chmod(0o600)
        token = ("--token-file", str(self.token_file)) if token_file else ()
        security = () if {"--tls", "--self-signed"} & set(options) else ("--no-tls",)
        self.process = subprocess.Popen(
            [
                *(sys.executable, *program, "serve", *security, "--port", "0"),
                *("--recordings", self.recordings.name, *token, *options),
            ],
            cwd=folder,
            env={**os.environ, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that a fault can kill it with all its children
        )
        self.log: list[dict[str, Any]] = []
        self.raw_log = ""
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        assert self.process.stdout is not None
        started(self.process.pid)  # long before it listens
        self.listening = self.process.stdout.readline().strip()
        self.url = self.listening.removeprefix("listening ")
        self.port = int(self.url.rpartition(":")[2].partition("/")[0] or 0) if self.url else 0

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.raw_log += line
            try:
                self._lines.put(json.loads(line))
            except ValueError:
                self._lines.put({"event": line.rstrip()})
        self._lines.put(None)

    def wait_for(self, event: str) -> dict[str, Any]:
        """Return the next log line with this event; fail when the process ends before."""
        while (line := self._lines.get(timeout=WAIT_SECONDS)) is not None:
            self.log.append(line)
            if line["event"] == event:
                return line
        raise AssertionError(f"the receiver ended before {event!r}:\n{self.raw_log}")

    def published(self) -> tuple[Path, Recording]:
        """Wait for the next publication; return its folder and document."""
        folder = self.folder / self.wait_for("recording_published")["folder"]
        return folder, read_document(folder)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        """Wait for the end of the process and of its output; return the exit code."""
        code = self.process.wait(WAIT_SECONDS)
        self._reader.join(WAIT_SECONDS)
        return code

    def release(self) -> None:
        """End the process however it is, and whatever it left behind."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(WAIT_SECONDS)
        if self._reader.is_alive():  # somebody may still hold its output, and wait for a disk
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.ended()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


def read_document(folder: Path) -> Recording:
    """Return the document of a published recording."""
    return msgspec.json.decode((folder / layout.RECORDING_JSON).read_bytes(), type=Recording)


@contextlib.contextmanager
def running_receiver(
    folder: Path,
    *options: str,
    environment: dict[str, str] | None = None,
    program: tuple[str, ...] = ("-m", "receiver"),
    started: Callable[[int], object] = lambda _: None,
) -> Iterator[ReceiverProcess]:
    """Run a receiver for the length of a `with` block."""
    process = ReceiverProcess(
        folder, *options, environment=environment, program=program, started=started
    )
    try:
        yield process
    finally:
        process.release()
