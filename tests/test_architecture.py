"""Who may import whom, what the pure packages must not touch, and pages that say where it is."""

from __future__ import annotations

import ast
import functools
import re
import statistics
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAP = ROOT / "ARCHITECTURE.md"
MOST_LINES_OF_MAP, MOST_WORDS_OF_README = 150, 1500
LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)]*)?\)")
FILE_NAME = re.compile(r"`([\w./-]+(?:\.(?:c|conf|md|py|service|sh)|/))`")
FROM_ELSEWHERE = frozenset({"quarantine/"})
"""What looks like a file of ours in a page, and is one in a spool."""
ALLOWED_IN_PURE = (
    *("__future__", "array", "base64", "binascii", "bisect", "collections", "dataclasses"),
    *("datetime", "email.utils.parsedate_to_datetime", "enum", "hashlib", "hmac", "itertools"),
    *(
        "json",
        "math",
        "operator",
        "pathlib.PurePath",
        "re",
        "struct",
        "types",
        "typing",
        "urllib.parse",
    ),
    *("difflib", "unicodedata", "zlib"),
    *("jwt", "msgspec", "numpy"),
    *("receiver", "starter"),  # of these, by the order of packages
)
"""What a pure module may import: these, and what is in them."""
IMPURE_NAMES = frozenset({"__import__", "eval", "exec", "input", "open", "print"})
IMPURE_ATTRIBUTES = frozenset(
    {"now", "today", "utcnow"}  # the clock of datetime
    | {"fromfile", "load", "memmap", "random", "save", "tofile"}  # files and dice of numpy
)

ORDER = (
    *("errors", "media", "rate_limit", "counters", "logs"),
    *("disk", "wire", "config", "journal", "audio", "timeline", "recording", "catalogue"),
    *("lifecycle", "auth", "transports", "notifications"),
    *("tap", "listen", "forwarding", "ingest", "service", "console", "cli"),
    "__main__",
)
"""A package imports only what stands before it, and its own modules; no circle among those."""
CORE = (
    *("disk", "wire", "config", "journal", "audio", "timeline", "recording", "auth", "transports"),
    *("tap", "forwarding", "ingest", "service", "cli"),
)
"""The packages that record and serve calls."""
MOST_FLAT, MOST_IN_CORE = 10, 110
MOST_IN_LATER = {
    **dict.fromkeys(("storage", "catalogue", "lifecycle", "notifications", "cluster"), 16),
    "console": 24,  # pages for people, and all of it again for programs
}
"""Packages that came later, each with a bound of its own. Files called `__init__.py` count, too."""
PURE = (
    *("errors", "media", "rate_limit"),
    *("wire", "timeline", "tap/encoding"),
    *(
        "disk/layout",
        "journal/records",
        *("audio/codec", "audio/meter", "audio/peaks", "audio/wav_tags"),
    ),
    *("recording/document", "recording/journal_scan", "recording/report", "recording/verdict"),
    *("catalogue/query", "catalogue/tokens", "lifecycle/retention"),
    *("auth/bearer", "auth/tap_tokens"),
    *("ingest/stream", "tap/queue"),
    *("notifications/callbacks", "notifications/events", "notifications/signing"),
    "console/views",
    "console/who",
)
"""Packages and modules that only compute: no clock, file, socket, log, environment or waiting."""
STARTER_PURE = (
    *("errors", "validation", "models", "responses", "retry"),
    *("simulator/stream_info", "simulator/provider_rules", "simulator/dialects"),
)
STARTER_ORDER = (
    *("errors", "validation", "models", "responses", "tokens", "retry", "config", "client"),
    "expectations",
    *("options", "simulator", "commands", "cli", "__main__"),
)
MOST_LINES, MOST_CLASS_LINES, MOST_FUNCTION_LINES, MOST_NESTED = 400, 200, 40, 3
MOST_MEDIAN, MOST_NINE_OF_TEN = 6, 20
MOST_SERVER_METHODS = 20
NESTING = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.AsyncFor, ast.AsyncWith, ast.Match)
ONLY_IN = {
    "soundfile": {
        "receiver/audio/wav_writer.py",
        "receiver/console/audio.py",
        "starter/simulator/audio.py",
    },
    "httpx": {"starter/client.py", "starter/expectations.py", "receiver/console/oidc.py"},
    "numpy": {
        *("receiver/audio/codec.py", "receiver/audio/meter.py"),
        *("receiver/timeline/track_index.py", "receiver/timeline/ordering.py"),
        *("receiver/timeline/anchoring.py", "receiver/timeline/clock.py"),
        *("receiver/timeline/numbering.py", "receiver/timeline/ledger.py"),
        *("receiver/timeline/placement.py", "receiver/timeline/track_timeline.py"),
        "receiver/listen.py",  # samples as arrays are what it is for
        "receiver/tap/resampler.py",
        *("starter/simulator/audio.py", "starter/simulator/g711.py"),
    },
}
WITHOUT_NUMPY = (
    "timeline.jumps",
    "timeline.jitter_buffer",
    "timeline.live_placement",
    "timeline.live_clock",
)
"""What a live stream needs of the time line: the serving process has no use for numpy's memory."""


@functools.cache
def parsed(text: str) -> ast.Module:
    """Return the tree of a source; many tests look at the same, and none changes it."""
    return ast.parse(text)


def modules(package: str) -> list[Path]:
    """Return a package's source files."""
    return sorted((ROOT / package).rglob("*.py"))


def place_of(file: Path) -> str:
    """Return the package or flat module that a file belongs to."""
    return file.relative_to(ROOT).with_suffix("").parts[1]


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
    tree = parsed(text)
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


def modules_imported(text: str, package: str) -> set[str]:
    """Return what a source imports at run time of its own package, dotted, without the package."""
    prefix = package + "."
    return {
        name.removeprefix(prefix)
        for name in imports(text, with_types=False)
        if name.startswith(prefix)
    }


def places_imported(text: str, package: str) -> set[str]:
    """Return the first part of each: a package or a flat module."""
    return {name.split(".")[0] for name in modules_imported(text, package)}


def impurities(text: str) -> list[str]:
    """Return what of a source could reach outside, or wait: as lines."""
    tree = parsed(text)
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
    """Return whether a pure module may import this."""
    return any(name == known or name.startswith(known + ".") for known in ALLOWED_IN_PURE)


@pytest.mark.parametrize(
    ("package", "order"),
    [("receiver", ORDER), ("starter", STARTER_ORDER)],
    ids=lambda p: str(p)[:8],
)
def test_every_package_imports_only_what_stands_before_it(
    package: str, order: tuple[str, ...]
) -> None:
    """The order is total, and every package and flat module is in it."""
    for file in modules(package):
        if file.name == "__init__.py" and file.parent == ROOT / package:
            continue
        place = place_of(file)
        assert place in order, f"{file.name} is in no package of the order"
        found = places_imported(file.read_text("utf-8"), package) & set(order)
        later = {other for other in found if order.index(other) > order.index(place)}
        assert set() == later, f"{file.relative_to(ROOT)} imports against the order"


@pytest.mark.parametrize("package", ["receiver", "starter"])
def test_no_modules_import_each_other_in_a_circle(package: str) -> None:
    """Inside of a package, too, there is a first module to read."""
    names = {
        ".".join(file.relative_to(ROOT / package).with_suffix("").parts): file
        for file in modules(package)
    }
    left = {
        name: modules_imported(file.read_text("utf-8"), package) & set(names) - {name}
        for name, file in names.items()
    }
    while free := {name for name, needs in left.items() if not needs & set(left)}:
        left = {name: needs for name, needs in left.items() if name not in free}
    assert {} == left


@pytest.mark.parametrize("package", ["receiver", "starter"])
def test_no_two_classes_have_one_name(package: str) -> None:
    """Whoever reads or searches a name finds one thing; the two programs never meet."""
    names = Counter(
        node.name
        for file in modules(package)
        for node in ast.walk(parsed(file.read_text("utf-8")))
        if isinstance(node, ast.ClassDef)
    )
    assert [] == [name for name, number in names.items() if number > 1]


@pytest.mark.parametrize("module", WITHOUT_NUMPY)
def test_the_live_half_loads_no_numpy(module: str) -> None:
    """Neither itself nor through what it imports."""
    names = {
        ".".join(file.relative_to(ROOT / "receiver").with_suffix("").parts): file
        for file in modules("receiver")
    }
    found, left = set[str](), {module}
    while left:
        found |= left
        texts = [names[name].read_text("utf-8") for name in left]
        left = {n for t in texts for n in modules_imported(t, "receiver") & set(names)} - found
    users = {name for name in found if "numpy" in libraries(names[name])}
    assert set() == users


def test_few_modules_lie_flat() -> None:
    """What lies beside the packages are the words that all of them speak."""
    flat = [file.stem for file in modules("receiver") if file.parent == ROOT / "receiver"]
    assert MOST_FLAT >= len([stem for stem in flat if not stem.startswith("__")])


def counted_in(file: Path) -> str:
    """Return the package whose file it is: commands of a later one are in `cli`, by its name.

    Steps of migrations are history, which nobody reads to understand a package.
    """
    if file.parent.name == "versions":
        return "migrations"
    place = place_of(file)
    return file.stem if place == "cli" and file.stem in MOST_IN_LATER else place


def test_the_core_stays_below_its_number_of_files() -> None:
    """Whoever adds a module to it looks for one that it belongs to first."""
    places = Counter(map(counted_in, modules("receiver")))
    assert set(CORE) <= set(places)
    later = {*MOST_IN_LATER, "migrations"}
    core = {place: number for place, number in places.items() if place not in later}
    assert MOST_IN_CORE > sum(core.values()), core


@pytest.mark.parametrize("package", sorted(MOST_IN_LATER))
def test_a_later_package_stays_small(package: str) -> None:
    """What is built upon the core is no second one."""
    assert MOST_IN_LATER[package] >= Counter(map(counted_in, modules("receiver")))[package]


def test_every_package_is_of_the_core_or_came_later() -> None:
    """A new one gets its bound with its first file."""
    packages = {path.parent.name for path in (ROOT / "receiver").glob("*/__init__.py")}
    assert packages <= {*CORE, *MOST_IN_LATER}


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
def test_nothing_outgrows_its_budget(package: str) -> None:
    """What is longer or nested deeper wants to be two things."""
    functions = []
    for file in modules(package):
        text = file.read_text("utf-8")
        tree = parsed(text)
        lines = code_lines(tree, text)
        assert len(lines) <= MOST_LINES, file
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                own = len(lines & set(range(node.lineno, (node.end_lineno or 0) + 1)))
            if isinstance(node, ast.ClassDef):
                assert own <= MOST_CLASS_LINES, (file, node.name)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert own <= MOST_FUNCTION_LINES, (file, node.name)
                assert depth(node) <= MOST_NESTED, (file, node.name)
                functions.append(own)
    assert statistics.median(functions) <= MOST_MEDIAN
    assert statistics.quantiles(functions, n=10)[-1] <= MOST_NINE_OF_TEN


def test_the_server_stays_small() -> None:
    """It wires parts together; what any of them can do by itself is theirs."""
    tree = parsed((ROOT / "receiver/service/server.py").read_text("utf-8"))
    (server,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
    methods = [n for n in server.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert len(methods) <= MOST_SERVER_METHODS


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from receiver import listen, logs", {"listen", "logs"}),
        ("from receiver.journal.spool import Spool", {"journal"}),
        ("from receiver.journal import spool", {"journal"}),
        ("import receiver.journal.spool as codec", {"journal"}),
        ("def late():\n    from receiver.journal import spool", {"journal"}),
        ("if TYPE_CHECKING:\n    import receiver.journal", set()),
        ("if TYPE_CHECKING:\n    pass\nelse:\n    import receiver.journal", {"journal"}),
    ],
)
def test_every_way_to_import_is_seen(text: str, found: set[str]) -> None:
    """This test of the order would be worth nothing if one of them went round it."""
    assert found == places_imported(text, "receiver")


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


def pure_modules() -> list[Path]:
    """Return the files of all that must be pure."""
    places = [ROOT / "receiver" / place for place in PURE]
    places += [ROOT / "starter" / place for place in STARTER_PURE]
    return [
        file
        for place in places
        for file in (sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")])
    ]


@pytest.mark.parametrize("file", pure_modules(), ids=lambda file: str(file.relative_to(ROOT)))
def test_pure_modules_touch_nothing_outside(file: Path) -> None:
    """No clock, file, socket, log, environment or waiting in the core."""
    assert [] == impurities(file.read_text("utf-8"))


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
def test_what_a_pure_module_must_not_do_is_seen(text: str) -> None:
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
def test_what_a_pure_module_may_do_is_let_through(text: str) -> None:
    """Values, and words for types."""
    assert [] == impurities(text)


@pytest.mark.parametrize("library", sorted(ONLY_IN))
def test_a_library_stays_in_its_modules(library: str) -> None:
    """What a library does can be found, and replaced, in one place."""
    users = {
        str(file.relative_to(ROOT))
        for package in ("receiver", "starter")
        for file in modules(package)
        if library in libraries(file)
    }
    assert users
    assert users <= ONLY_IN[library]


def test_the_websocket_library_stays_behind_the_seam() -> None:
    """Only transports, and the simulator, know which library speaks WebSocket."""
    for package in ("receiver", "starter"):
        for file in modules(package):
            if "websockets" in libraries(file):
                assert file.parent.name in ("transports", "simulator")


@pytest.mark.parametrize(("package", "other"), [("receiver", "starter"), ("starter", "receiver")])
def test_the_packages_do_not_know_each_other(package: str, other: str) -> None:
    """Either can be installed, replaced or run without the other."""
    for file in modules(package):
        assert other not in libraries(file)


@pytest.mark.parametrize(
    "file", sorted((ROOT / "tests").rglob("*.py")), ids=lambda file: str(file.relative_to(ROOT))
)
def test_no_test_is_imported_by_another(file: Path) -> None:
    """What two files of tests share lies in a helper, where it can be found."""
    parts = (name.split(".") for name in imports(file.read_text("utf-8")))
    assert [] == [".".join(p) for p in parts if p[0] == "tests" and p[-1].startswith("test_")]


def pages() -> list[Path]:
    """Return all pages."""
    places = ("receiver", "starter", "tests", "deploy")
    found = [page for place in places for page in (ROOT / place).rglob("*.md")]
    return sorted([*found, *ROOT.glob("*.md")])


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    """Links, and names of files: from the page's folder, the receiver's or the repository's."""
    text = page.read_text("utf-8")
    links = [link for link in LINK.findall(text) if "://" not in link]
    assert [] == [link for link in links if not (page.parent / link).exists()]
    places = (page.parent, ROOT / "receiver", ROOT)
    names = [name for name in FILE_NAME.findall(text) if name not in FROM_ELSEWHERE]
    assert [] == [name for name in names if not any((place / name).exists() for place in places)]


@pytest.mark.parametrize(
    "page",
    [p for p in pages() if (p.parent / "__init__.py").exists() and p.parts[-3] != "tests"],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_the_page_of_a_package_names_all_of_its_modules(page: Path) -> None:
    """A reader who looks for a module by what it does finds it there."""
    text = page.read_text("utf-8")
    names = {file.name for file in page.parent.rglob("*.py") if not file.stem.startswith("__")}
    assert set() == {name for name in names if not re.search(rf"(?<!\w){name}\b", text)}


def test_the_map_names_every_package_in_import_order() -> None:
    """A reader finds each, and what it may import stands above it."""
    packages = [place for place in ORDER if (ROOT / "receiver" / place).is_dir()]
    section = MAP.read_text("utf-8").split("## Packages")[1].split("\n## ")[0]
    rows = re.findall(r"^\| [`\[](\w+)/", section, re.MULTILINE)
    assert [*packages, "starter"] == rows


def test_every_name_that_the_map_places_in_a_file_is_there() -> None:
    """As in "a field of `Config` in `config/settings.py`"."""
    places = (ROOT, ROOT / "receiver")
    found = re.findall(r"`(\w+)` (?:in|of) `([\w/]+\.py)`", MAP.read_text("utf-8"))
    assert found
    for name, file in found:
        (source,) = [place / file for place in places if (place / file).exists()]
        assert re.search(rf"\b{name}\b", source.read_text("utf-8")), (name, file)


def test_pages_stay_short() -> None:
    """The map is read in one sitting, and the first page in a few minutes."""
    assert len(MAP.read_text("utf-8").splitlines()) <= MOST_LINES_OF_MAP
    assert len((ROOT / "README.md").read_text("utf-8").split()) <= MOST_WORDS_OF_README
