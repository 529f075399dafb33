"""Fixtures of the metrics' tests."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from gaiod import Watcher
from observe.support.endpoints import EndpointUnderTest
from observe.support.slots import FakeDaemon


@pytest.fixture
def fake() -> Iterator[FakeDaemon]:
    """A worker with one listener, all numbers."""
    daemon = FakeDaemon()
    yield daemon
    daemon.close()


@pytest.fixture
def endpoint() -> Iterator[EndpointUnderTest]:
    """An endpoint in this process."""
    with Watcher() as watcher, ExitStack() as clients:
        yield EndpointUnderTest(watcher, clients)
