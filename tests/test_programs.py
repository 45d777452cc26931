"""Marks of tests name the programs that they call, and one factor stretches their bounds.

The guard in `conftest.py` sees what a test really starts; these tests read the sources, and so
also see what this machine skips.
"""

from __future__ import annotations

import ast
import multiprocessing
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests import programs
from tests.conftest import GUARD

TESTS: Final = Path(__file__).parent
ROOT: Final = TESTS.parent
STARTERS: Final = frozenset(
    {f"subprocess.{name}" for name in ("Popen", "call", "check_call", "check_output", "run")}
    | {"asyncio.create_subprocess_exec", "shutil.which"}
)
"""What starts a program or looks for one, and takes its name first."""
BOUNDED: Final = frozenset({"asyncio.timeout", "asyncio.wait_for", "join", "settimeout", "wait"})
"""Functions, and methods of any object, that take a bound in seconds as their last argument."""
LONG_SECONDS: Final = 1
"""A bound beyond this waits for something; a shorter one is what the test is about."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


def files_of_tests() -> list[Path]:
    """Return the files that hold tests."""
    return sorted(TESTS.rglob("test_*.py"))


def names_of(call: ast.Call) -> set[str]:
    """Return the name of what is called: in full, and for methods the last part."""
    return {ast.unparse(call.func), getattr(call.func, "attr", "")}


def first_word(node: ast.expr) -> str:
    """Return the text that an argument is or begins with, or nothing."""
    match node:
        case ast.Constant(value=str(word)):
            return word
        case ast.List(elts=[first, *_]) | ast.Tuple(elts=[first, *_]):
            return first_word(first)
    return ""


def programs_called(tree: ast.AST) -> Iterator[str]:
    """Yield the programs that calls in a source name as the first word of an argument."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args:
            word = first_word(node.args[0])
            by_helper = isinstance(node.func, ast.Name) and word in programs.PACKAGES
            if by_helper or (word and names_of(node) & STARTERS):
                yield word


def marked(decorators: list[ast.expr]) -> set[str]:
    """Return what `needs` marks among some expressions name."""
    return {
        argument.value
        for node in (inner for mark in decorators for inner in ast.walk(mark))
        if isinstance(node, ast.Call) and "needs" in names_of(node)
        for argument in node.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    }


def unmarked(source: str) -> set[str]:
    """Return the programs that tests of a source call without a mark."""
    tree = ast.parse(source)
    found = set()
    for function in (node for node in ast.walk(tree) if isinstance(node, Function)):
        if function.name.startswith("test_"):
            found |= set(programs_called(function)) - marked(function.decorator_list)
    return found - programs.EVERYWHERE


@pytest.mark.parametrize("file", files_of_tests(), ids=lambda file: file.stem)
def test_no_test_calls_a_program_without_a_mark(file: Path) -> None:
    """Where the program is missing, the test is skipped by its name, and does not fail."""
    assert set() == unmarked(file.read_text("utf-8"))


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("subprocess.run(['sox', '-n'])", {"sox"}),
        ("subprocess.Popen(('unheard-of', file))", {"unheard-of"}),
        ("shutil.which('ffprobe')", {"ffprobe"}),
        ("output_of('mediainfo', path)", {"mediainfo"}),
        ("subprocess.run([sys.executable])", set()),
        ("subprocess.run(['df', '.'])", set()),
    ],
)
def test_a_call_without_a_mark_is_seen(source: str, found: set[str]) -> None:
    """By its constant name, also where a helper starts it."""
    assert found == unmarked(f"def test_it(): {source}")
    marks = "".join(f"@pytest.mark.needs({name!r})\n" for name in found)
    assert set() == unmarked(f"{marks}def test_it(): {source}")


@pytest.mark.parametrize(
    "reach_out",
    [
        socket.socket,
        lambda: subprocess.run([sys.executable, "-V"]),
        lambda: multiprocessing.get_context("spawn").Process().start(),
        lambda: multiprocessing.get_context("fork").Process().start(),
    ],
    ids=["socket", "subprocess", "spawn", "fork"],
)
def test_a_unit_test_that_reaches_out_fails(reach_out: Callable[[], object]) -> None:
    """It opens no Internet socket and starts no process; an error that it swallows is kept."""
    with pytest.raises(AssertionError, match="in a unit test"):
        reach_out()
    assert 1 == len(GUARD.violations)
    GUARD.violations.clear()


@pytest.mark.integration
def test_a_test_that_calls_a_program_without_a_mark_fails() -> None:
    """Whether the program is here or not, and however the test came by its name."""
    command = ["unheard-of"]
    with pytest.raises(AssertionError, match=r"needs\('unheard-of'\)"):
        subprocess.run(command)
    assert 1 == len(GUARD.violations)
    GUARD.violations.clear()


def test_every_program_is_known_by_its_package() -> None:
    """CI installs them, and two pages have one command for all."""
    for place in (".ci/run", "CONTRIBUTING.md", "README.md"):
        words = (ROOT / place).read_text("utf-8").split()
        for package in " ".join(programs.PACKAGES.values()).split():
            assert package in (word.strip('"`') for word in words), f"{place} lacks {package}"


def constant_bounds(source: str) -> list[str]:
    """Return the calls whose bound is a number that no factor stretches."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or "Counter" in names_of(node):
            continue
        bounds = [word.value for word in node.keywords if word.arg == "timeout"]
        bounds += node.args[-1:] if names_of(node) & BOUNDED else []
        if any(is_long(bound) for bound in bounds):
            found.append(ast.unparse(node))
    return found


def is_long(node: ast.expr) -> bool:
    """Return whether an expression is a number of more than a second."""
    return (
        isinstance(node, ast.Constant)
        and isinstance(node.value, int | float)
        and node.value > LONG_SECONDS
    )


@pytest.mark.parametrize(
    "file", sorted(TESTS.rglob("*.py")), ids=lambda file: str(file.relative_to(TESTS))
)
def test_every_bound_is_stretched_by_the_factor(file: Path) -> None:
    """A busy machine needs one setting, TAPREEL_TEST_PATIENCE, and no edits."""
    assert [] == constant_bounds(file.read_text("utf-8"))


@pytest.mark.parametrize(
    "call",
    [
        *("asyncio.timeout(10)", "asyncio.wait_for(waited, 2.5)", "process.wait(30)"),
        *("queue.get(timeout=10)", "socket.settimeout(20)", "thread.join(5)"),
    ],
)
def test_a_constant_bound_is_seen(call: str) -> None:
    """Through the helper, the same call passes."""
    assert [call] == constant_bounds(call)
    number = call.rstrip(")").replace("=", " ").replace("(", " ").split()[-1]
    assert [] == constant_bounds(call.replace(number, f"at_most({number})"))
