# cython: language_level=3, boundscheck=False, wraparound=False
"""What waits to be sent to the members of a group, compiled: many outboxes in one stretch without the GIL.

`outboxes.py` is the same interface for the interpreted engine, and says what a parcel, a spool and an outbox are.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EAGAIN, ENOMEM, errno
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from gaiod.core import counters

cdef extern from "stdlib.h" nogil:
    int posix_memalign(void**, size_t, size_t)

cdef extern from "sys/socket.h" nogil:
    cdef struct msghdr:
        iovec* msg_iov
        size_t msg_iovlen
    ssize_t c_send "send"(int, const void*, size_t, int)
    ssize_t c_sendmsg "sendmsg"(int, const msghdr*, int)
    int MSG_NOSIGNAL, MSG_DONTWAIT

cdef enum:                          # as in outboxes.py, which says what they are for
    OUTBOXES_MAX = 512
    SEND_MAX = 262144
    VECTOR_MAX = 64
    PARCEL_BYTES = 128
    QUEUE_BYTES = 8
    RING_MIN = 8
    PAGE_BYTES = 4096
    UNCOUNTED = -1
    JOIN_MIN = 4                        # sends saved, or made from a better place, that are worth a copy
    DISCONNECT = 0
    DROP_NEWEST = 2
    LATEST_ONLY = 3
    NOTHING = 0
    BEGUN = 1
    ALL = 2

cdef int DELIVERED = counters.DELIVERED
cdef int DROPPED_OLDEST = counters.DROPPED_OLDEST
cdef int DROPPED_NEWEST = counters.DROPPED_NEWEST
cdef int DROPPED_REPLACED = counters.DROPPED_REPLACED
cdef int QUEUED_BYTES = counters.QUEUED_BYTES
cdef int HELD_BYTES = counters.HELD_BYTES


@cython.freelist(256)
cdef class Parcel:
    """A message that was published."""

    def __cinit__(self, bytes data not None, int64_t topic, Py_ssize_t audience):
        self.data = data
        self.start = PyBytes_AS_STRING(data)
        self.size = PyBytes_GET_SIZE(data)
        self.topic = topic
        self.audience = audience


cdef class Spool:
    """What the outboxes of a group have in common: their limits, and the count of what they hold."""

    def __cinit__(self, cells, int first, Py_ssize_t limit, int policy):
        self.cells = cells
        self.first = first
        self.limit = limit
        self.policy = policy

    cpdef add(self, int cell, int64_t amount):
        """Add to one of the group's counters."""
        self.count(cell, amount)

    cdef void count(self, int cell, int64_t amount) noexcept nogil:
        self.cells[self.first + cell] += amount

    cdef void queue(self, Py_ssize_t size) noexcept nogil:
        self.queued_bytes += size
        self.count(QUEUED_BYTES, size)

    cdef void hold(self, Parcel parcel) noexcept nogil:
        parcel.references += 1
        if parcel.references == 1:
            self.held_bytes += parcel.size + PARCEL_BYTES
            self.count(HELD_BYTES, parcel.size + PARCEL_BYTES)

    cdef void let_go(self, Parcel parcel) noexcept nogil:
        parcel.references -= 1
        if parcel.references == 0:
            self.held_bytes -= parcel.size + PARCEL_BYTES
            self.count(HELD_BYTES, -parcel.size - PARCEL_BYTES)


cdef class Outbox:
    """What one member has not been sent yet, and the outcome of its last turn."""

    def __cinit__(self, group, Spool spool not None):
        self.group = group
        self.spool = spool
        self.topics = ()

    def __dealloc__(self):
        cdef void* parcel
        while self.count:
            parcel = self.pop_last()
            (<Parcel>parcel).references -= 1
            if (<Parcel>parcel).references == 0 and (<Parcel>parcel).is_owned:
                (<Parcel>parcel).is_owned = False
                Py_DECREF(<Parcel>parcel)
        free(self.ring)

    cdef void turn(self, Fan fan, double now_s) noexcept nogil:
        """Take the fan's batch, send what may be sent, and see to the limit."""
        cdef Py_ssize_t first = 0
        self.sent = 0
        self.error = 0
        self.is_over = False
        self.waiting_before = self.waiting_bytes
        while first < fan.batch_size and (<Parcel>fan.batch[first]).audience <= self.index:
            first += 1
        if first < fan.batch_size and self.may == ALL and self.count == 0:
            first = self.send_batch(fan, first)
        elif self.may != NOTHING and self.count:
            self.send_queue(fan)
        if self.count == 0:
            self.progress_s = now_s
        while first < fan.batch_size:
            if not self.push(fan, <Parcel>fan.batch[first]):
                self.error = ENOMEM
                break
            first += 1
        if self.sent:
            self.progress_s = now_s
        self.keep_limit(fan)
        if self.count == 0 and self.ring != NULL:
            free(self.ring)
            self.ring = NULL
            self.room = self.first = 0
        self.spool.queue(self.waiting_bytes - self.waiting_before)

    cdef Py_ssize_t send_batch(self, Fan fan, Py_ssize_t first) noexcept nogil:
        """Send what never waited, and return the number of the parcel that was not sent whole."""
        cdef char* start = (<Parcel>fan.batch[first]).start
        cdef Py_ssize_t wanted = min((<Parcel>fan.batch[first]).size, <Py_ssize_t>SEND_MAX)
        cdef Py_ssize_t left
        if first < fan.joined_count:
            start = fan.joined + fan.starts[first]
            wanted = fan.starts[fan.joined_count] - fan.starts[first]
        if self.session is None:
            left = self.take_sent(c_send(self.fd, start, wanted, MSG_NOSIGNAL | MSG_DONTWAIT), wanted)
        else:
            left = self.take_taken(self.session.take(self.fd, start, wanted), wanted)
        while first < fan.batch_size and left >= (<Parcel>fan.batch[first]).size:
            left -= (<Parcel>fan.batch[first]).size
            self.spool.count(DELIVERED, 1)
            first += 1
        self.offset = left
        self.waiting_bytes -= left          # all of it is about to be pushed
        return first

    cdef void send_queue(self, Fan fan) noexcept nogil:
        cdef iovec vector[VECTOR_MAX]
        cdef msghdr message
        cdef Py_ssize_t room = SEND_MAX
        cdef Py_ssize_t size
        cdef Py_ssize_t left
        cdef Py_ssize_t offset = self.offset
        cdef int count = 0
        cdef void* parcel
        while count < self.count and count < VECTOR_MAX and room > 0:
            parcel = self.at(count)
            size = min((<Parcel>parcel).size - offset, room)
            vector[count].iov_base = (<Parcel>parcel).start + offset
            vector[count].iov_len = size
            offset = 0
            room -= size
            count += 1
            if self.may == BEGUN:
                break
        if self.session is None:
            memset(&message, 0, sizeof(message))
            message.msg_iov = vector
            message.msg_iovlen = count
            left = self.take_sent(c_sendmsg(self.fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT), SEND_MAX - room)
        else:
            left = self.take_taken(self.encrypt(vector, count), SEND_MAX - room)
        self.waiting_bytes -= left
        left += self.offset
        while self.count and left >= (<Parcel>self.at(0)).size:
            parcel = self.remove(0)
            left -= (<Parcel>parcel).size
            fan.let_go(self.spool, <Parcel>parcel)
            self.spool.count(DELIVERED, 1)
        self.offset = left

    cdef Py_ssize_t encrypt(self, iovec* vector, int count) noexcept nogil:
        """Send messages through the session, until the kernel takes no more; return the bytes taken, or `-errno`."""
        cdef Py_ssize_t taken = 0
        cdef Py_ssize_t part
        cdef int i
        for i in range(count):
            part = self.session.take(self.fd, <char*>vector[i].iov_base, vector[i].iov_len)
            if part < 0:
                return taken if taken else part
            taken += part
            if self.session.held:
                break
        return taken

    cdef Py_ssize_t take_taken(self, Py_ssize_t taken, Py_ssize_t wanted) noexcept nogil:
        """As `take_sent`, of bytes that the session has taken, or `-errno`."""
        if taken < 0:
            self.error = <int>-taken
            return 0
        if taken < wanted:
            self.error = EAGAIN
        self.sent = taken
        return taken

    cdef Py_ssize_t take_sent(self, Py_ssize_t sent, Py_ssize_t wanted) noexcept nogil:
        """Take the outcome of a send, and return how many bytes went."""
        if sent < 0:
            self.error = errno
            return 0
        if sent < wanted:
            self.error = EAGAIN
        self.sent = sent
        return sent

    cdef bint push(self, Fan fan, Parcel parcel) noexcept nogil:
        """Let a parcel wait; False if there is no memory for a reference."""
        cdef int i
        cdef void* before
        if self.spool.policy == LATEST_ONLY:
            for i in range(1 if self.offset else 0, self.count):
                before = self.at(i)
                if (<Parcel>before).topic == parcel.topic:
                    self.ring[(self.first + i) & (self.room - 1)] = <void*>parcel
                    self.spool.hold(parcel)
                    self.waiting_bytes += parcel.size
                    self.forget(fan, <Parcel>before, DROPPED_REPLACED)
                    return True
        if self.count == self.room and not self.grow():
            return False
        self.ring[(self.first + self.count) & (self.room - 1)] = <void*>parcel
        self.count += 1
        self.spool.hold(parcel)
        self.waiting_bytes += parcel.size
        return True

    cdef bint grow(self) noexcept nogil:
        cdef int room = 2 * self.room if self.room else RING_MIN
        cdef void** ring = <void**>malloc(room * sizeof(void*))
        cdef int i
        if ring == NULL:
            return False
        for i in range(self.count):
            ring[i] = self.at(i)
        free(self.ring)
        self.ring = ring
        self.room = room
        self.first = 0
        return True

    cdef void keep_limit(self, Fan fan) noexcept nogil:
        cdef int begun = 1 if self.offset else 0    # what was begun has to be sent
        if self.spool.policy == LATEST_ONLY:
            return                          # what waits is the state of its topics
        while self.is_full():
            if self.spool.policy == DISCONNECT:
                self.is_over = True
                return
            if self.spool.policy == DROP_NEWEST:
                if self.count == begun:
                    return
                self.forget(fan, <Parcel>self.pop_last(), DROPPED_NEWEST)
            else:
                if self.count <= begun + 1:
                    return                  # the newest is what the others are dropped for
                self.forget(fan, <Parcel>self.remove(begun), DROPPED_OLDEST)

    cdef bint is_full(self) noexcept nogil:
        return self.waiting_bytes > self.spool.limit or <Py_ssize_t>self.count * QUEUE_BYTES > self.spool.limit

    cdef void* at(self, int i) noexcept nogil:
        return self.ring[(self.first + i) & (self.room - 1)]

    cdef void* pop_last(self) noexcept nogil:
        self.count -= 1
        return self.at(self.count)

    cdef void* remove(self, int i) noexcept nogil:
        """Take the first or the second out."""
        cdef void* parcel = self.at(i)
        if i == 1:
            self.ring[(self.first + 1) & (self.room - 1)] = self.at(0)
        self.first = (self.first + 1) & (self.room - 1)
        self.count -= 1
        return parcel

    cdef void forget(self, Fan fan, Parcel parcel, int cell) noexcept nogil:
        self.waiting_bytes -= parcel.size
        fan.let_go(self.spool, parcel)
        self.spool.count(cell, 1)

    cdef list parcels(self):
        """Return what waits, the oldest first."""
        cdef int i
        return [<Parcel>self.at(i) for i in range(self.count)]

    cdef Py_ssize_t clear(self, int cell) except -1:
        """Forget what waits, and return how many bytes that were.

        Args:
            cell: what each message counts as; UNCOUNTED: it is not lost.
        """
        cdef Py_ssize_t before = self.waiting_bytes
        self.waiting_bytes += self.offset
        self.offset = 0
        while self.count:
            self.give_up_last(cell)
        free(self.ring)
        self.ring = NULL
        self.room = self.first = 0
        self.spool.queue(self.waiting_bytes - before)
        return before - self.waiting_bytes

    cdef Py_ssize_t shed(self, int cell, bint keeps_newest) except -1:
        """As `clear`, but for a message of which a part was sent, and for the newest if that is to be kept."""
        cdef Py_ssize_t before = self.waiting_bytes
        cdef int begun = 1 if self.offset else 0
        cdef void* newest = NULL
        if keeps_newest and self.count > begun:
            newest = self.pop_last()
        while self.count > begun:
            self.give_up_last(cell)
        if newest != NULL:
            self.ring[(self.first + self.count) & (self.room - 1)] = newest
            self.count += 1
        if self.count == 0:
            free(self.ring)
            self.ring = NULL
            self.room = self.first = 0
        self.spool.queue(self.waiting_bytes - before)
        return before - self.waiting_bytes

    cdef int give_up_last(self, int cell) except -1:
        """Forget the newest that waits. With the GIL: it may have been the last reference."""
        cdef void* parcel = self.pop_last()
        self.waiting_bytes -= (<Parcel>parcel).size
        if cell != UNCOUNTED:
            self.spool.count(cell, 1)
        self.spool.let_go(<Parcel>parcel)
        if (<Parcel>parcel).references == 0 and (<Parcel>parcel).is_owned:
            (<Parcel>parcel).is_owned = False
            Py_DECREF(<Parcel>parcel)
        return 0


cdef class Fan:
    """Deals a batch of parcels out to many outboxes."""

    def __dealloc__(self):
        free(self.batch)
        free(self.starts)
        free(self.joined)

    cdef void reset(self) noexcept:
        self.count = 0

    cdef void add(self, Outbox outbox, int fd, int may, Py_ssize_t index) noexcept:
        outbox.fd = fd
        outbox.may = may
        outbox.index = index
        self.outboxes[self.count] = <void*>outbox
        self.count += 1

    cdef int deal(self, list batch, double now_s) except -1:
        """Give every outbox its turn. Without a batch: outboxes of any group send what waits in them."""
        cdef int i
        self.take_batch(batch)
        with nogil:
            for i in range(self.count):
                (<Outbox>self.outboxes[i]).turn(self, now_s)
        self.settle(batch)
        return 0

    cdef int take_batch(self, list batch) except -1:
        """Lay the batch out, and join as many small messages as one send takes."""
        cdef Py_ssize_t count = len(batch)
        cdef Py_ssize_t size = 0
        cdef Py_ssize_t i
        cdef Parcel parcel
        self.batch_size = self.joined_count = 0
        if count > self.batch_room:
            free(self.batch)
            free(self.starts)
            self.batch_room = 0
            self.batch = <void**>malloc(count * sizeof(void*))
            self.starts = <Py_ssize_t*>malloc((count + 1) * sizeof(Py_ssize_t))
            if self.batch == NULL or self.starts == NULL:
                raise MemoryError
            self.batch_room = count
        for i in range(count):
            self.batch[i] = <void*>batch[i]
        self.batch_size = count
        if count == 0 or count * self.count < JOIN_MIN:
            return 0
        # At a page: where the kernel's copies begin at another place of it they can take twice the time.
        if self.joined == NULL and posix_memalign(<void**>&self.joined, PAGE_BYTES, SEND_MAX) != 0:
            self.joined = NULL
            return 0                        # then one at a time, from where they are
        for i in range(count):
            parcel = <Parcel>batch[i]
            if size + parcel.size > SEND_MAX:
                break
            memcpy(self.joined + size, parcel.start, parcel.size)
            self.starts[i] = size
            size += parcel.size
            self.joined_count = i + 1
        self.starts[self.joined_count] = size
        return 0

    cdef void let_go(self, Spool spool, Parcel parcel) noexcept nogil:
        spool.let_go(parcel)
        if parcel.references == 0 and parcel.is_owned and not parcel.is_dying:
            parcel.is_dying = True
            parcel.next = self.dead
            self.dead = <void*>parcel

    cdef void settle(self, list batch):
        """Do what needs the GIL: own what waits now, and give up what does not any more."""
        cdef Parcel parcel
        cdef void* dead
        for parcel in batch:
            if parcel.references and not parcel.is_owned:
                parcel.is_owned = True
                Py_INCREF(parcel)
        while self.dead != NULL:
            dead = self.dead
            self.dead = (<Parcel>dead).next
            (<Parcel>dead).is_dying = False
            if (<Parcel>dead).references == 0:
                (<Parcel>dead).is_owned = False
                Py_DECREF(<Parcel>dead)
