"""A real Prometheus that scrapes what a test runs."""

import json
import signal
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote

from core.support.waiting import LIMIT_S, TIME_UNIT

from e2e.support.clients import request
from e2e.support.programs import free_port
from e2e.support.tools import tool
from e2e.support.waiting import wait_until

SCRAPE_EVERY_MS = round(200 * TIME_UNIT)


class Prometheus:
    """A Prometheus, started.

    Args:
        folder: where it keeps what it keeps.
        config: its configuration.
    """

    def __init__(self, folder: Path, config: str) -> None:
        program = tool("prometheus", "prometheus")
        file = folder / "prometheus.yml"
        file.write_text(config)
        self.address = f"127.0.0.1:{free_port()}"
        self._log = folder / "prometheus.log"
        command = [
            program,
            f"--config.file={file}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={self.address}",
        ]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def ask(self, path: str) -> Any:
        """Return the data of an answer of its API; None while it starts."""
        try:
            reply = request(self.address, f"/api/v1/{path}")
        except ConnectionRefusedError:
            assert self._process.poll() is None, self._log.read_text()
            return None
        if reply.status == 503:
            return None  # it is still starting
        answer = json.loads(reply.body)
        assert answer["status"] == "success", (path, answer)
        return answer["data"]

    def results(self, expression: str) -> list[Any]:
        """Return every series of an expression."""
        data = self.ask(f"query?query={quote(expression)}")
        return [] if data is None else list(data["result"])

    def query(self, expression: str) -> float | None:
        """Return the value of an expression that has one; None if it has no value yet."""
        results = self.results(expression)
        return float(results[0]["value"][1]) if results else None

    def wait_for(self, expression: str, value: float) -> None:
        """Wait until an expression has this value."""
        try:
            wait_until(lambda: self.query(expression) == value, f"{expression} == {value}", limit_s=3 * LIMIT_S)
        except AssertionError as failure:
            raise AssertionError(f"{failure}; it is {self.query(expression)}\n{self._log.read_text()}") from None

    def stop(self) -> None:
        """End it."""
        self._process.send_signal(signal.SIGKILL)  # its data goes with the folder: there is nothing to save
        self._process.wait(LIMIT_S)
