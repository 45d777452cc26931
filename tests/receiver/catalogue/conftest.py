"""Both databases: every test of the catalogue that asks for `url` runs on either."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.receiver.helpers.postgres import PostgresServer


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Yield a server for all tests of this process; ask for it only with the mark `needs`."""
    server = PostgresServer()
    yield server
    server.close()


DATABASES: Final = (
    "sqlite",
    pytest.param("postgres", marks=pytest.mark.needs("postgres", "initdb")),
)


def new_url(request: pytest.FixtureRequest) -> str | None:
    """Return the URL of an empty database of the kind that a fixture asks for.

    `None` is the default, a file of ours.
    """
    if request.param == "sqlite":
        return None
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.create_database()


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest) -> str | None:
    """Return the URL of an empty database."""
    return new_url(request)


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Return the path of a recordings folder, which is not there yet."""
    return tmp_path / "recordings"
