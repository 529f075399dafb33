"""What process 1 has to do: a container's first process is the parent of everybody whose own has ended.

Whoever nobody waits for stays in the table of processes for ever, and the table is bounded (pids.max). A daemon must
not wait for processes that it does not know, though: it could take the end of a worker from those who wait for that.
So process 1 is another one, which only waits and hands signals on, and the daemon its child. Nothing else has to be
installed for that (tini, docker run --init); where something is, gaiod is not process 1, and this is not used.
"""

import os
import signal
import sys

from gaiod.process.inheritance import FOR_SUPERVISOR

HANDED_ON = (signal.SIGTERM, signal.SIGINT, *FOR_SUPERVISOR)
"""What the daemon is told by signals."""

SI_KERNEL = 128
"""As `si_code`: nobody sent it. A terminal's Ctrl-C goes to the daemon, too, which is in the same process group: handed
on, it would be a second one, which ends the daemon at once (man 2 sigaction)."""


def become_child_of_init() -> None:
    """Return in a child process, to be the daemon. In process 1 itself it does not return: it ends as the child does.

    To be called early, while there is one thread, and little in memory that process 1 would keep.
    """
    # Blocked signals wait to be taken. Those that are not, and that have no handler, process 1 does not even get.
    awaited = {*HANDED_ON, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    try:
        child = os.fork()
    except OSError as error:
        sys.stderr.write(f"the daemon cannot be started: {error.strerror}; see the limit on processes (pids.max)\n")
        sys.exit(os.EX_OSERR)
    if child == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, awaited)
        return
    while (status := _take_one(child, signal.sigwaitinfo(awaited))) is None:
        pass
    os._exit(status)  # the kernel ends whoever is left


def _take_one(child: int, info: signal.struct_siginfo) -> int | None:
    """Take a signal; return the exit status once the child has ended."""
    if info.si_signo == signal.SIGCHLD:
        return _collect(child)
    if info.si_code != SI_KERNEL:
        os.kill(child, info.si_signo)
    return None


def _collect(child: int) -> int | None:
    """Take the ends of all who have ended; return the exit status if the child is one of them."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found  # there is nobody left
        if pid == 0:
            return found
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            found = code if code >= 0 else 128 - code  # as a shell says it
