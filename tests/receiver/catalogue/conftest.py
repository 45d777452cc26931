"""Both databases: every test of the catalogue that asks for `url` runs on either."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.receiver.helpers.postgres import PostgresServer


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Yield a server for all tests of this process; ask for it only with the mark `needs`."""
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture(
    params=["sqlite", pytest.param("postgres", marks=pytest.mark.needs("postgres", "initdb"))]
)
def url(request: pytest.FixtureRequest) -> str | None:
    """Return the URL of an empty database; `None` is the default, a file of ours."""
    if request.param == "sqlite":
        return None
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.create_database()


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Return the path of a recordings folder, which is not there yet."""
    return tmp_path / "recordings"
