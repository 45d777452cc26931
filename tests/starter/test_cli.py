"""The entry point, in processes of its own."""

import asyncio
import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable

import click
import pytest

from starter import cli
from tests.bounds import at_most
from tests.starter.conftest import CALL_SID, Ran
from tests.starter.web_hooks import web_hook

HEAVY = ("httpx", "numpy", "soundfile", "websockets", "jwt", "msgspec")


def run(
    *arguments: str, encoding: str = "utf-8", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `python -m starter` with these arguments."""
    return subprocess.run(
        [sys.executable, "-m", "starter", *arguments],
        env=os.environ | environment,
        capture_output=True,
        encoding=encoding,
        check=False,
        timeout=at_most(30),
    )


@pytest.mark.integration
def test_help_lists_the_commands() -> None:
    """The help is on stdout and names every command."""
    ran = run("--help")

    assert 0 == ran.returncode
    assert ["simulate", "start", "stop", "token"] == sorted(
        line.split()[0] for line in ran.stdout.partition("Commands:\n")[2].splitlines()
    )


@pytest.mark.integration
def test_help_imports_nothing_heavy() -> None:
    """What a command needs is imported when it runs, so that help answers at once."""
    code = "import sys, starter.cli; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert [] == [name for name in HEAVY if name in ran.stdout.split()]


@pytest.mark.integration
def test_a_mistake_is_one_line_and_an_exit_code() -> None:
    """The process ends as the command did."""
    ran = run("stop", "x", "y")

    assert (6, "") == (ran.returncode, ran.stdout)
    assert ["starter:"] == [line.split()[0] for line in ran.stderr.splitlines()]


@pytest.mark.integration
def test_missing_credentials_end_with_3() -> None:
    """Configuration trouble has an exit code of its own."""
    assert 3 == run("stop", "76ac3c36-0000-4000-8000-000000000002", "y").returncode


@pytest.mark.integration
@pytest.mark.parametrize(
    ("encoding", "name", "shown"),
    [
        ("utf-8", "a\ud800b", r"a\ud800b"),
        ("utf-8", "größe", "größe"),
        ("iso-8859-1", "日größe", r"\u65e5größe"),
        ("utf-8", "a\nb\x1b[31m", "a b [31m"),
    ],
)
@pytest.mark.usefixtures("account")
async def test_no_name_costs_the_sid(encoding: str, name: str, shown: str) -> None:
    """What a terminal cannot show is escaped, and what would steer it is left out."""
    answer = json.dumps({"sid": "s-1", "name": name, "status": "queued"}).encode()
    async with web_hook(body=answer) as provider:
        environment = {"SIGNALWIRE_SPACE": provider.url, "PYTHONIOENCODING": encoding}
        stop = functools.partial(run, "stop", CALL_SID, "s-1", encoding=encoding, **environment)
        text, as_json = await asyncio.to_thread(stop), await asyncio.to_thread(stop, "--json")

    assert (0, f"stream s-1: queued, name {shown}\n") == (text.returncode, text.stdout)
    assert (0, name) == (as_json.returncode, json.loads(as_json.stdout)["name"])


@pytest.mark.integration
def test_a_closed_pipe_is_no_drama() -> None:
    """A reader that goes away early sees no traceback."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ran = subprocess.run(
            [sys.executable, "-m", "starter", "--help"],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=at_most(30),
        )
    finally:
        os.close(writing)

    assert (1, "") == (ran.returncode, ran.stderr)


@pytest.mark.parametrize(
    ("trouble", "exit_code", "err"),
    [
        (KeyboardInterrupt(), 130, ""),
        (click.Abort(), 130, ""),
        (ValueError("two\nlines"), 1, "starter: unexpected ValueError: two lines\n"),
    ],
)
def test_what_nobody_foresaw_is_one_line(
    starter: Callable[..., Ran],
    monkeypatch: pytest.MonkeyPatch,
    trouble: BaseException,
    exit_code: int,
    err: str,
) -> None:
    """Interruptions are silent, the unexpected is one line; there is never a traceback."""

    @click.command()
    def fail() -> None:
        raise trouble

    monkeypatch.setitem(cli.cli.commands, "fail", fail)
    ran = starter("fail")

    assert (exit_code, err) == (ran.exit_code, ran.err.lstrip("\n"))
