"""Another thread, in lockstep with the first: it runs only while that one waits for it, and stops after so many lines.

What two threads do is so a matter of the steps alone, and the same every time. Every line of the watcher's files is a
place where the other may stop, or where the first is interrupted.
"""

import sys
import threading
from collections.abc import Callable
from math import inf
from pathlib import Path
from types import FrameType
from typing import Any

from core.simulation.kernel import MAIN, Kernel
from core.simulation.setting import Fault
from gaiod.core import watcher

FOLDER = str(Path(watcher.__file__).parent)
OTHER = 2
ALONE = frozenset({"__init__", "_new_operation", "check_deadline", "check_socket", "now", "resolve_numeric"})
"""Functions of many lines that share nothing with another thread: no place worth stopping at."""

SPIN_MAX = 200
"""Turns in a row that a thread may wait for the other one in vain."""


class Abandoned(BaseException):
    """Ends what the other thread does, in a run that is over."""


def lines_in_core(take: Callable[[], None]) -> Callable[..., Any]:
    """Return what `sys.settrace` takes to have `take` called at each line of the watcher's files."""

    def on_line(frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            take()
        return on_line

    def on_call(frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        return on_line if code.co_filename.startswith(FOLDER) and code.co_name not in ALONE else None

    return on_call


class Worker:
    """The thread itself; there is one for all runs."""

    def __init__(self) -> None:
        self.go, self.back = threading.Lock(), threading.Lock()
        self.go.acquire()
        self.back.acquire()
        self.task: Callable[[], None] = lambda: None
        self.trace = lines_in_core(self.on_line)
        self.lines_left = self.calls_left = inf
        self.is_busy = False
        self.is_abandoned = False
        self.failure: BaseException | None = None
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            self.go.acquire()
            sys.settrace(self.trace)
            try:
                self.task()
            except BaseException as failure:
                self.failure = failure
            sys.settrace(None)
            self.task = lambda: None
            self.is_busy = False
            self.back.release()

    def on_line(self) -> None:
        self.lines_left -= 1
        if (self.lines_left <= 0 or self.calls_left <= 0) and not self.is_abandoned:
            self.pause()

    def pause(self) -> None:
        """Let the first thread go on, until it lets this one."""
        if self.is_abandoned:
            raise Abandoned
        self.back.release()
        self.go.acquire()


_workers: list[Worker] = []


class Other:
    """What the first thread knows of the other, in one run."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.turns_in_vain = 0
        if not _workers:
            _workers.append(Worker())
        self.worker = _workers[0]
        self.worker.is_abandoned = False
        self.worker.failure = None

    @property
    def is_busy(self) -> bool:
        return self.worker.is_busy

    def start(self, task: Callable[[], None], lines: float) -> None:
        """Have it do something, for so many lines; if it can come to the end of what it does."""
        self.finish()
        if self.is_busy:
            return
        self.worker.task = task
        self.worker.is_busy = True
        self.resume(lines)

    def resume(self, lines: float = inf) -> None:
        """Let it go on for so many lines; or, negative, to the line after so many calls of the kernel."""
        worker = self.worker
        if not worker.is_busy:
            return
        if self.kernel.thread != MAIN:
            raise Fault("the other thread waits for itself")
        trace = sys.gettrace()
        worker.lines_left, worker.calls_left = (lines, inf) if lines > 0 else (inf, -lines)
        self.kernel.thread = OTHER
        worker.go.release()
        worker.back.acquire()
        self.kernel.thread = MAIN
        sys.settrace(trace)
        failure, worker.failure = worker.failure, None
        if failure is not None:
            raise failure

    def finish(self) -> None:
        """Let it come to its end, or to where it waits for this one."""
        self.resume()
        if self.is_busy and not self.kernel.model.watcher.gate.depth:
            self.resume()

    def abandon(self) -> None:
        """End it, whatever it does: the run is over."""
        self.worker.is_abandoned = True
        while self.is_busy:
            try:
                self.resume()
            except BaseException:
                pass

    def yield_to(self) -> None:
        """Wait for the other thread, whichever this is."""
        self.count_turn()
        if self.kernel.thread == OTHER:
            self.worker.pause()
        elif self.is_busy:
            self.resume(5)
        else:
            raise Fault("a thread waits for another, and there is none")

    def count_turn(self) -> None:
        self.turns_in_vain += 1
        if self.turns_in_vain > SPIN_MAX:
            raise Fault("two threads wait for each other")


class Gate:
    """A lock, also one that its holder may take again."""

    def __init__(self, other: Other) -> None:
        self.other = other
        self.holder = 0
        self.depth = 0

    def __enter__(self) -> None:
        me = self.other.kernel.thread
        while self.depth and self.holder != me:
            self.other.yield_to()
        self.other.turns_in_vain = 0
        self.holder = me
        self.depth += 1

    def __exit__(self, *_: object) -> None:
        self.depth -= 1
