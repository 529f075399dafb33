"""Fixtures of the supervisor's tests."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from e2e.support.starting import Start, starter

from gaiod import Watcher
from gaiod.runtime.stats import Layout
from gaiod.supervisor.slots import Slots
from supervisor.support.controls import ControlUnderTest

NewSlots = Callable[[int, Layout], Slots]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Start]:
    """A starter of daemons, as in e2e."""
    with starter(tmp_path) as start:
        yield start


@pytest.fixture
def new_slots() -> Iterator[NewSlots]:
    """A maker of slots. In a supervisor they last as long as the process; here they go with the test."""
    made: list[Slots] = []

    def new(workers: int, layout: Layout) -> Slots:
        made.append(Slots(workers, layout))
        return made[-1]

    yield new
    for slots in made:
        os.close(slots.fd)
        vars(slots).clear()


@pytest.fixture
def control() -> Iterator[ControlUnderTest]:
    """A control socket in this process, in a folder that everybody may look into."""
    with tempfile.TemporaryDirectory() as folder, Watcher() as watcher, ExitStack() as clients:
        os.chmod(folder, 0o755)
        yield ControlUnderTest(watcher, clients, Path(folder) / "control.sock")
