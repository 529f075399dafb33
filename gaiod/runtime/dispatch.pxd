"""Types for `dispatch.py`."""

cimport cython

from gaiod.core.operations cimport OpResult

cdef int READ, WRITE, TIMER, POST


cdef class Target:
    cdef public object on_read
    cdef public object on_write


@cython.locals(result=OpResult, kind=int, target=Target)
cpdef dispatch(list results)
