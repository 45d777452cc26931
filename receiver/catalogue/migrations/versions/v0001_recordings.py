"""Recordings, what they are found by, and the mark in the publication log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_BYTEWISE = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
# Postings alone: no text, no positions. The tokenizer splits at nothing but spaces, because tokens
# have no other characters of ASCII than letters and digits.
_FTS5 = "tokens, content='', columnsize=0, detail=none, tokenize='ascii'"
_POSTINGS = {
    "sqlite": (f"CREATE VIRTUAL TABLE postings USING fts5({_FTS5})",),
    "postgresql": (
        "CREATE TABLE postings (n bigint PRIMARY KEY, tokens tsvector NOT NULL)",
        "CREATE INDEX postings_tokens ON postings USING gin (tokens)",
    ),
}


def upgrade() -> None:
    """Create all of it."""
    op.create_table(
        "recordings",
        sa.Column("n", _ROW_NUMBER, primary_key=True, autoincrement=False),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        *_texts("folder", "state", "call_sid", "stream_sid", "account_sid", "provider"),
        *_texts("started_at"),
        sa.Column("duration_ms", sa.Float, nullable=False, index=True),
        *_texts("tracks"),
        sa.Column("complete", sa.Boolean, nullable=False),
        *_texts("findings", "verdict"),
        sa.Column("lost_ms", sa.Float, nullable=False),
        sa.Column("paused_ms", sa.Float, nullable=False),
        *_texts("parameters", "labels"),
        sa.Column("held", sa.Boolean, nullable=False),
        sa.Column("notes", sa.Integer, nullable=False),
        *_texts("previous", "sha256", "fingerprint", "tokens"),
    )
    op.create_table(
        "vocabulary",
        sa.Column("token", _BYTEWISE, primary_key=True),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "marks",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("file", sa.Text, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("reconciled_ms", sa.BigInteger, nullable=False),
    )
    for statement in _POSTINGS[op.get_bind().dialect.name]:
        op.execute(statement)


def _texts(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text, nullable=False) for name in names]


def downgrade() -> None:
    """Nothing leads back: the catalogue is made anew from files instead."""
    raise NotImplementedError("remove the catalogue and run `receiver catalogue rebuild`")
