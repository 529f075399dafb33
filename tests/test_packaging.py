"""What is installed: by wheel, from an sdist, and where there is no compiler."""

import os
import signal
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from e2e.support.clients import echoes
from e2e.support.daemons import ECHO
from e2e.support.installed import clean_environment, installed

ROOT = Path(__file__).parent.parent
BUILD_TIMEOUT_S = 900
"""A build of both compiles the core twice: three minutes alone, and other tests run beside this one."""

COPIED = ("gaiod", "handlers", "config", "pyproject.toml", "setup.py", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources alone, as a fresh clone has them."""
    folder = tmp_path_factory.mktemp("checkout")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *COPIED],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    for name in listed.stdout.splitlines():
        source = ROOT / name
        if source.exists():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    return folder


@pytest.fixture(scope="module")
def built(checkout: Path) -> Path:
    """The folder with an sdist, and the wheel built from it, with the Cython and setuptools that are here.

    That what [build-system] requires is enough, the installation of the sdist shows.
    """
    _run([sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist", "."], cwd=checkout)
    return checkout / "dist"


def _run(command: list[str], cwd: Path, **environment: str) -> str:
    # PYTHONPATH and the like must not let a venv see this checkout.
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "GAIOD"))}
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _install(folder: Path, what: Path, **environment: str) -> Path:
    """Install into a fresh environment, and return its Python."""
    _run([sys.executable, "-m", "venv", "venv"], cwd=folder)
    python = folder / "venv" / "bin" / "python"
    _run(
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", str(what)],
        folder,
        **environment,
    )
    return python


def _assert_serves(folder: Path) -> None:
    """Serve an echo as the installed program does, with its commands; stop it."""
    program = str(folder / "venv" / "bin" / "gaiod")
    control = str(folder / "control.sock")
    config = folder / "gaiod.yaml"
    config.write_text(ECHO)
    environment = clean_environment(RUNTIME_DIRECTORY=str(folder))
    with installed([program, "serve", "--allow-root", "--config", str(config)], folder, environment) as daemon:
        assert echoes(daemon.address("echo"))
        assert _run([program, "health", "--control", control], folder).startswith("healthy: serving, 1 worker")
        os.kill(daemon.pid, signal.SIGTERM)
        assert daemon.wait() == 0, daemon.log()


def test_wheel_has_the_handlers_the_default_configuration_and_the_types(built: Path) -> None:
    names = zipfile.ZipFile(next(built.glob("*.whl"))).namelist()
    for name in (
        "gaiod/handlers/echo.py",
        "gaiod/handlers/push/sources/redis/streams.py",
        "gaiod/default_config/gaiod.yaml",
        "gaiod/py.typed",
        "gaiod/core/watcher.py",
    ):
        assert name in names
    assert not [name for name in names if name.startswith(("handlers/", "tests/", "config/"))]


def test_wheel_has_a_compiled_module_for_each_that_can_be(built: Path) -> None:
    from gaiod.core import COMPILED

    names = zipfile.ZipFile(next(built.glob("*.whl"))).namelist()
    for module in COMPILED:
        path = f"gaiod/{module.replace('.', '/')}."
        assert [name for name in names if name.startswith(path) and name.endswith(".so")], f"{module} is not compiled"


def test_sdist_has_what_it_takes_to_build(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in (
        "setup.py",
        "gaiod/core/_syscalls.pyx",
        "gaiod/core/loop.pxd",
        "gaiod/process/dispatch.pxd",
        "gaiod/worker/listener.pxd",
        "LICENSE",
    ):
        assert name in names


def test_wheel_runs_compiled_in_a_fresh_environment(built: Path, tmp_path: Path) -> None:
    python = _install(tmp_path, next(built.glob("*.whl")))
    assert "compiled engine" in _run([str(python), "-m", "gaiod", "version"], tmp_path)
    assert "echo" in _run([str(tmp_path / "venv" / "bin" / "gaiod"), "handlers"], tmp_path)
    _assert_serves(tmp_path)


def test_sdist_that_is_installed_without_a_compiler_works_interpreted_and_says_so(
    built: Path, checkout: Path, tmp_path: Path
) -> None:
    """That what it takes to compile is in it, too, the wheel shows, which was made of it."""
    python = _install(tmp_path, next(built.glob("*.tar.gz")), CC="/bin/false", CXX="/bin/false")
    assert "interpreted engine" in _run([str(python), "-m", "gaiod", "version"], tmp_path)
    _assert_serves(tmp_path)
    config = checkout / "config" / "gaiod.yaml"
    assert "fine" in _run([str(python), "-m", "gaiod", "check", str(config)], tmp_path)
