"""A worker: one process, one watcher, one thread, and the listeners its supervisor hands it.

    python -m gaiod.runtime.worker FD

FD is its end of the channel (`channel.py`): the settings come in over it, readiness goes out. A
worker whose channel ends has lost its supervisor, and stops. It imports as little as it can, because
every worker pays for it: no click, no pydantic, no YAML, no prometheus_client.
"""

import gc
import json
import logging
import mmap
import os
import signal
import socket
import sys
import time
from typing import Any

from gaiod.core.errors import WatcherClosed
from gaiod.core.watcher import Watcher
from gaiod.runtime.channel import Channel
from gaiod.runtime.dispatch import dispatch
from gaiod.runtime.gcstats import GcStats
from gaiod.runtime.listener import Listener
from gaiod.runtime.plugins import HandlerLoadError, build_options, load_handler
from gaiod.runtime.settings import ListenerSettings
from gaiod.runtime.signals import Signals
from gaiod.runtime.stats import Layout

log = logging.getLogger("gaiod.worker")

STOP_TIMEOUT_S = 5.0
"""How long connections may take to send what was written to them when the daemon stops."""

EXIT_OS, EXIT_CONFIG = 71, 78

GC_THRESHOLDS = (10_000, 20, 50)
"""Young collections visit only what was made since: with 512 completions a pass, the default 700 would
collect in every pass. Full ones visit every connection (2 ms for 10,000), so they must be rare."""


class Worker:
    """Serves until told to stop."""

    def __init__(self, channel_fd: int) -> None:
        self._first = socket.socket(fileno=channel_fd)
        self._listeners: list[Listener] = []
        self._stopping_until_s: float | None = None
        self._exit_status = 0

    def run(self) -> int:
        """Receive the settings, serve, and return the process's exit status."""
        message, rest = _receive_settings(self._first)
        stats = mmap.mmap(message["stats"], 0)
        os.close(message["stats"])
        layout = Layout(len(message["listeners"]))
        cells = memoryview(stats).cast("q")[message["slot"] : message["slot"] + layout.size]
        self._watcher = Watcher(counters=cells, report_closes=True)
        self._channel = Channel(self._watcher.delegate(self._first), self._take_message, rest)
        signals = Signals(self._watcher, [signal.SIGTERM], self._take_signal)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C goes to the whole group: the supervisor decides
        try:
            self._open_listeners(message, cells, layout)
        except HandlerLoadError as error:
            self._channel.send({"failed": str(error)})
            self._exit_status = EXIT_CONFIG
            self._stop()
        else:
            self._watcher.post(lambda result: self._channel.send({"ready": True}))
            GcStats(cells, layout).start()
        gc.collect()
        gc.freeze()  # what exists now lives as long as the process: never visit it again
        gc.set_threshold(*GC_THRESHOLDS)
        self._channel.take_received()
        self._loop()
        signals.close()
        return self._exit_status

    def _open_listeners(self, message: dict[str, Any], cells: Any, layout: Layout) -> None:
        for number, (plain, fd) in enumerate(zip(message["listeners"], message["fds"], strict=True)):
            settings = ListenerSettings(**plain)
            kind = load_handler(settings.handler)
            try:
                handler = kind(build_options(kind, dict(settings.options)))
            except Exception as error:
                raise HandlerLoadError(f"listener {settings.name}: making its handler failed: {error!r}") from error
            listener = Listener(settings, handler, self._watcher, cells, layout.row(number))
            listener.open(socket.socket(fileno=fd))
            self._listeners.append(listener)

    def _loop(self) -> None:
        wait_io = self._watcher.wait_io
        while self._stopping_until_s is None:
            dispatch(wait_io())
        while self._is_busy() and time.monotonic() < self._stopping_until_s:
            dispatch(wait_io(self._stopping_until_s - time.monotonic()))
        for listener in self._listeners:
            listener.abort()
        self._watcher.close()
        try:
            while True:
                dispatch(wait_io())
        except WatcherClosed:
            pass  # every completion was taken

    def _is_busy(self) -> bool:
        return self._channel.is_sending or any(listener.active for listener in self._listeners)

    def _take_message(self, message: dict[str, Any] | None) -> None:
        if message is None:
            log.warning("the supervisor is gone; stopping")
            self._stop()
            self._stopping_until_s = time.monotonic()  # another may want to bind: do not wait for anybody
        elif "stop" in message:
            self._stop()

    def _take_signal(self, number: signal.Signals) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._stopping_until_s is None:
            self._stopping_until_s = time.monotonic() + STOP_TIMEOUT_S
            for listener in self._listeners:
                listener.stop()


def _receive_settings(channel: socket.socket) -> tuple[dict[str, Any], bytes]:
    """Receive the first message, before there is a watcher to do it; and what came behind it."""
    data = bytearray()
    while b"\n" not in data:
        part = channel.recv(65536)
        if not part:
            raise SystemExit(EXIT_OS)  # the supervisor went before it said anything
        data += part
    line, _, rest = bytes(data).partition(b"\n")
    message: dict[str, Any] = json.loads(line)
    return message, rest


def main() -> None:
    """Run as a process of its own."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    sys.exit(Worker(int(sys.argv[1])).run())


if __name__ == "__main__":
    main()
