"""Faults of the catalogue: whatever becomes of it, recording goes on, and it is whole afterwards.

A console follows what is published, in a process of its own. Some calls are published before the
fault and some while it lasts; the account is of all of them.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from receiver.catalogue.catalogue import Catalogue
from receiver.disk import layout
from receiver.errors import CatalogueError
from tests.bounds import at_most
from tests.end_to_end.receiver_process import WAIT_SECONDS
from tests.faults.accounting import Tally
from tests.faults.calls import Callers
from tests.faults.faulty_disk import filled, small_disk
from tests.faults.trial import ROOT, Trial
from tests.receiver.helpers.postgres import PostgresServer

CALLS = 3
CHUNKS = 60
KILLS = 4

Break = Callable[["ConsoleProcess"], AbstractContextManager[None]]
"""What breaks something for the length of a `with` block."""


class ConsoleProcess:
    """`receiver console` over the recordings of a trial; ends with the `with` block."""

    def __init__(self, trial: Trial, url: str | None) -> None:
        self._trial = trial
        self._options = [] if url is None else ["--database-url", url]
        self.log = trial.folder / "console.log"
        self.start()

    def start(self) -> None:
        """Start it; nothing waits until it serves."""
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "receiver", "console", "--no-tls"),
                    *("--console-port", "0", "--recordings", str(self._trial.recordings)),
                    *self._options,
                ],
                cwd=self._trial.folder,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.DEVNULL,
                stderr=log,
            )

    def kill(self) -> None:
        """End it as the kernel's out-of-memory killer does."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(at_most(WAIT_SECONDS))

    def wait_for(self, event: str) -> None:
        """Return once its log has a line of this event."""
        deadline = time.monotonic() + WAIT_SECONDS
        while f'"{event}"' not in (text := self.log.read_text()):
            assert time.monotonic() < deadline, text
            time.sleep(0.05)  # there is no event for a line in a file

    def __enter__(self) -> ConsoleProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def _tried(folder: Path, seed: int, url: str | None, broken: Break) -> Tally:
    """Return what became of calls before and during a fault; the catalogue must have them all."""
    with Trial(folder) as trial, ConsoleProcess(trial, url) as console:
        receiver = trial.start()
        streams = []
        with Callers(receiver.url, CALLS, seed) as callers:
            callers.wait_for(CHUNKS)
        streams += callers.streams
        trial.wait_until_published()
        _wait_until_whole(trial, url)
        with broken(console):
            with Callers(receiver.url, CALLS, seed, first=CALLS + 1) as callers:
                callers.wait_for(CHUNKS)
            streams += callers.streams
            trial.wait_until_published()
        tally = trial.account(streams)
        _wait_until_whole(trial, url)
        with Catalogue(url, trial.recordings) as catalogue:
            found = catalogue.check()
        tally.expect(found.is_whole, f"the catalogue is not whole: {found}")
        tally.expect(found.checked == 2 * CALLS, f"{found.checked} recordings were published")
        tally.expect(receiver.stop() == 0, "the receiver did not end well")
        return tally


def _wait_until_whole(trial: Trial, url: str | None) -> None:
    """Return once the console has given every recording its row; nobody else does."""
    deadline = time.monotonic() + WAIT_SECONDS
    count = 0
    while count != len(trial.published()):
        assert time.monotonic() < deadline, f"{count} of {len(trial.published())} have a row"
        with contextlib.suppress(CatalogueError), Catalogue(url, trial.recordings) as catalogue:
            count = catalogue.status().recordings
        time.sleep(0.1)  # there is no event for it


def killed(folder: Path, seed: int) -> Tally:
    """SIGKILL of the process that keeps the catalogue, several times at random."""
    source = random.Random(seed)

    @contextlib.contextmanager
    def broken(console: ConsoleProcess) -> Iterator[None]:
        console.kill()
        yield
        for _ in range(KILLS):
            console.start()
            time.sleep(source.uniform(0.2, 2.5))  # the time is the fault
            console.kill()
        console.start()

    return _tried(folder, seed, None, broken)


def locked(folder: Path, seed: int) -> Tally:
    """Somebody else has locked the database, and does not let it go for a while."""

    @contextlib.contextmanager
    def broken(console: ConsoleProcess) -> Iterator[None]:
        path = folder / "recordings" / layout.CATALOGUE / layout.CATALOGUE_SQLITE
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            yield
            console.wait_for("catalogue_unavailable")

    return _tried(folder, seed, None, broken)


def disk_full(folder: Path, seed: int) -> Tally:
    """The disk of the database has no free byte."""
    with small_disk(folder, megabytes=8):

        @contextlib.contextmanager
        def broken(console: ConsoleProcess) -> Iterator[None]:
            with filled(folder):
                yield
                console.wait_for("catalogue_unavailable")

        trial = folder.with_name("recorded")
        return _tried(trial, seed, f"sqlite:///{folder}/catalogue.sqlite", broken)


def server_away(folder: Path, seed: int) -> Tally:
    """PostgreSQL is ended as by a crash, and comes back."""
    server = PostgresServer()

    @contextlib.contextmanager
    def broken(console: ConsoleProcess) -> Iterator[None]:
        server.stop()
        try:
            yield
            console.wait_for("catalogue_unavailable")
        finally:
            server.start()

    try:
        return _tried(folder, seed, server.create_database(), broken)
    finally:
        server.close()
