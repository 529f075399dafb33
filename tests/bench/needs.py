"""Skip a test where what it needs is not installed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping

import pytest


def needs_compiler() -> None:
    """Skip the test where no C program can be compiled."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler: `cc` is not on the PATH")


def needs_module(name: str, environment: Mapping[str, str]) -> None:
    """Skip the test where Python cannot import a module in this environment."""
    command = (sys.executable, "-c", f"import {name}")
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"{name}: {done.stderr.decode().splitlines()[-1]}")
