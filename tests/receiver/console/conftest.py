"""A console that serves, and both databases for its accounts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from receiver.catalogue.database import Database, open_database
from tests.receiver.catalogue.conftest import postgres, url
from tests.receiver.helpers.consoles import Served, serving

__all__ = ["postgres", "url"]


@pytest.fixture
def database(url: str | None, tmp_path: Path) -> Iterator[Database]:
    """Yield an empty database, once on SQLite and once on PostgreSQL."""
    opened = open_database(url, tmp_path / "recordings")
    yield opened
    opened.close()


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    """Yield a console with no limits of requests."""
    async with serving(tmp_path) as found:
        yield found
