"""The repository's own rules, tested: who may import whom, what every file has, what none has."""

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "gaiod"

MAY_IMPORT = {
    # What every process is made of.
    "core": set(),
    "version": set(),
    "settings": set(),
    "ticket_scope": {"settings"},
    "tls_options": {"core", "settings"},
    "watched_files": {"settings"},
    "wording": set(),
    "kept_code": set(),
    "addresses": {"core", "wording"},
    "stats": {"core"},
    "proxy_protocol": {"core"},
    "handler": {"addresses", "core", "stats"},
    "plugins": {"core", "handler", "kept_code"},
    "log": {"core", "settings"},
    "process": {"core"},
    # The processes that the supervisor starts. A source may listen: the feeder has listeners as a worker has.
    "worker": {
        "addresses", "core", "handler", "kept_code", "log", "plugins", "process", "proxy_protocol", "settings", "stats",
        "ticket_scope", "tls_options", "version", "watched_files",
    },
    "feeder": {
        "addresses", "core", "handler", "kept_code", "log", "plugins", "process", "settings", "stats", "version",
        "worker",
    },
    "runtime": {"feeder", "worker"},
    # The supervisor, and what only it has.
    "config": {"addresses", "core", "handler", "plugins", "settings", "tls_options", "watched_files", "wording"},
    "observe": {"console", "core", "handler", "log", "plugins", "process", "settings", "stats", "version"},
    "supervisor": {
        "addresses", "config", "control", "core", "handler", "kept_code", "log", "observe", "plugins", "process",
        "settings", "stats", "ticket_scope", "tls_options", "version", "watched_files", "wording",
    },
    # Who asks a daemon.
    "control": {"addresses", "core"},
    "console": {"control", "wording"},
    "cli": {"console", "core", "log", "plugins", "process", "settings", "supervisor", "tls_options", "version"},
    # What others import.
    "testing": {"core", "handler", "stats"},
    "__init__": {"addresses", "core", "handler", "proxy_protocol", "version", "wording"},
    "__main__": {"cli", "process"},
}  # fmt: skip
"""Rooms of the house, beside itself: which others each may import. `gaiod/DESIGN.md` says what they are for."""

LIGHT = ("kept_code.py", "core", "stats", "handler", "log", "process", "worker", "feeder")
"""What is imported by workers and the feeder."""

HEAVY = {"click", "h11", "prometheus_client", "rich", "yaml"}
LINES_MAX = 1000
"""A file may be long if it is one thing: a class that is spread over files is harder to read than a long one."""

FUNCTION_LINES_MAX = 70
MODULES_MAX = 22
"""Of a room, but for the core, which has a map of its own."""

TESTED_ELSEWHERE = {"testing"}
"""Rooms whose tests are not in a folder of that name: `gaiod.testing` is tested beside what it imitates."""


@cache
def python_files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")) if "build" not in path.parts]


def ours() -> list[Path]:
    return python_files("gaiod", "handlers", "config", "deploy", "tests")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def at(path: Path, line: int | None = None) -> str:
    place = str(path.relative_to(ROOT))
    return place if line is None else f"{place}:{line}"


def imports_of(path: Path) -> Iterator[tuple[str, str]]:
    """Yield every module that a file imports, late imports included, and where."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, at(path, node.lineno)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module, at(path, node.lineno)


def refuse(offenders: Iterable[str]) -> None:
    """Fail with all of them, one a line."""
    found = list(offenders)
    if found:
        pytest.fail("\n".join(found), pytrace=False)


def test_imports_go_down_the_house_only() -> None:
    def wrong() -> Iterator[str]:
        for path in python_files("gaiod"):
            room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
            for module, place in imports_of(path):
                if module == "gaiod":
                    yield f"{place}: import from the module that defines it, not from gaiod"
                elif module.startswith("gaiod.") and module.split(".")[1] not in MAY_IMPORT[room] | {room}:
                    yield f"{place}: {room} must not import {module}"

    refuse(wrong())


def test_handlers_import_nothing_of_gaiod_but_gaiod() -> None:
    refuse(
        f"{place}: a handler must not import {module}"
        for path in python_files("handlers")
        for module, place in imports_of(path)
        if module.startswith("gaiod.")
    )


def test_workers_stay_light() -> None:
    refuse(
        f"{place}: a worker must not import {module}"
        for path in python_files("gaiod")
        if path.relative_to(PACKAGE).parts[0] in LIGHT
        for module, place in imports_of(path)
        if module.split(".")[0] in HEAVY
    )


def test_modules_say_what_they_are_for() -> None:
    refuse(f"{at(path)}: no docstring" for path in ours() if not ast.get_docstring(tree_of(path)))


def test_files_are_short_enough_to_be_read() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in ours()}
    refuse(f"{at(path)}: {lines} lines, split it" for path, lines in lengths.items() if lines > LINES_MAX)


def test_functions_are_short_enough_to_be_read() -> None:
    def long() -> Iterator[str]:
        for path in ours():
            for node in ast.walk(tree_of(path)):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    lines = (node.end_lineno or 0) - node.lineno + 1
                    if lines > FUNCTION_LINES_MAX:
                        yield f"{at(path, node.lineno)}: {node.name} has {lines} lines"

    refuse(long())


def test_nothing_is_left_to_do() -> None:
    marker = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
    refuse(
        f"{at(path, number)}: {line.strip()}"
        for path in [*ours(), *PACKAGE.rglob("*.p[xy][dx]"), ROOT / "README.md", PACKAGE / "DESIGN.md"]
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if marker.search(line)
    )


def test_every_module_has_tests_of_its_own() -> None:
    """gaiod/x/y.py and gaiod/x/y/z.py <-> a test file that is about it: tests/x/**/test_*_y_*.py, the whole name."""

    def untested() -> Iterator[str]:
        rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
        for room in sorted(rooms - TESTED_ELSEWHERE):
            tests = [f"{path.stem}_" for path in (ROOT / "tests" / room).rglob("test_*.py")]
            for path in python_files(f"gaiod/{room}"):
                if not path.stem.startswith("__") and not any(f"_{path.stem}_" in test for test in tests):
                    yield f"{at(path)}: no test file in tests/{room} has its name"

    refuse(untested())


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Not even for types: whoever reads one of a circle has to read all of it."""
    paths = {
        path.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."): path for path in python_files("gaiod")
    }
    imports = {name: {module for module, _ in imports_of(path) if module in paths} for name, path in paths.items()}
    while free := {name for name, needed in imports.items() if not needed & imports.keys()}:
        imports = {name: needed for name, needed in imports.items() if name not in free}
    refuse(
        f"{at(paths[name])}: imports {', '.join(sorted(needed & imports.keys()))}, and so itself"
        for name, needed in imports.items()
    )


def test_rooms_are_small_enough_to_be_seen_at_once() -> None:
    rooms = {path.parent for path in python_files("gaiod")} - {PACKAGE / "core"}
    counts = {room: len([path for path in room.glob("*.py") if path.stem != "__init__"]) for room in rooms}
    refuse(
        f"{at(room)}: {count} modules, of {MODULES_MAX} at most"
        for room, count in counts.items()
        if count > MODULES_MAX
    )


def test_map_of_the_design_names_every_module() -> None:
    """Each in the row of its room; those of the core in the core's own."""
    rows = re.findall(r"^\| `?([a-z_/ ]+)`? \|(.*)", (PACKAGE / "DESIGN.md").read_text(), re.MULTILINE)
    named = {room: set(re.findall(r"`([a-z_]+)`", row)) for room, row in rows}
    refuse(
        f"{at(path)}: DESIGN.md's map does not name it"
        for path in python_files("gaiod")
        if not path.stem.startswith("_")
        and path.parent != PACKAGE / "core"
        and path.stem not in named.get(str(path.parent.relative_to(PACKAGE)).replace(".", "beside the rooms"), set())
    )


def test_way_of_a_byte_names_what_there_is() -> None:
    """A file, and then functions that it defines."""
    text = (PACKAGE / "DESIGN.md").read_text().partition("## The way of a byte")[2].partition("\n## ")[0]
    steps = re.findall(r"`([a-z_]+/[a-z_/]+\.py)`(?::((?:[\s,]+`_?[a-z_]+`)+))?", text)
    assert len(steps) > 20

    def wrong() -> Iterator[str]:
        for name, functions in steps:
            path = (ROOT if name.startswith("handlers/") else PACKAGE) / name
            found = {node.name for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef)}
            for function in re.findall(r"`(\w+)`", functions):
                if function not in found:
                    yield f"{name} has no {function}"

    refuse(wrong())


def test_map_of_the_core_names_every_module() -> None:
    text = (PACKAGE / "DESIGN.md").read_text().partition("* The core's modules:")[2].partition("\n* ")[0]
    named = set(re.findall(r"`([a-z_]+)`", text))
    assert {path.stem for path in python_files("gaiod/core")} - {"__init__"} == named


def test_top_level_has_nothing_that_does_not_belong() -> None:
    wanted = {"pyproject.toml", "setup.py", "gaiod", "handlers", "config", "tests", "deploy", "README.md", "LICENSE"}
    made_by_tools = {"build", "dist", "gaiod.egg-info"}
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert found - made_by_tools == wanted
