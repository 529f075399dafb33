"""Types for `handover.py`."""

cimport cython
from libc.stdint cimport int64_t

from gaiod.core._flows cimport Flow as Direction
from gaiod.core._outboxes cimport Fan as FanCalls, Outbox as Queue, Parcel as Message
from gaiod.core.connection cimport Conn
from gaiod.core.group cimport Group
from gaiod.core.pending cimport Operations
from gaiod.core.results cimport OpResult

cdef int CONNECT, POST, READ, RELAY, SHUTDOWN, WRITE, SEEN, TOLD, UNSEEN
cdef int BUFFERED, OUTCOME_COUNT, PAUSES, NOTHING, UNCOUNTED
cdef int64_t EVERYTHING
cdef double inf


@cython.final
cdef class Unit:
    cdef Operations operations
    cdef dict parcels
    cdef readonly list conns
    cdef public bint is_touched
    cdef readonly bint is_over
    cdef readonly list requests
    cdef dict waiting
    cdef dict serials
    cdef double taken_s

    @cython.locals(conn=Conn, operations=Operations, request=OpResult)
    cpdef resume(self, bint has_copies=*)
    @cython.locals(conn=Conn, operations=Operations, request=OpResult)
    cpdef release(self)
    @cython.locals(conn=Conn, now_s=double)
    cpdef tuple describe(self)
    @cython.locals(group=Group)
    cpdef list messages_until(self, Conn conn, int64_t position)
    cpdef expect(self, Conn conn, list messages)
    @cython.locals(conn=Conn, operations=Operations, outbox=Queue)
    cdef take_out(self)
    @cython.locals(conn=Conn)
    cdef _end(self)
    @cython.locals(operations=Operations, operation=OpResult, outbox=Queue, next_s=double, now_s=double, reading=bint)
    cdef _rouse(self, Conn conn)
    @cython.locals(operation=OpResult)
    cdef _describe_writes(self, Conn conn, list told, list blobs)
    @cython.locals(operation=OpResult, flow=Direction)
    cdef _describe_relay(self, Conn conn, dict plain, list blobs)
    @cython.locals(outbox=Queue, group=Group)
    cdef _describe_group(self, Conn conn, dict plain, list blobs)
    @cython.locals(conn=Conn)
    cdef fill(self, list told, list blobs)
    @cython.locals(conn=Conn, operation=OpResult)
    cdef silence(self)
    @cython.locals(now_s=double)
    cdef _fill_conn(self, Conn conn, dict plain)
    @cython.locals(operations=Operations, operation=OpResult)
    cdef _fill_write(self, Conn conn, object each, list blobs)
    @cython.locals(operations=Operations, operation=OpResult, sink=Conn, flow=Direction)
    cdef _fill_relay(self, Conn conn, dict plain, list blobs)
    @cython.locals(outbox=Queue, group=Group, fan=FanCalls, parcel=Message, parcels=list, since=list)
    cdef _let_have(self, Conn conn)


@cython.locals(conn=Conn, operation=OpResult, flow=Direction)
cpdef list find_unit(list conns)
@cython.locals(operation=OpResult, is_relay=bint)
cpdef object lack_of_quiet(Conn conn)
