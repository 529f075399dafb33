"""Types for `turns.py`."""

cimport cython


@cython.final
cdef class Turns:
    cdef list items
    cdef Py_ssize_t count

    cdef add(self, object item)
    @cython.locals(place=Py_ssize_t)
    cdef remove(self, object item)
    @cython.locals(i=Py_ssize_t)
    cdef clear(self)
