"""Process 1 of a container, in a namespace of processes of its own."""

import errno
import os
import signal
import subprocess
import sys

import pytest
from core.support.waiting import LIMIT_S

from gaiod.supervisor.host.init import become_child_of_init

UNSHARE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a namespace of processes everywhere")

DAEMON = """
import os, signal, sys
from gaiod.supervisor.host.init import become_child_of_init
assert os.getpid() == 1
become_child_of_init()
assert os.getpid() != 1 and os.getppid() == 1
"""
"""What follows it is the child's."""


def _run(child: str) -> subprocess.CompletedProcess[str]:
    command = [*UNSHARE, sys.executable, "-c", DAEMON + child]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)


@needs_root
def test_exit_status_is_the_childs() -> None:
    done = _run("sys.exit(78)")
    assert (done.returncode, done.stderr) == (78, "")


def test_daemon_that_cannot_be_started_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", fail)
    monkeypatch.setattr(signal, "pthread_sigmask", lambda how, mask: None)
    with pytest.raises(SystemExit) as ended:
        become_child_of_init()
    assert ended.value.code == 71
    assert "the daemon cannot be started: Resource temporarily unavailable; see the limit" in capsys.readouterr().err


@needs_root
def test_signal_that_ended_the_child_is_told_as_a_shell_does() -> None:
    done = _run("os.kill(os.getpid(), signal.SIGKILL)")
    assert (done.returncode, done.stderr) == (128 + signal.SIGKILL, "")


@needs_root
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_signal_to_process_1_reaches_the_child(number: signal.Signals) -> None:
    child = f"""
signal.pthread_sigmask(signal.SIG_BLOCK, [{number.value}])
os.kill(1, {number.value})
print(signal.sigwait([{number.value}]).name)
"""
    done = _run(child)
    assert (done.stdout, done.stderr) == (f"{number.name}\n", "")


@needs_root
def test_orphans_are_buried_and_the_childs_own_children_are_left_to_it() -> None:
    """Of three processes that have ended, two orphans are gone, and the child gets the third's status."""
    child = """
reading, writing = os.pipe()
own = os.fork()
if own == 0:
    for _ in range(2):
        if os.fork() == 0:
            while os.getppid() != 1:
                pass
            os._exit(0)  # the write end is closed by this: both are over when there is nothing to read any more
    os._exit(3)
os.close(writing)
os.read(reading, 1)
while sum(name.isdecimal() for name in os.listdir("/proc")) > 3:
    pass
assert open(f"/proc/{own}/stat").read().split()[2] == "Z"
print(os.waitstatus_to_exitcode(os.waitpid(own, 0)[1]))
"""
    done = _run(child)
    assert (done.stdout, done.stderr, done.returncode) == ("3\n", "", 0)
