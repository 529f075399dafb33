"""Types for `loop.py`."""

cimport cython
from libc.stdint cimport int64_t, uint32_t

from gaiod.core._syscalls cimport Batch as BatchCalls
from gaiod.core.connection cimport Conn
from gaiod.core.fanout cimport Fanout
from gaiod.core.handshakes cimport Handshakes
from gaiod.core.results cimport OpResult
from gaiod.core.pending cimport Operations
from gaiod.core.relays cimport Relays
from gaiod.core.turns cimport Turns

cdef int READ, WRITE, ACCEPT, CONNECT, FLUSH, HANDSHAKE, HANGUP, RELAY, SHUTDOWN
cdef int COMPLETE, AT_EOF, FAILED, OUTCOME_COUNT
cdef int LOOP_ITERATIONS, LOOP_EVENTS, LOOP_BUSY_NS, SWAP_EXHAUSTED, LAG
cdef uint32_t READABLE, WRITABLE, BROKEN, HUNG
cdef int UNSEEN, SEEN, TOLD
cdef int BATCH_MAX, EVENTS_MAX, RECEIVES_FIRST, RECEIVES_MIN, SEND_ROUNDS, PASSES_PER_POLL, ACCEPTS_PER_PASS
cdef int EAGAIN, EINTR
cdef double inf


cdef class Loop(Operations):
    cdef readonly bint closed
    cdef bint report_hangups
    cdef Relays relays
    cdef Fanout fanout
    cdef bint sleeping
    cdef int passes
    cdef int full_polls
    cdef int receives_max
    cdef Turns spare_turns
    cdef Handshakes handshakes
    cdef Turns listeners
    cdef Turns beginners
    cdef Turns sources

    @cython.locals(until_s=double, fresh=bint, done=list)
    cdef list _run(self, double timeout_s)
    cdef _abandon_pass(self)
    @cython.locals(before_s=double, timeout_s=double, events_count=int, i=int, conn=Conn, events=uint32_t)
    cdef _poll(self, double until_s)
    @cython.locals(hung=list, conn=Conn, report=OpResult)
    cdef _report_hangups(self)
    cdef bint _has_seen_all(self)
    @cython.locals(bucket=int, bound_s=double, busy_ns=int64_t)
    cdef _count_pass(self, double busy_s)
    @cython.locals(turns=Turns, first=Py_ssize_t, _=int)
    cdef _send_queued(self)
    @cython.locals(batch=BatchCalls, conn=Conn, operation=OpResult, i=Py_ssize_t)
    cdef _send_batch(self, Turns turns, Py_ssize_t first, Py_ssize_t end)
    @cython.locals(batch=BatchCalls, conn=Conn)
    cdef _sent(self, OpResult operation, int i, Py_ssize_t sent)
    @cython.locals(operation=OpResult)
    cdef _clear_way(self, Conn conn)
    @cython.locals(error=int)
    cdef bint _flush(self, Conn conn) except -1
    cdef bint _say_goodbye(self, Conn conn) except -1
    cdef bint _connected(self, Conn conn, OpResult operation) except -1
    @cython.locals(
        turns=Turns, batch=BatchCalls, conn=Conn, operation=OpResult, count=Py_ssize_t,
        i=Py_ssize_t, received_count=int, wanted_count=int,
    )
    cdef _receive_ready(self)
    @cython.locals(batch=BatchCalls)
    cdef _received(self, Conn conn, OpResult operation, int i, Py_ssize_t received)
    cdef _note_drained(self, Conn conn)
    @cython.locals(operation=OpResult, conn=Conn, fd=int, _=int)
    cdef _accept_ready(self, Conn listener)
    cdef _report_accept(self, OpResult operation, Conn conn, object error)
    cdef _run_timers(self)
    @cython.locals(operation=OpResult, next_s=double)
    cdef _expire(self, Conn conn, bint reading)
