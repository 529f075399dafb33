"""The gaiod server under test: the echo handler as a worker runs it, without the process around it."""

import argparse
import time

from gaiod.handlers.echo import Echo
from gaiod_worker import make_listener, serve, tls_settings

from gaiod import Conn, CoroutineHandler, OpResult, Stream


class EchoWithDeadline(Echo):
    """The same, with a deadline on every read that moves with every message."""

    deadline_s = 0.0

    def on_open(self, conn: Conn) -> None:
        conn.read(deadline=time.monotonic() + self.deadline_s)

    def on_write(self, conn: Conn, result: OpResult) -> None:
        conn.read(deadline=time.monotonic() + self.deadline_s)


class CoroutineEcho(CoroutineHandler):
    """The same as a coroutine."""

    async def handle(self, conn: Stream) -> None:
        while data := await conn.read():
            await conn.write(data)


def main() -> None:
    """Parse the arguments and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--timers", type=int, default=0, help="timers to keep pending, an hour away")
    parser.add_argument("--read-deadline", type=float, metavar="SECONDS", help="put a deadline on every read")
    parser.add_argument("--tls", nargs=2, metavar=("CHAIN", "KEY"), help="speak TLS, with a certificate from two files")
    parser.add_argument("--coroutine", action="store_true", help="echo in a coroutine")
    arguments = parser.parse_args()
    EchoWithDeadline.deadline_s = arguments.read_deadline or 0.0
    kind = CoroutineEcho if arguments.coroutine else Echo if arguments.read_deadline is None else EchoWithDeadline
    handler = kind()
    watcher, listener = make_listener(handler, tls_settings(*arguments.tls) if arguments.tls else None)
    for index in range(arguments.timers):
        watcher.timer(time.monotonic() + 3600 + index)
    serve(watcher, listener)


if __name__ == "__main__":
    main()
