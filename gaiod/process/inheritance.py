"""What a process inherits from whoever started it, and does not depend on: it puts itself into a known state first.

A shell, cron, nohup or an init script leave behind what exec does not reset (man 2 execve): blocked and ignored
signals, a timer that runs, closed standard streams, a umask, a soft limit of descriptors.
"""

import os
import resource
import signal
import sys

FOR_SUPERVISOR = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Who sends one of these to all of a daemon's processes means the supervisor: others ignore it."""

RESET = (signal.SIGABRT, signal.SIGCHLD, signal.SIGINT, signal.SIGTERM)
"""Have their own meaning, also where a parent ignored them. SIGPIPE is ignored in every Python. SIGHUP and what else
the supervisor takes has a handler once it serves, also under nohup: there a hang-up of the terminal is a reload."""

UMASK = 0o022
"""The usual one. Who may connect to a unix socket must not be decided by the shell that gaiod was started from."""

DESCRIPTORS_MAX = 1 << 20
"""Where the hard limit is higher: some programs that handlers start close every descriptor that there could be,
and a container may have a limit of 1,073,741,816. A worker with so many connections would take 0.5 GiB for them."""

STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def take_known_state() -> None:
    """Depend on nothing that was inherited. First of all, in the only thread; a second time it changes nothing.

    Raises:
        OSError: a standard stream is closed, and there is no /dev/null.
    """
    _open_standard_streams()
    for number in RESET:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
        signal.setitimer(timer, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # last: what was blocked meets what it is to
    os.umask(UMASK)
    _raise_descriptor_limit()


def ignore_what_is_for_the_supervisor() -> None:
    """Ignore what would end this process although others of the daemon are meant."""
    for number in FOR_SUPERVISOR:
        signal.signal(number, signal.SIG_IGN)


def begin_daemon() -> None:
    """Be in a state in which a daemon can be started: told to stop before it serves, this process ends with 0 at once.

    Nothing that would have to be put in order exists yet. The supervisor takes signals as soon as there is something.
    """
    take_known_state()
    ignore_what_is_for_the_supervisor()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)


def _end(number: int, frame: object) -> None:
    os._exit(0)


def _open_standard_streams() -> None:
    """Let nothing else become descriptor 0, 1 or 2: lines of the log and tracebacks would be sent to a client."""
    for fd, (name, mode) in enumerate(STREAMS):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest that is free: this one
            stream = open(fd, mode, closefd=False)
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError):
            pass  # macOS has a limit of its own below the one that it tells
