"""`gaiod serve`, as a benchmark runs it."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, Popen
from threading import Thread

from harness.processes import BenchError

LISTENER = re.compile(r"listener (\S+): \S+ on \S+:(\d+)$", re.MULTILINE)
METRICS = re.compile(r"metrics on \S+:(\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Daemon:
    """A daemon that serves.

    Attributes:
        pid: the supervisor's process.
        workers: its workers' processes.
        ports: of its listeners, on 127.0.0.1.
        metrics_port: of its metrics.
        lines: of its log; more come while it runs.
    """

    pid: int
    workers: list[int]
    ports: dict[str, int]
    metrics_port: int
    lines: list[str]


@contextmanager
def daemon(folder: Path, config: str) -> Iterator[Daemon]:
    """Run a daemon that has metrics.

    Raises:
        BenchError: it did not start.
    """
    path = folder / "gaiod.yaml"
    path.write_text(config)
    command = [sys.executable, "-m", "gaiod", "serve", "--allow-root", "--config", str(path)]
    with Popen(command, stderr=PIPE, text=True) as process:
        lines: list[str] = []
        assert process.stderr is not None
        reader = Thread(target=lines.extend, args=(process.stderr,))
        try:
            for line in process.stderr:
                lines.append(line)
                if "ready:" in line:
                    break
            else:
                raise BenchError(f"gaiod: ended before it was ready: {''.join(lines)}")
            reader.start()
            said = "".join(lines)
            workers = [int(pid) for pid in said.rpartition("process ")[2].split(", ")]
            ports = {name: int(port) for name, port in LISTENER.findall(said)}
            yield Daemon(process.pid, workers, ports, int(METRICS.findall(said)[0]), lines)
        finally:
            process.terminate()
            if reader.is_alive():
                reader.join()
