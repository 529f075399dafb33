"""Fixtures of the supervisor's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.support.starting import Start, starter


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Start]:
    """A starter of daemons, as in e2e."""
    with starter(tmp_path) as start:
        yield start
