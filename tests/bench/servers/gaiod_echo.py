"""The gaiod server under test: an echo handler on a watcher."""

import argparse
import time

from listener import open_listener

from gaiod import Conn, OpResult, OpType, Watcher


class Echo:
    """Read, write the same bytes back, and only then read again."""

    def __init__(self, read_deadline_s: float | None) -> None:
        self._read_deadline_s = read_deadline_s

    def _read(self, conn: Conn) -> None:
        if self._read_deadline_s is None:
            conn.read()
        else:
            conn.read(deadline=time.monotonic() + self._read_deadline_s)

    def on_open(self, conn: Conn) -> None:
        self._read(conn)

    def on_read(self, conn: Conn, result: OpResult) -> None:
        conn.write(result.buffer)

    def on_write(self, conn: Conn, result: OpResult) -> None:
        self._read(conn)


def serve(watcher: Watcher, handler: Echo) -> None:
    """Hand every completion to its hook; an error or the end of the stream closes the connection."""
    on_read, on_write = handler.on_read, handler.on_write
    while True:
        for result in watcher.wait_io():
            conn, operation = result.conn, result.operation
            if operation is OpType.TIMER or conn is None:
                continue
            if result.error is not None:
                conn.close()
            elif operation is OpType.READ:
                on_read(conn, result)
            elif operation is OpType.WRITE:
                on_write(conn, result)
            else:
                handler.on_open(conn)


def main() -> None:
    """Serve until a signal ends the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--timers", type=int, default=0, help="timers to keep pending, an hour away")
    parser.add_argument("--read-deadline", type=float, metavar="SECONDS", help="put a deadline on every read")
    arguments = parser.parse_args()
    watcher = Watcher()
    for index in range(arguments.timers):
        watcher.timer(time.monotonic() + 3600 + index)
    watcher.accept(open_listener())
    serve(watcher, Echo(arguments.read_deadline))


if __name__ == "__main__":
    main()
