"""Types for `listener.py`."""

cimport cython
from libc.stdint cimport int64_t

from gaiod.core._stopwatch cimport Stopwatch
from gaiod.core.connection cimport Conn
from gaiod.core.results cimport OpResult
from gaiod.core.watcher cimport Watcher
from gaiod.process.dispatch cimport Target
from gaiod.worker.ledger cimport Ledger, phase_at_end, server_of

cdef int ACCEPT, CLOSED, CONNECT, HANDSHAKE, RELAY
cdef Target _UNSEEN


cdef class Listener(Target):
    cdef object __weakref__
    cdef readonly object settings
    cdef readonly str name
    cdef readonly str label
    cdef readonly int active
    cdef readonly object handler
    cdef readonly object counts
    cdef Watcher _watcher
    cdef object _cells
    cdef int _row
    cdef object _names
    cdef object _slow
    cdef Stopwatch _watch
    cdef int _upstream
    cdef object _threads
    cdef object _groups
    cdef list _sockets
    cdef bint _is_open
    cdef object _timers
    cdef object _tell
    cdef Ledger _ledger
    cdef object _accept_pauses
    cdef object _shared
    cdef dict _admin_states
    cdef object _started
    cdef bint _is_alone
    cdef readonly bint is_starting
    cdef readonly bint is_delayed
    cdef object _header_wait
    cdef object _access
    cdef object _common
    cdef object _limits
    cdef object _tls_wait
    cdef object _tls_clients

    @cython.locals(conn=Conn, kind=int)
    cpdef on_completion(self, OpResult result)
    cpdef hung_up(self, OpResult result)
    cpdef failed(self, str name, Conn conn)
    cpdef slow(self, str hook, Conn conn, int64_t took_ns)
    cdef _call(self, str name, Conn conn, object hook, tuple arguments)
    cpdef start_tls(self, Conn conn, bytes unread, object tls, object deadline)
    cdef _shaken(self, Conn conn, object error)
    cdef _shaken_with_server(self, Conn conn, object error)
    cdef _end_without_tls(self, Conn conn, str wrong, object termination)
    cdef _accepted(self, Conn conn, OpResult result)
    cpdef _begin(self, Conn conn)
    cpdef _admit(self, Conn conn)
    cdef bint _may_come(self, Conn conn) except -1
    cpdef bint _is_banned(self, Conn conn) except -1
    cdef _reject_banned(self, Conn conn)
    cdef bint _has_room(self, Conn conn) except -1
    cpdef _announced(self, Conn conn)
    cdef _accept_failed(self, object error)
    @cython.locals(is_client=bint)
    cdef _closed(self, Conn conn, object name)
