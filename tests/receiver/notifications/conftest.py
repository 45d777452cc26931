"""Both databases, as the tests of the catalogue have them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from receiver.catalogue.database import Database, open_database
from tests.receiver.catalogue.conftest import postgres, recordings, url

__all__ = ["postgres", "recordings", "url"]


@pytest.fixture
def database(url: str | None, recordings: Path) -> Iterator[Database]:
    """Yield an empty database, of either kind."""
    database = open_database(url, recordings)
    yield database
    database.close()
