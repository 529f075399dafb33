"""What sessions and clients see of `_contexts.pyx`."""

cimport cython

from gaiod.core._openssl cimport SSL_CTX


cdef struct Name:
    const char* text
    Py_ssize_t number               # of the certificate


cdef struct Staple:                 # and behind it the response
    Py_ssize_t size
    double ends_s


@cython.final
cdef class Contexts:
    cdef tuple certificates
    cdef void** contexts            # of each
    cdef Py_ssize_t count
    cdef Name* names                # sorted
    cdef Py_ssize_t name_count
    cdef list texts                 # what they point into
    cdef bint accepts_truncation
    cdef bint refuses_unknown_names
    cdef bytes alpn                 # each with its length before it
    cdef const unsigned char* protocols
    cdef unsigned int protocols_size
    cdef unsigned char keys[240]    # of tickets, the newest first
    cdef int key_count
    cdef int renew(self, options) except -1
    cdef SSL_CTX* make(self, options, Py_ssize_t number) except NULL
    cdef int name(self, certificates) except -1
    cdef int set_ticket_keys(self, keys) except -1
    cdef SSL_CTX* find(self, const char* name) noexcept nogil


cdef SSL_CTX* new_context(const void* method, options) except NULL
cdef bytes list_of(protocols)
cdef int believe(SSL_CTX* context, ca) except -1
cdef int use_certificate(SSL_CTX* context, certificate) except -1
