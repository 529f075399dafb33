"""The blocks of code in a Markdown file, and a folder in which they are run as their readers do."""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from core.support.waiting import LIMIT_S

from e2e.support.waiting import wait_until

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\S+\.(?:py|yaml))\n")


@dataclass(frozen=True, slots=True)
class Block:
    """A block of code.

    Attributes:
        language: as the fence says it; empty: it does not.
        text: without the fences.
        place: file and line.
    """

    language: str
    text: str
    place: str

    @property
    def file(self) -> str:
        """The file that it is, by its first line: `# shout.py`. Empty: it is none."""
        found = FILE.match(self.text)
        return found[1] if found else ""


def blocks_of(path: Path) -> list[Block]:
    """Return all blocks of a Markdown file."""
    text = path.read_text()
    return [
        Block(found[1], found[2], f"{path.name}:{text.count(chr(10), 0, found.start()) + 1}")
        for found in FENCE.finditer(text)
    ]


class Terminal:
    """Runs shell commands in a folder, with a network of its own if this is root: ports are as they are written.

    Attributes:
        folder: the working directory.
    """

    def __init__(self, folder: Path, network: Sequence[str]) -> None:
        self.folder = folder
        self._network = network
        self._started: list[subprocess.Popen[bytes]] = []
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "RUNTIME_DIRECTORY": str(folder),
            "PYTHONUNBUFFERED": "1",
        }

    def run(self, text: str, *, cwd: Path | None = None, limit_s: float = 6 * LIMIT_S, check: bool = True) -> str:
        """Return what commands print; fail if one of them fails."""
        done = subprocess.run(
            [*self._network, "bash", "-euo", "pipefail", "-c", text],
            cwd=cwd or self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=limit_s,
            check=False,
        )
        assert not check or done.returncode == 0, f"{text}\n{done.stdout}"
        return done.stdout if done.returncode == 0 else ""

    def start(self, command: str) -> Path:
        """Start a command in the background; return the file with its output."""
        output = self.folder / f"output-{len(self._started)}"
        with output.open("wb") as file:
            process = subprocess.Popen(
                [*self._network, "bash", "-c", f"exec {command}"],
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        self._started.append(process)
        return output

    def serve(self, command: str) -> None:
        """Start a daemon, as root with what root has to add; begin when it serves."""
        if os.geteuid() == 0 and "-c" in shlex.split(command, comments=True):
            command = command.partition("#")[0] + " --allow-root"
        output = self.start(command)
        process = self._started[-1]

        def is_ready() -> bool:
            assert process.poll() is None, output.read_text()
            return "ready:" in output.read_text()

        wait_until(is_ready, f"{command} serving", 3 * LIMIT_S)

    def interrupt(self) -> int:
        """Stop what was started last, as Ctrl-C does; return its exit status."""
        process = self._started.pop()
        process.send_signal(signal.SIGINT)
        return process.wait(3 * LIMIT_S)

    def run_as_a_reader(self, text: str) -> str:
        """Run a block line by line: a `gaiod serve` goes on in a terminal of its own. Return what the others print."""
        printed = ""
        for line in text.splitlines():
            if line.startswith("gaiod serve"):
                self.serve(line)
            else:
                printed += self.run(line)
        return printed

    def close(self) -> None:
        """Stop what still runs."""
        while self._started:
            if self._started[-1].poll() is None:
                self.interrupt()
            else:
                self._started.pop()


@contextmanager
def terminal(folder: Path) -> Iterator[Terminal]:
    """Give a terminal in a folder."""
    if os.geteuid() != 0:
        made = Terminal(folder, [])
        try:
            yield made
        finally:
            made.close()
        return
    holder = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdin and holder.stdout
    made = Terminal(folder, ["nsenter", f"--net=/proc/{holder.pid}/ns/net"])
    try:
        assert holder.stdout.readline() == b"up\n"
        yield made
    finally:
        made.close()
        with suppress(BrokenPipeError):
            holder.stdin.close()
        holder.stdout.close()
        holder.wait(LIMIT_S)
