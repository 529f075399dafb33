"""What a process inherits: whatever it is, the process is in a known state afterwards."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from core.support.waiting import LIMIT_S

BEGIN = "from gaiod.process.inheritance import take_known_state\ntake_known_state()\n"


def said(program: str, *, before: Callable[[], object] | None = None, shell: str = "") -> str:
    """Return what a program prints that takes a known state first; `before` is done to it, `shell` redirects."""
    command = [sys.executable, "-c", BEGIN + program]
    if shell:
        command = ["sh", "-c", f'exec "$0" "$@" {shell}', *command]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        text=True,
        timeout=LIMIT_S,
        check=True,
        preexec_fn=before,
        restore_signals=False,
    )
    return done.stdout.strip()


def test_blocked_signals_are_unblocked() -> None:
    program = "import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, ()))"
    assert said(program, before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())) == "set()"


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGCHLD, signal.SIGINT, signal.SIGTERM])
def test_ignored_signals_have_their_meaning_again(number: signal.Signals) -> None:
    program = f"import signal; print(signal.getsignal({int(number)}) is signal.SIG_DFL)"
    assert said(program, before=lambda: signal.signal(number, signal.SIG_IGN)) == "True"


def test_timer_that_runs_is_stopped() -> None:
    program = "import signal; print(signal.getitimer(signal.ITIMER_REAL))"
    assert said(program, before=lambda: signal.setitimer(signal.ITIMER_REAL, 1000)) == "(0.0, 0.0)"


def test_umask_is_the_usual_one() -> None:
    assert said("import os; print(oct(os.umask(0)))", before=lambda: os.umask(0o777)) == "0o22"


def test_soft_limit_of_descriptors_is_raised_to_the_hard_one() -> None:
    hard = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 4096)
    program = "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE))"
    found = said(program, before=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard)))
    assert found == str((hard, hard))


def test_limit_is_left_alone_where_it_cannot_be_raised() -> None:
    program = "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE))"
    assert said(program, before=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))) == "(64, 64)"


@pytest.mark.parametrize("closed", [(0,), (2,), (0, 2)], ids=str)
def test_closed_streams_are_nothing_else_and_children_have_them(closed: tuple[int, ...]) -> None:
    program = (
        "import os, subprocess, sys, tempfile\n"
        "sys.stderr.write('nobody reads this'); sys.stderr.flush(); sys.stdin.read()\n"
        f"print([os.readlink(f'/proc/self/fd/{{fd}}') for fd in {closed}], tempfile.TemporaryFile().fileno() > 2)\n"
        f"code = 'import os, sys; sys.exit(len([os.fstat(fd) for fd in {closed}]))'\n"
        "print(subprocess.run([sys.executable, '-c', code]).returncode)\n"
    )
    shell = " ".join(f"{fd}{'<' if fd == 0 else '>'}&-" for fd in closed)
    assert said(program, shell=shell) == f"{['/dev/null'] * len(closed)} True\n{len(closed)}"


def test_streams_that_are_open_stay_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "errors"
    assert said("import sys; print('to stdout'); print('to stderr', file=sys.stderr)", shell=f"2>{path}") == "to stdout"
    assert path.read_text() == "to stderr\n"


def test_signals_for_the_supervisor_end_no_other_process() -> None:
    program = (
        "import os, signal\n"
        "from gaiod.process.inheritance import FOR_SUPERVISOR, ignore_what_is_for_the_supervisor\n"
        "ignore_what_is_for_the_supervisor()\n"
        "for number in FOR_SUPERVISOR: os.kill(os.getpid(), number)\n"
        "print([number.name for number in FOR_SUPERVISOR])\n"
    )
    assert said(program) == "['SIGHUP', 'SIGUSR1', 'SIGUSR2']"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_daemon_that_is_told_to_stop_before_it_has_begun_ends_with_0(number: signal.Signals) -> None:
    program = (
        "from gaiod.process.inheritance import begin_daemon\n"
        f"begin_daemon(); os.kill(os.getpid(), {int(number)})\n"
        "print('it goes on')"
    )
    assert said("import os\n" + program) == ""
