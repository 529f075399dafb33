# cython: language_level=3
"""What a coroutine waits for, compiled: `waits.py`, whose values reach the coroutine without an exception.

A coroutine gets what it awaits by `am_send`, a slot of types that Cython does not fill: it is filled here by hand.
"""

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF

from gaiod.core.errors import UsageError

cdef extern from "Python.h":
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT
    ctypedef PySendResult (*sendfunc)(PyObject*, PyObject*, PyObject**)
    ctypedef struct PyAsyncMethods:
        sendfunc am_send
    ctypedef struct PyTypeObject:
        PyAsyncMethods* tp_as_async
    PySendResult PyIter_Send(object, object, PyObject**) except PYGEN_ERROR
    void PyErr_SetObject(object, object)
    ctypedef struct PyFrameObject:
        pass
    PyFrameObject* PyEval_GetFrame()


class ForgottenAwait(UsageError):
    """A coroutine called something that has to be awaited, and did not await it; the message says where."""


cdef class Runner:
    """Runs a coroutine: `tasks.Task`."""

    cpdef wake(self, Wait wait):
        """Go on: what it waits for has come."""
        raise NotImplementedError


cdef Runner _running = None


@cython.freelist(512)
cdef class Wait:
    """Something that will come: a value or an error, once. To be awaited once, in a task.

    A wait that is dropped without having been awaited tells the task that has asked for it, if that runs then: an
    `await` was forgotten.

    Args:
        source: what is to bring it; it has `withdraw(wait)`, called if the task that waits is told to go on otherwise.
            None: nothing has to be withdrawn.
        is_work: whether a connection whose coroutine waits for it is busy (`Conn.busy`).
    """

    def __cinit__(self, object source=None, bint is_work=False):
        self.source = source
        self.is_work = is_work
        self.maker = <void*>_running

    cpdef finish(self, object value):
        """Bring the value. A second one is ignored."""
        if not self.done:
            self.done = True
            self.value = value
            self._tell()

    cpdef fail(self, object error):
        """Bring an error, which is raised where it is awaited."""
        if not self.done:
            self.done = True
            self.error = error
            self._tell()

    cpdef withdraw(self):
        """Let nobody bring it: its task goes on without, and who awaits it again gets an error."""
        cdef object source = self.source
        self.task = None
        if not self.done:
            self.done = True
            self.error = UsageError("what is awaited was cancelled before; ask for it again")
            self.source = None
            if source is not None:
                source.withdraw(self)

    cdef _tell(self):
        cdef Runner task = self.task
        self.task = None
        self.source = None
        if task is not None:
            task.wake(self)

    def __await__(self):
        self.is_awaited = True
        return self

    def __iter__(self):
        return self

    def __next__(self):
        if not self.done:
            return self
        if self.error is not None:
            raise self.error
        raise StopIteration(self.value)

    def __dealloc__(self):
        cdef PyFrameObject* frame
        if not self.is_awaited and self.maker is <void*>_running and _running is not None and _running.forgotten is None:
            frame = PyEval_GetFrame()
            if frame is not NULL:
                _running.forgotten = f"{(<object>frame).f_code.co_filename}:{(<object>frame).f_lineno}"


cdef PySendResult _send(PyObject* self, PyObject* value, PyObject** result) noexcept:
    """Be what `__next__` is, for who asks by this slot: a value is returned, and not raised in a StopIteration."""
    cdef Wait wait = <Wait>self
    cdef object got
    if not wait.done:
        Py_INCREF(wait)
        result[0] = self
        return PYGEN_NEXT
    if wait.error is not None:
        result[0] = NULL
        PyErr_SetObject(type(wait.error), wait.error)
        return PYGEN_ERROR
    got = wait.value
    Py_INCREF(got)
    result[0] = <PyObject*>got
    return PYGEN_RETURN


(<PyTypeObject*>Wait).tp_as_async.am_send = _send


cpdef Wait new_wait(object source, bint is_work):
    """Return a wait for what `source` brings: `Wait(source, is_work)`, without the cost of a call by name."""
    cdef Wait wait = Wait.__new__(Wait)
    wait.source = source
    wait.is_work = is_work
    return wait


cpdef Wait come(object value):
    """Return a wait for what is there already."""
    cdef Wait wait = Wait.__new__(Wait)
    wait.done = True
    wait.value = value
    return wait


cpdef Runner running():
    """Return the runner whose coroutine runs now; None: none does."""
    return _running


cpdef set_running(Runner runner):
    """Say whose coroutine runs now."""
    global _running
    _running = runner


cpdef object advance(Runner runner, object coroutine):
    """Let a coroutine go on: return what it waits for, or what it has returned; then the runner `is_over`.

    Raises:
        Whatever it raised.
    """
    cdef PyObject* result = NULL
    if PyIter_Send(coroutine, None, &result) == PYGEN_RETURN:
        runner.is_over = True
    cdef object got = <object>result
    Py_DECREF(got)  # the reference that the call gave
    return got


def is_cancelled(error):
    """Tell whether an error is such a one."""
    return type(error).__name__ == "CancelledError"
