"""The tables are what the migrations lead to, on both databases."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from receiver.catalogue import schema
from receiver.catalogue.database import open_database

INDEX_TABLES = "postings"
"""The table of this name, and those that SQLite makes for it, are no tables of SQLAlchemy's."""


def test_the_migrations_lead_to_the_tables(url: str | None, recordings: Path) -> None:
    """Every column, type and index: a table that no migration makes would fail far away."""
    database = open_database(url, recordings)
    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        found = compare_metadata(context, schema.metadata)
    database.close()
    assert [] == [change for change in found if INDEX_TABLES not in str(change)]


def test_head_is_the_newest_migration() -> None:
    """Without Alembic, which takes long to import, a database is compared with it."""
    config = Config()
    config.set_main_option("script_location", "receiver.catalogue:migrations")
    assert [schema.HEAD] == ScriptDirectory.from_config(config).get_heads()


def test_there_is_no_way_back(recordings: Path) -> None:
    """Whoever wants one is told what to do instead."""
    config = Config()
    config.set_main_option("script_location", "receiver.catalogue:migrations")
    first = ScriptDirectory.from_config(config).get_revision("0001")
    with pytest.raises(NotImplementedError, match="rebuild"):
        first.module.downgrade()
