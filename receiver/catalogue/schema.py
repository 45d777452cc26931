"""The tables of the catalogue, the same for SQLite and PostgreSQL.

The steps that lead here are in `migrations/versions`; a test compares both on either database.
All columns are portable types: JSON is text, times are integers, milliseconds since 1970.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

HEAD: Final = "0004"
"""The newest step in `migrations/versions`: what this version reads and writes."""

metadata: Final = MetaData()

Bytewise: Final = Text().with_variant(Text(collation="C"), "postgresql")
"""Text that is compared byte by byte, as SQLite does: ranges of prefixes need it."""
RowNumber: Final = BigInteger().with_variant(Integer(), "sqlite")  # SQLite's own row number

recordings: Final = Table(
    "recordings",
    metadata,
    # When it started and its id in one number (`rows.row_number`): the newest is the highest,
    # here and in `postings`, so that every order, page and range of time is a range of it.
    Column("n", RowNumber, primary_key=True, autoincrement=False),
    Column("id", Text, nullable=False, unique=True),
    Column("folder", Text, nullable=False),  # relative to the recordings folder
    Column("state", Text, nullable=False),
    Column("call_sid", Text, nullable=False),
    Column("stream_sid", Text, nullable=False),
    Column("account_sid", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("started_at", Text, nullable=False),  # RFC 3339 in UTC
    Column("duration_ms", Float, nullable=False, index=True),
    Column("tracks", Text, nullable=False),  # JSON: an array of names
    Column("complete", Boolean, nullable=False),
    Column("findings", Text, nullable=False),  # JSON: an array of codes
    Column("verdict", Text, nullable=False),
    Column("lost_ms", Float, nullable=False),
    Column("paused_ms", Float, nullable=False),
    Column("parameters", Text, nullable=False),  # JSON: an object
    Column("labels", Text, nullable=False),  # JSON: an array of names
    Column("held", Boolean, nullable=False),
    Column("notes", Integer, nullable=False),  # how many
    Column("previous", Text, nullable=False),  # JSON: `previous` of the document, or null
    Column("sha256", Text, nullable=False),  # of recording.json
    Column("fingerprint", Text, nullable=False),  # of the files that the row was made of
    Column("tokens", Text, nullable=False),  # what is in `postings`, to take it out again
)

vocabulary: Final = Table(
    "vocabulary",
    metadata,
    Column("token", Bytewise, primary_key=True),  # each once, however many recordings have it
    sqlite_with_rowid=False,
)

marks: Final = Table(
    "marks",
    metadata,
    Column("name", Text, primary_key=True),
    Column("file", Text, nullable=False),  # of the publication log
    Column("position", BigInteger, nullable=False),  # in bytes
    Column("reconciled_ms", BigInteger, nullable=False),
)
"""How far the publication log was read; changed in the transaction of the rows it led to.

There is a third thing, which has no type in SQLAlchemy: `postings`, which says of each token which
recordings have it. In SQLite it is an FTS5 table, in PostgreSQL a column with a GIN index.
"""


def _account() -> Column[str]:
    """Return the column with whose it is; it goes with the account."""
    owner = ForeignKey("users.name", ondelete="CASCADE")
    return Column("account", Text, owner, nullable=False, index=True)


users: Final = Table(
    "users",
    metadata,
    Column("name", Text, primary_key=True),
    Column("role", Text, nullable=False),
    Column("scope", Text, nullable=False),  # JSON: an object, parameter to value
    Column("password", Text),  # Argon2; none: it signs in by a link, a proxy or OpenID Connect
    Column("subject", Text, unique=True),  # JSON: issuer and subject of OpenID Connect
    Column("created_ms", BigInteger, nullable=False),
)
api_tokens: Final = Table(
    "api_tokens",
    metadata,
    Column("id", Text, primary_key=True),
    _account(),
    Column("role", Text, nullable=False),
    Column("scope", Text, nullable=False),  # JSON, as that of users, which counts as well
    Column("label", Text, nullable=False),
    Column("digest", Text, nullable=False, unique=True),  # SHA-256 of the token
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger),
    Column("used_ms", BigInteger),
)
sessions: Final = Table(
    "sessions",
    metadata,
    Column("digest", Text, primary_key=True),  # SHA-256 of what the cookie has
    _account(),
    Column("created_ms", BigInteger, nullable=False),
    Column("seen_ms", BigInteger, nullable=False),
    Column("address", Text, nullable=False),
    Column("agent", Text, nullable=False),
)
login_links: Final = Table(
    "login_links",
    metadata,
    Column("digest", Text, primary_key=True),
    _account(),
    Column("expires_ms", BigInteger, nullable=False),
)
"""Accounts of the console are in no file: `rebuild` leaves these tables alone."""

outbox_events: Final = Table(
    "outbox_events",
    metadata,
    Column("id", Text, primary_key=True),
    Column("type", Text, nullable=False),
    Column("recording_id", Text, nullable=False),
    Column("call_sid", Text, nullable=False),
    Column("body", Text, nullable=False),  # JSON, as it is sent
    Column("created_ms", BigInteger, nullable=False, index=True),
)
deliveries: Final = Table(
    "deliveries",
    metadata,
    Column("n", RowNumber, primary_key=True, autoincrement=True),
    Column(
        "event",
        Text,
        ForeignKey("outbox_events.id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("endpoint", Text, nullable=False),  # its name
    Column("state", Text, nullable=False),  # waiting, delivered or dead
    Column("attempts", Integer, nullable=False),
    Column("due_ms", BigInteger, nullable=False),  # of what waits: when it is to be tried next
    Column("since_ms", BigInteger, nullable=False),  # when it began to wait
    Column("attempted_ms", BigInteger),  # the last time
    Column("status", Integer),  # of HTTP, or a command's exit code
    Column("problem", Text, nullable=False),  # of the last attempt
    UniqueConstraint("event", "endpoint"),
    Index("ix_deliveries_due", "state", "endpoint", "due_ms"),
    sqlite_autoincrement=True,  # the number of one that was removed is not given again
)
announced: Final = Table(
    "announced",
    metadata,
    Column("about", Text, primary_key=True),  # a recording, or a journal in the quarantine
    Column("value", Text, nullable=False),
)
"""What programs elsewhere are told, and how far that is; `rebuild` leaves it alone, too."""

expectations: Final = Table(
    "expectations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("call_sid", Text, nullable=False, index=True),
    Column("name", Text, nullable=False, index=True),  # of the stream, which is unique
    Column("token_id", Text, nullable=False),  # of the signed token that the stream brings
    Column("stream_sid", Text, nullable=False, index=True),  # empty until the provider gave it
    Column("parameters", Text, nullable=False),  # JSON: an object
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("asked_ms", BigInteger, nullable=False, index=True),
    Column("due_ms", BigInteger, nullable=False),  # then it is missing
    Column("changed_ms", BigInteger, nullable=False),
    Column("recording_id", Text, nullable=False),
    Index("ix_expectations_due", "state", "due_ms"),
)
"""Streams that were asked for. `starter` writes here, too, where it is given the database."""
