"""What programs elsewhere are told: events, their deliveries, and what was announced."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the three tables."""
    op.create_table(
        "outbox_events",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("recording_id", sa.Text, nullable=False),
        sa.Column("call_sid", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False, index=True),
    )
    op.create_table(
        "deliveries",
        sa.Column("n", _ROW_NUMBER, primary_key=True, autoincrement=True),
        sa.Column(
            "event",
            sa.Text,
            sa.ForeignKey("outbox_events.id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due_ms", sa.BigInteger, nullable=False),
        sa.Column("since_ms", sa.BigInteger, nullable=False),
        sa.Column("attempted_ms", sa.BigInteger),
        sa.Column("status", sa.Integer),
        sa.Column("problem", sa.Text, nullable=False),
        sa.UniqueConstraint("event", "endpoint"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_deliveries_due", "deliveries", ["state", "endpoint", "due_ms"])
    op.create_table(
        "announced",
        sa.Column("about", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )


def downgrade() -> None:
    """Nothing leads back: the catalogue is made anew from files instead."""
    raise NotImplementedError("remove the catalogue and run `receiver catalogue rebuild`")
