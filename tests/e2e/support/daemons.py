"""A daemon as a user starts it: `python -m gaiod serve --config FILE`."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from core.support.waiting import LIMIT_S

from e2e.support.clients import Samples, scrape
from e2e.support.procfs import children_of, session_of
from e2e.support.waiting import wait_until
from gaiod.control.client import ask

ECHO = """\
metrics: {listen: "127.0.0.1:0"}
listeners:
  echo: {bind: "127.0.0.1:0", handler: echo}
"""

SERVE = ("-m", "gaiod", "serve", "--allow-root")
METRICS = re.compile(r"metrics on (\S+)$", re.MULTILINE)
LISTENER = re.compile(r"listener (\S+): \S+ on (\S+)$", re.MULTILINE)


class Daemon:
    """A daemon in a session of its own, its output in a file.

    Attributes:
        pid: the supervisor's process.
        folder: its working directory, where its control socket is too.
        ended: its exit status was taken: it need not be stopped.
    """

    def __init__(
        self, folder: Path, arguments: Sequence[str], environment: Mapping[str, str], pass_fds: Sequence[int] = ()
    ) -> None:
        self.folder = folder
        self._log = folder / "daemon.log"
        self.ended = False
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=folder,
                env={**os.environ, "RUNTIME_DIRECTORY": str(folder), **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=pass_fds,
            )
        self.pid = self._process.pid

    # -- what it says --------------------------------------------------------------------------------

    def log(self) -> str:
        """Return everything it has said."""
        return self._log.read_text()

    def wait_for(self, text: str) -> None:
        """Wait until it says this, or fail with what it says instead."""

        def look() -> bool:
            gone = self._process.poll() is not None
            found = text in self.log()
            self.ended = gone
            assert found or not gone, f"it ended with {self._process.returncode}, not saying {text!r}:\n{self.log()}"
            return found

        try:
            wait_until(look, f"{text!r} in the log")
        except AssertionError as failure:
            raise AssertionError(f"{failure}\n{self.log()}") from None

    def wait_until_ready(self) -> None:
        """Wait until it says that it serves."""
        self.wait_for("ready:")

    @property
    def metrics(self) -> str:
        """The address of its metrics endpoint."""
        found: list[str] = METRICS.findall(self.log())
        assert found, self.log()
        return found[-1]

    def address(self, listener: str = "echo") -> str:
        """Return where a listener listens."""
        found: dict[str, str] = dict(LISTENER.findall(self.log()))
        return found[listener]

    def scrape(self) -> Samples:
        """Return what its metrics say now."""
        return scrape(self.metrics)

    # -- what it is asked --------------------------------------------------------------------------------

    @property
    def control(self) -> str:
        """The path of its control socket."""
        return str(self.folder / "control.sock")

    def ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """Return the result of a request over the control socket."""
        return ask(self.control, verb, **arguments)

    def gaiod(self, *command: str, limit_s: float = LIMIT_S) -> subprocess.CompletedProcess[str]:
        """Run one of the commands that speak to it, and fail if that takes longer."""
        return subprocess.run(
            [sys.executable, "-m", "gaiod", *command],
            cwd=self.folder,
            env={**os.environ, "GAIOD_CONTROL": self.control},
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )

    # -- its processes -------------------------------------------------------------------------------

    @property
    def worker(self) -> int:
        """The process of its worker."""
        (worker,) = children_of(self.pid)
        return worker

    @property
    def workers(self) -> list[int]:
        """The processes of the workers that serve, by their slots."""
        return [row["pid"] for row in self.ask("status")["workers"] if row["state"] == "serving"]

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def send_to_group(self, number: signal.Signals) -> None:
        """Send a signal to its process group, as a terminal does for Ctrl-C."""
        os.killpg(self.pid, number)

    def send_to_all(self, number: signal.Signals) -> None:
        """Send a signal to each of its processes, as systemd does, which begins with the main one."""
        for pid in sorted(session_of(self.pid)):
            with suppress(ProcessLookupError):  # the main one had it first, and may have ended this one
                os.kill(pid, number)

    def wait(self, limit_s: float = LIMIT_S) -> int:
        """Return its exit status, or minus the signal that ended it."""
        try:
            status = self._process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.clean_up()
            self.ended = True
            raise AssertionError(f"still running after {limit_s:g} s; it said:\n{self.log()}") from None
        self.ended = True
        return status

    def stop(self) -> None:
        """Stop it as an operator does."""
        self.send(signal.SIGTERM)
        assert self.wait() == 0, self.log()

    def clean_up(self) -> list[int]:
        """End what is left of it; return the processes that were."""
        left = session_of(self.pid)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        self._process.wait(LIMIT_S)
        wait_until(lambda: not session_of(self.pid), "the end of killed processes")
        return left
