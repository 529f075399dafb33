"""Types for `endings.py`."""

cimport cython

from gaiod.core._flows cimport Flow
from gaiod.core.connection cimport Conn
from gaiod.core.group cimport Group
from gaiod.core.operations cimport OpResult
from gaiod.core.queues cimport Queues

cdef int WRITE, CONNECT, RELAY, TIMER, POST, CLOSED
cdef int FINISH, FREE, RESET, CANCEL, AFFINITY, STOP, PAUSE
cdef int FREED, OUTCOME_COUNT
cdef double inf


cdef class Endings(Queues):
    @cython.locals(operation=OpResult)
    cdef _take_inbox(self)
    cdef OpResult _next_submission(self)
    @cython.locals(kind=int, conn=Conn, group=Group)
    cdef _fulfil(self, OpResult request)
    cdef _cancel(self, Conn conn, object op_type)
    cdef _cancel_timer(self, OpResult operation)
    @cython.locals(source=Conn, operation=OpResult, flow=Flow, kept=list, ended=list)
    cdef _end_relays_to(self, Conn sink, object error)
    @cython.locals(operation=OpResult, kept=list, ended=list, matches=bint)
    cdef _end_queue(self, Conn conn, bint reading, int kind, double limit_s, object error)
    @cython.locals(operation=OpResult, head=OpResult, tail=OpResult)
    cdef _take_out(self, Conn conn, bint reading, list kept, list ended, object error)
    @cython.locals(report=OpResult)
    cdef _drop(self, Conn conn, object error)
    @cython.locals(report=OpResult)
    cdef OpResult _new_report(self, int kind, Conn conn)
    @cython.locals(fd=int, group=Group)
    cdef _release(self, Conn conn)
