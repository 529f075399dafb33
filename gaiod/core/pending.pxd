"""Types for `pending.py`."""

cimport cython
from libc.stdint cimport int64_t

from gaiod.core._flows cimport Flow, Plumbing as RelayCalls
from gaiod.core._outboxes cimport Outbox
from gaiod.core._sessions cimport Session
from gaiod.core._syscalls cimport Batch as BatchCalls, Poller as PollerCalls
from gaiod.core.timers cimport Timers
from gaiod.core.turns cimport Turns
from gaiod.core.connection cimport Conn, Submitter
from gaiod.core.group cimport Group
from gaiod.core.results cimport OpResult

cdef int READ, WRITE, ACCEPT, CONNECT, RELAY, HANDSHAKE, TIMER, POST, CLOSED, HANGUP, NOTHING, BEGUN, ALL
cdef int FINISH, FLUSH, FREE, RESET, CANCEL, AFFINITY, STOP, PAUSE
cdef int DROPPED_CLOSED, COMPLETE, EXPIRED, FAILED, OUTCOME_COUNT, FREED, RESUMES, PAUSED_NS, BUFFERED, EINPROGRESS
cdef int EPIPE, ENOBUFS, ENOMEM, ECONNRESET, EPROTO, SEEN, TOLD
cdef double inf, ACCEPT_PAUSE_S
cdef list OPERATION_TYPES


cdef class Operations(Submitter):
    cdef int64_t[::1] counters
    cdef bint report_closes
    cdef PollerCalls poller
    cdef BatchCalls batch
    cdef RelayCalls plumbing
    cdef Timers timers
    cdef list done
    cdef Turns reads
    cdef Turns writes
    cdef list flushes
    cdef list hung
    cdef list paused
    cdef bint released
    cdef list held
    cdef object inbox
    cdef bint has_mail
    cdef set away
    cdef double now_s

    @cython.locals(conn=Conn)
    cdef Conn _adopt(self, int fd, object context, bint is_listener)
    cdef _make_room(self, int fd)
    @cython.locals(operation=OpResult)
    cdef OpResult _new_operation(self, int kind, Conn conn, object context, double deadline)
    @cython.locals(kind=int, conn=Conn, flow=Flow, sink=Conn)
    cdef _start(self, OpResult operation)
    cdef _note_touch(self, Conn conn)
    cdef _push_read(self, Conn conn, OpResult operation)
    cdef _push_write(self, Conn conn, OpResult operation)
    cdef _own(self, OpResult operation)
    @cython.locals(handshake=OpResult)
    cdef _begin_connect(self, Conn conn, OpResult operation)
    cdef _schedule_read(self, Conn conn)
    @cython.locals(operation=OpResult, outbox=Outbox)
    cdef _schedule_write(self, Conn conn)
    @cython.locals(source=Conn, flow=Flow)
    cdef _resume_relay(self, Conn sink)
    @cython.locals(operation=OpResult)
    cdef int _allowance(self, Conn conn) except -1
    cdef bint _needs_no_room(self, Conn conn) except -1
    @cython.locals(handshake=OpResult)
    cdef bint _begin_handshake(self, Conn conn) except -1
    @cython.locals(operation=OpResult)
    cdef _end_connect(self, Conn conn)
    cdef _stall(self, Conn conn)
    cdef _flush_later(self, Conn conn)
    @cython.locals(session=Session)
    cdef object _error_of(self, Conn conn, int error)
    @cython.locals(session=Session, held=Py_ssize_t)
    cdef _take_back(self, Conn conn, OpResult operation)
    @cython.locals(now_s=double)
    cdef _pause_accepting(self, Conn listener)
    @cython.locals(paused=list, listener=Conn)
    cdef _resume_listeners(self)
    cdef _look_for_hangup(self, Conn conn)
    cdef _note_fault(self, Conn conn, int error, bint told)
    cdef object _end_of(self, Conn conn)
    @cython.locals(operation=OpResult)
    cdef _take_inbox(self)
    cdef OpResult _next_submission(self)
    @cython.locals(kind=int, conn=Conn, group=Group)
    cdef _run_request(self, OpResult request)
    cdef _cancel(self, Conn conn, object op_type)
    cdef _cancel_timer(self, OpResult operation)
    @cython.locals(operation=OpResult)
    cdef _pop_read(self, Conn conn)
    @cython.locals(operation=OpResult)
    cdef _pop_write(self, Conn conn)
    cdef _finish(self, OpResult operation, object error, int outcome)
    @cython.locals(outcome=int)
    cdef _complete(self, OpResult operation, object error)
    @cython.locals(flow=Flow, sink=Conn, left=Py_ssize_t)
    cdef _unlink(self, OpResult operation)
    @cython.locals(rest=OpResult)
    cdef _write_leftover(self, Conn sink, bytes data)
    @cython.locals(source=Conn, operation=OpResult, flow=Flow, kept=list, ended=list)
    cdef _end_relays_to(self, Conn sink, object error)
    @cython.locals(operation=OpResult, kept=list, ended=list, matches=bint)
    cdef _end_queue(self, Conn conn, bint reading, int kind, double limit_s, object error)
    @cython.locals(operation=OpResult, head=OpResult, tail=OpResult)
    cdef _take_out(self, Conn conn, bint reading, list kept, list ended, object error)
    @cython.locals(report=OpResult)
    cdef _drop(self, Conn conn, object error)
    @cython.locals(report=OpResult)
    cdef OpResult _new_report(self, int kind, Conn conn)
    @cython.locals(fd=int)
    cdef _release(self, Conn conn)
    @cython.locals(fd=int, group=Group)
    cdef _give_up(self, Conn conn, int lost_as)
