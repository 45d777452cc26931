"""Rows of the route table, and lists as CSV."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from receiver.console.routes import csv_text, page
from receiver.console.who import Role


async def nothing(_: Request) -> dict[str, Any]:
    """Return an empty context."""
    return {}


def test_a_page_has_twins_that_are_tried_first() -> None:
    """All with the same role."""
    rows = page("/recordings", "x.html", Role.VIEWER, nothing, rows=lambda _: ())
    assert ["/recordings.json", "/recordings.csv", "/recordings"] == [row.path for row in rows]
    assert {Role.VIEWER} == {row.role for row in rows}
    assert ["/.json", "/"] == [row.path for row in page("/", "x.html", Role.VIEWER, nothing)]


def test_no_cell_of_a_csv_is_a_formula() -> None:
    """A spreadsheet would execute what a caller has sent as a parameter."""
    lines = [("=1+1", "+1", "-1", "@x", "\tx", 'say "a,b"', 5, -5, None)]
    expected = '\'=1+1,\'+1,\'-1,\'@x,\'\tx,"say ""a,b""",5,-5,\r\n'
    assert expected == csv_text(lines)
