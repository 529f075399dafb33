"""Types for `ledger.py`."""

cimport cython
from libc.stdint cimport int64_t

from gaiod.core.connection cimport Conn

cdef int FIRST_DURATION, ACCEPTED, DURATION_NS
cdef dict CLOSED


@cython.final
cdef class Ledger:
    cdef str _listener
    cdef int64_t[::1] _cells
    cdef int _row
    cdef object _log
    cdef object _recent_closes
    cdef object _names
    cdef dict _peers

    @cython.locals(peer=str)
    cdef opened(self, Conn conn)
    cpdef rejected(self, Conn conn, object termination)
    @cython.locals(now_s=double, age_s=double, row=int, place=int)
    cdef closed(self, Conn conn, object name, object termination, str server)


cpdef str phase_of(object handler, Conn conn)
cpdef str phase_at_end(object handler, Conn conn, object termination)
cpdef str server_of(object handler, Conn conn)
