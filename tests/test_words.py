"""Words that were retired stay so: one thing has one name, and it is the field's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
PLACES: Final = ("receiver", "starter", "tests", "deploy", ".ci")
SUFFIXES: Final = frozenset({"", ".c", ".conf", ".md", ".py", ".service", ".sh", ".toml", ".yaml"})
RETIRED: Final = re.compile(
    r"(?<![a-z])(houses?|rooms|lobby|doorways?|doorkeepers?|gates?|hurr(y|ies|ied)|patience|"
    r"doubts?|excuses?|holes?|walks?|moments|tickets?)(?![a-z])",
    re.IGNORECASE,
)
"""Also as a part of a name with underscores. "Room" for what fits somewhere is plain English."""
RETIRED_IN_NAMES: Final = re.compile(r"(?<=[a-z])(House|Lobby|Doorway|Gate|Hurry|Ticket)(?![a-z])")
PERSONS: Final = re.compile(r'^\s*"""(Learn|Tell|Have|Take|Let|Hear|Know|Believe|Greet|Forget)\b')
"""How a docstring begins that speaks of code as of persons, and hides what is returned."""
ALLOWED: Final = re.compile(
    r"TAPREEL_TEST_PATIENCE|patience_seconds"  # users may have set them
    r"|ast\.walk|walk_tb"  # the standard library's
    r"|One moment, let me look",  # said in the demo call
    re.IGNORECASE,
)


def texts() -> list[Path]:
    """Return every file that people read: code, pages, settings, tests; not this one."""
    found = [file for place in PLACES for file in (ROOT / place).rglob("*")]
    found += ROOT.glob("*")
    return sorted(
        file
        for file in found
        if file.is_file() and file.suffix in SUFFIXES and file != Path(__file__)
        if "__pycache__" not in file.parts and not file.name.startswith(".")
    )


def retired_in(text: str) -> list[str]:
    """Return the retired words of a text, in order."""
    kept = ALLOWED.sub("", text)
    found = [*RETIRED.finditer(kept), *RETIRED_IN_NAMES.finditer(kept), *PERSONS.finditer(kept)]
    return [match[1].lower() for match in found]


def test_no_retired_word_is_used() -> None:
    """Neither in a page nor in code, nor in the name of a file."""
    found = {
        f"{file.relative_to(ROOT)}:{number}": words
        for file in texts()
        for number, line in enumerate(
            [file.relative_to(ROOT).as_posix(), *file.read_text("utf-8").splitlines()]
        )
        if (words := retired_in(line))
    }
    assert {} == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("class Gate:", ["gate"]),
        ("class SocketHouse:", ["house"]),
        ('    """Have it sent."""', ["have"]),
        ('"""Haven."""', []),
        ("def a_house(): ...", ["house"]),
        ("Holes and DOUBTS", ["holes", "doubts"]),
        ("a whole gateway investigates", []),
        ("there is no room for it; one moment", []),
        ("for node in ast.walk(tree): walk(node)", ["walk"]),
        ("listen(url, patience_seconds=3)", []),
    ],
)
def test_a_retired_word_is_seen(text: str, words: list[str]) -> None:
    """Alone, and as a part of a name; not inside of another word."""
    assert words == retired_in(text)
