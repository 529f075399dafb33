"""Types for `waits.pyx`."""


cdef class Runner:
    cdef readonly object owner
    cdef public object forgotten
    cdef public bint is_over

    cpdef wake(self, Wait wait)


cdef class Wait:
    cdef public object source
    cdef readonly object value
    cdef readonly object error
    cdef public Runner task
    cdef readonly bint done
    cdef public bint is_awaited
    cdef void* maker                        # of the runner that has asked for it: compared, and never followed
    cdef readonly bint is_work

    cpdef finish(self, object value)
    cpdef fail(self, object error)
    cpdef withdraw(self)
    cdef _tell(self)


cpdef Wait new_wait(object source, bint is_work)
cpdef Wait come(object value)
cpdef Runner running()
cpdef set_running(Runner runner)
cpdef object advance(Runner runner, object coroutine)
