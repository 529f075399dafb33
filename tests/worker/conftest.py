"""Fixtures of the runtime's tests."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gaiod import Handler
from worker.support.serving import Serving

Serve = Callable[..., Serving]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """A maker of listeners: `serve(handler, idle_timeout_s=1.0)`; they end with the test."""
    made: list[Serving] = []

    def serve(handler: Handler, **settings: Any) -> Serving:
        made.append(Serving(handler, **settings))
        return made[-1]

    yield serve
    for serving in made:
        serving.close()
