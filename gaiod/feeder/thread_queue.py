"""How messages of other threads get into the feeder's loop, and make those threads wait."""

from collections.abc import Callable

from gaiod.core.errors import WatcherClosed
from gaiod.core.results import OpResult
from gaiod.core.watcher import Watcher
from gaiod.feeder.worker_links import BEHIND_BYTES, WorkerLinks


class ThreadQueue:
    """Takes what is to be done in the loop's thread, a great many of it one after the other.

    The watcher's own `post` is bounded by number, raises when full, and wakes the loop for each.
    """

    def __init__(self, watcher: Watcher, links: WorkerLinks) -> None:
        self._watcher = watcher
        self._links = links
        self._actions: list[Callable[[], None]] = []
        self._bytes = 0

    @property
    def is_behind(self) -> bool:
        """Whether workers have not taken much, or the loop itself has not. Any thread may look."""
        return self._bytes > BEHIND_BYTES or self._links.is_behind

    def put(self, action: Callable[[], None], size: int, is_open: Callable[[], bool]) -> None:
        """Have something done in the loop's thread, once nobody is behind; called in another thread.

        Args:
            action: what is to be done.
            size: how many bytes of memory it holds.
            is_open: asked whether to wait on; nothing is done once it says no.
        """
        with self._links.changed:
            while is_open() and self.is_behind:
                self._links.changed.wait()
            if not is_open():
                return
            is_first = not self._actions
            self._actions.append(action)
            self._bytes += size
        if is_first:
            try:
                self._watcher.post(self._run)
            except WatcherClosed:
                pass  # the thread cannot know

    def wake(self) -> None:
        """Have those that wait look again."""
        with self._links.changed:
            self._links.changed.notify_all()

    def _run(self, result: OpResult) -> None:
        with self._links.changed:
            actions, self._actions, self._bytes = self._actions, [], 0
        for action in actions:
            action()
        if not self.is_behind:
            self.wake()
