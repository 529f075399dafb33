"""Finalizers: the collector may run anybody's code at any allocation of the loop, which must survive it.

A finalizer that closes a connection, its own or another one, is ordinary code. Here one runs at the
first collection of a pass, then at the second, and so on, until there is none left to try.
"""

import gc
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from core.support.sockets import Clients, NewPair, fill, listen, reset
from core.support.waiting import contexts
from gaiod.core.connection import Conn
from gaiod.core.errors import UsageError, WatcherClosed
from gaiod.core.operations import OpResult, OpType
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

    def run(self) -> None:
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


def sweep(make: Callable[[], Scene], act: Callable[[Scene], object]) -> int:
    """Try `act` at every collection; return how many there were."""
    number = 0
    while True:
        number += 1
        scene = make()
        raised: Exception | None = None
        try:
            with at_collection(number, scene, act) as seen:
                scene.run()
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
    for conn in scene.conns:
        for operation, submit in scene.submits(conn).items():
            scene.expected.append(f"{operation} at last")
            submit(scene.expected[-1])
    scene.expected += ["post at last", "timer at last"]
    scene.watcher.post("post at last")
    scene.watcher.timer(0.0, context="timer at last")


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
        newcomers.connect(8)
        for number, sock in enumerate(newcomers.sockets):
            scene.expected.append(f"newcomer {number}")
            scene.conns.append(scene.watcher.delegate(sock).read(context=scene.expected[-1]))


@pytest.mark.parametrize(
    "act",
    [abort_all, close_all, cancel_all, submit_more, close_the_watcher, wait_inside, forget_and_reuse],
    ids=lambda act: str(act.__name__),
)
def test_finalizer_may_run_at_any_allocation_of_the_loop(
    tcp_pair: NewPair, unix_pair: NewPair, act: Callable[[Scene], object]
) -> None:
    assert sweep(lambda: Scene(tcp_pair, unix_pair), act) > 1, "the loop allocated nothing: this tested nothing"
