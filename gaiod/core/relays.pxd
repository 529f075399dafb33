"""Types for `relays.py`."""

cimport cython
from libc.stdint cimport int64_t

from gaiod.core._flows cimport Flow
from gaiod.core.connection cimport Conn
from gaiod.core.endings cimport Endings
from gaiod.core.operations cimport OpResult

cdef int RELAY, COMPLETE, FAILED, PAUSES, RESUMES, PAUSED_NS, BUFFERED, EAGAIN, EINTR, TOLD


cdef class Relays(Endings):
    @cython.locals(flows=list, moving=list, source=Conn, sink=Conn, operation=OpResult, flow=Flow)
    cdef _relay_ready(self, list sources)
    @cython.locals(flow=Flow, sink=Conn, received=Py_ssize_t, sent=Py_ssize_t, left=Py_ssize_t)
    cdef _relayed(self, Conn source, OpResult operation)
    cdef _end_relay(self, Conn source, OpResult operation, object error)
