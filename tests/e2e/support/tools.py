"""Programs that are not Python's, and may be missing."""

import os
import shutil

import pytest


def tool(name: str, package: str) -> str:
    """Return the path of a program; without it skip the test, or fail it where CI=true promises all of them."""
    path = shutil.which(name)
    if path is not None:
        return path
    missing = f"{name} is missing: apt install {package}"
    if os.environ.get("CI") == "true":
        pytest.fail(missing)
    pytest.skip(missing)
