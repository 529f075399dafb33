"""What the compiled watcher sees of `_flows.pyx`: types and calls without Python in between."""

cimport cython

from gaiod.core._sessions cimport Session


cdef struct Pipe:
    int reader                      # -1: none
    int writer


@cython.final
cdef class Flow:
    cdef readonly object sink
    cdef Py_ssize_t wanted
    cdef Py_ssize_t received
    cdef Py_ssize_t sent
    cdef Py_ssize_t left
    cdef Py_ssize_t left_before
    cdef double paused_s
    cdef char* data                 # what is left, if it was copied; NULL: it is in the pipe, or nothing is
    cdef Py_ssize_t start
    cdef Pipe pipe
    cdef int source_fd
    cdef int sink_fd
    cdef Session source_session     # None: it is plain
    cdef Session sink_session
    cdef bint is_secure             # one of them is not None
    cdef int error
    cdef signed char bulk
    cdef char drained
    cdef bint ended
    cdef bint may_receive
    cdef void prepare(self, int source_fd, int sink_fd, bint may_receive) noexcept
    cdef void secure(self, Session source, Session sink) noexcept
    cdef void move(self, Plumbing plumbing) noexcept nogil
    cdef Py_ssize_t receive(self, char* memory) noexcept nogil
    cdef Py_ssize_t send(self, char* data, Py_ssize_t size) noexcept nogil
    cdef void copy(self, char* scratch) noexcept nogil
    cdef void splice(self, Plumbing plumbing) noexcept nogil
    cdef void note_end(self, Py_ssize_t received) noexcept nogil
    cdef void send_copy(self) noexcept nogil
    cdef void send_pipe(self, Plumbing plumbing) noexcept nogil
    cdef void drain_pipe(self) noexcept nogil
    cdef bytes copy_leftover(self)
    cdef int hold(self, Plumbing plumbing) except -1
    cdef int restore(self, bytes data, bint ended, int bulk) except -1
    cdef int keep(self, bytes data) except -1
    cdef void close(self, Plumbing plumbing) noexcept


@cython.final
cdef class Plumbing:
    cdef char* scratch
    cdef Pipe spares[64]
    cdef int spare_count
    cdef int pipe_count             # those lent included
    cdef void* turns[512]           # borrowed; as many as a batch takes
    cdef int turn_count
    cdef bint has_bulk
    cdef void reset(self) noexcept
    cdef void add(self, Flow flow) noexcept
    cdef int turn(self) except -1
    cdef void move_all(self) noexcept nogil
    cdef bint borrow_pipe(self, Pipe* pipe) noexcept nogil
    cdef void return_pipe(self, Pipe* pipe) noexcept nogil
    cdef void discard_pipe(self, Pipe* pipe) noexcept nogil
    cpdef close(self)
