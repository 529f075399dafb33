"""Fixtures of the supervisor's tests."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from core.support.logs import log_as_before
from e2e.support.starting import Start, starter

from gaiod import Watcher
from supervisor.support.controls import ControlUnderTest
from supervisor.support.fleets import FleetUnderTest


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """What a test makes of the log of this process ends with the test."""
    with log_as_before():
        yield


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Start]:
    """A starter of daemons, as in e2e."""
    with starter(tmp_path) as start:
        yield start


@pytest.fixture
def control() -> Iterator[ControlUnderTest]:
    """A control socket in this process, in a folder that everybody may look into."""
    with tempfile.TemporaryDirectory() as folder, Watcher() as watcher, ExitStack() as clients:
        os.chmod(folder, 0o755)
        yield ControlUnderTest(watcher, clients, Path(folder) / "control.sock")


@pytest.fixture
def fleet(watcher: Watcher) -> Iterator[FleetUnderTest]:
    """A fleet that has no workers yet; it ends with the test."""
    fleet = FleetUnderTest(watcher)
    yield fleet
    fleet.close()
