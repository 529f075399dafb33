"""What the compiled watcher sees of `_outboxes.pyx`: types and calls without Python in between."""

cimport cython
from libc.stdint cimport int64_t

from gaiod.core._sessions cimport Session


cdef extern from "sys/uio.h" nogil:
    cdef struct iovec:
        void* iov_base
        size_t iov_len


@cython.final
cdef class Parcel:
    cdef bytes data
    cdef char* start
    cdef Py_ssize_t size
    cdef Py_ssize_t references
    cdef Py_ssize_t audience
    cdef int64_t topic
    cdef int64_t serial
    cdef int64_t position
    cdef bint is_owned              # a reference of Python's stands for all of the outboxes'
    cdef bint is_dying              # among the dead of a Fan
    cdef void* next                 # borrowed: the next of them


@cython.final
cdef class Spool:
    cdef int64_t[::1] cells
    cdef int first
    cdef int policy
    cdef readonly Py_ssize_t limit
    cdef readonly Py_ssize_t queued_bytes
    cdef readonly Py_ssize_t held_bytes
    cpdef add(self, int cell, int64_t amount)
    cdef void count(self, int cell, int64_t amount) noexcept nogil
    cdef void queue(self, Py_ssize_t size) noexcept nogil
    cdef void hold(self, Parcel parcel) noexcept nogil
    cdef void let_go(self, Parcel parcel) noexcept nogil


@cython.final
cdef class Outbox:
    cdef object group               # a Group; untyped, for group.pxd needs this file
    cdef tuple topics
    cdef Spool spool
    cdef Session session            # None: the member does not speak TLS
    cdef void** ring                # references to parcels, counted in them; NULL while nothing waits
    cdef int room                   # of the ring: a power of two
    cdef int first
    cdef int count
    cdef int fd
    cdef int error
    cdef char may
    cdef bint is_over
    cdef bint is_behind
    cdef bint is_flushing
    cdef Py_ssize_t index
    cdef Py_ssize_t offset
    cdef Py_ssize_t waiting_bytes
    cdef Py_ssize_t waiting_before
    cdef Py_ssize_t sent
    cdef double progress_s
    cdef void turn(self, Fan fan, double now_s) noexcept nogil
    cdef Py_ssize_t send_batch(self, Fan fan, Py_ssize_t first) noexcept nogil
    cdef void send_queue(self, Fan fan) noexcept nogil
    cdef Py_ssize_t take_sent(self, Py_ssize_t sent, Py_ssize_t wanted) noexcept nogil
    cdef Py_ssize_t encrypt(self, iovec* vector, int count) noexcept nogil
    cdef Py_ssize_t take_taken(self, Py_ssize_t taken, Py_ssize_t wanted) noexcept nogil
    cdef bint push(self, Fan fan, Parcel parcel) noexcept nogil
    cdef bint grow(self) noexcept nogil
    cdef void keep_limit(self, Fan fan) noexcept nogil
    cdef bint is_full(self) noexcept nogil
    cdef void* at(self, int i) noexcept nogil
    cdef void* pop_last(self) noexcept nogil
    cdef void* remove(self, int i) noexcept nogil
    cdef void forget(self, Fan fan, Parcel parcel, int cell) noexcept nogil
    cdef list parcels(self)
    cdef Py_ssize_t clear(self, int cell) except -1
    cdef Py_ssize_t shed(self, int cell, bint keeps_newest) except -1
    cdef int give_up_last(self, int cell) except -1


@cython.final
cdef class Fan:
    cdef void* outboxes[512]
    cdef int count
    cdef void** batch
    cdef Py_ssize_t* starts         # of each parcel in `joined`; one more: its end
    cdef Py_ssize_t batch_size
    cdef Py_ssize_t batch_room
    cdef Py_ssize_t joined_count
    cdef char* joined               # the first parcels of the batch, one behind the other: one send for many
    cdef void* dead
    cdef void reset(self) noexcept
    cdef void add(self, Outbox outbox, int fd, int may, Py_ssize_t index) noexcept
    cdef int deal(self, list batch, double now_s) except -1
    cdef int take_batch(self, list batch) except -1
    cdef void let_go(self, Spool spool, Parcel parcel) noexcept nogil
    cdef void settle(self, list batch)
