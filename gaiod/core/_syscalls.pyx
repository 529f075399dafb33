# cython: language_level=3, boundscheck=False, wraparound=False
"""The system calls of the compiled engine: Linux's own, in batches, without the GIL unless they are few.

`syscalls.py` is the same interface for the interpreted engine. A call returns what the kernel said,
`-errno` for a failure, and never raises for what the network did.

A thread that gives the GIL up and takes it back around every call pays about 70 ns twice a message,
and lets other threads in between; so each batch is one stretch without it, and a batch of a few calls keeps it:
they take less time than a switch to another thread and back.
"""

cimport cython
from cpython.buffer cimport (
    PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EINTR, EINVAL, errno
from libc.math cimport ceil
from libc.string cimport memcpy, memset

cdef extern from *:
    """
    #ifndef GAIOD_SOURCES
    #define GAIOD_SOURCES "unknown"
    #endif
    """
    const char* GAIOD_SOURCES

cdef extern from "sys/socket.h" nogil:
    cdef struct sockaddr:
        pass
    ssize_t c_recv "recv"(int, void*, size_t, int)
    ssize_t c_send "send"(int, const void*, size_t, int)
    int c_accept4 "accept4"(int, sockaddr*, void*, int)
    int c_socket "socket"(int, int, int)
    int c_connect "connect"(int, const sockaddr*, unsigned int)
    int c_setsockopt "setsockopt"(int, int, int, const void*, unsigned int)
    int c_shutdown "shutdown"(int, int)
    int c_getsockopt "getsockopt"(int, int, int, void*, unsigned int*)
    int AF_INET, AF_INET6, AF_UNIX, SOCK_STREAM
    int MSG_NOSIGNAL, MSG_DONTWAIT, SOCK_NONBLOCK, SOCK_CLOEXEC, SHUT_WR, SOL_SOCKET, SO_ERROR, SO_PEERNAME

cdef extern from "netinet/in.h" nogil:
    cdef struct in_addr:
        pass
    cdef struct in6_addr:
        pass
    cdef struct sockaddr_in:
        unsigned short sin_family
        unsigned short sin_port
        in_addr sin_addr
    cdef struct sockaddr_in6:
        unsigned short sin6_family
        unsigned short sin6_port
        uint32_t sin6_flowinfo
        in6_addr sin6_addr
        uint32_t sin6_scope_id

cdef extern from "sys/un.h" nogil:
    cdef struct sockaddr_un:
        unsigned short sun_family
        char sun_path[108]

cdef extern from "arpa/inet.h" nogil:
    int inet_pton(int, const char*, void*)
    unsigned short htons(unsigned short)
    uint32_t htonl(uint32_t)

cdef extern from "sys/epoll.h" nogil:
    int epoll_create1(int)
    int epoll_ctl(int, int, int, epoll_event*)
    int epoll_wait(int, epoll_event*, int, int)
    uint32_t EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLHUP, EPOLLERR, EPOLLET
    int EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CLOEXEC

cdef extern from "sys/eventfd.h" nogil:
    int c_eventfd "eventfd"(unsigned int, int)
    int EFD_CLOEXEC, EFD_NONBLOCK

cdef extern from "time.h" nogil:
    cdef struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int, timespec*)
    int CLOCK_MONOTONIC

cdef extern from "sys/timerfd.h" nogil:
    cdef struct itimerspec:
        timespec it_interval
        timespec it_value
    int timerfd_create(int, int)
    int timerfd_settime(int, int, const itimerspec*, itimerspec*)
    int TFD_CLOEXEC, TFD_NONBLOCK, TFD_TIMER_ABSTIME

cdef extern from "sys/mman.h" nogil:
    void* mmap(void*, size_t, int, int, int, long)
    int munmap(void*, size_t)
    int PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_ANONYMOUS
    void* MAP_FAILED

cdef extern from "unistd.h" nogil:
    int c_close "close"(int)
    ssize_t c_write "write"(int, const void*, size_t)

cdef extern from "pythread.h" nogil:
    unsigned long PyThread_get_thread_ident()

from os import fsencode, register_at_fork

SOURCES = GAIOD_SOURCES.decode()
"""Digest of the sources this was built from: a test compares it with the sources beside it."""

cdef enum:
    CALLS_MAX = 512                 # as in the arrays of _syscalls.pxd
    SEND_MAX = 262144               # most bytes one connection may move in one call: its share of a pass
    RECEIVED_MAX = 262144           # a batch ends here: what it touches should stay in the L2 cache
    READABLE = 1
    WRITABLE = 2
    BROKEN = 4
    HUNG = 8
    FEW = 4                         # calls that are made with the GIL held
    FEW_BYTES = 262144              # and how much they may move: some 50 us of copying

cdef double ALARM_MIN_S = 0.02      # shorter waits are for what is imminent, and each is for another moment

cdef int forks = 0


def _note_fork():
    global forks
    forks += 1


register_at_fork(after_in_child=_note_fork)


cdef class Arena:
    """The memory swap views look into: pages are only touched as far as reads reach."""

    @staticmethod
    cdef Arena make(Py_ssize_t size):
        cdef Arena arena = Arena.__new__(Arena)
        cdef void* memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        if memory == MAP_FAILED:
            raise MemoryError(f"no {size} bytes for the swap buffer")
        arena.memory = <char*>memory
        arena.size = size
        return arena

    def __dealloc__(self):
        if self.memory != NULL:
            munmap(self.memory, self.size)


@cython.freelist(1024)
@cython.no_gc                       # a view refers to its arena and to older views only: no cycles
cdef class View:
    """A read-only window on received bytes, until the watcher's next `wait_io()`.

    It acts as a memoryview of format "B" does: buffer protocol, `len`, indexing, slices, `bytes()`,
    `==`. Once released it raises ValueError, and so do its slices; a memoryview made of it keeps its
    own bytes alive instead (their memory is then not used again), and never shows another's.
    """

    cdef View base(self):
        return self if self.root is None else self.root

    cdef int check(self) except -1:
        if self.base().data == NULL:
            raise ValueError("this swap buffer was released by wait_io(); copy with bytes() what is needed longer")
        return 0

    def __len__(self):
        self.check()
        return self.size

    @property
    def nbytes(self):
        """Bytes in view."""
        return len(self)

    @property
    def readonly(self):
        """True."""
        return True

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        self.check()
        PyBuffer_FillInfo(buffer, self, self.data, self.size, 1, flags)
        cdef View base = self.base()
        base.exports += 1

    def __releasebuffer__(self, Py_buffer* buffer):
        cdef View base = self.base()
        base.exports -= 1

    def __getitem__(self, key):
        cdef View part
        self.check()
        if not isinstance(key, slice):
            return memoryview(self)[key]
        start, stop, step = key.indices(self.size)
        if step != 1:
            return memoryview(self)[key]
        part = View.__new__(View)
        part.arena = self.arena
        part.root = self.base()
        part.data = self.data + <Py_ssize_t>start
        part.size = max(0, stop - start)
        return part

    def __bytes__(self):
        self.check()
        return PyBytes_FromStringAndSize(self.data, self.size)

    def tobytes(self):
        """Return a copy."""
        return bytes(self)

    def __eq__(self, other):
        if not PyObject_CheckBuffer(other):
            return NotImplemented
        return memoryview(self) == other

    __hash__ = None

    def __repr__(self):
        if self.base().data == NULL:
            return "<released swap buffer>"
        return f"<swap buffer of {self.size} bytes>"


cdef class Pin:
    """A buffer of somebody else's, its memory pinned for as long as this lives."""

    def __len__(self):
        return self.buffer.len

    def __dealloc__(self):
        PyBuffer_Release(&self.buffer)


cdef class Batch:
    """System calls collected, made in one go, and their results.

    Receives without a buffer of their own share an arena, packed one behind the other. It ends a
    batch early when it is full (the rest is received by the next one), so it never hands out a
    short remainder.
    """

    def __cinit__(self, Py_ssize_t buffer_size):
        self.buffer_size = buffer_size
        self.arena_size = RECEIVED_MAX + buffer_size
        self.arena = Arena.make(self.arena_size)
        self.spare = Arena.make(self.arena_size)

    cpdef object pin(self, object data, bint writable):
        """Return `data` in the form in which a batch takes it, its memory pinned as long as that is kept.

        Raises:
            TypeError: not a buffer, not contiguous, or read-only where it has to be written to.
        """
        cdef Pin pinned
        if not writable and (type(data) is bytes or type(data) is View):
            if type(data) is View:
                (<View>data).check()
            return data
        pinned = Pin.__new__(Pin)
        try:
            PyObject_GetBuffer(data, &pinned.buffer, PyBUF_WRITABLE if writable else PyBUF_SIMPLE)
        except BufferError as error:
            if writable and memoryview(data).readonly:
                raise TypeError(f"cannot read into a read-only {type(data).__name__}; pass a bytearray") from None
            raise TypeError(f"cannot use a {type(data).__name__} as a buffer: {error}") from None
        return pinned

    cdef Py_ssize_t length(self, object pinned) except -1:
        """Return the bytes of what `pin` returned."""
        if type(pinned) is View:
            return (<View>pinned).size
        if type(pinned) is bytes:
            return PyBytes_GET_SIZE(pinned)
        return (<Pin?>pinned).buffer.len

    cdef int reset(self) except -1:
        """Forget the last batch."""
        if self.secure_count:
            memset(self.sessions, 0, self.count * sizeof(void*))
            self.secure_count = 0
        while self.count > 0:
            self.count -= 1
            Py_DECREF(<object>self.calls[self.count].operation)
        return 0

    cdef int add_send(self, int fd, object data, Py_ssize_t offset, object operation) except -1:
        """Add a send of `data[offset:]`."""
        cdef Call* call = &self.calls[self.count]
        call.fd = fd
        if type(data) is View:
            call.data = (<View>data).data
            call.wanted = (<View>data).size
        elif type(data) is bytes:
            call.data = PyBytes_AS_STRING(data)
            call.wanted = PyBytes_GET_SIZE(data)
        else:
            call.data = <char*>(<Pin?>data).buffer.buf
            call.wanted = (<Pin>data).buffer.len
        call.data += offset
        call.wanted -= offset
        if call.wanted > SEND_MAX:
            call.wanted = SEND_MAX
        self.add(call, operation)
        return 0

    cdef void secure(self, Session session) noexcept:
        """Let the call that was added last go through a TLS session."""
        self.sessions[self.count - 1] = <void*>session
        self.secure_count += 1

    cdef void send(self) noexcept:
        """Make the sends."""
        if self.secure_count:
            make_secure_sends(self)
            return
        if self.is_small():
            self.make_sends()
            return
        with nogil:
            self.make_sends()

    cdef bint is_small(self) noexcept:
        """Tell whether the calls take less than it does to give the GIL away and to get it back from another thread."""
        cdef Py_ssize_t size = 0
        cdef int i
        if self.count > FEW:
            return False
        for i in range(self.count):
            size += self.calls[i].wanted
        return size <= FEW_BYTES

    cdef void make_sends(self) noexcept nogil:
        cdef Call* call = &self.calls[0]
        cdef Call* end = call + self.count
        while call < end:
            call.result = c_send(call.fd, call.data, call.wanted, MSG_NOSIGNAL | MSG_DONTWAIT)
            if call.result < 0:
                call.result = -errno
            call += 1

    cdef int add_receive(self, int fd, object data, Py_ssize_t offset, object operation) except -1:
        """Add a receive into `data[offset:]`, or into the swap buffer if `data` is None."""
        cdef Call* call = &self.calls[self.count]
        call.fd = fd
        if data is None:
            call.data = NULL
            call.wanted = self.buffer_size
        else:
            call.data = <char*>(<Pin?>data).buffer.buf + offset
            call.wanted = (<Pin>data).buffer.len - offset
            if call.wanted > SEND_MAX:
                call.wanted = SEND_MAX
        self.add(call, operation)
        return 0

    cdef void add(self, Call* call, object operation) noexcept:
        Py_INCREF(operation)
        call.operation = <void*>operation
        self.count += 1

    cdef int receive(self) except -1:
        """Make the receives, as many as fit, and return how many that were."""
        cdef char* memory = self.arena.memory
        cdef int received_count
        if self.secure_count:
            return make_secure_receives(self, memory)
        if self.is_small():
            return self.make_receives(memory)
        with nogil:
            received_count = self.make_receives(memory)
        return received_count

    cdef int make_receives(self, char* free) noexcept nogil:
        cdef Call* call = &self.calls[0]
        cdef Call* end = call + self.count
        cdef char* last = free + self.arena_size - self.buffer_size
        while call < end and free <= last:
            if call.data == NULL:
                call.data = free
            call.result = c_recv(call.fd, call.data, call.wanted, MSG_DONTWAIT)
            if call.result < 0:
                call.result = -errno
            elif call.data == free:
                free += (call.result + 63) & ~63    # a cache line is one connection's
            call += 1
        return <int>(call - &self.calls[0])

    cdef object operation(self, int i):
        """Return what call `i` was added for."""
        return <object>self.calls[i].operation

    cdef Py_ssize_t result(self, int i) noexcept:
        return self.calls[i].result

    cdef Py_ssize_t wanted(self, int i) noexcept:
        return self.calls[i].wanted

    cdef View view(self, int i):
        cdef View view = View.__new__(View)
        view.arena = self.arena
        view.data = self.calls[i].data
        view.size = self.calls[i].result
        view.before = self.newest
        self.newest = view
        return view

    cdef object own(self, object data):
        """Return `data`, safe to keep beyond `recycle`: a view becomes a copy."""
        if type(data) is View:
            return bytes(data)
        return data

    cdef bytes rest(self, object pinned, Py_ssize_t offset):
        """Return a copy of what `pin` returned, from `offset` on; all of a `bytes` is that itself."""
        if type(pinned) is bytes:
            return (<bytes>pinned)[offset:]
        if type(pinned) is View:
            return bytes(pinned)[offset:]
        cdef Py_buffer* buffer = &(<Pin?>pinned).buffer
        return PyBytes_FromStringAndSize(<char*>buffer.buf + offset, buffer.len - offset)

    cdef int keep(self, object data) except -1:
        """Let the view `data` live through the next `recycle`: a completion is about to show it."""
        cdef View view
        if type(data) is View:
            view = <View>data
            if view.root is not None:
                view = view.root
            view.kept = True
        return 0

    cdef int recycle(self) except -1:
        """Release the views handed out since the last call, but for those kept."""
        cdef View view = self.newest
        cdef View before
        cdef bint held = False
        cdef bint spare_held = False
        if view is None:
            return 0
        self.newest = None
        while view is not None:
            before = view.before
            view.before = None
            if view.kept:
                view.kept = False
                held = held or view.arena is self.arena
                spare_held = spare_held or view.arena is self.spare
                view.before = self.newest
                self.newest = view
            else:
                view.data = NULL
                if view.exports:    # the memory stays with whoever looks at it
                    self.replace(view.arena)
            view = before
        if held:
            self.arena, self.spare = self.spare, self.arena
            if spare_held:
                self.replace(self.arena)
        return 0

    cdef int replace(self, Arena arena) except -1:
        if arena is self.arena:
            self.arena = Arena.make(self.arena_size)
            self.exhausted += 1
        elif arena is self.spare:
            self.spare = Arena.make(self.arena_size)
            self.exhausted += 1
        return 0

    cpdef close(self):
        """Release every view."""
        self.recycle()
        self.recycle()


cdef void make_secure_sends(Batch batch) noexcept:
    """As `Batch.send`, where some calls go through sessions. Beside it, so that plain ones are as they were."""
    cdef Call* call
    cdef int i
    with nogil:
        for i in range(batch.count):
            call = &batch.calls[i]
            if batch.sessions[i] != NULL:
                call.result = (<Session>batch.sessions[i]).send(call.fd, call.data, call.wanted)
            else:
                call.result = c_send(call.fd, call.data, call.wanted, MSG_NOSIGNAL | MSG_DONTWAIT)
                if call.result < 0:
                    call.result = -errno


cdef int make_secure_receives(Batch batch, char* free) noexcept:
    """As `Batch.receive`, where some calls go through sessions."""
    cdef char* last = free + batch.arena_size - batch.buffer_size
    cdef Call* call
    cdef int count = 0
    with nogil:
        while count < batch.count and free <= last:
            call = &batch.calls[count]
            if call.data == NULL:
                call.data = free
            if batch.sessions[count] != NULL:
                call.result = (<Session>batch.sessions[count]).receive(call.fd, call.data, call.wanted)
            else:
                call.result = c_recv(call.fd, call.data, call.wanted, MSG_DONTWAIT)
                if call.result < 0:
                    call.result = -errno
            if call.result > 0 and call.data == free:
                free += (call.result + 63) & ~63
            count += 1
    return count


cdef class Poller:
    """Edge-triggered epoll, registered once per descriptor for both directions.

    A forked child shares the kernel's side of an epoll with its parent: what one unregisters, the other misses, and
    an event goes to one of them. So a child unregisters nothing, and opens a poller of its own at its first use.
    """

    def __cinit__(self):
        self.epoll = self.waker = self.alarm = -1

    def __init__(self):
        self.open()

    cdef int open(self) except -1:
        cdef epoll_event event
        self.forks = forks
        self.epoll = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll < 0:
            PyErr_SetFromErrno(OSError)
        self.waker = c_eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if self.waker < 0:
            PyErr_SetFromErrno(OSError)
        # Edge-triggered, every write to an eventfd is an edge: it need not be read back.
        event.events = EPOLLIN | EPOLLET
        event.data.u64 = <uint64_t>self.waker
        if epoll_ctl(self.epoll, EPOLL_CTL_ADD, self.waker, &event) < 0:
            PyErr_SetFromErrno(OSError)
        self.alarm = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)
        if self.alarm < 0:
            PyErr_SetFromErrno(OSError)
        self.alarm_s = 0            # not set; nor does it have to be read back
        event.data.u64 = <uint64_t>self.alarm
        if epoll_ctl(self.epoll, EPOLL_CTL_ADD, self.alarm, &event) < 0:
            PyErr_SetFromErrno(OSError)
        return 0

    cdef int reopen(self) except -1:
        """Leave the parent's to it, and watch the same descriptors in a poller of this process."""
        cdef int fd
        self.close()
        self.open()
        for fd in range(self.table_size):
            if self.table[fd].conn != NULL and self.register(fd) < 0:
                PyErr_SetFromErrno(OSError)
        return 0

    cdef int register(self, int fd) noexcept:
        cdef epoll_event event
        event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET
        event.data.u64 = (<uint64_t>self.table[fd].generation << 32) | <uint32_t>fd
        return epoll_ctl(self.epoll, EPOLL_CTL_ADD, fd, &event)

    def __dealloc__(self):
        if self.epoll >= 0:
            c_close(self.epoll)
        if self.waker >= 0:
            c_close(self.waker)
        if self.alarm >= 0:
            c_close(self.alarm)
        PyMem_Free(self.table)

    cpdef add(self, int fd, object conn):
        """Watch `fd` for both directions on behalf of `conn`, which is held weakly."""
        cdef Owner* table
        cdef int size
        if self.forks != forks:
            self.reopen()
        if fd >= self.table_size:
            size = max(fd + 1, 2 * self.table_size, 256)
            table = <Owner*>PyMem_Realloc(self.table, size * sizeof(Owner))
            if table == NULL:
                raise MemoryError
            memset(table + self.table_size, 0, (size - self.table_size) * sizeof(Owner))
            self.table = table
            self.table_size = size
        self.generation += 1 if self.generation < 0xFFFFFFFF else 2     # 0 is the waker's and the alarm's
        self.table[fd].conn = <void*>conn
        self.table[fd].generation = self.generation
        if self.register(fd) < 0:
            self.table[fd].conn = NULL
            PyErr_SetFromErrno(OSError)

    cpdef remove(self, int fd):
        """Stop watching `fd`, which is still open."""
        cdef epoll_event event
        if fd >= self.table_size or self.table[fd].conn == NULL:
            return
        self.table[fd].conn = NULL
        # Closing would do, but for copies of the descriptor in forked children: they keep it registered.
        if self.forks == forks:
            epoll_ctl(self.epoll, EPOLL_CTL_DEL, fd, &event)

    cdef object find(self, int fd):
        """Return on whose behalf `fd` is watched; None if it is not."""
        if fd >= self.table_size or self.table[fd].conn == NULL:
            return None
        return <object>self.table[fd].conn

    cdef int wait(self, double timeout_s) except -1:
        """Wait for events, for ever if `timeout_s` is negative, and return how many there are.

        A long wait may return early, without an event that has an owner.
        """
        cdef int timeout_ms = -1
        cdef int count
        if self.forks != forks:
            self.reopen()
        if 0 <= timeout_s < ALARM_MIN_S:
            timeout_ms = <int>ceil(timeout_s * 1e3)
        elif timeout_s >= 0:
            self.set_alarm(min(timeout_s, 1e6))
        with nogil:
            count = epoll_wait(self.epoll, self.ready, CALLS_MAX, timeout_ms)
        if count < 0:
            if errno != EINTR:
                PyErr_SetFromErrno(OSError)
            PyErr_CheckSignals()
            return 0
        return count

    cdef int set_alarm(self, double delay_s) except -1:
        """See to it that `wait` returns by then.

        An alarm that rings earlier does, too: then it is set anew. So messages that come in between set none: the
        kernel's own timer, which `epoll_wait` sets and takes back in each call, costs 0.7 us.
        """
        cdef itimerspec time
        cdef double now_s = self.now()
        cdef double until_s = now_s + delay_s
        if now_s < self.alarm_s <= until_s:
            return 0
        memset(&time, 0, sizeof(time))
        time.it_value.tv_sec = <long>until_s
        time.it_value.tv_nsec = min(999999999, <long>ceil((until_s - time.it_value.tv_sec) * 1e9))
        if timerfd_settime(self.alarm, TFD_TIMER_ABSTIME, &time, NULL) < 0:
            PyErr_SetFromErrno(OSError)
        self.alarm_s = until_s
        return 0

    cdef object owner(self, int i):
        """Return whom event `i` concerns; None if that one is gone, or the event is the waker's or the alarm's."""
        cdef uint64_t data = self.ready[i].data.u64
        cdef Owner* owner = &self.table[<uint32_t>data]
        if data >> 32 == 0 or owner.conn == NULL or owner.generation != data >> 32:
            return None
        return <object>owner.conn

    cdef uint32_t events(self, int i) noexcept:
        cdef uint32_t bits = self.ready[i].events
        cdef uint32_t events = 0
        if bits & EPOLLIN:
            events |= READABLE
        if bits & EPOLLOUT:
            events |= WRITABLE
        if bits & (EPOLLRDHUP | EPOLLHUP | EPOLLERR):
            events |= BROKEN
        if bits & (EPOLLHUP | EPOLLERR):
            events |= HUNG
        return events

    cpdef list owners(self):
        """Return every owner that is alive."""
        cdef int fd
        return [<object>self.table[fd].conn for fd in range(self.table_size) if self.table[fd].conn != NULL]

    cpdef wake(self):
        """End a `wait` that another thread is in, or the next one."""
        cdef uint64_t one = 1
        if self.forks != forks:
            return  # nobody waits in a process that has not opened it yet
        c_write(self.waker, &one, sizeof(one))

    cdef double now(self) noexcept:
        cdef timespec time
        clock_gettime(CLOCK_MONOTONIC, &time)
        return time.tv_sec + 1e-9 * time.tv_nsec

    cdef unsigned long thread(self) noexcept:
        return PyThread_get_thread_ident()

    cpdef close(self):
        """Close what the poller itself opened."""
        if self.epoll >= 0:
            c_close(self.epoll)
        if self.waker >= 0:
            c_close(self.waker)
        if self.alarm >= 0:
            c_close(self.alarm)
        self.epoll = self.waker = self.alarm = -1


def accept(int fd):
    """Accept one connection, non-blocking and close-on-exec: its descriptor, or `-errno`."""
    cdef int connection = c_accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
    return connection if connection >= 0 else -errno


def open_stream(int family):
    """Make a stream socket, non-blocking and close-on-exec: its descriptor, or `-errno`."""
    cdef int fd = c_socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    return fd if fd >= 0 else -errno


def set_option(int fd, int level, int name, value):
    """Set an option of a socket, a number or bytes: 0, or `-errno`."""
    cdef int number
    if isinstance(value, bytes):
        return -errno if c_setsockopt(fd, level, name, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value)) < 0 else 0
    number = value
    return -errno if c_setsockopt(fd, level, name, &number, sizeof(number)) < 0 else 0


def connect(int fd, int family, address):
    """Begin a connection to an address as `sockets.resolve_numeric` returns it: 0, or `-errno`."""
    cdef sockaddr_in v4
    cdef sockaddr_in6 v6
    cdef sockaddr_un path
    cdef sockaddr* where
    cdef unsigned int size
    cdef bytes text
    if family == AF_INET:
        memset(&v4, 0, sizeof(v4))
        v4.sin_family = AF_INET
        v4.sin_port = htons(address[1])
        text = address[0].encode()
        inet_pton(AF_INET, PyBytes_AS_STRING(text), &v4.sin_addr)
        where = <sockaddr*>&v4
        size = sizeof(v4)
    elif family == AF_INET6:
        memset(&v6, 0, sizeof(v6))
        v6.sin6_family = AF_INET6
        v6.sin6_port = htons(address[1])
        v6.sin6_flowinfo = htonl(address[2])
        v6.sin6_scope_id = address[3]
        text = address[0].partition("%")[0].encode()
        inet_pton(AF_INET6, PyBytes_AS_STRING(text), &v6.sin6_addr)
        where = <sockaddr*>&v6
        size = sizeof(v6)
    else:
        memset(&path, 0, sizeof(path))
        path.sun_family = AF_UNIX
        text = fsencode(address)
        memcpy(path.sun_path, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
        where = <sockaddr*>&path
        size = <unsigned int>(sizeof(path) - 108 + PyBytes_GET_SIZE(text) + (1 if text[:1] != b"\0" else 0))
    return -errno if c_connect(fd, where, size) < 0 else 0


def peer_name(int fd):
    """Return the address of a socket's other end, a `struct sockaddr`; b"" if nobody knows it.

    Linux knows it also after a reset, when getpeername() does not any more: SO_PEERNAME.
    """
    cdef char name[28]
    cdef unsigned int size = 16     # IPv4; it fails if the address has fewer bytes
    cdef int result = c_getsockopt(fd, SOL_SOCKET, SO_PEERNAME, name, &size)
    if result == 0 and (<sockaddr_in*>name).sin_family == AF_INET6:
        size = 28
        result = c_getsockopt(fd, SOL_SOCKET, SO_PEERNAME, name, &size)
    elif result < 0 and errno == EINVAL:
        size = 2                    # a unix socket without a name
        result = c_getsockopt(fd, SOL_SOCKET, SO_PEERNAME, name, &size)
    return b"" if result < 0 else name[:size]


def take_error(int fd):
    """Return and clear the socket's pending error: 0, or an errno."""
    cdef int error = 0
    cdef unsigned int size = sizeof(error)
    if c_getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) < 0:
        return errno
    return error


def shutdown_write(int fd):
    """Send a FIN; a connection that is gone already needs none."""
    c_shutdown(fd, SHUT_WR)
