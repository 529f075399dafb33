"""Types for `fanout.py`."""

cimport cython

from gaiod.core._outboxes cimport Fan as FanCalls, Outbox, Parcel as Message
from gaiod.core.connection cimport Conn
from gaiod.core.group cimport Group, Topic
from gaiod.core.pending cimport Operations

cdef int PUBLISHED, DROPPED_MEMORY, FANOUT, FANOUT_NS, EAGAIN, EINTR, TURNS_MAX
cdef int DISCONNECT, DROP_OLDEST, LATEST_ONLY
cdef double GOLDEN_RATIO


@cython.final
cdef class Fanout:
    cdef FanCalls fan
    cdef object rounds
    cdef bint has_rounds

    @cython.locals(topic=Topic, parcel=Message)
    cdef Py_ssize_t publish(self, Operations operations, Group group, str name, bytes message) except -1
    @cython.locals(conn=Conn, stalled=list)
    cdef Py_ssize_t end_stalled(self, Operations operations, Group group, double since_s) except -1
    @cython.locals(topic=Topic, turns_left=int)
    cdef deal(self, Operations operations)
    cdef _begin_round(self, Topic topic)
    @cython.locals(fan=FanCalls, chosen=list, conn=Conn, seen=Py_ssize_t, place=Py_ssize_t, _=Py_ssize_t)
    cdef int _deal_round(self, Operations operations, Topic topic, int turns_max) except -1
    @cython.locals(group=Group, parcel=Message, took_s=double, bucket=int, bound_s=double)
    cdef _end_round(self, Operations operations, Topic topic)
    @cython.locals(flushes=list, fan=FanCalls, chosen=list, conn=Conn, outbox=Outbox)
    cdef _flush(self, Operations operations)
    @cython.locals(conn=Conn, outbox=Outbox, group=Group, sent=Py_ssize_t)
    cdef _settle(self, Operations operations, list conns)
    @cython.locals(outbox=Outbox, group=Group)
    cdef _caught_up(self, Operations operations, Conn conn)
    cdef _disconnect(self, Operations operations, Conn conn)
    @cython.locals(conn=Conn, outbox=Outbox, slowest=list, enough=Py_ssize_t, policy=int)
    cdef _shed(self, Operations operations, Group group)


cpdef object _waiting(Conn conn)
