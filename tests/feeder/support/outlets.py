"""An outlet in this process: what sources publish is written down, on a watcher that the test steps."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from core.support.waiting import LIMIT_S
from worker.support.stepping import Stepped

from gaiod import Handler, Source, Watcher, WatcherClosed
from gaiod.feeder.journal import check_position
from gaiod.process.dispatch import dispatch
from gaiod.settings import ListenerSettings
from gaiod.stats.cells import Layout
from gaiod.worker.listener import Listener

Message = tuple[str, bytes]


class FakeOutlet(Stepped):
    """Stands for the feeder.

    Attributes:
        positions: those that were kept, by their origins.
        messages: what was published, with the topic in front.
        encode: what refuses messages, as `Handler.encode_message` does: `(topic, data)`.
        gaps, refused, reconnects: what was counted.
        gap_reasons: what was said of each gap.
        resets: the kind of each reset.
    """

    def __init__(self, encode: Callable[[str, bytes], object] = lambda topic, data: data) -> None:
        self._layout = Layout((0,))
        self._cells = memoryview(bytearray(8 * self._layout.size)).cast("q")
        super().__init__(Watcher(counters=self._cells, report_closes=True))
        self.messages: list[Message] = []
        self.positions: dict[str, str] = {}
        self.encode = encode
        self.gaps = self.refused = self.reconnects = 0
        self.gap_reasons: list[str] = []
        self.resets: list[str] = []
        self.up = True
        self.is_behind = False
        self.threads: set[str] = set()
        self._others = set(threading.enumerate())
        self._waits = threading.Condition()
        self._is_stopped = False
        self._sources: list[Source] = []
        self._ends = ExitStack()
        self.addresses: list[Any] = []

    # -- what a source asks for --------------------------------------------------------------------------

    def publish(self, data: bytes, topic: str, position: tuple[str, str] | None = None) -> None:
        """As `Outlet.publish`."""
        self.threads.add(threading.current_thread().name)
        try:
            self.encode(topic, data)
        except ValueError:
            self.refused += 1
            if position is not None:
                self.keep(*position)
            raise
        if threading.current_thread() is not threading.main_thread():
            with self._waits:
                self._waits.wait_for(lambda: not self.is_behind or self._is_stopped)
        if not self._is_stopped:
            self.messages.append((topic, data))
            if position is not None:
                self.keep(*position)

    def position(self, origin: str) -> str | None:
        """As `Outlet.position`."""
        return self.positions.get(origin)

    def keep(self, origin: str, text: str) -> None:
        """As `Outlet.keep`."""
        check_position((origin, text))
        if not self._is_stopped:
            self.positions[origin] = text

    def reconnected(self) -> None:
        """As `Outlet.reconnected`."""
        self.reconnects += 1

    def gap(self, reason: str) -> None:
        """As `Outlet.gap`."""
        self.gaps += 1
        self.gap_reasons.append(reason)

    def reset(self, kind: str, reason: str) -> None:
        """As `Outlet.reset`."""
        self.resets.append(kind)
        self.gap(reason)

    def timer(self, delay_s: float, action: Callable[[], None]) -> None:
        """As `Outlet.timer`."""
        self.watcher.timer(time.monotonic() + delay_s, context=lambda result: action())

    def post(self, action: Callable[[], None]) -> None:
        """As `Outlet.post`."""
        self.watcher.post(lambda result: action())

    def serve(self, bind: str, handler: Handler, *, idle_timeout_s: float = 60.0) -> None:
        """As `Outlet.serve`."""
        path = bind.removeprefix("unix:")
        if path == bind:
            host, _, port = bind.rpartition(":")
            sock = socket.create_server((host.strip("[]"), int(port)))
        else:
            sock = socket.create_server(path, family=socket.AF_UNIX)
            self._ends.callback(Path(path).unlink)
        self.addresses.append(sock.getsockname())
        settings = ListenerSettings(name="source", bind=bind, handler="test", idle_timeout_s=idle_timeout_s)
        listener = Listener(settings, handler, self.watcher, self._cells, self._layout, number=0)
        listener.start()
        listener.open([sock])

    # -- what a test asks for ----------------------------------------------------------------------------

    def start(self, source: Source) -> None:
        """Start a source; it is stopped at the end."""
        self._sources.append(source)
        source.start(self)

    def stop(self) -> None:
        """Stop what was started."""
        with self._waits:
            self._is_stopped = True
            self._waits.notify_all()
        while self._sources:
            self._sources.pop().stop()

    def restart(self) -> None:
        """Stop what was started, and let others be started that know the positions.

        The threads have ended by then: what they say last, they say of their own source. (The feeder's sources have an
        outlet each.)
        """
        self._stop_threads()
        with self._waits:
            self._is_stopped = False

    def be_behind(self, is_behind: bool) -> None:
        """Have the workers be behind, or not any more."""
        with self._waits:
            self.is_behind = is_behind
            self._waits.notify_all()

    @contextmanager
    def held_up(self, owner: Any, name: str) -> Iterator[None]:
        """Have a source's thread wait before it calls a method, for as long as this is entered."""
        go_on = threading.Event()
        method = getattr(owner, name)

        def held(*arguments: Any) -> Any:
            go_on.wait(LIMIT_S)
            return method(*arguments)

        with patch.object(owner, name, held):
            yield
        go_on.set()

    def expect(self, *messages: Message) -> None:
        """Wait until exactly these have been published, and take them."""
        self.step_until(lambda: len(self.messages) >= len(messages), f"{len(messages)} messages")
        taken, self.messages = self.messages, []
        assert taken == list(messages)

    def expect_lines(self, topic: str, *lines: bytes) -> None:
        """As `expect`, of one topic."""
        self.expect(*((topic, line) for line in lines))

    def close(self) -> None:
        """Stop the sources, wait for their threads, and end."""
        self._stop_threads()
        self.watcher.close()
        try:
            while True:
                dispatch(self.watcher.wait_io())
        except WatcherClosed:
            pass
        self._ends.close()

    def _stop_threads(self) -> None:
        mine = [each for each in threading.enumerate() if each.name.startswith("gaiod-") and each not in self._others]
        self.stop()
        for thread in mine:
            thread.join(2 * LIMIT_S)
            assert not thread.is_alive(), f"{thread.name} goes on"
