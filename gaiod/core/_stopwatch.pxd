"""What the compiled dispatch sees of `_stopwatch.pyx`."""

cimport cython
from libc.stdint cimport int64_t


@cython.final
cdef class Stopwatch:
    cdef readonly int64_t limit_ns
    cdef readonly int64_t since_ns
    cdef readonly int64_t took_ns
    cdef readonly list results
    cdef readonly Py_ssize_t index
    cdef readonly object target
    cdef readonly str hook
    cdef readonly object conn
    cdef public bint is_watched
    cdef public object wake
    cpdef begin(self, list results)
    cpdef note(self, object target, str hook, object conn)
    cpdef bint lap(self)
    cpdef step(self)
    cpdef end(self)
