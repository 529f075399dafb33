"""Types for `tasks.py`."""

cimport cython

from gaiod.handler.coroutines.waits cimport Runner, Wait, advance, come, running, set_running


cdef class Task(Runner):
    cdef object __weakref__
    cdef readonly object coroutine
    cdef object _ended
    cdef readonly Wait waits_for
    cdef char _is_running
    cdef char _is_busy
    cdef object _to_throw
    cdef object _result
    cdef object _failure
    cdef list _ends

    cpdef wake(self, Wait wait)
    cpdef throw(self, object error)
    cpdef close(self)
    @cython.locals(before=Runner)
    cdef _run(self, object error)
    cdef _throw(self, object error)
    @cython.locals(wait=Wait)
    cdef object _wait_for(self, object got)
    cdef _take_forgotten(self)
    cdef _returned(self, object result)
    cdef _finish(self, object result, object error)
    cdef _go_on(self, Wait wait)
    cdef _be_busy(self, bint is_busy)


cdef object _ready
cdef bint _is_at_ready
@cython.locals(task=Task, wait=Wait)
cpdef run_ready()
