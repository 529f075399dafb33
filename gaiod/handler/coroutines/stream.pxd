"""Types for `stream.py`."""

cimport cython

from gaiod.core.connection cimport Conn
from gaiod.core.results cimport OpResult
from gaiod.handler.coroutines.waits cimport Wait, come, new_wait

cdef int ANY, EXACT, UNTIL, LINE
cdef Py_ssize_t ROOM_BYTES


cdef class Lines:
    cdef Stream _stream
    cdef Py_ssize_t _limit
    cdef object _timeout


cdef class Stream:
    cdef object __weakref__
    cdef object _conn
    cdef Conn _direct
    cdef public object data
    cdef public object arrival
    cdef bytearray _buffer
    cdef readonly Wait _reader
    cdef object _separator
    cdef object _deadline
    cdef public object error
    cdef readonly object fault
    cdef list _writers
    cdef public object relaying
    cdef Wait _handshake
    cdef char _is_shaking
    cdef public object owner
    cdef public bint is_over
    cdef int _works
    cdef public object task
    cdef public object others
    cdef Py_ssize_t _size
    cdef int _pending_reads
    cdef char _kind
    cdef char _is_server
    cdef public bint at_eof

    cdef Wait _read(self, int kind, Py_ssize_t size, object separator, object timeout)
    @cython.locals(direct=Conn)
    cdef _submit(self)
    @cython.locals(direct=Conn, wait=Wait, is_room=bint, sent=bytes)
    cpdef write(self, object data)
    @cython.locals(buffer=bytearray, held=Py_ssize_t, found=Py_ssize_t)
    cdef _take(self, Wait wait, Py_ssize_t begin)
    cdef _fail(self, Wait wait, object error)
    cdef _take_end(self, Wait wait, Py_ssize_t held)
    @cython.locals(buffer=bytearray, cut=bytes)
    cdef bytes _cut(self, Py_ssize_t size)
    @cython.locals(reader=Wait, size=Py_ssize_t, begin=Py_ssize_t)
    cpdef feed(self, object data)
    cdef _go_on(self, Wait reader, Py_ssize_t begin)


@cython.locals(stream=Stream, direct=Conn)
cdef Stream stream_of(object conn)
@cython.locals(stream=Stream)
cpdef arrived(object conn, OpResult result)
@cython.locals(stream=Stream)
cpdef written(object conn, OpResult result)
