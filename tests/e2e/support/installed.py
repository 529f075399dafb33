"""A daemon that is installed somewhere else than these tests: known by its log and its exit status alone."""

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from core.support.waiting import LIMIT_S

from e2e.support.daemons import LISTENER, METRICS
from e2e.support.procfs import children_of
from e2e.support.waiting import wait_until


def clean_environment(**more: str) -> dict[str, str]:
    """Return the environment without what would let another Python see this checkout."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PYTHON", "GAIOD", "RUNTIME_DIR", "XDG_"))
    }
    return {**kept, **more}


class Installed:
    """A daemon, as `installed` has started it."""

    def __init__(self, process: "subprocess.Popen[bytes]", output: Path) -> None:
        self._process = process
        self._output = output

    @property
    def pid(self) -> int:
        """The process that was started."""
        return self._process.pid

    def log(self) -> str:
        """Return everything it has said."""
        return self._output.read_text()

    def address(self, listener: str) -> str:
        """Return where a listener listens."""
        found: dict[str, str] = dict(LISTENER.findall(self.log()))
        return found[listener]

    @property
    def metrics(self) -> str:
        """The address of its metrics endpoint."""
        found: list[str] = METRICS.findall(self.log())
        return found[-1]

    def wait(self) -> int:
        """Return its exit status."""
        return self._process.wait(LIMIT_S)

    def is_ready(self) -> bool:
        """Tell whether it has said so; fail if it has ended."""
        assert self._process.poll() is None, self.log()
        return "ready:" in self.log()


@contextmanager
def installed(command: Sequence[str], folder: Path, environment: dict[str, str]) -> Iterator[Installed]:
    """Run a daemon, and begin when it serves; what is left of it at the end is killed."""
    output = folder / "daemon.log"
    with output.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
    daemon = Installed(process, output)
    try:
        wait_until(daemon.is_ready, "a daemon that serves", limit_s=3 * LIMIT_S)
        yield daemon
    finally:
        for child in children_of(process.pid):
            os.kill(child, signal.SIGKILL)  # where it is process 1 of a namespace, all in it end
        process.kill()
        process.wait(LIMIT_S)
