"""Types for `tallies.py`."""

cimport cython
from libc.stdint cimport int64_t, uint64_t

cdef int64_t OWNERS, CHANGES, WAYS, BUCKETS, BUCKET_CELLS, LEVEL_BITS, LEVEL_MASK
cdef double LEVEL_ONE
cdef uint64_t MIXER, HASH_MASK


@cython.final
cdef class Tallies:
    cdef object __weakref__
    cdef int _fd
    cdef int64_t _own
    cdef object _memory
    cdef int64_t[::1] _cells
    cdef list _changes
    cdef list _seats

    cpdef _look(self)
    @cython.locals(start=int64_t, cell=int64_t, connections=int64_t, level=double)
    cpdef tuple of(self, int64_t tag, int64_t now_ms, double window_ms)
    @cython.locals(cell=int64_t, level=double)
    cpdef add(self, int64_t tag, int64_t arrivals, int64_t now_ms, double window_ms)
    @cython.locals(cell=int64_t)
    cpdef take_away(self, int64_t tag)
    @cython.locals(cell=int64_t, first=int64_t)
    cdef int64_t _place(self, int64_t start, int64_t tag) except -2
    @cython.locals(cell=int64_t, first=int64_t, coldest=int64_t, fewer=int64_t)
    cdef int64_t _room_for(self, int64_t tag) except -2


@cython.locals(mixed=uint64_t)
cpdef tag_of(object number, object factor, object summand)
@cython.locals(level=double)
cdef double _level_of(int64_t recent, int64_t now_ms, double window_ms) except -1
