"""What the compiled watcher sees of `_syscalls.pyx`: types and calls without Python in between."""

cimport cython
from libc.stdint cimport uint32_t, uint64_t

from gaiod.core._sessions cimport Session


cdef extern from "sys/epoll.h" nogil:
    ctypedef union epoll_data_t:
        uint64_t u64
    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data


cdef struct Call:
    int fd
    char* data
    Py_ssize_t wanted
    Py_ssize_t result
    void* operation                 # a reference, until the batch is reset


cdef struct Owner:
    void* conn                      # borrowed: its finalizer takes it out of here
    uint32_t generation             # tells an event of a descriptor's former life


@cython.final
cdef class Arena:
    cdef char* memory
    cdef Py_ssize_t size
    @staticmethod
    cdef Arena make(Py_ssize_t size)


@cython.final
cdef class View:
    cdef Arena arena
    cdef View root                  # None for a view handed out; a slice asks its root if it still lives
    cdef char* data                 # NULL once released
    cdef Py_ssize_t size
    cdef int exports                # memoryviews and the like that look at it now
    cdef bint kept
    cdef View before                # the one handed out before, of those to be released
    cdef View base(self)
    cdef int check(self) except -1


@cython.final
cdef class Pin:
    cdef Py_buffer buffer


@cython.final
cdef class Batch:
    cdef int exhausted
    cdef Call calls[512]
    cdef void* sessions[512]        # that calls go through; NULL: plain. The operation's connection has it
    cdef int secure_count           # how many there are: a batch of plain calls looks at none of them
    cdef int count
    cdef Py_ssize_t buffer_size
    cdef Py_ssize_t arena_size
    cdef Arena arena
    cdef Arena spare
    cdef View newest                # of the views handed out and not released
    cpdef object pin(self, object data, bint writable)
    cdef Py_ssize_t length(self, object pinned) except -1
    cdef int reset(self) except -1
    cdef int add_send(self, int fd, object data, Py_ssize_t offset, object operation) except -1
    cdef void secure(self, Session session) noexcept
    cdef void send(self) noexcept
    cdef bint is_small(self) noexcept
    cdef void make_sends(self) noexcept nogil
    cdef int add_receive(self, int fd, object data, Py_ssize_t offset, object operation) except -1
    cdef int receive(self) except -1
    cdef int make_receives(self, char* free) noexcept nogil
    cdef void add(self, Call* call, object operation) noexcept
    cdef object operation(self, int i)
    cdef Py_ssize_t result(self, int i) noexcept
    cdef Py_ssize_t wanted(self, int i) noexcept
    cdef View view(self, int i)
    cdef object own(self, object data)
    cdef bytes rest(self, object pinned, Py_ssize_t offset)
    cdef int keep(self, object data) except -1
    cdef int recycle(self) except -1
    cdef int replace(self, Arena arena) except -1
    cpdef close(self)


@cython.final
cdef class Poller:
    cdef int epoll
    cdef int waker
    cdef int alarm
    cdef double alarm_s             # when it rings, or rang last
    cdef int forks                  # of this process, when it was opened
    cdef uint32_t generation
    cdef Owner* table
    cdef int table_size
    cdef epoll_event ready[512]
    cdef int open(self) except -1
    cdef int reopen(self) except -1
    cdef int register(self, int fd) noexcept
    cpdef add(self, int fd, object conn)
    cpdef remove(self, int fd)
    cdef int wait(self, double timeout_s) except -1
    cdef int set_alarm(self, double delay_s) except -1
    cdef object owner(self, int i)
    cdef object find(self, int fd)
    cdef uint32_t events(self, int i) noexcept
    cpdef list owners(self)
    cpdef wake(self)
    cdef double now(self) noexcept
    cdef unsigned long thread(self) noexcept
    cpdef close(self)
