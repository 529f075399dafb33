"""Types for `watcher.py`."""

cimport cython

from gaiod.core.connection cimport Conn
from gaiod.core.operations cimport OpResult
from gaiod.core.submission cimport Submission

cdef int CONNECT, TIMER, POST, CLOSED
cdef int SHUTDOWN, FREE, CANCEL, AFFINITY, STOP, PAUSE
cdef int OUTCOME_COUNT, GC_FOUND, GC_CLOSED
cdef double inf


cdef class Watcher(Submission):
    cdef object __weakref__
    cdef bint shut

    @cython.locals(conn=Conn)
    cdef list _select(self, object context, double idle_since_s)
    @cython.locals(operation=OpResult)
    cdef bint _is_at_work(self, Conn conn)
    cdef _forget(self, Conn conn)
    cdef _shut(self)
    @cython.locals(operation=OpResult, conn=Conn)
    cdef _release_all(self)
    cdef _refuse_late(self, OpResult operation, object error)
    cdef list _last_completions(self)
