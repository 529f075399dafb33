"""Fixtures for every folder of tests. Helpers that are plain functions are in `core/support`."""

import signal
import socket
from collections.abc import Iterator

import pytest
from core.support.descriptors import FOLDER, leaked_since, open_descriptors
from core.support.sockets import NewPair, has_ipv6, pairs_of
from hypothesis import HealthCheck, settings

from gaiod.core import ENGINE
from gaiod.core.watcher import Watcher

# What a shell starts in the background ignores SIGINT, and every process that a test starts inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")  # on a busy machine, an example may take a second

collect_ignore = ["core/test_simulation.py"] if ENGINE == "compiled" else []
"""What simulates the interpreted engine's system calls cannot even be imported with the other."""

LONGEST = ("test_packaging.py", "test_sanitizers.py")
"""Files that take minutes, for a compiler runs. They come first, so that nobody has to wait for them at the end."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is about the other engine, and have the longest files run first."""
    others = [item for item in items if _is_about_another_engine(item)]
    config.hook.pytest_deselected(items=others)
    items[:] = sorted(
        (item for item in items if not _is_about_another_engine(item)), key=lambda item: item.path.name not in LONGEST
    )


def _is_about_another_engine(item: pytest.Item) -> bool:
    return any(mark.args != (ENGINE,) for mark in item.iter_markers("engine"))


@pytest.fixture(autouse=True)
def no_leaked_descriptors() -> Iterator[None]:
    """Fail a test that leaves a file descriptor open."""
    if not FOLDER.exists():
        yield
        return
    before = open_descriptors()
    yield
    leaked = leaked_since(before)
    assert not leaked, f"left open: {leaked}"


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    """A watcher, closed at the end."""
    with Watcher() as watcher:
        yield watcher


@pytest.fixture
def tcp_pair() -> Iterator[NewPair]:
    """A maker of connected TCP sockets over IPv4, the second of each with a timeout."""
    with pairs_of(socket.AF_INET) as new_pair:
        yield new_pair


@pytest.fixture
def tcp6_pair() -> Iterator[NewPair]:
    """As `tcp_pair`, over IPv6."""
    if not has_ipv6():
        pytest.skip("no IPv6 on the loopback")
    with pairs_of(socket.AF_INET6) as new_pair:
        yield new_pair


@pytest.fixture
def unix_pair() -> Iterator[NewPair]:
    """A maker of connected unix stream sockets, the second of each with a timeout."""
    with pairs_of(socket.AF_UNIX) as new_pair:
        yield new_pair


@pytest.fixture(params=["tcp_pair", "tcp6_pair", "unix_pair"])
def stream_pair(request: pytest.FixtureRequest) -> NewPair:
    """A maker of connected sockets: the test runs once for TCP over IPv4, over IPv6, and for unix."""
    new_pair: NewPair = request.getfixturevalue(request.param)
    return new_pair
