"""Types for `group.py`."""

cimport cython
from libc.stdint cimport int64_t

from gaiod.core._outboxes cimport Fan as FanCalls, Outbox as Queue, Parcel as Message, Spool as Limits
from gaiod.core.connection cimport Conn, Submitter

cdef int DROPPED_CLOSED, DROPPED_DISCONNECT, SUBSCRIBERS
cdef int HOLES_MIN, NOTHING


@cython.final
cdef class Topic:
    cdef readonly Group group
    cdef readonly str name
    cdef int64_t number
    cdef list members
    cdef dict places
    cdef tuple alone
    cdef list fresh
    cdef double fresh_s
    cdef list round
    cdef Py_ssize_t round_length
    cdef double began_s
    cdef Py_ssize_t start
    cdef Py_ssize_t left
    cdef bint is_due

    cdef take_in(self, Conn conn)
    cdef let_go(self, Conn conn)
    @cython.locals(conn=Conn, parcel=Message, living=list, before=list)
    cdef close_holes(self)


@cython.final
cdef class Group:
    cdef object __weakref__
    cdef Submitter watcher
    cdef Limits spool
    cdef readonly Py_ssize_t memory_limit
    cdef dict topic_table
    cdef int64_t next_number
    cdef Py_ssize_t size
    cdef Py_ssize_t fresh_bytes
    cdef public int64_t position
    cdef int64_t serial
    cdef set behind

    @cython.locals(outbox=Queue, topic=Topic)
    cdef join(self, Conn conn, str name)
    @cython.locals(outbox=Queue, topic=Topic, kept=list)
    cdef part(self, Conn conn, object name)
    @cython.locals(outbox=Queue, fan=FanCalls, place=Py_ssize_t, missed=list)
    cdef catch_up(self, Conn conn, Topic topic)
    @cython.locals(turn=Py_ssize_t)
    cdef list not_dealt(self, Py_ssize_t place, Topic topic)
    @cython.locals(outbox=Queue, waiting=list, topic=Topic, place=Py_ssize_t, parcel=Message, names=dict, found=list)
    cdef list messages_for(self, Conn conn, int64_t after, int64_t until)
    @cython.locals(topic=Topic)
    cdef int64_t number_of(self, str name) except? -2
    @cython.locals(outbox=Queue, lost=Py_ssize_t)
    cdef Py_ssize_t leave(self, Conn conn, int lost_as) except -1
    @cython.locals(found=Topic)
    cpdef Py_ssize_t members(self, str topic=*) except -1
    @cython.locals(topic=Topic, names=list)
    cdef list list_topics(self)
    @cython.locals(outbox=Queue, topic=Topic)
    cdef list list_topics_of(self, Conn conn)
    cdef look_after(self, Topic topic)
