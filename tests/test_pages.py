"""What pages show can be typed: commands and flags exist, and settings have their defaults."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Final

import click
import pytest

from receiver.cli.main import receiver
from receiver.config import SECRET
from receiver.config.settings import SETTINGS, Config
from starter.cli import cli as starter

ROOT: Final = Path(__file__).parent.parent
PROGRAMS: Final = {"receiver": receiver, "starter": starter}
BLOCK: Final = re.compile(r"```console\n(.*?)```", re.DOTALL)


def shown_commands() -> list[str]:
    """Return every command line of ours that a page shows, continued lines joined."""
    pages = [
        page for place in ("receiver", "starter", "deploy") for page in (ROOT / place).rglob("*.md")
    ]
    blocks = [
        block.replace("\\\n", " ")
        for page in sorted([*pages, *ROOT.glob("*.md")])
        for block in BLOCK.findall(page.read_text("utf-8"))
    ]
    lines = [line.removeprefix("$ ") for b in blocks for line in b.splitlines() if line[:2] == "$ "]
    lines = [line.split(" | ")[0].split(" > ")[0].removeprefix(".venv/bin/") for line in lines]
    return sorted({line for line in lines if line.split()[0] in PROGRAMS})


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """Return the command that a line calls, and the words behind its name."""
    command: click.Command = PROGRAMS[words[0]]
    rest = words[1:]
    while isinstance(command, click.Group) and rest:
        found = command.get_command(click.Context(command), rest[0])
        assert found is not None, words
        command, rest = found, rest[1:]
    return command, rest


@pytest.mark.parametrize("line", shown_commands())
def test_every_command_that_a_page_shows_exists(line: str) -> None:
    """With all of its flags."""
    command, rest = command_of(shlex.split(line, comments=True))
    known = {name for parameter in command.params for name in parameter.opts}
    assert set() == {word for word in rest if word.startswith("--")} - known


def table_of_settings() -> dict[str, str]:
    """Return what the page says to be the default of each setting."""
    text = (ROOT / "receiver" / "cli" / "README.md").read_text("utf-8")
    section = text.split("## Settings")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]*) \| ([^|]*)\|", section, re.MULTILINE)
    return {
        name: value.strip(" `")
        for names, values in rows
        for name, value in zip(re.findall(r"`(\w+)`", names), values.split(","), strict=True)
    }


def as_shown(value: object) -> str:
    """Return a default as the page writes it."""
    if value is None or value == ():
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return "128M" if value == Config().min_free else str(value)


def test_every_setting_is_on_the_page_with_its_default() -> None:
    """All but secrets, which are described as what stands for a file."""
    names = [name for name, setting in SETTINGS.items() if setting.value_type is not SECRET]
    defaults = {name: as_shown(getattr(Config(), name)) for name in names}
    assert defaults | {"spool": ".spool` in `recordings"} == table_of_settings()


ROW: Final = re.compile(
    r"^\| tapreel(?:, without uvloop)?(?:, TLS)? \|[^|]*\|[^|]*\| *(\d+) \|", re.MULTILINE
)
"""Calls per core, in the table of the benchmark."""


def test_the_first_page_has_the_figures_of_the_benchmark() -> None:
    """As round numbers: whoever measures again changes both pages."""
    table = (ROOT / "tests" / "bench" / "README.md").read_text("utf-8")
    measured = [int(figure) for figure in ROW.findall(table.partition("<!-- bench -->")[2])]
    section = (ROOT / "README.md").read_text("utf-8").partition("## Performance\n")[2]
    promised = [int(figure) for figure in re.findall(r"about (\d+)", section.partition("\n## ")[0])]
    assert [pytest.approx(figure, rel=0.05) for figure in measured] == promised[:2]
