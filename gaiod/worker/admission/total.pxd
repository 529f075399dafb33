"""Types for `total.py`."""

cimport cython
from libc.stdint cimport int64_t

from gaiod.worker.admission.per_address cimport PerAddress
from gaiod.worker.admission.tallies cimport Tallies


@cython.final
cdef class Total:
    cdef int64_t _most
    cdef Tallies _tallies
    cdef PerAddress _per_address
    cdef int64_t _tag
    cdef set _counted

    @cython.locals(connections=int64_t)
    cpdef admit(self, int64_t serial, object address)
    cpdef came(self, int64_t serial, object address)
    cpdef gone(self, int64_t serial)
    cdef _count(self, int64_t serial)
