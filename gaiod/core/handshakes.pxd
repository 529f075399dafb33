"""Types for `handshakes.py`."""

cimport cython

from gaiod.core._sessions cimport Session
from gaiod.core.connection cimport Conn
from gaiod.core.pending cimport Operations
from gaiod.core.results cimport OpResult
from gaiod.core.turns cimport Turns

cdef int HANDSHAKE, COMPLETE, FAILED, EPROTO, STEPS_DELAYED
cdef double inf


@cython.final
cdef class Handshakes:
    @cython.locals(conn=Conn, operation=OpResult, i=Py_ssize_t)
    cdef step(self, Operations operations, Turns turns)
    cdef note_room(self, Operations operations, Conn conn)
    @cython.locals(session=Session)
    cdef _take_step(self, Operations operations, Conn conn, OpResult operation, int outcome)
