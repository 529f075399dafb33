"""Finalizers: the collector may run anybody's code at any allocation, and the watcher must survive it.

A finalizer that closes a connection, its own or another one, is ordinary code. Here one runs at the
first collection inside the watcher, then at the second, and so on, until there is none left to try.
"""

import gc
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from core.support.sockets import Clients, NewPair, fill, listen, reset
from core.support.waiting import contexts
from gaiod.core.connection import Conn
from gaiod.core.errors import UsageError, WatcherClosed
from gaiod.core.operations import OpType
from gaiod.core.results import OpResult
from gaiod.core.watcher import Watcher

PASSES = 4


class Scene:
    """A watcher with something of everything to do in its next pass, and what is to complete."""

    def __init__(self, tcp_pair: NewPair, unix_pair: NewPair) -> None:
        self.watcher = Watcher()
        self.expected: list[str] = []
        self.conns: list[Conn] = []
        self.done: list[OpResult] = []
        self.is_inside = False
        for number, kind in enumerate(["data", "reset", "end", "stuck", "data", "reset"]):
            near, far = unix_pair() if kind == "stuck" else tcp_pair()
            if kind == "stuck":
                fill(near, far)
            conn = self.watcher.delegate(near)
            self.conns.append(conn)
            for operation, submit in self.submits(conn).items():
                self.expected.append(f"{number} {operation}")
                submit(self.expected[-1])
            if kind == "data":
                far.sendall(b"hello")
            elif kind == "reset":
                reset(far)
            elif kind == "end":
                far.close()
        self.expected.append("timer")
        self.watcher.timer(0.0, context="timer")
        self.listener = self.watcher.accept(listen(), context="accept")
        self.expected.append("accept")
        self.clients = Clients(self.listener.local_address)
        self.clients.connect(2)

    @staticmethod
    def submits(conn: Conn) -> dict[str, Callable[[str], object]]:
        past = time.monotonic() - 1
        return {
            "read": lambda context: conn.read(context=context),
            "read into": lambda context: conn.read(bytearray(2), context=context),
            "read expired": lambda context: conn.read_full(bytearray(9), context=context, deadline=past),
            "write": lambda context: conn.write(b"a", context=context),
            "write more": lambda context: conn.write(b"b", context=context, deadline=past),
        }

    def wait(self) -> None:
        """Pass a few times."""
        for _ in range(PASSES):
            self.is_inside = True
            try:
                done = self.watcher.wait_io(0)
            except WatcherClosed:
                return
            finally:
                self.is_inside = False
            self.done += done

    def call(self) -> None:
        """Submit and ask for everything there is, the watcher's end included."""
        for number, conn in enumerate(self.conns):
            for operation, submit in self.submits(conn).items():
                self.call_one(submit, f"{number} {operation} again")
        timers = [self.call_one(self.set_timer, f"timer {number}") for number in range(2)]
        self.call_one(self.watcher.post, "post")
        self.call_one(lambda context: self.watcher.connect(self.clients.address, context=context), "connect")
        requests: list[Callable[[], object]] = [
            *(conn.cancel for conn in self.conns[:2]),
            lambda: None if timers[0] is None else self.watcher.cancel(timers[0]),
            self.conns[0].shutdown_write,
            self.conns[1].abort,
            self.conns[2].close,
            self.conns[3].close,
            self.listener.cancel,
            self.watcher.close,
        ]
        for request in requests:
            self.call_one(lambda _, request=request: request())  # type: ignore[misc]

    def call_one(self, function: Callable[[str], Any], context: str | None = None) -> Any:
        """Call something; if it is accepted, its completion is expected."""
        was_inside, self.is_inside = self.is_inside, True
        try:
            returned = function(context or "")
        except UsageError:
            return None
        finally:
            self.is_inside = was_inside
        if context is not None:
            self.expected.append(context)
        return returned

    def set_timer(self, context: str) -> OpResult:
        return self.watcher.timer(0.0, context=context)

    def finish(self) -> None:
        """Close it, and see to it that everything completed once."""
        self.watcher.close()
        self.clients.close()
        try:
            while True:
                self.done += self.watcher.wait_io(0)
        except WatcherClosed:
            pass
        accepted = Counter(contexts(result for result in self.done if result.operation is OpType.ACCEPT))
        accepted.subtract(["accept"])
        assert Counter(contexts(self.done)) - accepted == Counter(self.expected)
        assert len({id(result) for result in self.done}) == len(self.done)


@contextmanager
def at_collection(number: int, scene: Scene, act: Callable[[Scene], object]) -> Iterator[Callable[[], int]]:
    """Have every allocation collect, and `act` called by the collection of that number inside the loop."""
    seen = 0

    def notice(phase: str, info: dict[str, int]) -> None:
        nonlocal seen
        if phase == "stop" and scene.is_inside:
            seen += 1
            if seen == number:
                act(scene)

    thresholds = gc.get_threshold()
    gc.callbacks.append(notice)
    gc.set_threshold(1, 1_000_000, 1_000_000)  # only what is young: that takes no time
    try:
        yield lambda: seen
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(notice)


def sweep(make: Callable[[], Scene], run: Callable[[Scene], None], act: Callable[[Scene], None]) -> int:
    """Try `act` at every collection that `run` causes; return how many there were."""
    number = 0
    while True:
        number += 1
        scene = make()
        raised: Exception | None = None
        try:
            with at_collection(number, scene, act) as seen:
                run(scene)
        except Exception as error:
            raised = error
        scene.finish()
        assert raised is None, f"at collection {number}"
        if seen() < number:
            return number


def abort_all(scene: Scene) -> None:
    for conn in [*scene.conns, scene.listener]:
        conn.abort()


def close_all(scene: Scene) -> None:
    for conn in [*scene.conns, scene.listener]:
        conn.close()


def cancel_all(scene: Scene) -> None:
    for conn in [*scene.conns, scene.listener]:
        conn.cancel()


def submit_more(scene: Scene) -> None:
    for number, conn in enumerate(scene.conns):
        for operation, submit in scene.submits(conn).items():
            scene.call_one(submit, f"{number} {operation} from the finalizer")
    scene.call_one(scene.watcher.post, "post from the finalizer")
    scene.call_one(scene.set_timer, "timer from the finalizer")


def close_the_watcher(scene: Scene) -> None:
    scene.watcher.close()


def wait_inside(scene: Scene) -> None:
    try:
        scene.done += scene.watcher.wait_io(0)
    except UsageError:
        pass  # as it should, but for the first and the last steps of wait_io(), which are outside already


def forget_and_reuse(scene: Scene) -> None:
    """Close descriptors and take them again at once: none of what is done to the old may reach the new."""
    abort_all(scene)
    with listen() as listener:
        newcomers = Clients(listener.getsockname())
        for number, sock in enumerate(newcomers.connect(8)):
            scene.call_one(lambda context, sock=sock: scene.watcher.read(sock, context=context), f"newcomer {number}")  # type: ignore[misc]
        newcomers.close()


ACTS = [abort_all, close_all, cancel_all, submit_more, close_the_watcher, forget_and_reuse]


@pytest.mark.parametrize("act", [*ACTS, wait_inside], ids=lambda act: str(act.__name__))
def test_finalizer_may_run_at_any_allocation_of_the_loop(
    tcp_pair: NewPair, unix_pair: NewPair, act: Callable[[Scene], None]
) -> None:
    assert sweep(lambda: Scene(tcp_pair, unix_pair), Scene.wait, act) > 1, "nothing was allocated: this tested nothing"


@pytest.mark.parametrize("act", ACTS, ids=lambda act: str(act.__name__))
def test_finalizer_may_run_at_any_allocation_of_a_submission(
    tcp_pair: NewPair, unix_pair: NewPair, act: Callable[[Scene], None]
) -> None:
    assert sweep(lambda: Scene(tcp_pair, unix_pair), Scene.call, act) > 1, "nothing was allocated: this tested nothing"
