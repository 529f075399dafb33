"""Types for `results.py`, and for `results.pyx`, which is compiled."""

cimport cython

@cython.final
cdef class OpResult:
    cdef readonly object operation
    cdef readonly object context
    cdef readonly object conn               # a Conn; untyped, for connection.pxd needs this file
    cdef readonly object buffer
    cdef readonly object error
    cdef readonly Py_ssize_t size
    cdef readonly bint is_swap_buffer
    cdef bint full
    cdef bint pending
    cdef bint silent
    cdef char kind
    cdef object pinned
    cdef OpResult next
    cdef double deadline
    cdef Py_ssize_t length
