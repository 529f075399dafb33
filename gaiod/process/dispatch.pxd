"""Types for `dispatch.py`."""

cimport cython
from libc.stdint cimport int64_t

from gaiod.core._stopwatch cimport Stopwatch as TypedStopwatch
from gaiod.core.connection cimport Conn
from gaiod.core.results cimport OpResult
from gaiod.core.watcher cimport Watcher

cdef int READ, WRITE, RELAY, TIMER, POST, HANGUP
cdef TypedStopwatch UNWATCHED


cdef class Target:
    cdef public object on_read
    cdef public object on_write

    cpdef on_completion(self, OpResult result)
    cpdef hung_up(self, OpResult result)
    cpdef start_tls(self, Conn conn, bytes unread, object tls, object deadline)
    cpdef failed(self, str hook, Conn conn)
    cpdef slow(self, str hook, Conn conn, int64_t took_ns)


@cython.final
cdef class Dispatcher:
    cdef Watcher watcher
    cdef TypedStopwatch watch
    cdef public bint ended
    cdef public object after_pass


@cython.locals(result=OpResult)
cpdef dispatch(list results, TypedStopwatch watch=*)
@cython.locals(kind=int, target=Target, conn=Conn)
cdef _hand_over(OpResult result, TypedStopwatch watch)
