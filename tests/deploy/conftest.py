"""The daemon, as a fixture: as for the end-to-end tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.support.starting import Start, starter


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Start]:
    """A starter of daemons; those that still run at the end are stopped, and have to end with 0."""
    with starter(tmp_path) as start:
        yield start
