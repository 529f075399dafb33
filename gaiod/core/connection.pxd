"""Types for `connection.py`."""

cimport cython
from libc.stdint cimport int64_t

from gaiod.core._outboxes cimport Outbox
from gaiod.core._sessions cimport Session
from gaiod.core.results cimport OpResult

cdef int SHUTDOWN, FINISH, FREE, RESET, CANCEL, UNASSIGNED
cdef double inf


cdef class Submitter:
    cdef Conn _submit_read(self, object target, object buf, object context, object deadline, bint full)
    cdef Conn _submit_write(self, object target, object buf, object context, object deadline)
    cdef Conn _submit_handshake(self, object target, object tls, object context, object deadline)
    cdef Conn _submit_relay(self, object source, object sink, Py_ssize_t limit, object context, object deadline)
    cdef _join(self, object to, Conn conn, str topic)
    cdef _part(self, object of, Conn conn, str topic)
    cdef Py_ssize_t _publish(self, object to, str topic, object data) except -1
    cdef Py_ssize_t _disconnect_stalled(self, object of, double grace_s) except -1
    cdef _request(self, int kind, object target, object argument)
    cdef _forget(self, Conn conn)


@cython.final
cdef class Conn:
    cdef object __weakref__
    cdef Submitter watcher
    cdef public object context
    cdef public object data
    cdef public object close_reason
    cdef public object proxy_header
    cdef object failure
    cdef Conn relay_source
    cdef Session secure
    cdef object unit
    cdef Outbox outbox
    cdef OpResult read_head
    cdef OpResult read_tail
    cdef OpResult write_head
    cdef OpResult write_tail
    cdef readonly int64_t serial
    cdef readonly Py_ssize_t pending_write_bytes
    cdef readonly int64_t bytes_received
    cdef readonly int64_t bytes_sent
    cdef readonly double opened_s
    cdef readonly double active_s
    cdef double stall_s
    cdef double blocked_s
    cdef double read_timer_s
    cdef double write_timer_s
    cdef int64_t read_timer
    cdef int64_t write_timer
    cdef int fd
    cdef public int traffic
    cdef readonly bint closed
    cdef readonly bint at_eof
    cdef readonly bint unanswered
    cdef int read_count
    cdef int write_count
    cdef short fault                # short, and a byte each: a connection has 32 bytes less than with an int for each
    cdef char hung
    cdef char has_copies
    cdef char readable
    cdef char writable
    cdef char broken
    cdef char closing
    cdef char is_listener
    cdef char reading
    cdef char writing
    cdef char working
