"""Injection of errors into the system calls of a running process, by strace."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from core.support.waiting import LIMIT_S
from e2e.support.procfs import is_alive, is_traced
from e2e.support.tools import tool
from e2e.support.waiting import wait_until


class Injection:
    """What strace has written down."""

    def __init__(self, lines: Path) -> None:
        self._lines = lines

    def count(self) -> int:
        """Return how many calls have failed so far because they were made to."""
        return self._lines.read_text().count("(INJECTED)")

    def calls(self) -> int:
        """Return how many calls there were, those included."""
        return len(self._lines.read_text().splitlines())


@contextmanager
def injected(folder: Path, pid: int, call: str, error: str, when: str) -> Iterator[Injection]:
    """Have system calls of a process fail, or skip the test where nobody may attach to it.

    Args:
        folder: for strace's files.
        pid: the process, all of its threads.
        call: the system call's name.
        error: the name of the errno that it fails with.
        when: which of its calls from now on, as strace has it: `N`, `N+` or `N..LAST+STEP`. Where failures are
            counted, they have to be over before the end: one that strace leaves halfway is ENOSYS, and not told.
    """
    command = [tool("strace", "strace"), "-f", "-p", str(pid), "-o", str(folder / "strace.out")]
    command += ["-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={when}"]
    said = folder / "strace.err"
    (folder / "strace.out").unlink(missing_ok=True)
    with said.open("wb") as stderr:
        strace = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr)
    try:
        wait_until(lambda: is_traced(pid) or strace.poll() is not None, "strace at its work")
        if strace.poll() is not None:
            _cannot_attach(said.read_text())
        wait_until((folder / "strace.out").exists, "strace's output")
        yield Injection(folder / "strace.out")
    finally:
        strace.send_signal(signal.SIGINT)
        strace.wait(LIMIT_S)
    wait_until(lambda: not is_alive(pid) or not is_traced(pid), "strace's letting go")


def _cannot_attach(said: str) -> None:
    if "not permitted" in said and os.environ.get("CI") != "true":
        pytest.skip("strace may not attach to a process that it has not started (kernel.yama.ptrace_scope)")
    pytest.fail(said)
