# cython: language_level=3
"""The compiled twin of `stopwatch.py`, which says what it is for."""

from libc.time cimport time_t


cdef extern from "<time.h>" nogil:
    cdef struct timespec:
        time_t tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC_COARSE
    int clock_gettime(int, timespec*)


cdef inline int64_t now_ns() noexcept:
    """Return the time of the kernel's last tick: a load from memory, where the exact time asks the hardware."""
    cdef timespec time
    clock_gettime(CLOCK_MONOTONIC_COARSE, &time)
    return <int64_t>time.tv_sec * 1000000000 + time.tv_nsec


cdef class Stopwatch:
    """Times what one thread does, lap after lap."""

    def __init__(self, int64_t limit_ns):
        self.limit_ns = limit_ns
        self.is_watched = True
        self.wake = None

    cpdef begin(self, list results):
        """Start with the first of these."""
        if self.limit_ns:
            self.index = 0
            self.since_ns = now_ns()
            self.results = results
            if not self.is_watched:
                self.is_watched = True
                self.wake()

    cpdef note(self, object target, str hook, object conn):
        """Say whom the present lap is for: a target calls a hook, for a connection or for none."""
        self.target = target
        self.hook = hook
        self.conn = conn

    cpdef bint lap(self):
        """Begin another lap; tell whether the one before was too long. Outside of a pass none is."""
        cdef int64_t now, took
        self.target = self.conn = None
        if self.results is None:
            return False
        now = now_ns()
        took = now - self.since_ns
        self.since_ns = now
        if took < self.limit_ns:
            return False
        self.took_ns = took
        return True

    cpdef step(self):
        """Go on to the next."""
        self.index += 1

    cpdef end(self):
        """Stop, and hold nothing."""
        self.results = None
