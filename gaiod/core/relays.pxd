"""Types for `relays.py`."""

cimport cython

from gaiod.core._flows cimport Flow, Plumbing as RelayCalls
from gaiod.core.connection cimport Conn
from gaiod.core.results cimport OpResult
from gaiod.core.pending cimport Operations
from gaiod.core.turns cimport Turns

cdef int RELAY, SHUTDOWN, COMPLETE, FAILED, PAUSES, RESUMES, PAUSED_NS, BUFFERED, EAGAIN, EINTR, TOLD
cdef double inf


@cython.final
cdef class Relays:
    cdef RelayCalls plumbing
    cdef Turns moving

    @cython.locals(moving=Turns, source=Conn, sink=Conn, operation=OpResult, flow=Flow, i=Py_ssize_t)
    cdef move_ready(self, Operations operations, Turns sources)
    @cython.locals(flow=Flow, sink=Conn, received=Py_ssize_t, sent=Py_ssize_t, left=Py_ssize_t)
    cdef _take_turn(self, Operations operations, Conn source, OpResult operation)
    cdef _pass_end_on(self, Operations operations, Conn sink)
    cdef _flush_sessions(self, Operations operations, Conn source, Conn sink)
    cdef forget_turn(self)
    cdef _end(self, Operations operations, Conn source, OpResult operation, object error)
