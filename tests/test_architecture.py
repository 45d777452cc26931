"""The house: who may import whom, and what the pure rooms must not touch."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED_IN_PURE = (
    *("__future__", "array", "base64", "binascii", "bisect", "collections", "dataclasses"),
    *("datetime", "email.utils.parsedate_to_datetime", "enum", "hashlib", "hmac", "itertools"),
    *("json", "math", "pathlib.PurePath", "re", "struct", "types", "typing", "urllib.parse"),
    "zlib",
    *("jwt", "msgspec", "numpy"),
    *("receiver", "starter"),  # of these, the order says which rooms
)
"""What a pure room may import: these, and what is in them."""
IMPURE_NAMES = frozenset({"__import__", "eval", "exec", "input", "open", "print"})
IMPURE_ATTRIBUTES = frozenset(
    {"now", "today", "utcnow"}  # the clock of datetime
    | {"fromfile", "load", "memmap", "random", "save", "tofile"}  # files and dice of numpy
)

WORDS = ("errors", "media")
PURE = (
    *("nesting", "messages", "codec", "journal", "paths", "recording", "tags", "tokens"),
    *("ordering", "excuses", "holes", "clock", "doubts", "walk", "timeline"),
    *("moments", "survey", "report", "stream", "patience"),
    *("placing", "reordering", "tap_queue", "tap_tokens"),
)
CONSUMERS = (
    "throttle",
    "folders",
    "journal_file",
    *("dropped", "live_journal", "syncer"),
    "spool",
    "render",
    "wav",
    "archive",
    "publish",
    *("tap", "tap_kinds", "tap_samples", "tap_aligned", "tap_formats", "tap_requests"),
    *("tap_past", "resampling"),
)
SHELL = (
    *("hurry", "reloading"),
    *("kinds", "config", "credentials", "descriptors"),
    *("self_signing", "certificates", "logs", "figures", "metrics", "transports"),
    *(
        "transports.keepalive",
        "transports.dialing",
        "listeners",
        "tap_channels",
        "tap_rewind",
        "tickets",
        "watchers",
        "taps",
        "forward",
    ),
    "tap_house",
    *("open_recording", "session", "renderers", "publisher", "used_tokens", "gate", "demo"),
    *("loops", "pacer", "transports.sharing"),
    *("transports.handshake", "transports.lobby", "transports.acceptor", "transports.units"),
    *("transports.connection", "transports.pace", "transports.pongs", "transports.small_units"),
    *("transports.doorway", "transports.listening", "transports.resets"),
    "transports.picows_wiring",
    *("transports.picows_socket", "transports.picows"),
    *("transports.websockets_socket", "transports.websockets", "transports.choice", "server"),
    *("worker", "workers"),
    "process",
    *("remote_feed", "listen"),
)
ORDER = (*WORDS, *PURE, *CONSUMERS, *SHELL, "cli", "__main__")
"""A room imports only rooms before it; `cli` and `transports` count as one room each."""
STARTER_PURE = (
    *("errors", "rules", "models", "answers", "retry"),
    *("simulator/media", "simulator/rest", "simulator/shapes"),
)
STARTER_ORDER = (
    *("errors", "rules", "models", "answers", "tokens", "retry", "config", "client"),
    *("options", "simulator", "commands", "cli", "__main__"),
)
MOST_LINES, MOST_FUNCTION_LINES, MOST_NESTED = 250, 40, 3
NESTING = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.AsyncFor, ast.AsyncWith, ast.Match)
ONLY_IN = {
    "soundfile": {"receiver/render.py", "starter/simulator/audio.py"},
    "httpx": {"starter/client.py"},
    "numpy": {
        *("receiver/codec.py", "receiver/ordering.py", "receiver/clock.py", "receiver/walk.py"),
        "receiver/moments.py",
        "receiver/listen.py",  # samples as arrays are what it is for
        *("starter/simulator/audio.py", "starter/simulator/g711.py"),
    },
}


def modules(package: str) -> list[Path]:
    """Return a package's source files."""
    return sorted((ROOT / package).rglob("*.py"))


def room_of(file: Path) -> str:
    """Return the room that a file belongs to."""
    inner = file.relative_to(ROOT).with_suffix("").parts[1:]
    if inner[0] == "transports" and inner[-1] != "__init__":
        return ".".join(inner)
    return inner[0]


def for_types(tree: ast.AST) -> set[ast.AST]:
    """Return the nodes that only a type checker sees."""
    return {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }


def imports(text: str, *, with_types: bool = True) -> Iterator[str]:
    """Yield every name that a source imports, the module before what is taken from it."""
    tree = ast.parse(text)
    left_out = set() if with_types else for_types(tree)
    for node in ast.walk(tree):
        if node in left_out:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def libraries(file: Path) -> set[str]:
    """Return the top names of all that a file imports."""
    return {name.split(".")[0] for name in imports(file.read_text("utf-8"))}


def rooms_imported(text: str, package: str, order: tuple[str, ...]) -> set[str]:
    """Return the rooms of its own package that a source imports."""
    found = set()
    for name in imports(text, with_types=False):
        inner = name.removeprefix(package + ".")
        if inner == name:
            continue
        first = inner.split(".")[0]
        for room in (".".join(inner.split(".")[:2]), first):
            if room in order:
                found.add(room)
                break
    return found


def impurities(text: str) -> list[str]:
    """Return what of a source could reach outside, or wait: the lines that say so."""
    tree = ast.parse(text)
    left_out = for_types(tree)
    return [
        ast.unparse(node) for node in ast.walk(tree) if node not in left_out and is_impure(node)
    ]


def is_impure(node: ast.AST) -> bool:
    """Return whether a node imports what is not allowed, waits, or touches clock, file or dice."""
    match node:
        case ast.Import():
            return not all(is_allowed(alias.name) for alias in node.names)
        case ast.ImportFrom():
            module = "." * node.level + (node.module or "")
            return not all(is_allowed(f"{module}.{alias.name}") for alias in node.names)
        case ast.Name():
            return node.id in IMPURE_NAMES
        case ast.Attribute():
            return node.attr in IMPURE_ATTRIBUTES
    return isinstance(node, ast.AsyncFunctionDef | ast.Await)


def is_allowed(name: str) -> bool:
    """Return whether a pure room may import this."""
    return any(name == known or name.startswith(known + ".") for known in ALLOWED_IN_PURE)


@pytest.mark.parametrize(
    ("package", "order"),
    [("receiver", ORDER), ("starter", STARTER_ORDER)],
    ids=lambda p: str(p)[:8],
)
def test_every_room_imports_only_what_stands_before_it(
    package: str, order: tuple[str, ...]
) -> None:
    """The order is total, so there is no cycle, and every room is in it."""
    for file in modules(package):
        if file.name == "__init__.py" and file.parent == ROOT / package:
            continue
        room = room_of(file)
        assert room in order, f"{file.name} is in no row of the house"
        found = rooms_imported(file.read_text("utf-8"), package, order)
        later = {other for other in found if order.index(other) > order.index(room)}
        assert set() == later, f"{file.relative_to(ROOT)} reaches up"


@pytest.mark.parametrize("room", ORDER[:-1])
def test_the_design_page_names_every_room(room: str) -> None:
    """A stranger finds each room in one line of DESIGN.md."""
    house = (ROOT / "DESIGN.md").read_text("utf-8").partition("## The house")[2]
    rows = [line.split("|")[1] for line in house.splitlines() if line.startswith("| `")]
    assert any(f"`{room.removeprefix('transports.')}`" in row for row in rows)


def code_lines(tree: ast.Module, text: str) -> set[int]:
    """Return the numbers of lines that are neither blank, nor comment, nor docstring."""
    lines = text.splitlines()
    found = {n for n, line in enumerate(lines, 1) if line.strip() and line.strip()[0] != "#"}
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant(value=str())):  # also a text behind a constant
                found -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return found


def depth(node: ast.AST) -> int:
    """Return how deep the statements of a function are nested."""
    return max(
        (
            isinstance(child, NESTING) + depth(child)
            for child in ast.iter_child_nodes(node)
            if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        ),
        default=0,
    )


@pytest.mark.parametrize("package", ["receiver", "starter"])
def test_no_room_outgrows_its_budget(package: str) -> None:
    """A module of 250 lines, a function of 40, or nesting of more than 3 wants to be two things."""
    for file in modules(package):
        text = file.read_text("utf-8")
        tree = ast.parse(text)
        lines = code_lines(tree, text)
        assert len(lines) <= MOST_LINES, file
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                own = lines & set(range(node.lineno, (node.end_lineno or 0) + 1))
                assert len(own) <= MOST_FUNCTION_LINES, (file, node.name)
                assert depth(node) <= MOST_NESTED, (file, node.name)


@pytest.mark.parametrize(
    ("text", "rooms"),
    [
        ("from receiver import spool, codec", {"spool", "codec"}),
        ("from receiver.spool import Spool", {"spool"}),
        ("import receiver.spool as codec", {"spool"}),
        ("from receiver.transports.pace import Pace", {"transports.pace"}),
        ("def late():\n    from receiver import spool", {"spool"}),
        ("if TYPE_CHECKING:\n    import receiver.spool", set()),
        ("if TYPE_CHECKING:\n    pass\nelse:\n    import receiver.spool", {"spool"}),
    ],
)
def test_every_way_to_import_a_room_is_seen(text: str, rooms: set[str]) -> None:
    """This test of the order would be worth nothing if one of them went round it."""
    assert rooms == rooms_imported(text, "receiver", ORDER)


@pytest.mark.parametrize("package", ["receiver", "starter"])
def test_no_import_is_relative(package: str) -> None:
    """A name written in full can be searched for, and held to the order."""
    for file in modules(package):
        names = imports(file.read_text("utf-8"))
        assert [] == [name for name in names if name.startswith(".")], file


@pytest.mark.parametrize(
    "text", ["from . import spool", "from .spool import Spool", "from .. import x"]
)
def test_a_relative_import_is_seen(text: str) -> None:
    """Also one that names no module."""
    assert any(name.startswith(".") for name in imports(text))


@pytest.mark.parametrize(
    "path",
    [f"receiver/{room}" for room in (*WORDS, *PURE)] + [f"starter/{r}" for r in STARTER_PURE],
)
def test_pure_rooms_touch_nothing_outside(path: str) -> None:
    """No clock, file, socket, log, environment or waiting in the core."""
    assert [] == impurities((ROOT / f"{path}.py").read_text("utf-8"))


@pytest.mark.parametrize(
    "text",
    [
        *("import time", "import os.path", "import json, socket", "def late(): import random"),
        *("import pathlib", "from pathlib import Path", "from pathlib import *", "import urllib"),
        *("import urllib.request", "from urllib import request", "import http.client"),
        *("import socketserver", "import importlib", "import multiprocessing", "import sys"),
        *("from concurrent.futures import ThreadPoolExecutor", "import email.utils", "import ssl"),
        *("from . import spool", "from .spool import Spool", "import structlog", "import httpx"),
        *("when = datetime.now()", "when = date.today()", "clock = datetime.datetime.utcnow"),
        *("text = open('x').read()", "print('x')", "__import__('os')", "exec('import os')"),
        *("samples = np.fromfile('x')", "dice = np.random.default_rng()"),
        *("async def f(): pass", "async def f(): await g()"),
    ],
)
def test_what_a_pure_room_must_not_do_is_seen(text: str) -> None:
    """Each of these has its effect outside of its values."""
    assert impurities(text)


@pytest.mark.parametrize(
    "text",
    [
        *("from pathlib import PurePath", "import urllib.parse", "from urllib import parse"),
        *("from collections.abc import Iterable", "from datetime import UTC, datetime"),
        *("when = datetime.fromtimestamp(now, UTC)", "import numpy.typing as npt"),
        "if TYPE_CHECKING:\n    from pathlib import Path",
    ],
)
def test_what_a_pure_room_may_do_is_let_through(text: str) -> None:
    """Values, and words for types."""
    assert [] == impurities(text)


@pytest.mark.parametrize("library", sorted(ONLY_IN))
def test_a_library_stays_in_its_rooms(library: str) -> None:
    """What a library does can be found, and replaced, in one place."""
    users = {
        str(file.relative_to(ROOT))
        for package in ("receiver", "starter")
        for file in modules(package)
        if library in libraries(file)
    }
    assert users
    assert users <= ONLY_IN[library]


@pytest.mark.parametrize("library", ["websockets", "picows"])
def test_websocket_libraries_stay_behind_the_seam(library: str) -> None:
    """Only transports, and the simulator, know which library speaks WebSocket."""
    for package in ("receiver", "starter"):
        for file in modules(package):
            if library in libraries(file):
                assert file.parent.name in ("transports", "simulator")


@pytest.mark.parametrize(("package", "other"), [("receiver", "starter"), ("starter", "receiver")])
def test_the_packages_do_not_know_each_other(package: str, other: str) -> None:
    """Either can be installed, replaced or run without the other."""
    for file in modules(package):
        assert other not in libraries(file)
