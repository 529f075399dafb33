"""Types for `timers.py`."""

cimport cython
from libc.stdint cimport int64_t

from gaiod.core._syscalls cimport Poller as PollerCalls
from gaiod.core.connection cimport Conn
from gaiod.core.results cimport OpResult

cdef double inf
cdef Py_ssize_t STALE_MIN


@cython.final
cdef class Timers:
    cdef PollerCalls poller
    cdef list heap
    cdef object numbers
    cdef Py_ssize_t stale
    cdef readonly double next_s

    cpdef set_timer(self, OpResult operation)
    @cython.locals(number=int64_t)
    cpdef arm(self, Conn conn, bint reading, double deadline_s)
    cpdef disarm(self, Conn conn)
    cpdef forget(self, Conn conn)
    @cython.locals(ringing=list)
    cpdef list due(self, double now_s)
    cpdef list pending_timers(self)
    cdef _push(self, object entry)
    cdef _look_ahead(self)
    cdef object _owner_of(self, object entry)
    cdef bint _is_pending(self, OpResult operation)
    cdef bint _has_timer(self, Conn conn, bint reading, int64_t number)
    cdef Conn _silence(self, Conn conn, bint reading)
