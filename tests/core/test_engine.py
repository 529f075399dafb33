"""Engines: which one a process gets, and that the compiled one is of the sources beside it."""

import ast
import hashlib
import importlib
import re
import shutil
import ssl
import sys
from pathlib import Path

import pytest

from core.support.processes import REPOSITORY, run_python
from core.support.waiting import compiled_only
from gaiod import core
from gaiod.core import COMPILED, ENGINE
from gaiod.core.engine import shares_tickets, tls_library

TELL = "import gaiod.core, gaiod.core.watcher as w; print(gaiod.core.ENGINE, w.__file__.rpartition('.')[2])"
SOURCE = "py"
FULL_NAMES = [f"gaiod.{module}" for module in COMPILED]


def sources() -> list[Path]:
    """Return what is compiled, in the order of the digest that setup.py compiles in."""
    package = Path(core.__file__).parent.parent
    names = []
    for module in COMPILED:
        path = module.replace(".", "/")
        names += [f"{path}.pxd", f"{path}.pyx" if (package / f"{path}.pyx").exists() else f"{path}.py"]
    return [package / name for name in sorted(names)]


@compiled_only
def test_compiled_engine_is_of_the_sources_beside_it() -> None:
    built = importlib.import_module("gaiod.core._syscalls").SOURCES
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources())).hexdigest()
    assert digest == built, "the compiled engine is older than its sources: run pip install -e ."


def test_compiled_modules_have_their_types_and_sources_beside_them() -> None:
    assert len(sources()) == 2 * len(COMPILED)
    for path in sources():
        assert path.exists()


def test_interpreted_system_calls_have_the_names_of_the_compiled_ones() -> None:
    from gaiod.core import engine, flows, outboxes, stopwatch, syscalls

    own = {
        "open_client",
        "open_tls",
        "prepare_tls",
        "shares_tickets",
        "tls_library",
    }  # they import what they need when they are called
    assert set(engine.__all__) - own <= {*vars(flows), *vars(outboxes), *vars(stopwatch), *vars(syscalls)}
    assert set(engine.__all__) <= set(vars(engine))


@compiled_only
def test_compiled_engine_is_the_default() -> None:
    told = run_python("-c", TELL)
    assert told.stdout.split() == ["compiled", "so"]


@pytest.mark.parametrize("engine", ["interpreted", "compiled"])
def test_engine_is_the_one_asked_for(engine: str) -> None:
    if engine == "compiled" and ENGINE == "interpreted":
        pytest.skip("may not be installed")
    told = run_python("-c", TELL, engine=engine)
    assert told.stdout.split() == [engine, SOURCE if engine == "interpreted" else "so"]


@compiled_only
def test_empty_choice_is_no_choice() -> None:
    assert run_python("-c", TELL, engine="").stdout.split()[0] == "compiled"


@pytest.mark.parametrize("engine", ["Compiled", "cython", "1"])
def test_engine_that_does_not_exist_is_an_error_with_a_remedy(engine: str) -> None:
    told = run_python("-c", TELL, engine=engine)
    assert told.returncode == 1
    assert f"GAIOD_ENGINE={engine}: no such engine; unset it, or use compiled or interpreted" in told.stderr


def test_interpreted_engine_loads_no_compiled_module() -> None:
    imports = "import gaiod, gaiod.core.inspect, sys"
    files = f"{imports}; print(*(sys.modules[name].__file__ for name in {FULL_NAMES} if name in sys.modules))"
    loaded = run_python("-c", files, engine="interpreted").stdout.split()
    beside = {path.with_suffix(".py") for path in sources() if path.parent.name == "core"}
    ours = {path.name for path in beside if path.exists()}
    assert {Path(name).name for name in loaded} == ours
    assert {Path(name).suffix for name in loaded} == {".py"}


@pytest.fixture
def uncompiled(tmp_path: Path) -> dict[str, str]:
    """A copy of the package as an install without a compiler leaves it, first on the path."""
    shutil.copytree(REPOSITORY / "gaiod", tmp_path / "gaiod", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    return {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}


def test_install_without_a_compiler_runs_interpreted(uncompiled: dict[str, str]) -> None:
    told = run_python("-c", TELL, environment=uncompiled)
    assert told.stdout.split() == ["interpreted", SOURCE]


def test_install_without_a_compiler_says_so_when_the_compiled_engine_is_asked_for(
    uncompiled: dict[str, str],
) -> None:
    told = run_python("-c", TELL, engine="compiled", environment=uncompiled)
    assert told.returncode == 1
    assert "this install has no compiled engine; install a C compiler and the headers of Python" in told.stderr
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in told.stderr


@compiled_only
def test_install_with_one_compiled_module_missing_runs_interpreted(tmp_path: Path) -> None:
    """Half an engine is none: types of the other half would not fit."""
    shutil.copytree(REPOSITORY / "gaiod", tmp_path / "gaiod", ignore=shutil.ignore_patterns("__pycache__"))
    for library in (tmp_path / "gaiod" / "core").glob("timers*.so"):
        library.unlink()
    told = run_python("-c", TELL, environment={"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"})
    assert told.stdout.split() == ["interpreted", SOURCE]


def test_names_that_types_declare_exist() -> None:
    """A number that only the .pxd knows is 0, and nobody says so."""
    missing = []
    for path in (path for path in sources() if path.suffix == ".pxd" and path.with_suffix(".py").exists()):
        told = names_of(path.with_suffix(".py"))
        for declared in re.findall(
            r"^cdef (?:int|uint32_t|double|list) ([A-Za-z_0-9, ]+)$", path.read_text(), re.MULTILINE
        ):
            missing += [f"{path.name}: {name}" for name in declared.split(", ") if name not in told]
    assert missing == []


def names_of(path: Path) -> set[str]:
    """Return what a source file assigns or imports at its top."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.alias):
            names.add(node.asname or node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def test_library_of_tls_is_told_by_its_name_and_by_way_of_what_it_is_used() -> None:
    library, layer = tls_library()
    assert library == ssl.OPENSSL_VERSION
    assert layer == ("openssl" if shares_tickets() else "python")
