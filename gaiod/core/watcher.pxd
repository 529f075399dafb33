"""Types for `watcher.py`, which Cython merges with this file: the methods declared here are C calls."""

cimport cython
from libc.stdint cimport int64_t, uint32_t

from gaiod.core._syscalls cimport Batch as BatchCalls, Poller as PollerCalls

cdef int READ, WRITE, ACCEPT, CONNECT, TIMER, POST, CLOSED
cdef int SHUTDOWN, FINISH, FREE, CANCEL, AFFINITY, STOP
cdef int COMPLETE, AT_EOF, FAILED, EXPIRED, OUTCOMES
cdef int LOOP_ITERATIONS, LOOP_EVENTS, LOOP_BUSY_NS, SWAP_EXHAUSTED, GC_FOUND, GC_CLOSED, FREED, UNASSIGNED, LAG
cdef uint32_t READABLE, WRITABLE, BROKEN
cdef int BATCH_MAX, SEND_ROUNDS, PASSES_PER_POLL, ACCEPTS_PER_PASS, OPERATIONS_MAX
cdef double ACCEPT_PAUSE_S
cdef double inf
cdef int EAGAIN, EINTR
cdef list OPERATION_TYPES


@cython.final
@cython.freelist(1024)
cdef class OpResult:
    cdef readonly object operation
    cdef readonly object context
    cdef readonly Conn conn
    cdef readonly object buffer
    cdef readonly object error
    cdef readonly Py_ssize_t size
    cdef readonly bint is_swap_buffer
    cdef bint full
    cdef bint pending
    cdef char kind
    cdef object pinned
    cdef OpResult next
    cdef double deadline
    cdef Py_ssize_t length


@cython.locals(operation=OpResult)
cdef OpResult new_operation(int kind, Conn conn, object context, double deadline)


@cython.final
cdef class Conn:
    cdef object __weakref__
    cdef Watcher watcher
    cdef readonly int64_t serial
    cdef public object context
    cdef public object data
    cdef public object close_reason
    cdef OpResult read_head
    cdef OpResult read_tail
    cdef OpResult write_head
    cdef OpResult write_tail
    cdef readonly Py_ssize_t pending_write_bytes
    cdef readonly int64_t bytes_received
    cdef readonly int64_t bytes_sent
    cdef readonly double opened_s
    cdef readonly double active_s
    cdef double read_alarm_s
    cdef double write_alarm_s
    cdef int64_t read_alarm
    cdef int64_t write_alarm
    cdef int fd
    cdef int read_count
    cdef int write_count
    cdef public int traffic
    cdef bint readable
    cdef bint writable
    cdef bint broken
    cdef bint closing
    cdef readonly bint closed
    cdef bint is_listener
    cdef bint reading
    cdef bint writing


@cython.final
cdef class Watcher:
    cdef readonly bint closed
    cdef bint shut
    cdef object gate
    cdef int64_t[::1] counters
    cdef bint report_closes
    cdef PollerCalls poller
    cdef BatchCalls batch
    cdef list done
    cdef list reads
    cdef list writes
    cdef list starved
    cdef list held
    cdef object inbox
    cdef bint sleeping
    cdef unsigned long loop_thread
    cdef int submitting
    cdef bint in_loop
    cdef bint released
    cdef int passes
    cdef double now_s
    cdef list alarms
    cdef object alarm_numbers
    cdef Py_ssize_t stale_alarms
    cdef object delegated

    @cython.locals(conn=Conn, operation=OpResult)
    cdef Conn _submit_read(self, object target, object buf, object context, object deadline, bint full)
    @cython.locals(conn=Conn, operation=OpResult)
    cdef Conn _submit_write(self, object target, object buf, object context, object deadline)
    @cython.locals(conn=Conn, operation=OpResult)
    cdef Conn _submit_connect(self, object address, object context, object deadline)
    @cython.locals(conn=Conn)
    cdef Conn _submit_accept(self, object listener, object context)
    cdef _submit(self, OpResult operation)
    @cython.locals(conn=Conn, request=OpResult)
    cdef _request(self, int kind, object target, object argument)
    @cython.locals(thread=cython.ulong)
    cdef bint _claim(self)
    cdef _hand_over(self, OpResult operation)
    cdef _refuse(self, Conn conn)
    cdef Conn _resolve(self, object target)
    @cython.locals(conn=Conn)
    cdef Conn _adopt_socket(self, object sock, object context, bint listening)
    @cython.locals(conn=Conn)
    cdef Conn _adopt(self, int fd, object context)
    cdef _make_room(self, int fd)

    @cython.locals(until_s=double, fresh=bint, done=list)
    cdef list _run(self, double timeout_s)
    @cython.locals(before_s=double, timeout_s=double, events_count=int, i=int, conn=Conn, events=uint32_t)
    cdef _poll(self, double until_s)
    @cython.locals(bucket=int, bound_s=double, busy_ns=int64_t)
    cdef _count_pass(self, double busy_s)
    @cython.locals(writes=list, first=Py_ssize_t, _=int)
    cdef _send_queued(self)
    @cython.locals(batch=BatchCalls, operations=list, conn=Conn, operation=OpResult, i=Py_ssize_t, sent=Py_ssize_t)
    cdef _send_batch(self, list writes)
    @cython.locals(operation=OpResult)
    cdef OpResult _next_write(self, Conn conn)
    @cython.locals(
        reads=list, batch=BatchCalls, operations=list, listeners=list, taken=Py_ssize_t, conn=Conn, operation=OpResult,
        i=Py_ssize_t, received_count=int,
    )
    cdef _receive_ready(self)
    cdef inline _read_on(self, Conn conn)
    cdef inline _write_on(self, Conn conn)
    @cython.locals(batch=BatchCalls)
    cdef _received(self, Conn conn, OpResult operation, int i, Py_ssize_t received)
    @cython.locals(operation=OpResult, conn=Conn, fd=int, _=int)
    cdef _accept_ready(self, Conn listener)
    cdef _report_accept(self, OpResult operation, Conn conn, object error)
    @cython.locals(starved=list, listener=Conn)
    cdef _feed_starved(self)

    @cython.locals(operation=OpResult)
    cdef _take_inbox(self)
    @cython.locals(kind=int, conn=Conn)
    cdef _start(self, OpResult operation)
    cdef inline _push_read(self, Conn conn, OpResult operation)
    cdef inline _push_write(self, Conn conn, OpResult operation)
    cdef _own(self, OpResult operation)
    cdef _begin_connect(self, Conn conn, OpResult operation)
    @cython.locals(operation=OpResult)
    cdef inline _pop_read(self, Conn conn)
    @cython.locals(operation=OpResult)
    cdef inline _pop_write(self, Conn conn)
    cdef inline _finish(self, OpResult operation, object error, int outcome)
    @cython.locals(outcome=int)
    cdef _complete(self, OpResult operation, object error)
    @cython.locals(kind=int, conn=Conn)
    cdef _fulfil(self, OpResult request)
    cdef _cancel(self, Conn conn, object op_type)
    cdef _cancel_timer(self, OpResult operation)
    @cython.locals(operation=OpResult, head=OpResult, tail=OpResult, kept=list, ended=list, matches=bint)
    cdef _end_queue(self, Conn conn, bint reading, int kind, double limit_s, object error)

    cdef _arm(self, Conn conn, bint reading, double deadline_s)
    cdef _set_alarm(self, object alarm)
    cdef bint _is_live(self, object alarm)
    cdef bint _is_pending(self, OpResult operation)
    cdef bint _has_alarm(self, Conn conn, bint reading, int64_t number)
    cdef _ring(self)
    @cython.locals(operation=OpResult, next_s=double)
    cdef _expire(self, Conn conn, bint reading)

    cdef _drop(self, Conn conn, object error)
    @cython.locals(fd=int)
    cdef _release(self, Conn conn)
    cdef _forget(self, Conn conn)
    cdef _shut(self)
    cdef _refuse_late(self, OpResult operation, object error)
    cdef list _last_completions(self)
    @cython.locals(conn=Conn)
    cdef list _select(self, object context, double idle_since_s)
    cdef _address(self, Conn conn, bint peer)
