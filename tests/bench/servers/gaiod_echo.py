"""The gaiod server under test: the echo handler as a worker runs it, without the process around it."""

import argparse
import gc
import time

from gaiod.handlers.echo import Echo
from listener import open_listener

from gaiod import Conn, Handler, OpResult, Watcher
from gaiod.runtime.dispatch import dispatch
from gaiod.runtime.listener import Listener
from gaiod.runtime.settings import ListenerSettings
from gaiod.runtime.stats import Layout
from gaiod.runtime.worker import GC_THRESHOLDS


class EchoWithDeadline(Echo):
    """The same, with a deadline on every read that moves with every message."""

    deadline_s = 0.0

    def on_open(self, conn: Conn) -> None:
        conn.read(deadline=time.monotonic() + self.deadline_s)

    def on_write(self, conn: Conn, result: OpResult) -> None:
        conn.read(deadline=time.monotonic() + self.deadline_s)


def serve(handler: Handler, timers: int) -> None:
    """Serve until a signal ends the process."""
    layout = Layout((0,))
    cells = memoryview(bytearray(8 * layout.size)).cast("q")
    watcher = Watcher(counters=cells, report_closes=True)
    for index in range(timers):
        watcher.timer(time.monotonic() + 3600 + index)
    settings = ListenerSettings(name="echo", bind="", handler="echo", connections_max=20_000)
    Listener(settings, handler, watcher, cells, layout, number=0).open([open_listener()])
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    while True:
        dispatch(watcher.wait_io())


def main() -> None:
    """Parse the arguments and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--timers", type=int, default=0, help="timers to keep pending, an hour away")
    parser.add_argument("--read-deadline", type=float, metavar="SECONDS", help="put a deadline on every read")
    arguments = parser.parse_args()
    EchoWithDeadline.deadline_s = arguments.read_deadline or 0.0
    serve(Echo() if arguments.read_deadline is None else EchoWithDeadline(), arguments.timers)


if __name__ == "__main__":
    main()
