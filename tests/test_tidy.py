"""The repository's own rules, tested: who may import whom, what every file has, what none has."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "gaiod"

MAY_IMPORT = {
    "core": {"core"},
    "runtime": {"core", "runtime", "version"},
    "observe": {"core", "runtime", "observe", "version"},
    "config": {"core", "runtime", "config"},
    "supervisor": {"core", "runtime", "observe", "config", "supervisor", "version"},
    "cli": {"admin", "core", "runtime", "config", "supervisor", "version"},
    "admin": {"supervisor", "core", "runtime", "top", "version"},
    "top": {"supervisor", "top"},
    "testing": {"core", "runtime", "testing"},
    "__init__": {"core", "runtime", "version"},
    "__main__": {"cli", "runtime"},
    "version": set(),
}
"""Rooms of the house: cli -> supervisor -> runtime -> core, with config and observe to the side. `top` is a client."""

HEAVY = {"click", "h11", "prometheus_client", "pydantic", "rich", "yaml"}
LINES_MAX = 1000
"""A file may be long if it is one thing: a class that is spread over files is harder to read than a long one."""

FUNCTION_LINES_MAX = 70


def python_files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")) if "build" not in path.parts]


def ours() -> list[Path]:
    return python_files("gaiod", "handlers", "config", "deploy", "tests")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports_of(path: Path) -> Iterator[tuple[str, int]]:
    """Yield every module that a file imports, late imports included, and the line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module, node.lineno


@pytest.mark.parametrize("path", python_files("gaiod"), ids=relative)
def test_imports_go_down_the_house_only(path: Path) -> None:
    inside = path.relative_to(PACKAGE)
    room = inside.parts[0].removesuffix(".py")
    for module, line in imports_of(path):
        if module.startswith("gaiod."):
            imported = module.split(".")[1]
            assert imported in MAY_IMPORT[room], f"{relative(path)}:{line}: {room} must not import {module}"
        elif module == "gaiod":
            pytest.fail(f"{relative(path)}:{line}: import from the module that defines it, not from gaiod")


@pytest.mark.parametrize("path", python_files("handlers"), ids=relative)
def test_handlers_import_nothing_of_gaiod_but_gaiod(path: Path) -> None:
    wrong = [module for module, _ in imports_of(path) if module.startswith("gaiod.")]
    assert not wrong


@pytest.mark.parametrize("path", python_files("gaiod/core", "gaiod/runtime"), ids=relative)
def test_workers_stay_light(path: Path) -> None:
    heavy = {module for module, _ in imports_of(path) if module.split(".")[0] in HEAVY}
    assert not heavy


@pytest.mark.parametrize("path", ours(), ids=relative)
def test_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), f"{relative(path)} has no docstring"


@pytest.mark.parametrize("path", ours(), ids=relative)
def test_file_is_short_enough_to_be_read(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= LINES_MAX, f"{relative(path)} has {lines} lines: split it"


@pytest.mark.parametrize("path", ours(), ids=relative)
def test_function_is_short_enough_to_be_read(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= FUNCTION_LINES_MAX, f"{relative(path)}:{node.lineno}: {node.name} has {lines} lines"


def test_nothing_is_left_to_do() -> None:
    marker = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
    for path in [*ours(), *ROOT.glob("gaiod/core/*.p[xy]*"), ROOT / "README.md", PACKAGE / "DESIGN.md"]:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            assert not marker.search(line), f"{relative(path)}:{number}: {line.strip()}"


@pytest.mark.parametrize("room", ["core", "runtime", "config", "observe", "supervisor", "top"])
def test_every_module_has_tests_of_its_own(room: str) -> None:
    """gaiod/x/y.py <-> a test file that is about y: tests/x/**/test_*y*.py."""
    tests = [path.stem for path in (ROOT / "tests" / room).rglob("test_*.py")]
    for module in sorted((PACKAGE / room).glob("*.py")):
        name = module.stem
        if name != "__init__":
            assert any(name in test for test in tests), f"{relative(module)} has no test file in tests/{room}"


def test_top_level_has_nothing_that_does_not_belong() -> None:
    wanted = {"pyproject.toml", "setup.py", "gaiod", "handlers", "config", "tests", "deploy", "README.md", "LICENSE"}
    made_by_tools = {"build", "dist", "gaiod.egg-info"}
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert found - made_by_tools == wanted
