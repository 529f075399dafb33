"""Types for `inspect.py`."""

cimport cython

from gaiod.core._flows cimport Flow
from gaiod.core._outboxes cimport Outbox, Spool
from gaiod.core.connection cimport Conn
from gaiod.core.group cimport Group
from gaiod.core.results cimport OpResult

cdef int READ, WRITE, CONNECT, RELAY, SHUTDOWN, FINISH
cdef double inf


@cython.locals(operation=OpResult, flow=Flow, sink=Conn, longest=double)
cpdef double waiting_s(Conn conn, double now_s) except? -1.0

@cython.locals(operation=OpResult, flow=Flow, held=Py_ssize_t)
cpdef Py_ssize_t buffered_bytes(Conn conn) except? -1

@cython.locals(operation=OpResult, flow=Flow)
cpdef Conn relay_sink(Conn conn)

cpdef dict state_of(Conn conn, double now_s)

@cython.locals(operation=OpResult, flow=Flow)
cpdef dict reading(Conn conn, double now_s)

@cython.locals(operation=OpResult)
cpdef dict writing(Conn conn, double now_s)

@cython.locals(outbox=Outbox, group=Group, spool=Spool)
cpdef dict membership(Conn conn, double now_s)
