# cython: language_level=3, boundscheck=False, wraparound=False
"""The system calls of relays, compiled: Linux's own, many flows in one stretch without the GIL.

`flows.py` is the same interface for the interpreted engine, and says what a flow is.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.errno cimport EAGAIN, EINTR, EINVAL, ENOMEM, errno
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

cdef extern from "sys/socket.h" nogil:
    ssize_t c_recv "recv"(int, void*, size_t, int)
    ssize_t c_send "send"(int, const void*, size_t, int)
    int MSG_NOSIGNAL, MSG_DONTWAIT

cdef extern from "fcntl.h" nogil:
    ssize_t c_splice "splice"(int, void*, int, void*, size_t, unsigned int)
    int c_fcntl "fcntl"(int, int, ...)
    int F_SETPIPE_SZ, F_GETPIPE_SZ, O_NONBLOCK, O_CLOEXEC
    unsigned int SPLICE_F_NONBLOCK

cdef extern from *:
    """
    #include <errno.h>
    static void gaiod_set_errno(int number) { errno = number; }
    """
    void set_errno "gaiod_set_errno"(int) noexcept nogil

cdef extern from "stdlib.h" nogil:
    int posix_memalign(void**, size_t, size_t)

cdef extern from "unistd.h" nogil:
    int c_close "close"(int)
    int c_pipe2 "pipe2"(int*, int)
    ssize_t c_read "read"(int, void*, size_t)

cdef enum:                          # as in flows.py, which says where the numbers come from
    FEW = 4                         # turns that are taken with the GIL held, where none is bulk
    PAGE_BYTES = 4096
    TURN_MAX = 262144
    PIPE_BYTES = 262144
    PIPE_BYTES_MIN = 65536
    PIPES_MAX = 64
    BULK_MIN = 32768
    BULK_LEAST = 16384
    BULK_AFTER = 4
    BULK_CERTAIN = 8


@cython.freelist(256)
cdef class Flow:
    """One direction of a relay: what was received and not yet sent, and the outcome of its last turn.

    Attributes are those of `flows.Flow`.
    """

    def __cinit__(self, object sink, Py_ssize_t limit):
        self.sink = sink
        self.wanted = min(limit, TURN_MAX)
        self.pipe.reader = self.pipe.writer = -1

    def __dealloc__(self):
        free(self.data)

    cdef void prepare(self, int source_fd, int sink_fd, bint may_receive) noexcept:
        self.source_fd = source_fd
        self.sink_fd = sink_fd
        self.may_receive = may_receive

    cdef void secure(self, Session source, Session sink) noexcept:
        """Let this flow's turns go through the TLS sessions of the source and the sink; None: that one has none."""
        self.source_session = source
        self.sink_session = sink
        self.is_secure = source is not None or sink is not None

    cdef void move(self, Plumbing plumbing) noexcept nogil:
        """Have a turn: send what is left, and if all of it went, receive and send once more."""
        self.received = self.sent = 0
        self.error = self.drained = 0
        self.left_before = self.left
        if self.left:
            if self.data != NULL:
                self.send_copy()
            else:
                self.send_pipe(plumbing)
        if self.left or self.error or self.ended or not self.may_receive:
            return
        if self.bulk >= BULK_AFTER and not self.is_secure and plumbing.borrow_pipe(&self.pipe):
            self.splice(plumbing)
        else:
            self.copy(plumbing.scratch)

    cdef Py_ssize_t receive(self, char* memory) noexcept nogil:
        """Receive, decrypt what is encrypted, and set `drained`; a failure is in errno."""
        cdef Py_ssize_t received
        if self.source_session is not None:
            received = self.source_session.receive(self.source_fd, memory, self.wanted)
            self.drained = self.source_session.drained
            if received < 0:
                set_errno(<int>-received)
            return received
        received = c_recv(self.source_fd, memory, self.wanted, MSG_DONTWAIT)
        if 0 < received < self.wanted:
            self.drained = 1
        elif received < 0 and errno == EAGAIN:
            self.drained = 2
        return received

    cdef Py_ssize_t send(self, char* data, Py_ssize_t size) noexcept nogil:
        """Send, encrypted if the sink wants that; a failure is in errno."""
        cdef Py_ssize_t sent
        if self.sink_session is not None:
            sent = self.sink_session.take(self.sink_fd, data, size)
            if sent < 0:
                set_errno(<int>-sent)
            return sent
        return c_send(self.sink_fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT)

    cdef void copy(self, char* scratch) noexcept nogil:
        cdef Py_ssize_t sent
        cdef Py_ssize_t received = self.receive(scratch)
        if received <= 0:
            self.note_end(received)
            return
        self.received = received
        if received < BULK_MIN:
            self.bulk = min(self.bulk, 0)
        elif 0 <= self.bulk < BULK_CERTAIN:
            self.bulk += 1
        sent = self.send(scratch, received)
        if sent < 0:
            self.error = errno
            sent = 0
        self.sent += sent
        if sent < received:
            self.data = <char*>malloc(received - sent)
            if self.data == NULL:
                self.error = ENOMEM
                return
            self.start = 0
            self.left = received - sent
            memcpy(self.data, scratch + sent, self.left)

    cdef void splice(self, Plumbing plumbing) noexcept nogil:
        cdef Py_ssize_t received
        while True:
            received = c_splice(self.source_fd, NULL, self.pipe.writer, NULL, self.wanted, SPLICE_F_NONBLOCK)
            if received <= 0:
                if received < 0 and errno == EINVAL:
                    self.bulk = -1          # its kind of socket cannot
                else:
                    if received < 0 and errno == EAGAIN:
                        self.drained = 2
                    self.note_end(received)
                break
            self.received += received
            self.left = received
            self.drain_pipe()
            if self.left or self.error or self.received >= TURN_MAX:
                break
        if self.bulk > 0:
            if 0 <= self.received < BULK_LEAST:
                self.bulk -= 1
            elif self.bulk < BULK_CERTAIN:
                self.bulk += 1
        if self.left == 0:
            plumbing.return_pipe(&self.pipe)

    cdef void note_end(self, Py_ssize_t received) noexcept nogil:
        """Take the outcome of a receive that brought nothing."""
        if received == 0:
            self.ended = True
        elif errno != EAGAIN and errno != EINTR and self.received == 0:
            self.received = -errno

    cdef void send_copy(self) noexcept nogil:
        cdef Py_ssize_t sent = self.send(self.data + self.start, self.left)
        if sent < 0:
            self.error = errno
            return
        self.sent += sent
        self.start += sent
        self.left -= sent
        if self.left == 0:
            free(self.data)
            self.data = NULL

    cdef void send_pipe(self, Plumbing plumbing) noexcept nogil:
        self.drain_pipe()
        if self.left == 0:
            plumbing.return_pipe(&self.pipe)

    cdef void drain_pipe(self) noexcept nogil:
        cdef Py_ssize_t sent
        while self.left:
            # No SPLICE_F_MORE: the kernel would hold the end of a message back for 200 ms.
            sent = c_splice(self.pipe.reader, NULL, self.sink_fd, NULL, self.left, SPLICE_F_NONBLOCK)
            if sent <= 0:
                self.error = errno if sent < 0 else EAGAIN
                return
            self.sent += sent
            self.left -= sent

    cdef bytes copy_leftover(self):
        """Return a copy of what is left."""
        cdef bytes copy = PyBytes_FromStringAndSize(NULL, self.left)
        if self.data != NULL:
            memcpy(PyBytes_AS_STRING(copy), self.data + self.start, self.left)
            return copy
        cdef Py_ssize_t filled = 0
        cdef Py_ssize_t size
        while filled < self.left:
            size = c_read(self.pipe.reader, PyBytes_AS_STRING(copy) + filled, self.left - filled)
            if size <= 0:
                break
            filled += size
        return copy[:filled]

    cdef int hold(self, Plumbing plumbing) except -1:
        """Have what is left in memory, if it is in a pipe: it is about to be handed to another process."""
        if self.left and self.data == NULL:
            self.keep(self.copy_leftover())
            plumbing.return_pipe(&self.pipe)
        return 0

    cdef int restore(self, bytes data, bint ended, int bulk) except -1:
        """Go on with what another flow had: `left` bytes of data, `ended`, `bulk`."""
        self.keep(data)
        self.ended = ended
        self.bulk = bulk
        return 0

    cdef int keep(self, bytes data) except -1:
        """Let data be what is left."""
        cdef Py_ssize_t size = len(data)
        if size:
            self.data = <char*>malloc(size)
            if self.data == NULL:
                raise MemoryError
            memcpy(self.data, PyBytes_AS_STRING(data), size)
        self.start = 0
        self.left = size
        return 0

    cdef void close(self, Plumbing plumbing) noexcept:
        """Forget what is left."""
        self.sink = None
        self.source_session = self.sink_session = None
        free(self.data)
        self.data = NULL
        if self.pipe.reader >= 0:
            plumbing.discard_pipe(&self.pipe)    # there may be something in it
        self.left = 0


cdef class Plumbing:
    """What the flows of a watcher share: memory to copy through, pipes to splice through.

    A turn uses either for as long as it lasts; a flow keeps a pipe only while something is in it.
    """

    def __cinit__(self):
        self.scratch = NULL

    def __dealloc__(self):
        free(self.scratch)
        while self.spare_count:
            self.spare_count -= 1
            self.discard_pipe(&self.spares[self.spare_count])

    cdef void reset(self) noexcept:
        """Forget whose turn it was."""
        self.turn_count = 0
        self.has_bulk = False

    cdef void add(self, Flow flow) noexcept:
        """Let a flow have the next turn. Whoever adds it keeps it until then, or resets before."""
        self.turns[self.turn_count] = <void*>flow
        self.turn_count += 1
        self.has_bulk = self.has_bulk or flow.bulk != 0    # -1: bulk that cannot be spliced

    cdef int turn(self) except -1:
        """Give each flow that was added its turn: a few that are not bulk with the GIL held, else all without."""
        if self.scratch == NULL:
            if posix_memalign(<void**>&self.scratch, PAGE_BYTES, TURN_MAX) != 0:
                raise MemoryError
        if self.turn_count <= FEW and not self.has_bulk:
            self.move_all()
        else:
            with nogil:
                self.move_all()
        return 0

    cdef void move_all(self) noexcept nogil:
        cdef int i
        for i in range(self.turn_count):
            (<Flow>self.turns[i]).move(self)

    cdef bint borrow_pipe(self, Pipe* pipe) noexcept nogil:
        """Lend an empty pipe; False if there is none, and none can be had."""
        cdef int ends[2]
        if self.spare_count:
            self.spare_count -= 1
            pipe[0] = self.spares[self.spare_count]
            return True
        if self.pipe_count >= PIPES_MAX or c_pipe2(ends, O_NONBLOCK | O_CLOEXEC) < 0:
            return False
        pipe.reader = ends[0]
        pipe.writer = ends[1]
        self.pipe_count += 1
        c_fcntl(pipe.writer, F_SETPIPE_SZ, PIPE_BYTES)
        if c_fcntl(pipe.writer, F_GETPIPE_SZ) < PIPE_BYTES_MIN:
            self.discard_pipe(pipe)
            return False
        return True

    cdef void return_pipe(self, Pipe* pipe) noexcept nogil:
        """Take a pipe back, empty."""
        self.spares[self.spare_count] = pipe[0]
        self.spare_count += 1
        pipe.reader = pipe.writer = -1

    cdef void discard_pipe(self, Pipe* pipe) noexcept nogil:
        """Take a pipe back that may have something in it."""
        c_close(pipe.reader)
        c_close(pipe.writer)
        pipe.reader = pipe.writer = -1
        self.pipe_count -= 1

    cpdef close(self):
        """Close the pipes that are not in use."""
        while self.spare_count:
            self.spare_count -= 1
            self.discard_pipe(&self.spares[self.spare_count])
