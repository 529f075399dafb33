"""Types for `per_address.py`."""

cimport cython
from libc.stdint cimport int64_t

from gaiod.worker.admission.tallies cimport Tallies

cdef int LOCAL, NOWHERE, V6


@cython.final
cdef class PerAddress:
    cdef readonly object settings
    cdef Tallies _tallies
    cdef object _factor
    cdef object _summand
    cdef object _most
    cdef double _burst
    cdef double _window_ms
    cdef int _shift
    cdef object _exempt
    cdef dict _tags

    @cython.locals(now_ms=int64_t, level=double)
    cpdef admit(self, int64_t serial, object address)
    cpdef came(self, int64_t serial, object address)
    cpdef gone(self, int64_t serial)
    @cython.locals(family=int)
    cdef _tag_of(self, object address)
