"""Python processes of a chosen engine, and this one."""

import os
import resource
import subprocess
import sys
from pathlib import Path

from core.support.waiting import TIME_UNIT

TESTS = Path(__file__).parents[2]
REPOSITORY = TESTS.parent


def resident_bytes() -> int:
    """Return how much memory this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def run_python(
    *arguments: str, engine: str | None = None, environment: dict[str, str] | None = None, timeout_s: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments, the tests' folder on its path; `engine` None: its own choice."""
    variables = {name: value for name, value in os.environ.items() if name != "GAIOD_ENGINE"}
    variables["PYTHONPATH"] = os.pathsep.join((str(TESTS), variables.get("PYTHONPATH", ""))).rstrip(os.pathsep)
    if engine is not None:
        variables["GAIOD_ENGINE"] = engine
    variables |= environment or {}
    return subprocess.run(
        [sys.executable, *arguments],
        env=variables,
        cwd=TESTS,  # not the repository: its gaiod would come before any on the path
        capture_output=True,
        text=True,
        timeout=timeout_s * max(1.0, TIME_UNIT),
        check=False,
    )
