"""Messages: from a source, through the feeder, to the clients of every worker."""

import os
import signal
from pathlib import Path

import pytest

from e2e.support.feeding import PUSHES, Subscriber, config, feeder_of, subscribers
from e2e.support.procfs import is_alive
from e2e.support.starting import Start
from e2e.support.waiting import wait_until


@pytest.fixture(autouse=True)
def handler(tmp_path: Path) -> None:
    """The handler, beside the configuration."""
    (tmp_path / "mine.py").write_text(PUSHES)


def test_clients_of_every_worker_get_the_same_messages_in_the_same_order(daemon: Start) -> None:
    running = daemon(config("clocks: [a, b]"))
    with subscribers(running) as (one, other):
        first = one.line()
        seen = [first, *one.lines(99)]
        assert other.until(lambda line: line in seen) in seen
    for name in ("a", "b"):
        numbers = [int(line.split()[1]) for line in seen if line.startswith(name)]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert len(numbers) > 10
