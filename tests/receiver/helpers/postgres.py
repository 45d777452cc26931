"""A real PostgreSQL server for tests: its own folder, a free port of loopback, no root."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from itertools import count
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from tests.bounds import at_most
from tests.programs import find

START_SECONDS: Final = 60
_ORDINARY_USER: Final = "nobody"
"""Who it runs as where the tests are run by root, which PostgreSQL refuses."""


def _path(program: str) -> str:
    path = find(program)
    assert path is not None, f"{program} is not installed: the test needs a mark"
    return path


class PostgresServer:
    """A server that is started at once and ended by `close`; `stop` and `start` in between."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._folder = Path(tempfile.mkdtemp(prefix="tapreel-postgres-"))
        self._user = _ORDINARY_USER if os.geteuid() == 0 else None
        if self._user is not None:
            entry = pwd.getpwnam(self._user)
            os.chown(self._folder, entry.pw_uid, entry.pw_gid)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        subprocess.run(
            [
                *(_path("initdb"), "--pgdata", self._folder / "data", "--auth", "trust"),
                *("--username", "tapreel", "--encoding", "UTF8", "--locale", "C.UTF-8"),
                "--no-sync",
            ],
            user=self._user,
            cwd=self._folder,
            check=True,
            capture_output=True,
        )
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [
                    *(_path("postgres"), "-D", self._folder / "data", "-k", self._folder),
                    *("-h", "127.0.0.1", "-p", str(self.port), "-F"),
                ],
                user=self._user,
                cwd=self._folder,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + at_most(START_SECONDS)
        engine = sa.create_engine(self.url("postgres"), poolclass=sa.NullPool)
        while True:
            try:
                engine.connect().close()
                return
            except sa.exc.OperationalError:
                alive = self._process.poll() is None and time.monotonic() < deadline
                assert alive, (self._folder / "log").read_text()
                time.sleep(0.02)  # there is no event for when it answers

    def stop(self) -> None:
        """End it at once, as a crash would."""
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(at_most(START_SECONDS))

    def close(self) -> None:
        """End it, and remove its folder."""
        self.stop()
        shutil.rmtree(self._folder)

    def url(self, name: str) -> str:
        """Return the URL of a database."""
        return f"postgresql+psycopg://tapreel@127.0.0.1:{self.port}/{name}"

    def create_database(self) -> str:
        """Create an empty database, and return its URL."""
        name = f"catalogue_{next(self._numbers)}"
        engine = sa.create_engine(
            self.url("postgres"), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool
        )
        with engine.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {name}"))
        return self.url(name)
