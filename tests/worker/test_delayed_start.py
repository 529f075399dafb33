"""A handler whose start takes longer: nobody is accepted before it is ready, and what it raises fails the start."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from core.support.sockets import listen
from e2e.support.handlers import IMPORTS

from gaiod import Conn, Handler
from gaiod.core.watcher import Watcher
from gaiod.handler.failures import StartError
from gaiod.settings import ListenerSettings
from gaiod.stats.cells import Layout
from gaiod.testing import DelayReady, Opened, Ready, Started, assert_script
from gaiod.worker.listener import Listener
from worker.support.workers import started_worker

SLOW = (
    IMPORTS
    + """class Slow(gaiod.Handler):
    def on_start(self):
        self.delay_ready()
        self.timer(0.1, None)
    def on_timer(self, data):
        {action}
    def on_open(self, conn):
        conn.close()
"""
)


class Slow(Handler):
    """Is ready when `act` is called with that."""

    def on_start(self) -> None:
        self.delay_ready()

    def on_share(self, key: str, value: Any) -> None:
        if value == "fail":
            raise LookupError("nothing is there")
        self.ready()
        self.ready()

    def on_open(self, conn: Conn) -> None:
        self.delay_ready()


def started(watcher: Watcher, handler: Handler) -> tuple[Listener, list[StartError | None]]:
    """Start a listener; return it, and how that went on."""
    outcomes: list[StartError | None] = []
    layout = Layout((0,))
    listener = Listener(
        ListenerSettings(name="front", bind="127.0.0.1:0", handler="./slow.py"),
        handler,
        watcher,
        memoryview(bytearray(8 * layout.size)).cast("q"),
        layout,
        number=0,
        started=outcomes.append,
    )
    listener.start()
    return listener, outcomes


def test_listener_is_delayed_until_its_handler_says_that_it_is_ready(watcher: Watcher) -> None:
    listener, outcomes = started(watcher, Slow())
    assert (listener.is_delayed, outcomes) == (True, [])
    listener.take_shared("key", "go", is_own=False)
    assert (listener.is_delayed, outcomes) == (False, [None])


def test_what_a_hook_raises_meanwhile_fails_the_start(watcher: Watcher) -> None:
    listener, outcomes = started(watcher, Slow())
    listener.take_shared("key", "fail", is_own=False)
    (error,) = outcomes
    assert str(error).startswith(f"listener front, handler ./slow.py: on_share at {__file__}:")
    assert "raised LookupError: nothing is there" in str(error)
    listener.take_shared("key", None, is_own=False)
    listener.take_shared("key", "fail", is_own=False)
    assert len(outcomes) == 1, "later it is a hook like any other"


def test_ready_in_on_start_is_no_delay(watcher: Watcher) -> None:
    class Quick(Handler):
        def on_start(self) -> None:
            self.delay_ready()
            self.ready()

    listener, outcomes = started(watcher, Quick())
    assert (listener.is_delayed, outcomes) == (False, [])


def test_delaying_later_is_refused(watcher: Watcher) -> None:
    listener, _ = started(watcher, Slow())
    with pytest.raises(RuntimeError, match="delay_ready works in on_start: later, the worker is ready"):
        listener.delay_ready()


def test_script_tells_of_it() -> None:
    class Waits(Slow):
        def on_open(self, conn: Conn) -> None:
            self.ready()

    assert_script(Waits(), (Started(), [DelayReady()]), (Opened(), [Ready()]))


@pytest.mark.parametrize(
    ("action", "says"),
    [
        ("self.ready()", lambda said: said["ready"] is True),
        ("raise LookupError('no')", lambda said: "on_timer at " in said["failed"] and said["status"] == 70),
    ],
)
def test_worker_is_ready_when_its_handlers_are(tmp_path: Path, action: str, says: Callable[[Any], bool]) -> None:
    path = tmp_path / "slow.py"
    path.write_text(SLOW.format(action=action))
    with started_worker(tmp_path, sockets=[listen(), listen()]) as worker:
        worker.channel.sendall(worker.settings(f"{path}:Slow"))
        assert says(worker.receive())
