"""Types for `loop.py`."""

cimport cython
from libc.stdint cimport int64_t, uint32_t

from gaiod.core._syscalls cimport Batch as BatchCalls, Poller as PollerCalls
from gaiod.core.alarms cimport Alarms
from gaiod.core.connection cimport Conn, Mover
from gaiod.core.operations cimport OpResult

cdef int READ, WRITE, ACCEPT, CONNECT, TIMER, POST, CLOSED
cdef int SHUTDOWN, FINISH, FREE, CANCEL, AFFINITY, STOP
cdef int COMPLETE, AT_EOF, FAILED, EXPIRED, OUTCOMES
cdef int LOOP_ITERATIONS, LOOP_EVENTS, LOOP_BUSY_NS, SWAP_EXHAUSTED, FREED, LAG
cdef uint32_t READABLE, WRITABLE, BROKEN
cdef int BATCH_MAX, EVENTS_MAX, RECEIVES_MIN, SEND_ROUNDS, PASSES_PER_POLL, ACCEPTS_PER_PASS
cdef int EAGAIN, EINTR, EINPROGRESS
cdef double ACCEPT_PAUSE_S
cdef double inf
cdef list OPERATION_TYPES


cdef class Loop(Mover):
    cdef readonly bint closed
    cdef int64_t[::1] counters
    cdef bint report_closes
    cdef PollerCalls poller
    cdef BatchCalls batch
    cdef Alarms alarms
    cdef list done
    cdef list reads
    cdef list writes
    cdef list starved
    cdef bint released
    cdef list held
    cdef object inbox
    cdef bint sleeping
    cdef int passes
    cdef int full_polls
    cdef int receives_max
    cdef double now_s

    @cython.locals(until_s=double, fresh=bint, done=list)
    cdef list _run(self, double timeout_s)
    @cython.locals(before_s=double, timeout_s=double, events_count=int, i=int, conn=Conn, events=uint32_t)
    cdef _poll(self, double until_s)
    cdef bint _has_seen_all(self)
    @cython.locals(bucket=int, bound_s=double, busy_ns=int64_t)
    cdef _count_pass(self, double busy_s)
    @cython.locals(writes=list, first=Py_ssize_t, _=int)
    cdef _send_queued(self)
    @cython.locals(batch=BatchCalls, operations=list, conn=Conn, operation=OpResult, i=Py_ssize_t, sent=Py_ssize_t)
    cdef _send_batch(self, list writes)
    @cython.locals(operation=OpResult)
    cdef _clear_way(self, Conn conn)
    cdef _connected(self, Conn conn, OpResult operation)
    @cython.locals(
        reads=list, batch=BatchCalls, operations=list, listeners=list, conn=Conn, operation=OpResult,
        i=Py_ssize_t, received_count=int,
    )
    cdef _receive_ready(self)
    cdef _read_on(self, Conn conn)
    @cython.locals(operation=OpResult)
    cdef _write_on(self, Conn conn)
    @cython.locals(batch=BatchCalls)
    cdef _received(self, Conn conn, OpResult operation, int i, Py_ssize_t received)
    @cython.locals(operation=OpResult, conn=Conn, fd=int, _=int)
    cdef _accept_ready(self, Conn listener)
    cdef _report_accept(self, OpResult operation, Conn conn, object error)
    @cython.locals(starved=list, listener=Conn)
    cdef _feed_starved(self)

    @cython.locals(conn=Conn)
    cdef Conn _adopt(self, int fd, object context)
    cdef _make_room(self, int fd)
    @cython.locals(operation=OpResult)
    cdef OpResult _new_operation(self, int kind, Conn conn, object context, double deadline)
    @cython.locals(operation=OpResult)
    cdef _take_inbox(self)
    @cython.locals(kind=int, conn=Conn)
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
    @cython.locals(outcome=int)
    cdef _complete(self, OpResult operation, object error)
    @cython.locals(kind=int, conn=Conn)
    cdef _fulfil(self, OpResult request)
    cdef _cancel(self, Conn conn, object op_type)
    cdef _cancel_timer(self, OpResult operation)
    @cython.locals(operation=OpResult, head=OpResult, tail=OpResult, kept=list, ended=list, matches=bint)
    cdef _end_queue(self, Conn conn, bint reading, int kind, double limit_s, object error)

    cdef _ring(self)
    @cython.locals(operation=OpResult, next_s=double)
    cdef _expire(self, Conn conn, bint reading)
    cdef _drop(self, Conn conn, object error)
    @cython.locals(fd=int)
    cdef _release(self, Conn conn)
