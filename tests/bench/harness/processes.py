"""Child processes: compiled, pinned to a core, talked to by lines, and ended by their own pid."""

import ctypes
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

C_FLAGS = ("-O2", "-std=c11")
STOP_TIMEOUT_S = 2.0
CONNECT_INTERVAL_S = 0.01
PR_SET_PDEATHSIG = 1
"""prctl(2): survives execve(2). Not alarm(2), which nginx handles."""


class BenchError(Exception):
    """A benchmark cannot go on, or its figures would mean nothing."""


def compile_c(source: Path, folder: Path, *more_flags: str) -> Path:
    """Compile one C program into `folder`; return the program.

    Raises:
        BenchError: there is no compiler, or it refuses the source.
    """
    program = folder / source.stem
    try:
        subprocess.run(["cc", *C_FLAGS, "-o", str(program), str(source), *more_flags], check=True)
    except FileNotFoundError:
        raise BenchError("cc: not found: install a C compiler") from None
    except subprocess.CalledProcessError as error:
        raise BenchError(f"{source.name}: cc ended with status {error.returncode}: its messages are above") from None
    return program


class Child:
    """A running child and its standard streams; its standard error is the runner's."""

    def __init__(self, name: str, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.name = name
        self.pid = process.pid
        self._process = process
        self._stdin = process.stdin
        self._stdout = process.stdout

    def next_line(self, timeout_s: float) -> str:
        """Wait for one whole line of its output.

        Raises:
            BenchError: none within `timeout_s`, or the child has ended.
        """
        readable, _, _ = select.select([self._stdout], [], [], timeout_s)
        if not readable:
            raise BenchError(f"{self.name}: printed nothing for {timeout_s:.0f} s")
        line = self._stdout.readline().decode()
        if not line:
            raise BenchError(f"{self.name}: ended with status {self.wait(timeout_s)}: its messages are above")
        return line.rstrip("\n")

    def expect(self, word: str, timeout_s: float) -> str:
        """Wait for a line that begins with `word`; return the rest of it.

        Raises:
            BenchError: another line came, or none within `timeout_s`, or the child has ended.
        """
        first, _, rest = (line := self.next_line(timeout_s)).partition(" ")
        if first != word:
            raise BenchError(f"{self.name}: printed `{line}` where `{word}` was due")
        return rest

    def go_on(self) -> None:
        """Send the line it waits for.

        Raises:
            BenchError: the child has ended.
        """
        try:
            self._stdin.write(b"\n")
        except BrokenPipeError:
            raise BenchError(f"{self.name}: ended too early: its messages are above") from None

    def expect_connection(self, port: int, timeout_s: float) -> None:
        """Wait until it listens on a port of 127.0.0.1: let one connection come and go.

        Raises:
            BenchError: it does not within `timeout_s`, or the child has ended.
        """
        until_s = time.monotonic() + timeout_s
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout_s).close()
                return
            except ConnectionRefusedError:
                if (status := self._process.poll()) is not None:
                    raise BenchError(f"{self.name}: ended with status {status}: its messages are above") from None
                if time.monotonic() > until_s:
                    raise BenchError(f"{self.name}: did not listen for {timeout_s:.0f} s") from None
            time.sleep(CONNECT_INTERVAL_S)

    def wait(self, timeout_s: float) -> int:
        """Wait for its end; return its exit status.

        Raises:
            BenchError: it has not ended within `timeout_s`.
        """
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise BenchError(f"{self.name}: still runs after {timeout_s:.0f} s") from None


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def running(
    name: str, command: Sequence[str], cpu: int, environment: Mapping[str, str] | None = None
) -> Iterator[Child]:
    """Run a command pinned to one core; end it by its pid when the block is left, however that happens.

    If the runner is killed, the kernel ends it.
    """

    libc = ctypes.CDLL(None)

    def pin_and_follow() -> None:
        os.sched_setaffinity(0, {cpu})
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,  # select() has to see every byte that readline() has not taken
        env={**os.environ, **(environment or {})},
        preexec_fn=pin_and_follow,  # noqa: PLW1509 - safe: the runner has one thread
    )
    with process:
        try:
            yield Child(name, process)
        finally:
            _stop(process)
