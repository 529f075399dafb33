"""The compiled core under AddressSanitizer and UndefinedBehaviorSanitizer: no report.

The instrumented build is a copy in a temporary folder; what runs on it is this suite itself.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from core.support.processes import REPOSITORY, TESTS, run_python
from core.support.waiting import compiled_only

SANITIZE = "-fsanitize=address,undefined"
QUICK = [
    "contract/test_swap_views.py",
    "contract/test_reads_and_writes.py",
    "contract/test_completions.py",
    "contract/test_free.py",
    "contract/test_forgotten.py",
    "test_reentrancy.py",
    "test_outboxes.py",
    "test_sessions.py",
    "test_threads.py",
]
"""Where memory is shared, taken back, or looked at after somebody else let go of it."""

IPV4 = "not tcp6_pair and not unix_pair and not openssl and not key_update"
"""Of each test once: what is done to memory does not depend on the kind of the address. The slow form runs all. Nor
those of sessions with `openssl`, a process that the libraries to be preloaded are not for."""

pytestmark = [compiled_only, pytest.mark.thorough]


def runtime_libraries() -> str | None:
    """Return what has to be preloaded; None if the compiler has no sanitizers."""
    if shutil.which("gcc") is None:
        return None
    found = []
    for name in ("libasan.so", "libubsan.so"):
        path = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
        if not os.path.isabs(path.stdout.strip()):
            return None
        found.append(path.stdout.strip())
    return " ".join(found)


@pytest.fixture(scope="module")
def instrumented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package, its compiled modules instrumented."""
    if runtime_libraries() is None:
        pytest.skip("no gcc with libasan and libubsan")
    pytest.importorskip("Cython", reason="no Cython: nothing to compile with")
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        pytest.skip("no headers of Python")
    copy = tmp_path_factory.mktemp("instrumented")
    for name in ("gaiod", "handlers", "config"):
        shutil.copytree(REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, copy)
    flags = {"CFLAGS": f"{SANITIZE} -fno-omit-frame-pointer -O0 -g0", "LDFLAGS": SANITIZE}
    built = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace", "--parallel", "2"],
        cwd=copy,
        env=os.environ | flags,
        capture_output=True,
        text=True,
        check=False,
    )
    libraries = list((copy / "gaiod" / "core").glob("*.so"))
    assert libraries, built.stdout + built.stderr
    assert all(b"__asan_report" in library.read_bytes() for library in libraries), "built without instruments"
    return copy


def run_instrumented(copy: Path, *arguments: str) -> None:
    """Run Python on the instrumented copy, and fail with what the sanitizers report."""
    reports = copy / "reports"
    reports.mkdir(exist_ok=True)
    libraries = runtime_libraries()
    assert libraries is not None
    process = run_python(
        *arguments,
        engine="compiled",
        environment={
            "LD_PRELOAD": libraries,
            "ASAN_OPTIONS": f"detect_leaks=0:log_path={reports}/report",  # Python itself never frees everything
            "UBSAN_OPTIONS": f"print_stacktrace=1:log_path={reports}/report",
            "PYTHONMALLOC": "malloc",
            "PYTHONPATH": os.pathsep.join((str(copy), str(TESTS))),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        timeout_s=900,
    )
    told = [path.read_text()[:3000] for path in reports.iterdir()]
    assert told == []
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-3000:]


def run_tests(copy: Path, files: list[str], *options: str) -> None:
    paths = (str(TESTS / "core" / file) for file in files)
    run_instrumented(copy, "-m", "pytest", "-p", "no:cacheprovider", *paths, *options)


def test_instrumented_copy_is_what_runs(instrumented: Path) -> None:
    script = f"import gaiod.core.loop as loop; assert loop.__file__.startswith({str(instrumented)!r}), loop.__file__"
    run_instrumented(instrumented, "-c", script)


def test_sanitizers_have_nothing_to_report_about_the_contract(instrumented: Path) -> None:
    run_tests(instrumented, QUICK, "-k", IPV4)


def test_sanitizers_have_nothing_to_report_about_random_operations(instrumented: Path) -> None:
    run_instrumented(instrumented, "-m", "core.differential", "1", "10")


@pytest.mark.slow
def test_sanitizers_have_nothing_to_report_about_anything(instrumented: Path) -> None:
    run_tests(instrumented, [path.name for path in (TESTS / "core").glob("test_*.py") if path.name not in OTHERS])


OTHERS = {"test_sanitizers.py", "test_engine.py", "test_differential.py", "test_simulation.py"}
"""They start processes of their own, which are none of the instrumented ones."""
