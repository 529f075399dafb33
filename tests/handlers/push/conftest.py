"""The feeder's part, in this process."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from e2e.support.redis import RedisServer
from feeder.support.outlets import FakeOutlet


@pytest.fixture
def outlet() -> Iterator[FakeOutlet]:
    """An outlet that writes down what is published, and stops its sources at the end."""
    outlet = FakeOutlet()
    yield outlet
    outlet.close()


Serve = Callable[..., RedisServer]


@pytest.fixture
def serve_redis() -> Iterator[Serve]:
    """A starter of Redis servers: further arguments of redis-server, and the password."""
    with ExitStack() as stack:

        def serve(*more: str, password: str | None = None) -> RedisServer:
            # A socket's path is short, and pytest's folders have long names.
            server = RedisServer(Path(stack.enter_context(TemporaryDirectory())), *more, password=password)
            stack.callback(server.kill)
            server.start()
            return server

        yield serve
