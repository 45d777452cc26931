"""Postings: for each token the recordings that have it; FTS5 in SQLite, GIN in PostgreSQL.

Everything that differs between the two databases is here. The rest of the catalogue adds and
removes recordings, and gets a condition for the clauses of a query.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from receiver.catalogue import tokens
from receiver.catalogue.schema import vocabulary
from receiver.catalogue.tokens import Clause

MOST_EXPANSIONS: Final = 64
"""A prefix that so many words begin with is asked of the index, which is slower for common words
and faster for many rare ones."""
_LAST: Final = chr(0x10FFFF)
_INSERT: Final = {
    "sqlite": sa.text("INSERT INTO postings (rowid, tokens) VALUES (:n, :tokens)"),
    "postgresql": sa.text(
        "INSERT INTO postings (n, tokens)"
        " VALUES (:n, array_to_tsvector(string_to_array(:tokens, ' ')))"
    ),
}
_KNOW: Final = sa.text("INSERT INTO vocabulary (token) VALUES (:token) ON CONFLICT DO NOTHING")
"""As text, since SQLAlchemy has it in its dialects alone, and that of PostgreSQL takes longer to
import than most commands run."""
_DELETE: Final = {
    # FTS5 has no text of its own here: it must be given what it was given.
    "sqlite": sa.text(
        "INSERT INTO postings (postings, rowid, tokens) VALUES ('delete', :n, :tokens)"
    ),
    "postgresql": sa.text("DELETE FROM postings WHERE n = :n"),
}
_CLEAR: Final = {
    "sqlite": sa.text("INSERT INTO postings (postings) VALUES ('delete-all')"),
    "postgresql": sa.text("TRUNCATE postings"),
}
_TIDY: Final = {
    "sqlite": "INSERT INTO postings (postings) VALUES ('optimize')",
    "postgresql": "ANALYZE",
}
_TABLES: Final = {
    "sqlite": sa.table("postings", sa.column("rowid", sa.BigInteger)),
    "postgresql": sa.table("postings", sa.column("n", sa.BigInteger)),
}
_MATCHES: Final = {
    "sqlite": "postings MATCH :match",
    "postgresql": "postings.tokens @@ CAST(:match AS tsquery)",
}


def add(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add recordings by their `n` and `tokens`, and what can be searched by prefix."""
    items = [_item(row) for row in rows]
    if not items:
        return
    connection.execute(_INSERT[connection.dialect.name], items)
    known = {token for row in rows for token in row["tokens"].split(" ")}
    if new := [{"token": token} for token in sorted(known) if tokens.has_prefixes(token)]:
        connection.execute(_KNOW, new)


def remove(connection: Connection, rows: Iterable[Mapping[str, Any]]) -> None:
    """Remove recordings by their `n` and the `tokens` that they were added with."""
    if items := [_item(row) for row in rows]:
        connection.execute(_DELETE[connection.dialect.name], items)


def _item(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"n": row["n"], "tokens": " ".join(tokens.with_edges(row["tokens"].split(" ")))}


def clear(connection: Connection) -> None:
    """Remove all recordings."""
    connection.execute(_CLEAR[connection.dialect.name])
    connection.execute(sa.delete(vocabulary))


def tidy(connection: Connection) -> None:
    """Make later searches as fast as they get, after many were added."""
    connection.exec_driver_sql(_TIDY[connection.dialect.name])


def numbers(connection: Connection) -> sa.ColumnElement[int]:
    """Return the column of `postings` that has the number of the row."""
    table = _TABLES[connection.dialect.name]
    column: sa.ColumnElement[int] = next(iter(table.c))
    return column


def matching(connection: Connection, clauses: Iterable[Clause]) -> sa.TextClause:
    """Return the condition on `postings` that all clauses are met."""
    alternatives = [_expanded(connection, clause) for clause in clauses]
    if connection.dialect.name == "sqlite":
        match = " AND ".join(f"({' OR '.join(map(_fts5, each))})" for each in alternatives)
    else:
        match = " & ".join(f"({' | '.join(map(_tsquery, each))})" for each in alternatives)
    return sa.text(_MATCHES[connection.dialect.name]).bindparams(match=match)


def _expanded(connection: Connection, clause: Clause) -> list[tuple[str, bool]]:
    """Return the tokens of which a recording must have one, and whether each is a prefix."""
    if not clause.is_prefix:
        return [(token, False) for token in clause.tokens]
    return [each for prefix in clause.tokens for each in _begun(connection, prefix)]


def _begun(connection: Connection, prefix: str) -> list[tuple[str, bool]]:
    """Return the tokens that there are with this beginning, or the beginning where it is many."""
    found = connection.execute(
        sa.select(vocabulary.c.token)
        .where(vocabulary.c.token >= prefix, vocabulary.c.token < prefix + _LAST)
        .order_by(vocabulary.c.token)
        .limit(MOST_EXPANSIONS + 1)
    ).scalars()
    known = list(found)
    if len(known) > MOST_EXPANSIONS:
        return [(prefix, True)]
    return [(token, False) for token in known or [prefix]]


def _fts5(token: tuple[str, bool]) -> str:
    # A token has neither quotes nor other signs of FTS5's or PostgreSQL's: see `tokens`.
    return f'"{token[0]}"*' if token[1] else f'"{token[0]}"'


def _tsquery(token: tuple[str, bool]) -> str:
    return f"'{token[0]}':*" if token[1] else f"'{token[0]}'"
