"""What all tests share: marks and their guards, bounds, and settings of asyncio and Hypothesis."""

from __future__ import annotations

import asyncio
import asyncio.constants
import gc
import multiprocessing.process
import os
import socket
import sys
from asyncio.base_events import BaseEventLoop
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from tests import bounds, programs

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the commands do; many processes start
# Where bytecode is not kept, each of hundreds of processes compiles all of our modules anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Property tests are not judged by the clock of a busy machine.
settings.register_profile(
    "busy",
    deadline=None,
    max_examples=bounds.examples(60),
    suppress_health_check=[HealthCheck.too_slow],
)
# In CI a run repeats: its examples are drawn from the test itself, not by chance. What chance finds
# is found by `make test`, and becomes an example of its own.
settings.register_profile("ci", settings.get_profile("busy"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "busy")

# asyncio's debug mode records where each callback came from, which is a fifth of the time of tests
# with many sockets, and is of no use here. What it checks, it checks all the same.
asyncio.constants.DEBUG_STACK_DEPTH = 0  # type: ignore[misc]


_create_future: Final = BaseEventLoop.create_future


def _create_future_without_stack(loop: Any) -> asyncio.Future[Any]:
    debug, loop._debug = loop._debug, False  # in C it keeps the whole stack, whatever that depth is
    try:
        return _create_future(loop)
    finally:
        loop._debug = debug


BaseEventLoop.create_future = _create_future_without_stack  # type: ignore[assignment,method-assign]

TEST_SECONDS: Final = 300
"""A test that hangs ends after this time with the stacks of all threads."""
PROCESS_SECONDS: Final = 360
"""The time limit above is a signal, which Python does not see while uvloop or a lock waits in C.
This one needs no Python: it prints the stacks and ends the process, and with it the run fails."""
INTEGRATION: Final = ("console", "end_to_end", "faults")
"""All tests of these folders start processes."""
LONGEST: Final = ("console", "cases", "faults", "end_to_end", "bench")
"""Tests of these folders go first: no worker is left with a long one when the others are done."""
TESTS: Final = Path(__file__).parent
STARTS_A_PROCESS: Final = frozenset(
    {"os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "subprocess.Popen"}
    | {"multiprocessing.start"}  # ours: the standard library raises none where it spawns
)


class Guard:
    """Fails a test that reaches further than its marks allow.

    Without the mark `integration`, a test opens no Internet socket and starts no process. With
    it, a test runs Python and what is installed beside it, and other programs only if `needs`
    names them. The interpreter's audit events show both, whatever function was called.
    """

    def __init__(self) -> None:
        self.violations: list[str] = []
        self._item: pytest.Item | None = None
        sys.addaudithook(self._audit)

    def watch(self, item: pytest.Item | None) -> None:
        """Judge by the marks of this test from now on; `None` judges nothing."""
        self._item = item
        self.violations = []

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if self._item is None or (event not in STARTS_A_PROCESS and event != "socket.__new__"):
            return
        if problem := reaches_too_far(self._item, event, args):
            self.violations.append(problem)  # in case the test swallows the error
            raise AssertionError(problem)


def reaches_too_far(item: pytest.Item, event: str, args: tuple[Any, ...]) -> str:
    """Return what a test must not do by its marks, or nothing."""
    if event == "socket.__new__" and args[1] not in (socket.AF_INET, socket.AF_INET6):
        return ""
    if item.get_closest_marker("integration") is None:
        return f"{event} in a unit test: mark it with pytest.mark.integration"
    if event != "subprocess.Popen":
        return ""
    program = Path(os.fsdecode(args[0]))
    name = program.name
    ours = name.startswith("python") or Path(sys.prefix) in program.parents
    if ours or name in programs.EVERYWHERE or name in needs_of(item):
        return ""
    return f"{name} is called: mark the test with pytest.mark.needs({name!r})"


def needs_of(item: pytest.Item) -> tuple[str, ...]:
    """Return all needs that the marks of a test name."""
    return tuple(name for mark in item.iter_markers("needs") for name in mark.args)


GUARD: Final = Guard()
_START: Final = multiprocessing.process.BaseProcess.start


def _audited_start(process: multiprocessing.process.BaseProcess) -> None:
    sys.audit("multiprocessing.start", process.name)
    _START(process)


multiprocessing.process.BaseProcess.start = _audited_start  # type: ignore[assignment,method-assign]


def pytest_configure(config: pytest.Config) -> None:
    """Stretch the limit of a process, which pytest has no other public way to set."""
    config._inicache["faulthandler_timeout"] = bounds.at_most(PROCESS_SECONDS)


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what follows from a test's folder, or from its other marks; limit its time."""
    for item in items:
        top = item.path.relative_to(TESTS).parts[0]
        if top in INTEGRATION or item.get_closest_marker("needs"):
            item.add_marker(pytest.mark.integration)
        own = item.get_closest_marker("timeout")
        seconds = own.args[0] if own else TEST_SECONDS
        item.add_marker(pytest.mark.timeout(bounds.at_most(seconds)), append=False)

    items.sort(key=lambda item: _rank(item.path.relative_to(TESTS).parts[0]))


def _rank(folder: str) -> int:
    return LONGEST.index(folder) if folder in LONGEST else len(LONGEST)


class Schedule(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Gives workers one test function after the other, with all of its parameters.

    A file in `console` stays with one worker, since each starts a browser.
    """

    def _split_scope(self, nodeid: str) -> str:
        browser = nodeid.startswith("tests/console/")
        return nodeid.partition("::" if browser else "[")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Schedule:
    """Distribute tests as `Schedule` does, in the order in which they were collected."""
    config.option.loadscopereorder = False
    return Schedule(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Watch a test from the set-up of its fixtures to their end."""
    GUARD.watch(item)
    try:
        return (yield)
    finally:
        GUARD.watch(None)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test by the name of what is missing here."""
    if reasons := programs.unmet(needs_of(item)):
        pytest.skip(reasons)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test that reached too far, although it may have swallowed the error."""
    result = yield
    assert [] == GUARD.violations
    return result


def pytest_collection_finish() -> None:
    """Spare collections of garbage what lives as long as the process: a twentieth of a second."""
    gc.freeze()


def pytest_unconfigure() -> None:
    """Thaw it again: extension modules check at the end that everything is freed."""
    gc.unfreeze()
