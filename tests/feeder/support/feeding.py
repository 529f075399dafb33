"""A router in this process, stepped by the test, and workers that the test plays."""

import os
import socket
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from core.support.waiting import LIMIT_S
from worker.support.stepping import Stepped

from gaiod import Handler, Outlet, Source, Watcher, WatcherClosed
from gaiod.feeder.journal import Journal
from gaiod.feeder.router import Router
from gaiod.feeder.source_listener import LAYOUT
from gaiod.process.dispatch import dispatch
from gaiod.process.feed_records import Reader, hello
from gaiod.stats.feeder_cells import SIZE, SOURCE_CELL, row
from gaiod.supervisor.processes.slots import anonymous_file

TAKES = f"{__name__}:Takes"
INSTANCE = 3


class Played(Source):
    """A source that does what the test says, and remembers what it was told.

    Attributes:
        made: all of them, by name; the last one of each.
        failures: how often starts of that name are to fail.
    """

    made: ClassVar[dict[str, "Played"]] = {}
    failures: ClassVar[dict[str, int]] = {}

    def __init__(self, name: str) -> None:
        self.name = name
        self.outlet: Outlet | None = None
        self.starts = self.stops = 0
        Played.made[name] = self

    def start(self, outlet: Outlet) -> None:
        self.starts += 1
        if Played.failures.get(self.name, 0):
            Played.failures[self.name] -= 1
            outlet.publish(b"too early", "t")
            raise SystemExit("told to")  # no Exception: it must not end the feeder either
        self.outlet = outlet

    def stop(self) -> None:
        self.stops += 1

    @property
    def is_running(self) -> bool:
        """Whether it was started and not stopped."""
        return self.outlet is not None and not self.stops

    def publish(self, data: bytes, topic: str = "t", position: tuple[str, str] | None = None) -> None:
        """Publish in this thread, which is the loop's."""
        assert self.outlet is not None
        self.outlet.publish(data, topic, position)


class PlayedAlike(Played):
    """One that equals others of its name."""

    def __eq__(self, other: object) -> bool:
        if self.name == "same, it raises":
            raise SystemExit("it has no equal")
        return isinstance(other, Played) and self.name == other.name

    __hash__ = None  # type: ignore[assignment]


@dataclass
class TakesOptions:
    """Names of sources; those whose names begin with `same` are alike."""

    sources: list[str]
    prefix: str = ""
    last: bool = False
    refused: str = "refuse"


class Takes(Handler):
    """Takes messages, a prefix before each."""

    Options = TakesOptions

    @classmethod
    def sources_of(cls, options: TakesOptions) -> list[Source]:
        return [PlayedAlike(name) if name.startswith("same") else Played(name) for name in options.sources]

    @classmethod
    def encode_message(cls, options: TakesOptions, topic: str, data: bytes) -> bytes:
        if data == options.refused.encode():
            raise ValueError("it is refused; publish another")
        if data == b"exit":
            raise SystemExit("no reason")
        return options.prefix.encode() + data

    @classmethod
    def wants_last(cls, options: TakesOptions) -> bool:
        return options.last

    def on_message(self, topic: str, data: bytes) -> None:
        """Take one."""


class PlayedWorker:
    """A worker's end of a link, played by the test."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.reader = Reader()
        self.numbers: dict[str, int] = {}

    def say(self, sequence: int | None = None, options: dict[str, Any] | None = None, **keys: str) -> None:
        """Say hello: the key of the feed of each listener, its options, and up to where everything has come."""
        options = {"sources": ["one"], **(options or {})}
        wanted = {"sequence": sequence, "handler": TAKES, "options": options}
        self.sock.sendall(hello({name: {"key": key, **wanted} for name, key in keys.items()}))

    def look(self) -> bytes:
        """Return what has arrived; what a closed link says is nothing."""
        self.sock.setblocking(False)
        try:
            return self.sock.recv(1 << 20)
        except BlockingIOError:
            return b""
        finally:
            self.sock.settimeout(LIMIT_S)

    @property
    def is_closed(self) -> bool:
        """Whether the feeder has ended the link, nothing being left to read."""
        self.sock.setblocking(False)
        try:
            return self.sock.recv(1) == b""
        except BlockingIOError:
            return False
        except ConnectionError:
            return True
        finally:
            self.sock.settimeout(LIMIT_S)


class Feeding(Stepped):
    """A router, on a watcher that the test steps."""

    def __init__(self, sequences: dict[str, int] | None = None, journal: int | None = None) -> None:
        """Make it; `journal` is the descriptor of what another one has left behind, taken over."""
        self.inlet_cells = memoryview(bytearray(8 * LAYOUT.size)).cast("q")
        super().__init__(Watcher(counters=self.inlet_cells, report_closes=True))
        self.cells = memoryview(bytearray(8 * SIZE)).cast("q")
        self._is_closed = False
        self._stack = ExitStack()
        self.journal_fd = anonymous_file("journal") if journal is None else journal
        self.journal = Journal(self.journal_fd)
        assert self.journal.lock()
        for name, sequence in (sequences or {}).items():
            self.journal.add(name, sequence, "t", b"before", None)
        self.feeds = Router(self.watcher, self.journal, self.cells, self.inlet_cells, INSTANCE)
        self._rows: dict[tuple[str, str], int] = {}
        listener = self._stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind("")
        listener.listen()
        self.address = listener.getsockname()
        self.feeds.links.open(listener)

    def wanted(self, name: str, *sources: str, key: str = "key", **options: Any) -> dict[str, Any]:
        """Return what says that the sources of a listener are to run."""
        rows = {source: self.number(name, source) for source in ("publish", *sources)}
        return {
            "name": name,
            "key": key,
            "handler": TAKES,
            "options": {"sources": list(sources), **options},
            "rows": rows,
        }

    def number(self, listener: str, source: str) -> int:
        """Return the number of a row."""
        return self._rows.setdefault((listener, source), len(self._rows))

    def count(self, listener: str, source: str, cell: str) -> int:
        """Return a cell of a source."""
        return self.cells[row(self.number(listener, source)) + SOURCE_CELL[cell]]

    def listening(self, path: Path) -> str:
        """Have a socket for sources that listens at a path; return its address."""
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(path))
        sock.listen()
        address = f"unix:{path}"
        self.feeds.take_inlets({**{key: [] for key in self.feeds._context.inlets}, address: [sock]})
        return address

    def worker(self, sequence: int | None = None, options: dict[str, Any] | None = None, **keys: str) -> PlayedWorker:
        """Return a worker that has connected, and was answered if it has said hello."""
        worker = PlayedWorker(self._stack.enter_context(socket.socket(socket.AF_UNIX)))
        worker.sock.settimeout(LIMIT_S)
        worker.sock.connect(self.address)
        if keys:
            worker.say(sequence, options, **keys)
            worker.numbers = {name: each["number"] for name, each in self.answer(worker)[0].items()}
        return worker

    def answer(self, worker: PlayedWorker) -> tuple[dict[str, dict[str, Any]], int]:
        """Return what a worker is answered."""
        answers: list[tuple[dict[str, dict[str, Any]], int]] = []

        def look() -> bool:
            worker.reader.add(worker.look())
            answer = worker.reader.take_hello()
            if answer is not None:
                answers.append(answer)
            return bool(answers)

        self.step_until(look, "an answer to hello")
        return answers[0]

    def messages(self, worker: PlayedWorker, count: int) -> list[tuple[int, bytes]]:
        """Return the sequences and the data of the next messages that a worker gets."""
        found: list[tuple[int, bytes]] = []

        def look() -> bool:
            worker.reader.add(worker.look())
            found.extend((sequence, data) for _, sequence, _, data in worker.reader.take_records() if data)
            return len(found) >= count

        self.step_until(look, f"{count} messages")
        return found

    def records(self, worker: PlayedWorker) -> list[tuple[int, bytes]]:
        """Return the sequences and the data of all records up to the one that ends what was missing."""
        found: list[tuple[int, bytes]] = []

        def look() -> bool:
            worker.reader.add(worker.look())
            found.extend((sequence, data) for _, sequence, _, data in worker.reader.take_records())
            return bool(found) and found[-1][1] == b""

        self.step_until(look, "the end of what was missing")
        return found

    def run_in_thread(self, action: Callable[[], None]) -> "Thread":
        """Do something in another thread."""
        return Thread(self, action)

    def close(self) -> None:
        """End it, taking every completion; twice: nothing happens."""
        if self._is_closed:
            return
        self._is_closed = True
        self.feeds.stop(lambda: None)
        self._stack.close()
        self.watcher.close()
        try:
            while True:
                dispatch(self.watcher.wait_io())
        except WatcherClosed:
            pass
        self.feeds.take_inlets({})
        self.journal.close()

    def successor(self) -> "Feeding":
        """End it as if it had been killed, and return another that has its journal."""
        fd = os.dup(self.journal_fd)
        self.close()
        return Feeding(journal=fd)


class Thread:
    """Something that runs in another thread while the test steps."""

    def __init__(self, feeding: Feeding, action: Callable[[], None]) -> None:
        self._feeding = feeding
        self.error: BaseException | None = None

        def run() -> None:
            try:
                action()
            except BaseException as error:
                self.error = error

        self._thread = threading.Thread(target=run)
        self._thread.start()

    @property
    def is_done(self) -> bool:
        """Whether it has come to its end."""
        return not self._thread.is_alive()

    def join(self) -> None:
        """Step until it is done."""
        self._feeding.step_until(lambda: self.is_done, "the thread's end")
        self._thread.join()
