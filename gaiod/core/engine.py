"""The system calls of the engine in use: one interface, written twice (`syscalls.py`, `_syscalls.pyx`)."""

from typing import TYPE_CHECKING

from gaiod.core import ENGINE

if TYPE_CHECKING or ENGINE == "interpreted":
    from gaiod.core.syscalls import Batch, Flow, Poller, accept, shutdown_write, take_error
else:
    from gaiod.core._syscalls import Batch, Flow, Poller, accept, shutdown_write, take_error

__all__ = ["Batch", "Flow", "Poller", "accept", "shutdown_write", "take_error"]
