"""One run of a fault: a folder, the receivers that live and die in it, and the final account."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from receiver.disk import layout
from receiver.recording import publication_log
from receiver.recording.publication_log import LogMark
from tests.end_to_end.receiver_process import WAIT_SECONDS, ReceiverProcess
from tests.faults.accounting import Allowance, Sent, Tally, account
from tests.faults.faulty_disk import Orders

ROOT = Path(__file__).parents[2]
MIN_FREE = "256K"
"""Below this no new streams; the disks of these trials are small."""


@dataclass
class Trial:
    """Starts receivers over one spool; whatever is still running ends with the `with` block."""

    folder: Path
    _receivers: list[ReceiverProcess] = field(default_factory=list)

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for receiver in self._receivers:
            receiver.release()

    @property
    def recordings(self) -> Path:
        """Return the folder of recordings."""
        return self.folder / "recordings"

    @property
    def spool(self) -> Path:
        """Return the folder of journals."""
        return self.recordings / layout.SPOOL

    def start(
        self,
        *options: str,
        orders: Orders | None = None,
        limits: Sequence[str] = (),
        started: Callable[[int], object] = lambda _: None,
    ) -> ReceiverProcess:
        """Start a receiver over this trial's folders, on a disk that follows orders if given."""
        launcher = ("-m", "tests.faults.launcher", *limits, "--")
        receiver = ReceiverProcess(
            self.folder,
            *("--min-free", MIN_FREE, *options),
            environment={"PYTHONPATH": str(ROOT), **(orders.environment if orders else {})},
            program=launcher if limits else ("-m", "receiver"),
            started=started,
        )
        self._receivers.append(receiver)
        assert receiver.url, f"it did not start:\n{receiver.raw_log}"
        return receiver

    def recover(self) -> str:
        """Run `receiver recover` and return its output."""
        command = [sys.executable, "-m", "receiver", "recover"]
        done = subprocess.run(
            [*command, "--recordings", str(self.recordings), "--spool", str(self.spool)],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=WAIT_SECONDS,
            check=False,
        )
        return done.stdout + done.stderr

    def restart(self, *options: str) -> None:
        """Start a receiver, wait until it has published what is left, and end it in order."""
        receiver = self.start(*options)
        self.wait_until_published()
        assert receiver.stop() == 0, receiver.raw_log

    def journals(self) -> list[Path]:
        """Return the journals in the spool, those of workers too."""
        workers = self.spool.glob(f"{layout.WORKER}*/*{layout.JOURNAL_SUFFIX}")
        return sorted([*self.spool.glob(f"*{layout.JOURNAL_SUFFIX}"), *workers])

    def wait_until_published(self) -> None:
        """Return once the spool is empty; fail when it stays as it is."""
        deadline = time.monotonic() + WAIT_SECONDS
        while self.journals():
            assert time.monotonic() < deadline, f"never published: {self.journals()}"
            time.sleep(0.02)  # there is no event for when the last journal goes

    def account(self, streams: Iterable[Sent], allowance: Allowance | None = None) -> Tally:
        """Return what became of every chunk; quarantined journals are problems."""
        tally = account(list(streams), self.recordings, allowance or Allowance())
        for reason in self.spool.glob(f"{layout.QUARANTINE}/*.txt"):
            tally.problems.append(f"quarantine: {reason.read_text()}")
        unlogged = self.published() - self.logged()
        tally.expect(not unlogged, f"the publication log lacks {unlogged}")
        return tally

    def published(self) -> set[str]:
        """Return the folders of all recordings, relative to the recordings folder."""
        found = self.recordings.glob(f"*/*/*/[0-9]*/{layout.RECORDING_JSON}")
        return {path.parent.relative_to(self.recordings).as_posix() for path in found}

    def logged(self) -> set[str]:
        """Return the folders that somebody who follows the publication log knows."""
        found, mark = set[str](), LogMark()
        while (read := publication_log.read(self.recordings, mark))[1] != mark:
            entries, mark = read
            found |= {entry.folder for entry in entries}
        return found

    def check_that_recovery_is_over(self, tally: Tally) -> None:
        """Record a problem unless recovering once more changes no byte."""
        before = digests(self.recordings)
        output = self.recover()
        if digests(self.recordings) != before or "nothing to recover" not in output:
            tally.problems.append(f"a second recovery changed something: {output}")


def kill(receiver: ReceiverProcess) -> float:
    """End a receiver as the kernel's out-of-memory killer does; return when."""
    at = time.monotonic()
    receiver.process.send_signal(signal.SIGKILL)
    receiver.ended()
    return at


def digests(folder: Path) -> dict[str, str]:
    """Return every file below a folder with its hash; locks are empty and count too."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
