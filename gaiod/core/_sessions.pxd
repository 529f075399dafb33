"""What the compiled watcher sees of `_sessions.pyx`: types and calls without Python in between."""


cdef class Session:
    cdef bint is_open
    cdef bint is_truncated
    cdef char drained
    cdef Py_ssize_t held
    cdef Py_ssize_t held_plain
    cdef int handshake(self, int fd) noexcept nogil
    cdef Py_ssize_t receive(self, int fd, char* memory, Py_ssize_t size) noexcept nogil
    cdef Py_ssize_t send(self, int fd, char* data, Py_ssize_t size) noexcept nogil
    cdef Py_ssize_t take(self, int fd, char* data, Py_ssize_t size) noexcept nogil
    cdef int flush(self, int fd) noexcept nogil
    cdef int shutdown(self) noexcept nogil
    cdef Py_ssize_t disown(self) except -1
    cdef int close(self) except -1
    cdef object facts(self)
    cdef str reason(self)
    cdef str words(self)
