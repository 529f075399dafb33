"""Types for `queues.py`."""

cimport cython
from libc.stdint cimport int64_t

from gaiod.core._flows cimport Flow, Plumbing as RelayCalls
from gaiod.core._outboxes cimport Outbox
from gaiod.core._syscalls cimport Batch as BatchCalls, Poller as PollerCalls
from gaiod.core.alarms cimport Alarms
from gaiod.core.connection cimport Conn, Mover
from gaiod.core.operations cimport OpResult

cdef int READ, WRITE, ACCEPT, CONNECT, RELAY, TIMER, POST, HANGUP, NOTHING, REST, ALL
cdef int COMPLETE, EXPIRED, FAILED, OUTCOME_COUNT, RESUMES, PAUSED_NS, BUFFERED, EINPROGRESS, RECEIVES_FIRST
cdef int EPIPE, ENOBUFS, ENOMEM, SEEN, TOLD
cdef double inf, ACCEPT_PAUSE_S
cdef list OPERATION_TYPES


cdef class Queues(Mover):
    cdef readonly bint closed
    cdef int64_t[::1] counters
    cdef bint report_closes
    cdef bint report_hangups
    cdef list hung
    cdef PollerCalls poller
    cdef BatchCalls batch
    cdef RelayCalls plumbing
    cdef Alarms alarms
    cdef list done
    cdef list reads
    cdef list writes
    cdef list flushes
    cdef list starved
    cdef bint released
    cdef list held
    cdef object inbox
    cdef bint sleeping
    cdef int passes
    cdef int full_polls
    cdef int receives_max
    cdef double now_s

    @cython.locals(conn=Conn)
    cdef Conn _adopt(self, int fd, object context, bint is_listener)
    cdef _make_room(self, int fd)
    @cython.locals(operation=OpResult)
    cdef OpResult _new_operation(self, int kind, Conn conn, object context, double deadline)
    @cython.locals(kind=int, conn=Conn, flow=Flow, sink=Conn)
    cdef _start(self, OpResult operation)
    cdef _push_read(self, Conn conn, OpResult operation)
    cdef _push_write(self, Conn conn, OpResult operation)
    cdef _own(self, OpResult operation)
    cdef _begin_connect(self, Conn conn, OpResult operation)
    @cython.locals(operation=OpResult)
    cdef _pop_read(self, Conn conn)
    @cython.locals(operation=OpResult)
    cdef _pop_write(self, Conn conn)
    cdef _finish(self, OpResult operation, object error, int outcome)
    @cython.locals(flow=Flow, sink=Conn, left=Py_ssize_t)
    cdef _unlink(self, OpResult operation)
    @cython.locals(rest=OpResult)
    cdef _write_rest(self, Conn sink, bytes data)
    @cython.locals(outcome=int)
    cdef _complete(self, OpResult operation, object error)
    cdef _read_on(self, Conn conn)
    @cython.locals(now_s=double)
    cdef _rest(self, Conn listener)
    @cython.locals(starved=list, listener=Conn)
    cdef _feed_starved(self)
    cdef _look_for_hangup(self, Conn conn)
    cdef _note_fault(self, Conn conn, int error, bint told)
    cdef object _end_of(self, Conn conn)
    cdef _stall(self, Conn conn)
    @cython.locals(operation=OpResult, outbox=Outbox)
    cdef _write_on(self, Conn conn)
    @cython.locals(source=Conn, flow=Flow)
    cdef _feed(self, Conn sink)
    @cython.locals(operation=OpResult)
    cdef int _allowance(self, Conn conn) except -1
