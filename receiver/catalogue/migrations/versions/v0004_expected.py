"""Streams that were asked for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "expectations",
        sa.Column("id", sa.Text, primary_key=True),
        *(
            sa.Column(name, sa.Text, nullable=False, index=is_indexed)
            for name, is_indexed in (
                *(("call_sid", True), ("name", True), ("token_id", False), ("stream_sid", True)),
                *(("parameters", False), ("state", False), ("reason", False)),
            )
        ),
        sa.Column("asked_ms", sa.BigInteger, nullable=False, index=True),
        sa.Column("due_ms", sa.BigInteger, nullable=False),
        sa.Column("changed_ms", sa.BigInteger, nullable=False),
        sa.Column("recording_id", sa.Text, nullable=False),
    )
    op.create_index("ix_expectations_due", "expectations", ["state", "due_ms"])


def downgrade() -> None:
    """Nothing leads back: the catalogue is made anew from files instead."""
    raise NotImplementedError("remove the catalogue and run `receiver catalogue rebuild`")
