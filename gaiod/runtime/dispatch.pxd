"""Types for `dispatch.py`."""

cimport cython

from gaiod.core.connection cimport Conn
from gaiod.core.operations cimport OpResult

cdef int READ, WRITE, TIMER, POST


cdef class Target:
    cdef public object on_read
    cdef public object on_write


@cython.locals(result=OpResult, kind=int, target=Target, conn=Conn)
cpdef dispatch(list results)
