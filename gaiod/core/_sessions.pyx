# cython: language_level=3, boundscheck=False, wraparound=False
"""TLS sessions of the compiled engine: one interface, which makes its system calls in stretches without the GIL.

`sessions.py` is the same interface for the interpreted engine, and says what a session is.
"""

cimport cython
from cpython.buffer cimport PyBUF_READ, PyBUF_WRITE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, ECONNRESET, EINTR, ENOMEM, EPIPE, EPROTO, errno
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memmove, strcmp

from os import strerror

from gaiod.core.tls import TlsFacts

cdef extern from "Python.h":
    object PyMemoryView_FromMemory(char*, Py_ssize_t, int)


cdef class Session:
    """TLS with one peer. Attributes and calls are those of `sessions.Session`."""

    cdef int handshake(self, int fd) noexcept nogil:
        return 0

    cdef Py_ssize_t receive(self, int fd, char* memory, Py_ssize_t size) noexcept nogil:
        return 0

    cdef Py_ssize_t send(self, int fd, char* data, Py_ssize_t size) noexcept nogil:
        return 0

    cdef Py_ssize_t take(self, int fd, char* data, Py_ssize_t size) noexcept nogil:
        return 0

    cdef int flush(self, int fd) noexcept nogil:
        return 0

    cdef int shutdown(self) noexcept nogil:
        return 0

    cdef Py_ssize_t disown(self) except -1:
        return 0

    cdef int close(self) except -1:
        return 0

    cdef object facts(self):
        return None

    cdef str reason(self):
        return ""

    cdef str words(self):
        return ""


# -- the libssl that is loaded already ---------------------------------------------------------------------

cdef extern from "dlfcn.h" nogil:
    void* dlopen(const char*, int)
    void* dlsym(void*, const char*)
    int RTLD_NOW, RTLD_LOCAL, RTLD_NOLOAD

cdef extern from "sys/socket.h" nogil:
    ssize_t c_recv "recv"(int, void*, size_t, int)
    ssize_t c_send "send"(int, const void*, size_t, int)
    int MSG_NOSIGNAL, MSG_DONTWAIT

cdef struct Wire:                   # between a session's SSL and its socket
    char* received                  # NULL: nothing
    Py_ssize_t start                # of what OpenSSL has not read
    Py_ssize_t unread
    char* made                      # NULL: nothing is held
    Py_ssize_t room
    Py_ssize_t end
    Py_ssize_t collected            # the end of what is counted as held


cdef struct Piece:                  # of what is held: a record of the owner's, or what the session says itself
    Py_ssize_t size
    Py_ssize_t plain                # bytes of the owner's that are counted


cdef struct Name:
    const char* text
    void* context


ctypedef void SSL
ctypedef void SSL_CTX
ctypedef void BIO

cdef enum:                          # of openssl/ssl.h, bio.h and tls1.h: a stable ABI from 1.1.1 on
    SSL_ERROR_WANT_READ = 2
    SSL_ERROR_ZERO_RETURN = 6
    SSL_CTRL_EXTRA_CHAIN_CERT = 14
    SSL_CTRL_MODE = 33
    SSL_CTRL_SET_SESS_CACHE_MODE = 44
    SSL_CTRL_SET_TLSEXT_SERVERNAME_CB = 53
    SSL_CTRL_SET_TLSEXT_SERVERNAME_ARG = 54
    SSL_CTRL_SET_MIN_PROTO_VERSION = 123
    SSL_CTRL_SET_MAX_PROTO_VERSION = 124
    SSL_MODE_RELEASE_BUFFERS = 0x10
    SSL_OP_NO_COMPRESSION = 0x20000
    SSL_OP_NO_RENEGOTIATION = 0x40000000
    SSL_TLSEXT_ERR_OK = 0
    SSL_TLSEXT_ERR_ALERT_FATAL = 2
    SSL_AD_UNRECOGNIZED_NAME = 112
    OPENSSL_NPN_NEGOTIATED = 1
    BIO_CTRL_FLUSH = 11
    BIO_TYPE_SOURCE_SINK = 0x400
    BIO_FLAGS_RETRY_READ = 0x09
    BIO_FLAGS_ALL = 0x0F
    OPENSSL_MIN = 0x10101000        # 1.1.1

cdef enum:                          # as in sessions.py, which says what they are for
    RECORD_BYTES = 16384
    AHEAD_BYTES = 65536
    RECEIVE_MAX = 262144
    RECEIVE_MIN = 16896
    NAME_MAX = 256                  # a server name has 255 bytes at most
    PIECES_MAX = 8                  # four records at most are held, and what the session says itself between them

cdef unsigned long (*OpenSSL_version_num)() noexcept nogil
cdef const char* (*OpenSSL_version)(int) noexcept nogil
cdef void (*ERR_clear_error)() noexcept nogil
cdef unsigned long (*ERR_peek_error)() noexcept nogil
cdef const char* (*ERR_reason_error_string)(unsigned long) noexcept nogil
cdef const void* (*TLS_server_method)() noexcept nogil
cdef SSL_CTX* (*SSL_CTX_new)(const void*) noexcept nogil
cdef void (*SSL_CTX_free)(SSL_CTX*) noexcept nogil
cdef long (*SSL_CTX_ctrl)(SSL_CTX*, int, long, void*) noexcept nogil
cdef long (*SSL_CTX_callback_ctrl)(SSL_CTX*, int, void*) noexcept nogil
cdef unsigned long (*SSL_CTX_set_options)(SSL_CTX*, unsigned long) noexcept nogil
cdef int (*SSL_CTX_set_num_tickets)(SSL_CTX*, size_t) noexcept nogil
cdef int (*SSL_CTX_set_cipher_list)(SSL_CTX*, const char*) noexcept nogil
cdef int (*SSL_CTX_use_certificate)(SSL_CTX*, void*) noexcept nogil
cdef int (*SSL_CTX_use_PrivateKey)(SSL_CTX*, void*) noexcept nogil
cdef int (*SSL_CTX_check_private_key)(SSL_CTX*) noexcept nogil
cdef void (*SSL_CTX_set_alpn_select_cb)(SSL_CTX*, void*, void*) noexcept nogil
cdef int (*SSL_select_next_proto)(
    unsigned char**, unsigned char*, const unsigned char*, unsigned int, const unsigned char*, unsigned int
) noexcept nogil
cdef void (*SSL_get0_alpn_selected)(SSL*, const unsigned char**, unsigned int*) noexcept nogil
cdef SSL* (*SSL_new)(SSL_CTX*) noexcept nogil
cdef void (*SSL_free)(SSL*) noexcept nogil
cdef void (*SSL_set_bio)(SSL*, BIO*, BIO*) noexcept nogil
cdef void (*SSL_set_accept_state)(SSL*) noexcept nogil
cdef SSL_CTX* (*SSL_set_SSL_CTX)(SSL*, SSL_CTX*) noexcept nogil
cdef const char* (*SSL_get_servername)(SSL*, int) noexcept nogil
cdef int (*SSL_do_handshake)(SSL*) noexcept nogil
cdef int (*SSL_read)(SSL*, void*, int) noexcept nogil
cdef int (*SSL_write)(SSL*, const void*, int) noexcept nogil
cdef int (*SSL_shutdown)(SSL*) noexcept nogil
cdef int (*SSL_pending)(SSL*) noexcept nogil
cdef int (*SSL_get_error)(SSL*, int) noexcept nogil
cdef const char* (*SSL_get_version)(SSL*) noexcept nogil
cdef void* (*SSL_get_current_cipher)(SSL*) noexcept nogil
cdef const char* (*SSL_CIPHER_get_name)(void*) noexcept nogil
cdef int (*SSL_session_reused)(SSL*) noexcept nogil
cdef void* (*BIO_meth_new)(int, const char*) noexcept nogil
cdef int (*BIO_get_new_index)() noexcept nogil
cdef int (*BIO_meth_set_read)(void*, void*) noexcept nogil
cdef int (*BIO_meth_set_write)(void*, void*) noexcept nogil
cdef int (*BIO_meth_set_ctrl)(void*, void*) noexcept nogil
cdef BIO* (*BIO_new)(void*) noexcept nogil
cdef BIO* (*BIO_new_mem_buf)(const void*, int) noexcept nogil
cdef int (*BIO_free)(BIO*) noexcept nogil
cdef void (*BIO_set_data)(BIO*, void*) noexcept nogil
cdef void* (*BIO_get_data)(BIO*) noexcept nogil
cdef void (*BIO_set_init)(BIO*, int) noexcept nogil
cdef void (*BIO_set_flags)(BIO*, int) noexcept nogil
cdef void (*BIO_clear_flags)(BIO*, int) noexcept nogil
cdef void* (*PEM_read_bio_X509)(BIO*, void*, void*, void*) noexcept nogil
cdef void* (*PEM_read_bio_PrivateKey)(BIO*, void*, void*, void*) noexcept nogil
cdef void (*X509_free)(void*) noexcept nogil
cdef void (*EVP_PKEY_free)(void*) noexcept nogil

cdef void* libssl = NULL
cdef void* wire_method = NULL
cdef bint was_looked_for = False


cdef int find(void** function, const char* name) except -1:
    function[0] = dlsym(libssl, name)
    if function[0] == NULL:
        raise ImportError(name.decode())
    return 0


cdef bint has_openssl():
    """Tell whether there is an OpenSSL in this process that can be used, and make it ready."""
    global was_looked_for
    if not was_looked_for:
        was_looked_for = True
        try:
            load_openssl()
        except ImportError:
            pass
    return wire_method != NULL


cdef int load_openssl() except -1:
    """Find the functions in the libssl that Python's `ssl` has loaded, or else in the system's.

    No headers, and nothing linked: so there is one copy of OpenSSL in the process, which the system keeps up to date.

    Raises:
        ImportError: there is none, it is too old, or another library by its name: LibreSSL, AWS-LC, BoringSSL.
    """
    global libssl, wire_method
    import _ssl  # late: it loads libssl

    for name in (b"libssl.so.3", b"libssl.so.1.1"):
        libssl = dlopen(name, RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD)
        if libssl != NULL:
            break
    else:
        for name in (b"libssl.so.3", b"libssl.so.1.1"):
            libssl = dlopen(name, RTLD_NOW | RTLD_LOCAL)
            if libssl != NULL:
                break
        else:
            raise ImportError("libssl")
    find(<void**>&OpenSSL_version_num, b"OpenSSL_version_num")
    find(<void**>&OpenSSL_version, b"OpenSSL_version")
    if OpenSSL_version_num() < OPENSSL_MIN or not OpenSSL_version(0).startswith(b"OpenSSL "):
        raise ImportError("OpenSSL")
    find(<void**>&ERR_clear_error, b"ERR_clear_error")
    find(<void**>&ERR_peek_error, b"ERR_peek_error")
    find(<void**>&ERR_reason_error_string, b"ERR_reason_error_string")
    find_contexts()
    find_sessions()
    find_bios()
    cdef void* method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, b"gaiod")
    if method == NULL:
        raise MemoryError
    BIO_meth_set_read(method, <void*>&read_wire)
    BIO_meth_set_write(method, <void*>&write_wire)
    BIO_meth_set_ctrl(method, <void*>&control_wire)
    wire_method = method
    return 0


cdef int find_contexts() except -1:
    find(<void**>&TLS_server_method, b"TLS_server_method")
    find(<void**>&SSL_CTX_new, b"SSL_CTX_new")
    find(<void**>&SSL_CTX_free, b"SSL_CTX_free")
    find(<void**>&SSL_CTX_ctrl, b"SSL_CTX_ctrl")
    find(<void**>&SSL_CTX_callback_ctrl, b"SSL_CTX_callback_ctrl")
    find(<void**>&SSL_CTX_set_options, b"SSL_CTX_set_options")
    find(<void**>&SSL_CTX_set_num_tickets, b"SSL_CTX_set_num_tickets")
    find(<void**>&SSL_CTX_set_cipher_list, b"SSL_CTX_set_cipher_list")
    find(<void**>&SSL_CTX_use_certificate, b"SSL_CTX_use_certificate")
    find(<void**>&SSL_CTX_use_PrivateKey, b"SSL_CTX_use_PrivateKey")
    find(<void**>&SSL_CTX_check_private_key, b"SSL_CTX_check_private_key")
    find(<void**>&SSL_CTX_set_alpn_select_cb, b"SSL_CTX_set_alpn_select_cb")
    find(<void**>&SSL_select_next_proto, b"SSL_select_next_proto")
    find(<void**>&SSL_get0_alpn_selected, b"SSL_get0_alpn_selected")
    find(<void**>&PEM_read_bio_X509, b"PEM_read_bio_X509")
    find(<void**>&PEM_read_bio_PrivateKey, b"PEM_read_bio_PrivateKey")
    find(<void**>&X509_free, b"X509_free")
    find(<void**>&EVP_PKEY_free, b"EVP_PKEY_free")
    return 0


cdef int find_sessions() except -1:
    find(<void**>&SSL_new, b"SSL_new")
    find(<void**>&SSL_free, b"SSL_free")
    find(<void**>&SSL_set_bio, b"SSL_set_bio")
    find(<void**>&SSL_set_accept_state, b"SSL_set_accept_state")
    find(<void**>&SSL_set_SSL_CTX, b"SSL_set_SSL_CTX")
    find(<void**>&SSL_get_servername, b"SSL_get_servername")
    find(<void**>&SSL_do_handshake, b"SSL_do_handshake")
    find(<void**>&SSL_read, b"SSL_read")
    find(<void**>&SSL_write, b"SSL_write")
    find(<void**>&SSL_shutdown, b"SSL_shutdown")
    find(<void**>&SSL_pending, b"SSL_pending")
    find(<void**>&SSL_get_error, b"SSL_get_error")
    find(<void**>&SSL_get_version, b"SSL_get_version")
    find(<void**>&SSL_get_current_cipher, b"SSL_get_current_cipher")
    find(<void**>&SSL_CIPHER_get_name, b"SSL_CIPHER_get_name")
    find(<void**>&SSL_session_reused, b"SSL_session_reused")
    return 0


cdef int find_bios() except -1:
    find(<void**>&BIO_meth_new, b"BIO_meth_new")
    find(<void**>&BIO_get_new_index, b"BIO_get_new_index")
    find(<void**>&BIO_meth_set_read, b"BIO_meth_set_read")
    find(<void**>&BIO_meth_set_write, b"BIO_meth_set_write")
    find(<void**>&BIO_meth_set_ctrl, b"BIO_meth_set_ctrl")
    find(<void**>&BIO_new, b"BIO_new")
    find(<void**>&BIO_new_mem_buf, b"BIO_new_mem_buf")
    find(<void**>&BIO_free, b"BIO_free")
    find(<void**>&BIO_set_data, b"BIO_set_data")
    find(<void**>&BIO_get_data, b"BIO_get_data")
    find(<void**>&BIO_set_init, b"BIO_set_init")
    find(<void**>&BIO_set_flags, b"BIO_set_flags")
    find(<void**>&BIO_clear_flags, b"BIO_clear_flags")
    return 0


# -- the memory between a session's SSL and its socket -----------------------------------------------------

cdef int read_wire(BIO* bio, char* memory, int size) noexcept nogil:
    """Let OpenSSL have what was received."""
    cdef Wire* wire = <Wire*>BIO_get_data(bio)
    BIO_clear_flags(bio, BIO_FLAGS_ALL)
    if wire.unread == 0:
        BIO_set_flags(bio, BIO_FLAGS_RETRY_READ)
        return -1
    if size > wire.unread:
        size = <int>wire.unread
    memcpy(memory, wire.received + wire.start, size)
    wire.start += size
    wire.unread -= size
    return size


cdef int write_wire(BIO* bio, const char* data, int size) noexcept nogil:
    """Hold what OpenSSL wants to be sent."""
    cdef Wire* wire = <Wire*>BIO_get_data(bio)
    cdef Py_ssize_t room = wire.room
    cdef char* memory
    BIO_clear_flags(bio, BIO_FLAGS_ALL)
    if wire.end + size > room:
        room = max(2 * room, wire.end + size)
        memory = <char*>realloc(wire.made, room)
        if memory == NULL:
            return -1
        wire.made = memory
        wire.room = room
    memcpy(wire.made + wire.end, data, size)
    wire.end += size
    return size


cdef long control_wire(BIO* bio, int command, long number, void* pointer) noexcept nogil:
    return 1 if command == BIO_CTRL_FLUSH else 0


@cython.final
cdef class OwnSession(Session):
    """A session by an `SSL` of OpenSSL's, called without the GIL."""

    cdef OwnContext context
    cdef void* ssl                  # NULL: it is closed
    cdef Wire wire
    cdef Piece pieces[8]
    cdef int piece_count
    cdef unsigned long code         # OpenSSL's, of a failure; 0: none
    cdef int lost                   # the errno that ended the handshake; 0: none
    cdef bint has_begun
    cdef bint has_ended             # the peer's close_notify has come
    cdef bint has_shut              # ours was made
    cdef bint has_closed            # the peer's FIN has come
    cdef object known               # the facts

    def __cinit__(self, OwnContext context not None):
        cdef BIO* bio
        self.context = context
        self.ssl = SSL_new(context.contexts[0])
        if self.ssl == NULL:
            raise MemoryError
        bio = BIO_new(wire_method)
        if bio == NULL:
            raise MemoryError
        BIO_set_data(bio, &self.wire)
        BIO_set_init(bio, 1)
        SSL_set_bio(self.ssl, bio, bio)     # takes the reference: both are the same, so one
        SSL_set_accept_state(self.ssl)

    def __dealloc__(self):
        if self.ssl != NULL:
            SSL_free(self.ssl)
        free(self.wire.received)
        free(self.wire.made)

    cdef int handshake(self, int fd) noexcept nogil:
        cdef Py_ssize_t received
        cdef int outcome
        cdef int error
        self.drained = 0
        if self.ssl == NULL:
            return -EPROTO
        error = self.flush(fd)
        if error == -EAGAIN:
            self.drained = 2                # whatever comes is of no use before the kernel takes more
            return 0
        if error:
            return self.lose(error)
        received = self.receive_wire(fd, RECEIVE_MIN)
        if received <= 0:
            if self.drained == 2:
                return 0
            return self.lose(<int>received if received else -ECONNRESET)
        ERR_clear_error()
        outcome = SSL_do_handshake(self.ssl)
        if outcome == 1:
            self.is_open = True
            self.drained = 0                # what came behind the handshake is in here
        else:
            self.note(outcome)
        self.has_begun = True
        self.collect(0)
        self.tidy()
        error = self.flush(fd)
        if self.code:
            return -EPROTO
        if error and error != -EAGAIN:
            return self.lose(error)
        return self.is_open

    cdef Py_ssize_t receive(self, int fd, char* memory, Py_ssize_t size) noexcept nogil:
        cdef Py_ssize_t filled
        cdef Py_ssize_t received
        self.drained = 0
        if self.ssl == NULL:
            return -EPROTO
        if self.wire.unread or SSL_pending(self.ssl):
            filled = self.decrypt(fd, memory, size)
            if filled:
                return filled
        if self.code:
            return -EPROTO
        if self.has_ended:
            return 0
        received = self.receive_wire(fd, min(max(size + 512, <Py_ssize_t>RECEIVE_MIN), <Py_ssize_t>RECEIVE_MAX))
        if received < 0:
            return received
        if received == 0:
            self.is_truncated = not self.context.accepts_truncation
            return -ECONNRESET if self.is_truncated else 0
        filled = self.decrypt(fd, memory, size)
        if filled == size or self.has_ended or self.code:
            self.drained = 0
        if filled:
            return filled
        if self.code:
            return -EPROTO
        return 0 if self.has_ended else -EAGAIN

    cdef Py_ssize_t send(self, int fd, char* data, Py_ssize_t size) noexcept nogil:
        cdef Py_ssize_t place = self.held_plain
        cdef Py_ssize_t sent = self.push(fd, data, &place, size, True)
        if sent < 0 and sent != -EAGAIN:
            return sent
        place -= self.held_plain
        return place if place or not sent else sent

    cdef Py_ssize_t take(self, int fd, char* data, Py_ssize_t size) noexcept nogil:
        cdef Py_ssize_t place = 0
        cdef Py_ssize_t error = self.push(fd, data, &place, size, False)
        if error < 0 and error != -EAGAIN:
            return error
        return place if place or not error else error

    cdef int push(self, int fd, char* data, Py_ssize_t* place, Py_ssize_t size, bint is_counted) noexcept nogil:
        """Encrypt and send from `place` on, and move it on; return 0, or why no more: `-errno`."""
        cdef Py_ssize_t step
        cdef int error
        if self.ssl == NULL or self.code:
            return -EPROTO
        if self.has_shut:
            return -EPIPE
        error = self.flush(fd)
        while not error and place[0] < size:
            step = min(size - place[0], <Py_ssize_t>AHEAD_BYTES)
            error = self.encrypt(data + place[0], step, is_counted)
            if error == 0:
                place[0] += step
                error = self.flush(fd)
        if error and error != -EAGAIN:
            self.forget()
        return error

    cdef int flush(self, int fd) noexcept nogil:
        cdef Wire* wire = &self.wire
        cdef ssize_t sent
        while self.held:
            sent = c_send(fd, wire.made + wire.end - self.held, self.held, MSG_NOSIGNAL | MSG_DONTWAIT)
            if sent < 0:
                if errno == EINTR:
                    continue
                return -errno
            self.held -= sent
            while sent and sent >= self.pieces[0].size:
                sent -= self.pieces[0].size
                self.held_plain -= self.pieces[0].plain
                self.piece_count -= 1
                memmove(self.pieces, self.pieces + 1, self.piece_count * sizeof(Piece))
            if sent:
                self.pieces[0].size -= sent
        if wire.made != NULL:
            free(wire.made)
            wire.made = NULL
            wire.end = wire.collected = wire.room = 0
        return 0

    cdef int shutdown(self) noexcept nogil:
        if self.has_shut or not self.is_open or self.code or self.ssl == NULL:
            return 0
        self.has_shut = True
        ERR_clear_error()
        SSL_shutdown(self.ssl)              # makes ours; a second call would wait for the peer's
        self.collect(0)
        return 0

    cdef Py_ssize_t disown(self) except -1:
        cdef Py_ssize_t disowned = self.held_plain
        cdef int i
        self.held_plain = 0
        for i in range(self.piece_count):
            self.pieces[i].plain = 0
        return disowned

    cdef int close(self) except -1:
        if self.ssl != NULL:
            self.facts()
            SSL_free(self.ssl)
            self.ssl = NULL
            self.forget()
            free(self.wire.received)
            self.wire.received = NULL
            self.wire.start = self.wire.unread = 0
        return 0

    cdef object facts(self):
        cdef const char* name
        cdef const unsigned char* alpn = NULL
        cdef unsigned int alpn_size = 0
        if self.known is None and self.is_open and self.ssl != NULL:
            name = SSL_get_servername(self.ssl, 0)
            SSL_get0_alpn_selected(self.ssl, &alpn, &alpn_size)
            self.known = TlsFacts(
                SSL_get_version(self.ssl).decode().removeprefix("TLSv"),
                SSL_CIPHER_get_name(SSL_get_current_cipher(self.ssl)).decode(),
                (<char*>alpn)[:alpn_size].decode("ascii", "replace") if alpn_size else None,
                None if name == NULL else name.decode("ascii", "replace").lower(),
                SSL_session_reused(self.ssl) == 1,
            )
        return self.known

    cdef str reason(self):
        if self.lost:
            return "closed" if self.lost == ECONNRESET and self.has_closed else "reset"
        if not self.code:
            return ""
        from gaiod.core.sessions import reason_of  # late: it imports ssl

        return reason_of(name_of(self.code), self.has_begun)

    cdef str words(self):
        if self.lost:
            return "the peer closed the connection amid the handshake" if self.has_closed else strerror(self.lost)
        from gaiod.core.sessions import words_of  # late: it imports ssl

        return words_of(name_of(self.code))

    # -- its parts ---------------------------------------------------------------------------------------

    cdef Py_ssize_t receive_wire(self, int fd, Py_ssize_t wanted) noexcept nogil:
        """Receive what OpenSSL is to read next, and return the bytes, 0 at the end, `-errno`.

        Nothing is left of what was received before: it is asked for only when that was read.
        """
        cdef Wire* wire = &self.wire
        cdef ssize_t received
        wire.received = <char*>malloc(wanted)
        if wire.received == NULL:
            return -ENOMEM
        while True:
            received = c_recv(fd, wire.received, wanted, MSG_DONTWAIT)
            if received >= 0 or errno != EINTR:
                break
        wire.start = 0
        wire.unread = max(received, <ssize_t>0)
        if received > 0:
            self.drained = 1 if received < wanted else 0
            return received
        if received < 0:
            received = -errno
            if received == -EAGAIN:
                self.drained = 2
        else:
            self.has_closed = True
        self.tidy()
        return received

    cdef void tidy(self) noexcept nogil:
        """Give the memory back that was received into, if all of it was read: most connections are idle."""
        if self.wire.unread == 0:
            free(self.wire.received)
            self.wire.received = NULL

    cdef Py_ssize_t decrypt(self, int fd, char* memory, Py_ssize_t size) noexcept nogil:
        cdef Py_ssize_t filled = 0
        cdef int part
        ERR_clear_error()
        while filled < size and not self.has_ended and not self.code:
            if self.wire.unread == 0 and filled and SSL_pending(self.ssl) == 0:
                break                       # it would only say so
            part = SSL_read(self.ssl, memory + filled, <int>(size - filled))
            if part > 0:
                filled += part
            elif not self.note(part):
                break
        self.tidy()
        if self.wire.end != self.wire.collected:    # an alert, or an answer to a KeyUpdate
            self.collect(0)
            self.flush(fd)                  # what fails here fails again
        return filled

    cdef bint note(self, int outcome) noexcept nogil:
        """Take note of why OpenSSL did not go on. False: it wants more of the peer's."""
        cdef int error = SSL_get_error(self.ssl, outcome)
        if error == SSL_ERROR_WANT_READ:
            return False
        if error == SSL_ERROR_ZERO_RETURN:
            self.has_ended = True
            return True
        self.code = ERR_peek_error()
        if self.code == 0:
            self.code = 1                   # nothing is known of it, but that it failed
        ERR_clear_error()
        return True

    cdef int encrypt(self, char* data, Py_ssize_t size, bint is_counted) noexcept nogil:
        """Make records of some bytes: 0, or `-errno`."""
        cdef Py_ssize_t step
        cdef int made
        ERR_clear_error()
        while size:
            step = min(size, <Py_ssize_t>RECORD_BYTES)
            made = SSL_write(self.ssl, data, <int>step)
            if made != step:
                self.note(made)
                if not self.code:
                    self.code = 1
                return -EPROTO
            self.collect(step if is_counted else 0)
            data += step
            size -= step
        return 0

    cdef void collect(self, Py_ssize_t plain) noexcept nogil:
        """Hold what OpenSSL has made since the last time."""
        cdef Py_ssize_t made = self.wire.end - self.wire.collected
        cdef Piece* last = &self.pieces[self.piece_count - 1] if self.piece_count else NULL
        if made == 0:
            return
        self.wire.collected = self.wire.end
        if last != NULL and (self.piece_count == PIECES_MAX or (plain == 0 and last.plain == 0)):
            last.size += made
            last.plain += plain
        else:
            self.pieces[self.piece_count].size = made
            self.pieces[self.piece_count].plain = plain
            self.piece_count += 1
        self.held += made
        self.held_plain += plain

    cdef void forget(self) noexcept nogil:
        """Forget what is held: nobody gets it any more."""
        free(self.wire.made)
        self.wire.made = NULL
        self.wire.end = self.wire.collected = self.wire.room = 0
        self.held = self.held_plain = 0
        self.piece_count = 0

    cdef int lose(self, int error) noexcept nogil:
        """Take note that the network failed amid the handshake; return `error`."""
        self.lost = -error
        return error


cdef str name_of(unsigned long code):
    """Return what OpenSSL calls a failure, as Python's `ssl` does: `HTTP_REQUEST`."""
    cdef const char* text = ERR_reason_error_string(code)
    return "UNKNOWN" if text == NULL else text.decode("ascii", "replace").upper().replace(" ", "_")


@cython.final
cdef class OwnContext:
    """What all sessions of a server have in common: an `SSL_CTX` for each certificate, and the names they are for."""

    cdef void** contexts
    cdef Py_ssize_t count
    cdef Name* names                # sorted
    cdef Py_ssize_t name_count
    cdef list texts                 # what they point into
    cdef bint accepts_truncation
    cdef bint refuses_unknown_names
    cdef bytes alpn                 # each with its length before it
    cdef const unsigned char* protocols
    cdef unsigned int protocols_size

    def __cinit__(self, options):
        cdef Py_ssize_t count = len(options.certificates)
        cdef Py_ssize_t i
        self.accepts_truncation = options.accepts_truncation
        self.refuses_unknown_names = options.refuses_unknown_names
        self.alpn = b"".join(bytes([len(name)]) + name.encode() for name in options.alpn)
        self.protocols = <const unsigned char*>PyBytes_AS_STRING(self.alpn)
        self.protocols_size = <unsigned int>PyBytes_GET_SIZE(self.alpn)
        self.contexts = <SSL_CTX**>calloc(count, sizeof(void*))
        if self.contexts == NULL:
            raise MemoryError
        self.count = count
        by_name = {}
        for i in range(count):
            self.contexts[i] = make_context(options, options.certificates[i])
            if options.alpn:
                SSL_CTX_set_alpn_select_cb(self.contexts[i], <void*>&choose_protocol, <void*>self)
            for name in options.certificates[i].names:
                by_name.setdefault(name.encode("ascii", "replace"), i)
        self.texts = sorted(by_name)
        self.name_count = len(self.texts)
        self.names = <Name*>calloc(max(1, self.name_count), sizeof(Name))
        if self.names == NULL:
            raise MemoryError
        for i in range(self.name_count):
            self.names[i].text = PyBytes_AS_STRING(self.texts[i])
            self.names[i].context = self.contexts[<Py_ssize_t>by_name[self.texts[i]]]
        SSL_CTX_callback_ctrl(self.contexts[0], SSL_CTRL_SET_TLSEXT_SERVERNAME_CB, <void*>&choose)
        SSL_CTX_ctrl(self.contexts[0], SSL_CTRL_SET_TLSEXT_SERVERNAME_ARG, 0, <void*>self)

    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(self.count):
            if self.contexts[i] != NULL:
                SSL_CTX_free(self.contexts[i])
        free(self.contexts)
        free(self.names)

    def accept(self):
        """Return the session of a new connection, as its server."""
        return OwnSession(self)

    cdef SSL_CTX* find(self, const char* name) noexcept nogil:
        """Return the context for a name, which is in lower case; NULL: there is none."""
        cdef Py_ssize_t low = 0
        cdef Py_ssize_t high = self.name_count
        cdef Py_ssize_t middle
        cdef int order
        while low < high:
            middle = (low + high) // 2
            order = strcmp(name, self.names[middle].text)
            if order == 0:
                return self.names[middle].context
            if order < 0:
                high = middle
            else:
                low = middle + 1
        return NULL


cdef int choose(SSL* ssl, int* alert, void* argument) noexcept nogil:
    """Show a client the certificate that is for the server it names; if none is, the first, or an alert."""
    cdef const char* asked = SSL_get_servername(ssl, 0)
    cdef char name[NAME_MAX]
    cdef SSL_CTX* found
    cdef Py_ssize_t size = 0
    cdef Py_ssize_t dot = -1
    cdef int unknown = SSL_TLSEXT_ERR_OK
    if (<OwnContext>argument).refuses_unknown_names:
        alert[0] = SSL_AD_UNRECOGNIZED_NAME
        unknown = SSL_TLSEXT_ERR_ALERT_FATAL
    if asked == NULL:
        return unknown
    while asked[size] and size < NAME_MAX - 1:
        name[size] = asked[size] + 32 if c"A" <= asked[size] <= c"Z" else asked[size]
        if dot < 0 and name[size] == c".":
            dot = size
        size += 1
    name[size] = 0
    found = (<OwnContext>argument).find(name)
    if found == NULL and dot > 0:           # a wildcard stands for the first label
        name[dot - 1] = c"*"
        found = (<OwnContext>argument).find(name + dot - 1)
    if found == NULL:
        return unknown
    SSL_set_SSL_CTX(ssl, found)
    return SSL_TLSEXT_ERR_OK


cdef int choose_protocol(
    SSL* ssl, const unsigned char** chosen, unsigned char* chosen_size, const unsigned char* offered,
    unsigned int offered_size, void* argument
) noexcept nogil:
    """Choose one of a client's protocols, by our preference; an alert if it has none that is spoken."""
    cdef unsigned char* found = NULL
    cdef int outcome = SSL_select_next_proto(
        &found, chosen_size, (<OwnContext>argument).protocols, (<OwnContext>argument).protocols_size, offered,
        offered_size,
    )
    if outcome != OPENSSL_NPN_NEGOTIATED:
        return SSL_TLSEXT_ERR_ALERT_FATAL   # OpenSSL makes no_application_protocol of it
    chosen[0] = found
    return SSL_TLSEXT_ERR_OK


cdef SSL_CTX* make_context(options, certificate) except NULL:
    """Make the context of a certificate.

    Raises:
        ValueError: a certificate or a key is none, or they are no pair.
    """
    from gaiod.core.sessions import CIPHERS

    cdef SSL_CTX* context = SSL_CTX_new(TLS_server_method())
    cdef bytes ciphers = CIPHERS.encode()
    if context == NULL:
        raise MemoryError
    try:
        versions = [{"1.2": 0x0303, "1.3": 0x0304}[version] for version in options.versions]
        SSL_CTX_ctrl(context, SSL_CTRL_SET_MIN_PROTO_VERSION, <int>min(versions), NULL)
        SSL_CTX_ctrl(context, SSL_CTRL_SET_MAX_PROTO_VERSION, <int>max(versions), NULL)
        SSL_CTX_ctrl(context, SSL_CTRL_MODE, SSL_MODE_RELEASE_BUFFERS, NULL)    # 38 KB of an idle connection
        SSL_CTX_ctrl(context, SSL_CTRL_SET_SESS_CACHE_MODE, 0, NULL)            # tickets only
        SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION)
        SSL_CTX_set_num_tickets(context, 1)
        if SSL_CTX_set_cipher_list(context, ciphers) != 1:
            raise ValueError(f"OpenSSL knows none of the suites {CIPHERS}")
        use_certificate(context, certificate)
    except BaseException:
        SSL_CTX_free(context)
        raise
    return context


cdef int use_certificate(SSL_CTX* context, certificate) except -1:
    """Let a context show a certificate."""
    cdef bytes chain = certificate.chain.encode()
    cdef bytes key = certificate.key.encode()
    cdef BIO* bio = BIO_new_mem_buf(PyBytes_AS_STRING(chain), <int>PyBytes_GET_SIZE(chain))
    cdef void* found
    cdef bint is_first = True
    ERR_clear_error()
    while True:
        found = PEM_read_bio_X509(bio, NULL, NULL, NULL)
        if found == NULL:
            break
        if is_first:
            is_first = False
            SSL_CTX_use_certificate(context, found)
            X509_free(found)
        elif SSL_CTX_ctrl(context, SSL_CTRL_EXTRA_CHAIN_CERT, 0, found) != 1:   # takes the reference
            X509_free(found)
    BIO_free(bio)
    ERR_clear_error()                       # the last one found no further certificate
    if is_first:
        raise ValueError("the chain has no certificate")
    bio = BIO_new_mem_buf(PyBytes_AS_STRING(key), <int>PyBytes_GET_SIZE(key))
    found = PEM_read_bio_PrivateKey(bio, NULL, <void*>&no_passphrase, NULL)
    BIO_free(bio)
    if found == NULL:
        ERR_clear_error()
        raise ValueError("the key is none, or a passphrase protects it")
    SSL_CTX_use_PrivateKey(context, found)
    EVP_PKEY_free(found)
    ERR_clear_error()
    if SSL_CTX_check_private_key(context) != 1:
        ERR_clear_error()
        raise ValueError("the key is not that of the certificate")
    return 0


cdef int no_passphrase(char* memory, int size, int is_writing, void* argument) noexcept nogil:
    """Ask nobody: OpenSSL's own asks the terminal."""
    return -1


# -- by the standard library ---------------------------------------------------------------------------------

@cython.final
cdef class ObjectSession(Session):
    """A session by the standard library: each call takes the GIL."""

    cdef object session

    def __cinit__(self, session):
        self.session = session

    cdef int look(self) except -1:
        """Take over what a call has changed."""
        self.is_open = self.session.is_open
        self.is_truncated = self.session.is_truncated
        self.drained = self.session.drained
        self.held = self.session.held
        self.held_plain = self.session.held_plain
        return 0

    cdef int handshake(self, int fd) noexcept nogil:
        cdef int outcome = -ENOMEM
        with gil:
            try:
                outcome = self.session.handshake(fd)
                self.look()
            except MemoryError:
                pass
        return outcome

    cdef Py_ssize_t receive(self, int fd, char* memory, Py_ssize_t size) noexcept nogil:
        cdef Py_ssize_t received = -ENOMEM
        with gil:
            try:
                received = self.session.receive(fd, PyMemoryView_FromMemory(memory, size, PyBUF_WRITE))
                self.look()
            except MemoryError:
                pass
        return received

    cdef Py_ssize_t send(self, int fd, char* data, Py_ssize_t size) noexcept nogil:
        cdef Py_ssize_t sent = -ENOMEM
        with gil:
            try:
                sent = self.session.send(fd, PyMemoryView_FromMemory(data, size, PyBUF_READ), 0, size)
                self.look()
            except MemoryError:
                pass
        return sent

    cdef Py_ssize_t take(self, int fd, char* data, Py_ssize_t size) noexcept nogil:
        cdef Py_ssize_t taken = -ENOMEM
        with gil:
            try:
                taken = self.session.take(fd, [PyMemoryView_FromMemory(data, size, PyBUF_READ)])
                self.look()
            except MemoryError:
                pass
        return taken

    cdef int flush(self, int fd) noexcept nogil:
        cdef int error = -ENOMEM
        with gil:
            try:
                error = self.session.flush(fd)
                self.look()
            except MemoryError:
                pass
        return error

    cdef int shutdown(self) noexcept nogil:
        with gil:
            try:
                self.session.shutdown()
                self.look()
            except MemoryError:
                return -ENOMEM
        return 0

    cdef Py_ssize_t disown(self) except -1:
        cdef Py_ssize_t disowned = self.session.disown()
        self.look()
        return disowned

    cdef int close(self) except -1:
        self.session.close()
        self.look()
        return 0

    cdef object facts(self):
        return self.session.facts()

    cdef str reason(self):
        return self.session.reason()

    cdef str words(self):
        return self.session.words()


class ObjectContext:
    """What all sessions of a server have in common: its certificates, made ready for use."""

    def __init__(self, options):
        """As `sessions.TlsContext`."""
        from gaiod.core.sessions import TlsContext  # late: it imports ssl, which takes 2 MB

        self.context = TlsContext(options)

    def accept(self):
        """Return the session of a new connection, as its server."""
        return ObjectSession(self.context.accept())


def open_tls(options):
    """Return what sessions of a server are made from: by OpenSSL itself if it can be had, else by Python's `ssl`."""
    return OwnContext(options) if has_openssl() else ObjectContext(options)
