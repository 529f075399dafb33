# cython: language_level=3, boundscheck=False, wraparound=False
"""TLS sessions of the compiled engine: one interface, which makes its system calls in stretches without the GIL.

`sessions.py` is the same interface for the interpreted engine, and says what a session is.
"""

cimport cython
from cpython.buffer cimport PyBUF_READ, PyBUF_WRITE
from libc.errno cimport ENOMEM

cdef extern from "Python.h":
    object PyMemoryView_FromMemory(char*, Py_ssize_t, int)


cdef class Session:
    """TLS with one peer. Attributes and calls are those of `sessions.Session`."""

    cdef int handshake(self, int fd) noexcept nogil:
        return 0

    cdef Py_ssize_t receive(self, int fd, char* memory, Py_ssize_t size) noexcept nogil:
        return 0

    cdef Py_ssize_t send(self, int fd, char* data, Py_ssize_t size) noexcept nogil:
        return 0

    cdef Py_ssize_t take(self, int fd, char* data, Py_ssize_t size) noexcept nogil:
        return 0

    cdef int flush(self, int fd) noexcept nogil:
        return 0

    cdef int shutdown(self) noexcept nogil:
        return 0

    cdef Py_ssize_t disown(self) except -1:
        return 0

    cdef int close(self) except -1:
        return 0

    cdef object facts(self):
        return None


cdef class ObjectSession(Session):
    """A session by the standard library: each call takes the GIL."""

    def __cinit__(self, session):
        self.session = session
        self.failure = self.message = ""

    cdef int look(self) except -1:
        """Take over what a call has changed."""
        self.is_open = self.session.is_open
        self.is_truncated = self.session.is_truncated
        self.drained = self.session.drained
        self.held = self.session.held
        self.held_plain = self.session.held_plain
        self.failure = self.session.failure
        self.message = self.session.message
        return 0

    cdef int handshake(self, int fd) noexcept nogil:
        cdef int outcome = -ENOMEM
        with gil:
            try:
                outcome = self.session.handshake(fd)
                self.look()
            except MemoryError:
                pass
        return outcome

    cdef Py_ssize_t receive(self, int fd, char* memory, Py_ssize_t size) noexcept nogil:
        cdef Py_ssize_t received = -ENOMEM
        with gil:
            try:
                received = self.session.receive(fd, PyMemoryView_FromMemory(memory, size, PyBUF_WRITE))
                self.look()
            except MemoryError:
                pass
        return received

    cdef Py_ssize_t send(self, int fd, char* data, Py_ssize_t size) noexcept nogil:
        cdef Py_ssize_t sent = -ENOMEM
        with gil:
            try:
                sent = self.session.send(fd, PyMemoryView_FromMemory(data, size, PyBUF_READ), 0, size)
                self.look()
            except MemoryError:
                pass
        return sent

    cdef Py_ssize_t take(self, int fd, char* data, Py_ssize_t size) noexcept nogil:
        cdef Py_ssize_t taken = -ENOMEM
        with gil:
            try:
                taken = self.session.take(fd, [PyMemoryView_FromMemory(data, size, PyBUF_READ)])
                self.look()
            except MemoryError:
                pass
        return taken

    cdef int flush(self, int fd) noexcept nogil:
        cdef int error = -ENOMEM
        with gil:
            try:
                error = self.session.flush(fd)
                self.look()
            except MemoryError:
                pass
        return error

    cdef int shutdown(self) noexcept nogil:
        with gil:
            try:
                self.session.shutdown()
                self.look()
            except MemoryError:
                return -ENOMEM
        return 0

    cdef Py_ssize_t disown(self) except -1:
        cdef Py_ssize_t disowned = self.session.disown()
        self.look()
        return disowned

    cdef int close(self) except -1:
        self.session.close()
        self.look()
        return 0

    cdef object facts(self):
        return self.session.facts()


class TlsContext:
    """What all sessions of a server have in common: its certificates, made ready for use."""

    def __init__(self, options):
        """As `sessions.TlsContext`."""
        from gaiod.core.sessions import TlsContext as ObjectContext  # late: it imports ssl, which takes 2 MB

        self.context = ObjectContext(options)

    def accept(self):
        """Return the session of a new connection, as its server."""
        return ObjectSession(self.context.accept())
