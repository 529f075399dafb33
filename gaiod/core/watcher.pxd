"""Types for `watcher.py`."""

cimport cython

from gaiod.core.connection cimport Conn
from gaiod.core.group cimport Group
from gaiod.core.handover cimport Unit
from gaiod.core.loop cimport Loop
from gaiod.core.results cimport OpResult
from gaiod.core.sockets cimport check_deadline, resolve_numeric

cdef int READ, WRITE, ACCEPT, CONNECT, RELAY, HANDSHAKE, TIMER, POST, CLOSED
cdef int SHUTDOWN, FREE, CANCEL, AFFINITY, STOP, PAUSE
cdef int OUTCOME_COUNT, GC_FOUND, GC_CLOSED, RELAY_LIMIT, OPERATIONS_MAX
cdef double inf


cdef class Watcher(Loop):
    cdef object __weakref__
    cdef unsigned long loop_thread
    cdef int submitting
    cdef bint in_loop
    cdef object gate
    cdef object delegated
    cdef bint shut

    @cython.locals(done=list)
    cpdef list wait_io(self, object timeout=*)
    @cython.locals(conn=Conn)
    cdef list _select(self, object context, double idle_since_s)
    @cython.locals(operation=OpResult)
    cdef bint _is_at_work(self, Conn conn)
    @cython.locals(conn=Conn, operation=OpResult)
    cdef Conn _submit_read(self, object target, object buf, object context, object deadline, bint full)
    @cython.locals(conn=Conn, operation=OpResult)
    cdef Conn _submit_write(self, object target, object buf, object context, object deadline)
    @cython.locals(conn=Conn, operation=OpResult, limit_s=double)
    cdef Conn _submit_handshake(self, object target, object tls, object context, object deadline)
    @cython.locals(conn=Conn, to=Conn, operation=OpResult)
    cdef Conn _submit_relay(self, object source, object sink, Py_ssize_t limit, object context, object deadline)
    @cython.locals(conn=Conn, operation=OpResult, limit_s=double, fd=int, error=int)
    cdef Conn _submit_connect(self, object address, object context, object deadline, object options, object tls)
    @cython.locals(conn=Conn)
    cdef Conn _submit_accept(self, object listener, object context)
    @cython.locals(group=Group)
    cdef _join(self, object to, Conn conn, str topic)
    @cython.locals(group=Group)
    cdef _part(self, object of, Conn conn, str topic)
    @cython.locals(group=Group, size=Py_ssize_t)
    cdef Py_ssize_t _publish(self, object to, str topic, object data) except -1
    @cython.locals(group=Group)
    cdef Py_ssize_t _disconnect_stalled(self, object of, double grace_s) except -1
    @cython.locals(operation=OpResult)
    cdef object _detach(self, list conns)
    @cython.locals(fd=int, conn=Conn)
    cdef object _attach(self, object told, list descriptors, list blobs, object traffic, object parcels)
    cdef _submit(self, OpResult operation)
    @cython.locals(request=OpResult)
    cdef _request(self, int kind, object target, object argument)
    @cython.locals(thread=cython.ulong)
    cdef _enter(self)
    @cython.locals(thread=cython.ulong)
    cdef bint _claim(self)
    cdef _claim_for_group(self)
    cdef _leave(self)
    cdef _hand_over(self, OpResult operation)
    cdef bint _is_ours(self, Conn conn)
    cdef _refuse(self, Conn conn)
    @cython.locals(conn=Conn)
    cdef Conn _usable(self, object target)
    @cython.locals(conn=Conn)
    cdef Conn _resolve(self, object target)
    cdef Conn _find_delegated(self, object sock)
    @cython.locals(conn=Conn)
    cdef Conn _adopt_socket(self, object sock, object context, bint listening)
    cdef _forget(self, Conn conn)
    cdef _shut(self)
    @cython.locals(operation=OpResult, conn=Conn)
    cdef _release_all(self)
    cdef _refuse_late(self, OpResult operation, object error)
    cdef list _last_completions(self)
