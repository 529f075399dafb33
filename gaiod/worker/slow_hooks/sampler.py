"""The sampler: a thread of a worker that sees its loop being blocked by a hook, and where."""

import logging
import os
import signal
import sys
import time
import traceback
from threading import Event, Thread, get_ident
from types import FrameType

from gaiod.core.operations import OpType
from gaiod.core.results import OpResult
from gaiod.worker.listener import Listener
from gaiod.worker.slow_hooks.report import SlowHooks

log = logging.getLogger("gaiod.worker")

GRAIN_NS = 10_000_000
"""The stopwatch may be a tick of the kernel behind: what is told of must be counted as well."""

FRAMES_MAX = 30
"""Of a stack, the innermost: a recursion must not fill the log."""

OURS = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))


class Sampler:
    """Looks after the loop of the thread that makes it, from `start` until `stop`.

    It sleeps while the loop waits for the kernel: the next pass wakes it, and it looks again when a hook that began
    then would be too slow. So an idle worker's wakes twice for each pass, and a busy one's twice per limit at most.
    """

    def __init__(self, slow: SlowHooks) -> None:
        self._slow = slow
        self._watch = slow.watch
        self._loop = get_ident()
        self._event = Event()
        self._is_over = False
        self._watch.wake = self._event.set
        self._thread = Thread(target=self._run, name="sampler", daemon=True)

    def start(self) -> None:
        """Look from now on, if any hook can be too slow."""
        if self._watch.limit_ns:
            try:
                self._thread.start()
            except RuntimeError as error:  # the limit on processes, which counts threads
                log.warning("slow hooks are logged without their stacks: %s; see the limit on processes", error)

    def stop(self) -> None:
        """Look no more."""
        if self._thread.is_alive():
            self._is_over = True
            self._event.set()
            self._thread.join()

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are for the loop's thread
        while not self._is_over:
            wait_s = self._look()
            if wait_s is None:
                self._event.wait()
                self._event.clear()
                wait_s = self._watch.limit_ns / 1e9  # not now: of a busy loop it would wait for every pass
            if not self._is_over:
                self._event.wait(wait_s)
                self._event.clear()

    def _look(self) -> float | None:
        """Tell of a hook that is too slow; return when to look again, None: when a pass begins."""
        watch = self._watch
        watch.is_watched = False  # first, then look: a pass that begins later calls `wake`
        if watch.results is None:
            return None
        watch.is_watched = True
        since_ns = watch.since_ns
        left_ns = watch.limit_ns + GRAIN_NS - (time.monotonic_ns() - since_ns)
        if left_ns > 0:
            return left_ns / 1e9
        self._tell(since_ns)
        return watch.limit_ns / 1e9

    def _tell(self, since_ns: int) -> None:
        """Log what is being called, if it is a hook. Frames are let go first: they keep locals alive."""
        frame = sys._current_frames().get(self._loop)
        called = None if frame is None else self._called()
        stack = None if called is None else _summary(frame)
        del frame
        if called is not None and stack is not None and self._watch.since_ns == since_ns:
            self._slow.goes_on(
                since_ns, *called, stack="Stack (most recent call last):\n" + "".join(stack.format())[:-1]
            )

    def _called(self) -> tuple[str, str, str] | None:
        """Return of the hook that is being called what `Listener.describe` does."""
        listener, hook, conn = self._watch.target, self._watch.hook, self._watch.conn
        if listener is not None and hook is not None:
            described: tuple[str, str, str] = listener.describe(hook, conn)
            return described
        results, index = self._watch.results, self._watch.index
        result: OpResult | None = None if results is None or index >= len(results) else results[index]
        if result is None or result.error is not None or result.operation not in (OpType.READ, OpType.WRITE):
            return None
        if not isinstance(result.conn.context, Listener):
            return None
        return result.conn.context.describe(f"on_{result.operation.name.lower()}", result.conn)


def _summary(frame: FrameType | None) -> traceback.StackSummary:
    """Return where a hook is: its own frames, without the daemon's that lead to it."""
    frames = list(traceback.walk_stack(frame))[::-1]
    first = 0
    while first < len(frames) - 1 and frames[first][0].f_code.co_filename.startswith((OURS, "<frozen")):
        first += 1
    return traceback.StackSummary.extract(iter(frames[first:][-FRAMES_MAX:]), lookup_lines=False)
