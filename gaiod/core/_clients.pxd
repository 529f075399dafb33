"""What sessions see of `_clients.pyx`."""

cimport cython

from gaiod.core._openssl cimport SSL, SSL_CTX


@cython.final
cdef class Trust:
    cdef object __weakref__
    cdef SSL_CTX* context


cdef struct Kept:                   # of the sessions with a server
    void* ticket                    # an SSL_SESSION to continue; NULL: none
    unsigned char* evidence         # the certificate that was not believed last, in DER; NULL: none
    Py_ssize_t evidence_size


@cython.final
cdef class Client:
    cdef Trust trust
    cdef readonly str name
    cdef bytes text                 # the name
    cdef bint is_numeric            # it is an address
    cdef bint verifies
    cdef bint accepts_truncation
    cdef Kept kept
    cdef int prepare(self, SSL* ssl) except -1
