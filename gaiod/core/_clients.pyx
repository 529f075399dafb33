# cython: language_level=3, boundscheck=False, wraparound=False
"""What OpenSSL is told of a client: whom it believes, what it shows, which server it wants; and its newest ticket."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdlib cimport free, malloc

from gaiod.core._contexts cimport believe, list_of, new_context, use_certificate
from gaiod.core._openssl cimport (
    SSL, SSL_CTRL_SET_SESS_CACHE_MODE, SSL_CTRL_SET_TLSEXT_HOSTNAME, SSL_CTX, SSL_CTX_ctrl, SSL_CTX_free,
    SSL_CTX_get0_param, SSL_CTX_sess_set_new_cb, SSL_CTX_set_alpn_protos, SSL_CTX_set_default_verify_paths,
    SSL_CTX_set_verify, SSL_SESSION_free, SSL_SESS_CACHE_CLIENT, SSL_SESS_CACHE_NO_INTERNAL, SSL_VERIFY_NONE,
    SSL_VERIFY_PEER, SSL_ctrl, SSL_get0_param, SSL_get_ex_data, SSL_get_ex_data_X509_STORE_CTX_idx, SSL_set_ex_data,
    SSL_set_session, TLS_client_method, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS, X509_STORE_CTX_get_current_cert,
    X509_STORE_CTX_get_ex_data, X509_VERIFY_PARAM_set1_host, X509_VERIFY_PARAM_set1_ip_asc,
    X509_VERIFY_PARAM_set_flags, X509_VERIFY_PARAM_set_hostflags, X509_V_FLAG_PARTIAL_CHAIN, i2d_X509,
)

from weakref import WeakValueDictionary

from gaiod.core.tls import is_numeric

trusts = WeakValueDictionary()
"""By what they were made of: those of this machine's authorities take 30 ms to make."""


@cython.final
cdef class Trust:
    """What clients of different servers have in common: an `SSL_CTX`."""

    def __cinit__(self, options):
        self.context = make_context(options)

    def __dealloc__(self):
        if self.context != NULL:
            SSL_CTX_free(self.context)


@cython.final
cdef class Client:
    """What all sessions with a server have in common. For one watcher: its thread alone has sessions of it."""

    def __cinit__(self, options):
        key = (options.ca, options.certificate, options.verify, options.versions, options.alpn)
        trust = trusts.get(key)
        if trust is None:
            trust = trusts[key] = Trust(options)
        self.trust = trust
        self.name = options.name
        self.text = options.name.encode("ascii")
        self.is_numeric = is_numeric(options.name)
        self.verifies = options.verify
        self.accepts_truncation = options.accepts_truncation

    def __dealloc__(self):
        if self.kept.ticket != NULL:
            SSL_SESSION_free(self.kept.ticket)
        free(self.kept.evidence)

    cdef int prepare(self, SSL* ssl) except -1:
        """Tell a new SSL which server it is for, and which session it may continue."""
        cdef void* param = SSL_get0_param(ssl)
        cdef const char* name = PyBytes_AS_STRING(self.text)
        SSL_set_ex_data(ssl, 0, &self.kept)     # the session holds a reference
        if self.text and not self.is_numeric:
            SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, 0, <void*>name)
        if self.verifies:
            X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS)
            if self.is_numeric:
                if X509_VERIFY_PARAM_set1_ip_asc(param, name) != 1:
                    raise MemoryError
            elif X509_VERIFY_PARAM_set1_host(param, name, PyBytes_GET_SIZE(self.text)) != 1:
                raise MemoryError
        if self.kept.ticket != NULL:
            SSL_set_session(ssl, self.kept.ticket)
        return 0


cdef int keep_ticket(SSL* ssl, void* session) noexcept nogil:
    """Keep what continues a session: the newest alone. 1: the reference is ours."""
    cdef Kept* kept = <Kept*>SSL_get_ex_data(ssl, 0)
    if kept.ticket != NULL:
        SSL_SESSION_free(kept.ticket)
    kept.ticket = session
    return 1


cdef int keep_evidence(int is_good, void* verification) noexcept nogil:
    """Keep a certificate that is not believed: once the handshake has failed, OpenSSL knows it no more."""
    cdef SSL* ssl
    cdef Kept* kept
    cdef void* certificate
    cdef unsigned char* end
    cdef int size
    if not is_good:
        ssl = X509_STORE_CTX_get_ex_data(verification, SSL_get_ex_data_X509_STORE_CTX_idx())
        kept = <Kept*>SSL_get_ex_data(ssl, 0)
        free(kept.evidence)
        kept.evidence = NULL
        certificate = X509_STORE_CTX_get_current_cert(verification)
        size = i2d_X509(certificate, NULL) if certificate != NULL else 0
        if size > 0:
            kept.evidence = <unsigned char*>malloc(size)
        if kept.evidence != NULL:
            end = kept.evidence
            kept.evidence_size = i2d_X509(certificate, &end)
    return is_good


cdef SSL_CTX* make_context(options) except NULL:
    """Make the context of clients.

    Raises:
        ValueError: a certificate or a key is none, or they are no pair.
    """
    cdef SSL_CTX* context = new_context(TLS_client_method(), options)
    cdef bytes alpn = list_of(options.alpn)
    try:
        SSL_CTX_ctrl(
            context, SSL_CTRL_SET_SESS_CACHE_MODE, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL, NULL
        )
        SSL_CTX_sess_set_new_cb(context, <void*>&keep_ticket)
        if alpn:
            SSL_CTX_set_alpn_protos(context, <unsigned char*>PyBytes_AS_STRING(alpn), <unsigned int>len(alpn))
        if options.certificate is not None:
            use_certificate(context, options.certificate)
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER if options.verify else SSL_VERIFY_NONE, <void*>&keep_evidence)
        if options.verify:
            # Whoever names an authority that is not the root means that one, as other programs have it by now.
            X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(context), X509_V_FLAG_PARTIAL_CHAIN)
            if options.ca is None:
                SSL_CTX_set_default_verify_paths(context)
            else:
                believe(context, options.ca)
    except BaseException:
        SSL_CTX_free(context)
        raise
    return context
