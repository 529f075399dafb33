"""Forked children of the supervisor: they import what it must not, say what they have found, and end."""

import gc
import os
import signal
import socket
import traceback
from collections.abc import Callable, Sequence

from gaiod.process.inheritance import ignore_what_is_for_the_supervisor
from gaiod.supervisor.processes.child import die_with_parent


def fork(work: Callable[[socket.socket], None], keep: Sequence[int] = ()) -> tuple[int, socket.socket]:
    """Start a child that does some work, and return its process and our end of the pair that it answers on.

    Args:
        work: what it does, with its end of the pair.
        keep: the descriptors that it needs beside that and the standard streams.

    Raises:
        OSError: no process can be started.
    """
    ours, theirs = socket.socketpair()
    obey = die_with_parent()
    try:
        child = os.fork()
    except OSError:
        ours.close()
        theirs.close()
        raise
    if child == 0:
        try:
            # What the supervisor has not collected yet is its own: here a finalizer would close, by its number, a
            # descriptor that is closed below, or that is another one's by then.
            gc.freeze()
            if obey is not None:
                obey()
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            ignore_what_is_for_the_supervisor()
            # A child that hangs, or leaves processes behind, must not keep listeners open.
            first = 3
            for kept in sorted({theirs.fileno(), *keep}):
                os.closerange(first, kept)
                first = kept + 1
            os.closerange(first, os.sysconf("SC_OPEN_MAX"))
            work(theirs)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)  # whatever happens, this process must not go on as the daemon
    theirs.close()
    return child, ours


def end(child: int) -> None:
    """Kill a child, and wait for its end."""
    os.kill(child, signal.SIGKILL)
    wait(child)


def wait(child: int) -> int:
    """Return how a child ended: its exit status, or minus the signal."""
    try:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    except ChildProcessError:
        return 0  # whoever started us has SIGCHLD ignored: the kernel has forgotten it
