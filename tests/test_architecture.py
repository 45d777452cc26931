"""The house: who may import whom, and what the pure rooms must not touch."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN_IN_PURE = frozenset(
    {"asyncio", "io", "logging", "os", "pathlib.Path", "random", "secrets", "socket", "ssl"}
    | {"shutil", "structlog", "subprocess", "tempfile", "threading", "time"}
)

WORDS = ("errors", "media")
PURE = (
    *("nesting", "messages", "codec", "journal", "paths", "recording", "tags", "tokens"),
    *("ordering", "excuses", "holes", "clock", "doubts", "walk", "timeline", "survey", "report"),
    *("stream", "patience"),
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
    *("certificates", "logs", "metrics", "transports"),
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


def imports(file: Path) -> Iterator[tuple[str, bool]]:
    """Yield every imported name of a file, and whether it is for type checking only."""
    tree = ast.parse(file.read_text("utf-8"))
    for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node in for_types) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, node in for_types
            yield from ((f"{node.module}.{a.name}", node in for_types) for a in node.names)


def rooms_imported(file: Path, order: tuple[str, ...]) -> set[str]:
    """Return the rooms of its own package that a file imports."""
    package = file.relative_to(ROOT).parts[0]
    found = set()
    for name, for_types in imports(file):
        inner = name.removeprefix(package + ".")
        if inner == name or for_types:
            continue
        first = inner.split(".")[0]
        for room in (".".join(inner.split(".")[:2]), first):
            if room in order:
                found.add(room)
                break
    return found


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
        later = {
            other for other in rooms_imported(file, order) if order.index(other) > order.index(room)
        }
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


@pytest.mark.parametrize("room", [*WORDS, *PURE])
def test_pure_rooms_touch_nothing_outside(room: str) -> None:
    """No clock, file, socket, log, environment or waiting in the core."""
    file = ROOT / "receiver" / f"{room}.py"
    names = {name for name, _ in imports(file)}
    assert set() == (names | {name.split(".")[0] for name in names}) & FORBIDDEN_IN_PURE
    nodes = list(ast.walk(ast.parse(file.read_text("utf-8"))))
    assert not [node for node in nodes if isinstance(node, ast.AsyncFunctionDef)]
    assert "open" not in {node.id for node in nodes if isinstance(node, ast.Name)}


@pytest.mark.parametrize("library", sorted(ONLY_IN))
def test_a_library_stays_in_its_rooms(library: str) -> None:
    """What a library does can be found, and replaced, in one place."""
    users = {
        str(file.relative_to(ROOT))
        for package in ("receiver", "starter")
        for file in modules(package)
        if any(name.split(".")[0] == library for name, _ in imports(file))
    }
    assert users
    assert users <= ONLY_IN[library]


@pytest.mark.parametrize("library", ["websockets", "picows"])
def test_websocket_libraries_stay_behind_the_seam(library: str) -> None:
    """Only transports, and the simulator, know which library speaks WebSocket."""
    for package in ("receiver", "starter"):
        for file in modules(package):
            if any(name.split(".")[0] == library for name, _ in imports(file)):
                assert file.parent.name in ("transports", "simulator")


@pytest.mark.parametrize(("package", "other"), [("receiver", "starter"), ("starter", "receiver")])
def test_the_packages_do_not_know_each_other(package: str, other: str) -> None:
    """Either can be installed, replaced or run without the other."""
    for file in modules(package):
        assert other not in {name.split(".")[0] for name, _ in imports(file)}
