"""What is measured, each as a process of its own: how to start it, and what it costs."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trustme

ROOT: Final = Path(__file__).parents[2]
TOKEN: Final = "a-token-for-benchmarks-only"
_LISTENING = re.compile(r"listening (?:\S*:)?(\d+)")


@dataclass(frozen=True, slots=True)
class Subject:
    """One row of the table. `module` runs with our Python, `None` is the C program."""

    name: str
    module: str | None
    tls: bool = False
    label: str = ""

    @property
    def is_receiver(self) -> bool:
        """Whether it is tapreel."""
        return self.module == RECEIVER


RECEIVER: Final = "receiver"
SUBJECTS: Final = (
    Subject("tapreel", RECEIVER, label="tapreel"),
    Subject("tapreel-tls", RECEIVER, tls=True, label="tapreel, TLS"),
    Subject("naive", "tests.bench.naive", label="naive recorder"),
    Subject("naive-tls", "tests.bench.naive", tls=True, label="naive recorder, TLS"),
    Subject("only-reads", "tests.bench.only_read", label="asyncio protocol that only reads"),
    Subject("floor", None, label="epoll loop in C that only reads"),
)


@dataclass(frozen=True, slots=True)
class Workshop:
    """A folder for one run of the benchmark, with the certificate and the C program in it."""

    folder: Path
    processor: int | None = None  # where the subjects run; None: anywhere

    def __post_init__(self) -> None:
        """Make what the subjects need."""
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.authority)
        issued = authority.issue_cert("localhost")
        certificate, key = self.certificate
        for part in issued.cert_chain_pems:
            part.write_to_path(certificate, append=True)
        issued.private_key_pem.write_to_path(key)
        Path(key).chmod(0o600)

    @property
    def authority(self) -> str:
        """Return the file of what clients trust."""
        return str(self.folder / "authority.pem")

    @property
    def certificate(self) -> tuple[str, str]:
        """Return the files of certificate and key."""
        return str(self.folder / "certificate.pem"), str(self.folder / "key.pem")

    def compile(self) -> str | None:
        """Compile the C program; return its path, or `None` where there is no compiler."""
        compiler = shutil.which("cc")
        program = str(self.folder / "only_read")
        if compiler is None:
            return None
        source = str(Path(__file__).with_name("only_read.c"))
        made = subprocess.run([compiler, "-O2", "-o", program, source], check=False)
        return program if made.returncode == 0 else None

    def command(self, subject: Subject, folder: Path, python: Sequence[str] = ()) -> list[str]:
        """Return the command line that starts a subject, which may write into `folder`.

        `python` is what Python runs in its place.
        """
        if subject.module is None:
            return [str(self.folder / "only_read")]
        program = [sys.executable, *(python or ("-m", subject.module))]
        if not subject.is_receiver:
            files = self.certificate if subject.tls else ()
            return [*program, str(folder), *files]
        security = ("--tls", *self.certificate) if subject.tls else ("--no-tls",)
        return [*program, "serve", "--port", "0", *security, "--recordings", str(folder / "out")]

    @contextlib.contextmanager
    def running(self, subject: Subject, *, python: Sequence[str] = ()) -> Iterator[Process]:
        """Run a subject for the length of a `with` block; it is killed at its end."""
        folder = self.folder / f"run-{os.urandom(4).hex()}"
        folder.mkdir()
        process = Process(self.command(subject, folder, python), self.processor, folder)
        try:
            yield process
        finally:
            process.end()
            shutil.rmtree(folder, ignore_errors=True)


class Process:
    """A started subject; `port` is where it listens."""

    def __init__(self, command: Sequence[str], processor: int | None, folder: Path) -> None:
        self.folder = folder
        environment = {**os.environ, "TAPREEL_TOKENS": TOKEN, "TAPREEL_LOG_LEVEL": "error"}
        environment |= {"PYTHONPATH": str(ROOT)}
        with open(folder / "log", "w") as log:
            self._process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self.pid = self._process.pid
        if processor is not None:
            os.sched_setaffinity(self.pid, {processor})
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        found = _LISTENING.search(line)
        if found is None:
            self.end()
            raise RuntimeError(f"{command[:4]} did not start: {(folder / 'log').read_text()}")
        self.port = int(found[1])
        self.listening_at = time.perf_counter()

    def cpu_seconds(self) -> float:
        """Return the processor time of all its threads; its children's is not in it."""
        spent = 0
        for thread in Path(f"/proc/{self.pid}/task").iterdir():
            with contextlib.suppress(OSError):  # a thread that just ended
                spent += int((thread / "schedstat").read_text().split()[0])
        return spent / 1e9

    def unread_bytes(self) -> int:
        """Return what waits in its sockets: a subject that is too slow still has to read it."""
        waiting = 0
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if int(fields[1].partition(":")[2], 16) == self.port:
                waiting += int(fields[4].partition(":")[2], 16)
        return waiting

    def resident_kib(self) -> int:
        """Return its resident memory."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])

    def end(self) -> None:
        """Kill it."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
