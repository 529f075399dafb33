# cython: language_level=3, boundscheck=False, wraparound=False
"""TLS sessions of the compiled engine: one interface, which makes its system calls in stretches without the GIL.

`sessions.py` is the same interface for the interpreted engine, and says what a session is.
"""

cimport cython
from cpython.buffer cimport PyBUF_READ, PyBUF_WRITE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.errno cimport EAGAIN, ECONNRESET, EINTR, ENOMEM, EPIPE, EPROTO, errno
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove

from gaiod.core._clients cimport Client
from gaiod.core._contexts cimport Contexts
from gaiod.core._openssl cimport (
    BIO, BIO_CTRL_FLUSH, BIO_FLAGS_ALL, BIO_FLAGS_RETRY_READ, BIO_TYPE_SOURCE_SINK, BIO_clear_flags, BIO_get_data,
    BIO_get_new_index, BIO_meth_new, BIO_meth_set_ctrl, BIO_meth_set_read, BIO_meth_set_write, BIO_new, BIO_set_data,
    BIO_set_flags, BIO_set_init, ERR_clear_error, ERR_peek_error, ERR_reason_error_string, OpenSSL_version, SSL,
    SSL_CIPHER_get_name, SSL_ERROR_WANT_READ, SSL_ERROR_ZERO_RETURN, SSL_do_handshake, SSL_free, SSL_get0_alpn_selected,
    SSL_get1_peer_certificate, SSL_get_current_cipher, SSL_get_error, SSL_get_servername, SSL_get_verify_result,
    SSL_get_version, SSL_new, SSL_pending, SSL_read, SSL_session_reused, SSL_set_accept_state, SSL_set_bio,
    SSL_set_connect_state, SSL_shutdown, SSL_write, X509_free, X509_verify_cert_error_string, has_openssl, i2d_X509,
)

from os import strerror

from gaiod.core.tls import ClientTls, TlsFacts

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


# -- by OpenSSL itself: the memory between a session's SSL and its socket ------------------------------------

cdef extern from "sys/socket.h" nogil:
    ssize_t c_recv "recv"(int, void*, size_t, int)
    ssize_t c_send "send"(int, const void*, size_t, int)
    int MSG_NOSIGNAL, MSG_DONTWAIT

cdef extern from "threads.h" nogil:
    ctypedef struct tss_t:
        pass
    int tss_create(tss_t*, void (*)(void*) noexcept nogil)
    void* tss_get(tss_t)
    int tss_set(tss_t, void*)

cdef struct Wire:                   # between a session's SSL and its socket
    char* received                  # NULL: nothing
    Py_ssize_t start                # of what OpenSSL has not read
    Py_ssize_t unread
    char* made                      # NULL: nothing is held
    bint owns_received              # else it is the thread's, for as long as the call lasts
    bint owns_made
    Py_ssize_t room
    Py_ssize_t end
    Py_ssize_t collected            # the end of what is counted as held


cdef struct Piece:                  # of what is held: a record of the owner's, or what the session says itself
    Py_ssize_t size
    Py_ssize_t plain                # bytes of the owner's that are counted


cdef enum:                          # as in sessions.py, which says what they are for
    RECORD_BYTES = 16384
    HEAD_BYTES = 5                  # of a record: its type, its version, its length
    HANDSHAKE = 22
    MAJOR = 3
    AHEAD_BYTES = 65536
    RECEIVE_MAX = 262144
    RECEIVE_MIN = 16896
    MADE_BYTES = 81920              # what is encrypted ahead, in records
    PIECES_MAX = 8                  # four records at most are held, and what the session says itself between them

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
    if wire.made == NULL:
        memory = scratch()
        if memory == NULL:
            return -1
        wire.made = memory + RECEIVE_MAX
        wire.owns_made = False
        wire.room = room = MADE_BYTES
    if wire.end + size > room:
        room = max(2 * room, wire.end + size)
        memory = <char*>realloc(wire.made if wire.owns_made else NULL, room)
        if memory == NULL:
            return -1
        if not wire.owns_made:
            memcpy(memory, wire.made, wire.end)
        wire.made = memory
        wire.owns_made = True
        wire.room = room
    memcpy(wire.made + wire.end, data, size)
    wire.end += size
    return size


cdef tss_t scratch_key
tss_create(&scratch_key, &free)


cdef char* scratch() noexcept nogil:
    """Return memory of this thread's, for one call of a session at a time: `RECEIVE_MAX` bytes, then `MADE_BYTES`.

    A connection that is idle has none of its own. Blocks that came and went between the small ones which stay with a
    connection would take more memory than these.
    """
    cdef char* memory = <char*>tss_get(scratch_key)
    if memory == NULL:
        memory = <char*>malloc(RECEIVE_MAX + MADE_BYTES)
        tss_set(scratch_key, memory)
    return memory


cdef long control_wire(BIO* bio, int command, long number, void* pointer) noexcept nogil:
    return 1 if command == BIO_CTRL_FLUSH else 0


cdef void* wire_method = NULL


cdef void* method_of_wires() except NULL:
    """Return what makes a BIO of OpenSSL's an end of a session's `Wire`."""
    global wire_method
    if wire_method == NULL:
        wire_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, b"gaiod")
        if wire_method == NULL:
            raise MemoryError
        BIO_meth_set_read(wire_method, <void*>&read_wire)
        BIO_meth_set_write(wire_method, <void*>&write_wire)
        BIO_meth_set_ctrl(wire_method, <void*>&control_wire)
    return wire_method


@cython.final
cdef class OwnSession(Session):
    """A session by an `SSL` of OpenSSL's, called without the GIL."""

    cdef Contexts contexts          # None: it is a client's
    cdef Client client              # None: it is a server's
    cdef bint accepts_truncation
    cdef void* method               # of the BIO
    cdef void* ssl                  # NULL: no whole record of the peer's has come, or it is closed
    cdef bint is_closed
    cdef Wire wire
    cdef Piece pieces[8]
    cdef int piece_count
    cdef unsigned long code         # OpenSSL's, of a failure; 0: none
    cdef long verdict               # what OpenSSL has found wrong with the peer's certificate; 0: nothing
    cdef bytes evidence             # that certificate, in DER; None: it is not known
    cdef int lost                   # the errno that ended the handshake; 0: none
    cdef bint has_greeted           # of a client: it has said what it wants
    cdef char opening[2]            # the first bytes of the peer
    cdef char opening_size
    cdef bint has_ended             # the peer's close_notify has come
    cdef bint has_shut              # ours was made
    cdef bint has_closed            # the peer's FIN has come
    cdef object known               # the facts

    def __cinit__(self, Contexts contexts, Client client):
        self.contexts = contexts
        self.client = client
        self.accepts_truncation = contexts.accepts_truncation if client is None else client.accepts_truncation
        self.method = method_of_wires()
        if client is not None:
            if not self.begin():
                raise MemoryError
            client.prepare(self.ssl)

    def __dealloc__(self):
        if self.ssl != NULL:
            SSL_free(self.ssl)
        self.drop_received()
        self.drop_made()

    cdef int hold(self, bytes data) except -1:
        """Send this before anything else, as it is."""
        cdef Wire* wire = &self.wire
        cdef Py_ssize_t size = len(data)
        wire.made = <char*>malloc(size)
        if wire.made == NULL:
            raise MemoryError
        wire.owns_made = True
        memcpy(wire.made, PyBytes_AS_STRING(data), size)
        wire.room = wire.end = wire.collected = self.held = self.pieces[0].size = size
        self.pieces[0].plain = 0
        self.piece_count = 1
        return 0

    cdef int handshake(self, int fd) noexcept nogil:
        cdef Py_ssize_t received
        cdef int outcome
        cdef int error
        self.drained = 0
        if self.is_closed:
            return -EPROTO
        error = self.flush(fd)
        if error == -EAGAIN:
            self.drained = 2                # whatever comes is of no use before the kernel takes more
            return 0
        if error:
            return self.lose(error)
        if self.client is None or self.has_greeted:
            received = self.receive_wire(fd, RECEIVE_MIN)
            if received <= 0:
                if self.drained == 2:
                    return 0
                return self.lose(<int>received if received else -ECONNRESET)
        if self.ssl == NULL:
            if self.is_partial():
                self.tidy()
                return -EPROTO if self.code else 0
            if not self.begin():
                return -ENOMEM
        ERR_clear_error()
        outcome = SSL_do_handshake(self.ssl)
        if outcome == 1:
            self.is_open = True
            self.drained = 0                # what came behind the handshake is in here
        else:
            self.note(outcome)
        self.has_greeted = True
        self.collect(0)
        error = self.flush(fd)
        self.tidy()
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
            self.is_truncated = not self.accepts_truncation
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
        self.tidy()
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
        self.drop_made()
        return 0

    cdef int shutdown(self) noexcept nogil:
        if self.has_shut or not self.is_open or self.code or self.ssl == NULL:
            return 0
        self.has_shut = True
        ERR_clear_error()
        SSL_shutdown(self.ssl)              # makes ours; a second call would wait for the peer's
        self.collect(0)
        self.tidy()
        return 0

    cdef Py_ssize_t disown(self) except -1:
        cdef Py_ssize_t disowned = self.held_plain
        cdef int i
        self.held_plain = 0
        for i in range(self.piece_count):
            self.pieces[i].plain = 0
        return disowned

    cdef int close(self) except -1:
        self.is_closed = True
        if self.ssl != NULL:
            self.facts()
            SSL_free(self.ssl)
            self.ssl = NULL
            self.forget()
            self.drop_received()
            self.wire.start = self.wire.unread = 0
        return 0

    cdef object facts(self):
        cdef const char* name
        cdef const unsigned char* alpn = NULL
        cdef unsigned int alpn_size = 0
        if self.known is None and self.is_open and self.ssl != NULL:
            name = SSL_get_servername(self.ssl, 0)
            SSL_get0_alpn_selected(self.ssl, &alpn, &alpn_size)
            shown = certificate_of(self.ssl)
            self.known = TlsFacts(
                SSL_get_version(self.ssl).decode().removeprefix("TLSv"),
                SSL_CIPHER_get_name(SSL_get_current_cipher(self.ssl)).decode(),
                (<char*>alpn)[:alpn_size].decode("ascii", "replace") if alpn_size else None,
                None if name == NULL else name.decode("ascii", "replace").lower(),
                SSL_session_reused(self.ssl) == 1,
                shown,
                is_verified=shown is not None and (self.client is None or self.client.verifies),
            )
        return self.known

    cdef str reason(self):
        if self.lost:
            return "closed" if self.lost == ECONNRESET and self.has_closed else "reset"
        if not self.code:
            return ""
        if self.client is not None:
            return self.why()[0]
        from gaiod.core.sessions import reason_of  # late: it imports ssl

        return reason_of(name_of(self.code), self.opening[:self.opening_size])

    cdef str words(self):
        if self.lost:
            return "the peer closed the connection amid the handshake" if self.has_closed else strerror(self.lost)
        if self.client is not None:
            return self.why()[1]
        from gaiod.core.sessions import words_of  # late: it imports ssl

        found = b"" if not self.verdict else X509_verify_cert_error_string(self.verdict)
        return words_of(name_of(self.code), self.opening[:self.opening_size], self.verdict, found.decode())

    cdef tuple why(self):
        """Return why TLS with a server has failed: the reason and the words."""
        from gaiod.core.sessions import why  # late: it imports ssl

        text = X509_verify_cert_error_string(self.verdict).decode("ascii", "replace")
        opening = self.opening[:self.opening_size]
        return why(name_of(self.code), opening, (self.verdict, text), self.client.name, self.evidence)

    # -- its parts ---------------------------------------------------------------------------------------

    cdef bint begin(self) noexcept nogil:
        """Make the `SSL`: for a client once it has said something whole. False: there is no memory."""
        cdef BIO* bio = BIO_new(self.method)
        self.ssl = SSL_new(self.contexts.contexts[0] if self.client is None else self.client.trust.context)
        if bio == NULL or self.ssl == NULL:
            return False                    # the connection fails, and takes with it what there is
        BIO_set_data(bio, &self.wire)
        BIO_set_init(bio, 1)
        SSL_set_bio(self.ssl, bio, bio)     # takes the reference: both are the same, so one
        if self.client is None:
            SSL_set_accept_state(self.ssl)
        else:
            SSL_set_connect_state(self.ssl)
        return True

    cdef Py_ssize_t receive_wire(self, int fd, Py_ssize_t wanted) noexcept nogil:
        """Receive what OpenSSL is to read next, and return the bytes, 0 at the end, `-errno`.

        Nothing is left of what was received before, as it is asked for only when that was read; but for a part of the
        first record.
        """
        cdef Wire* wire = &self.wire
        cdef Py_ssize_t kept = wire.unread
        cdef ssize_t received
        cdef char* memory = scratch()
        if memory == NULL:
            return -ENOMEM
        if kept:
            memcpy(memory, wire.received + wire.start, kept)
        while True:
            received = c_recv(fd, memory + kept, wanted, MSG_DONTWAIT)
            if received >= 0 or errno != EINTR:
                break
        if received > 0:
            if self.opening_size < 2:
                self.open_with(memory + kept, received)
            self.drop_received()
            wire.received = memory
            wire.start = 0
            wire.unread = kept + received
            self.drained = 1 if received < wanted else 0
            return received
        if received < 0:
            received = -errno
            if received == -EAGAIN:
                self.drained = 2
        else:
            self.has_closed = True
        return received

    cdef bint is_partial(self) noexcept nogil:
        """Tell whether what a client has said is a part of a record, for which an `SSL` would keep 46 KB."""
        cdef unsigned char* first = <unsigned char*>self.wire.received + self.wire.start
        cdef Py_ssize_t size
        if self.wire.unread < HEAD_BYTES:
            return True
        size = (first[3] << 8) + first[4]
        if first[0] != HANDSHAKE or first[1] != MAJOR or size > RECORD_BYTES:
            return False                    # OpenSSL says what is wrong with it
        return self.wire.unread < HEAD_BYTES + size

    cdef void open_with(self, char* memory, Py_ssize_t size) noexcept nogil:
        """Keep the first bytes of the peer: they tell whether it speaks TLS."""
        cdef Py_ssize_t place = 0
        while place < size and self.opening_size < 2:
            self.opening[self.opening_size] = memory[place]
            self.opening_size += 1
            place += 1

    cdef void tidy(self) noexcept nogil:
        """Leave nothing in the thread's memory at the end of a call, and have none without need: most are idle."""
        cdef Wire* wire = &self.wire
        cdef char* memory
        if wire.unread == 0:
            self.drop_received()
        elif not wire.owns_received:
            memory = <char*>malloc(wire.unread)
            if memory == NULL:
                wire.unread = 0
                self.code = 1               # what is lost cannot be decrypted, nor what follows it
            else:
                memcpy(memory, wire.received + wire.start, wire.unread)
                wire.owns_received = True
            wire.received = memory
            wire.start = 0
        if self.held == 0:
            self.drop_made()
        elif not wire.owns_made:
            memory = <char*>malloc(self.held)
            if memory == NULL:
                self.forget()
                self.code = 1
                return
            memcpy(memory, wire.made + wire.end - self.held, self.held)
            wire.made = memory
            wire.owns_made = True
            wire.end = wire.collected = wire.room = self.held

    cdef void drop_received(self) noexcept nogil:
        if self.wire.owns_received:
            free(self.wire.received)
        self.wire.received = NULL
        self.wire.owns_received = False

    cdef void drop_made(self) noexcept nogil:
        if self.wire.owns_made:
            free(self.wire.made)
        self.wire.made = NULL
        self.wire.owns_made = False
        self.wire.end = self.wire.collected = self.wire.room = 0

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
        if self.wire.end != self.wire.collected:    # an alert, or an answer to a KeyUpdate
            self.collect(0)
            self.flush(fd)                  # what fails here fails again
        self.tidy()
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
        if not self.is_open:
            self.verdict = SSL_get_verify_result(self.ssl)
            if self.client is not None:
                self.take_evidence()
        ERR_clear_error()
        return True

    cdef void take_evidence(self) noexcept with gil:
        """Keep the certificate that is not believed: the next session that fails has another."""
        kept = &self.client.kept
        if self.verdict and kept.evidence != NULL:
            self.evidence = kept.evidence[:kept.evidence_size]

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
        self.drop_made()
        self.held = self.held_plain = 0
        self.piece_count = 0

    cdef int lose(self, int error) noexcept nogil:
        """Take note that the network failed amid the handshake; return `error`."""
        self.lost = -error
        return error


cdef bytes certificate_of(SSL* ssl):
    """Return the peer's certificate, in DER; None: it has shown none."""
    cdef void* found = SSL_get1_peer_certificate(ssl)
    cdef unsigned char* place
    cdef bytes shown
    if found == NULL:
        return None
    shown = PyBytes_FromStringAndSize(NULL, i2d_X509(found, NULL))
    place = <unsigned char*>PyBytes_AS_STRING(shown)
    i2d_X509(found, &place)
    X509_free(found)
    return shown


cdef str name_of(unsigned long code):
    """Return what OpenSSL calls a failure, as Python's `ssl` does: `HTTP_REQUEST`."""
    cdef const char* text = ERR_reason_error_string(code)
    return "UNKNOWN" if text == NULL else text.decode("ascii", "replace").upper().replace(" ", "_")


@cython.final
cdef class OwnContext:
    """What a server's sessions are made from, by OpenSSL itself."""

    cdef Contexts contexts
    is_client = False

    def __cinit__(self, options):
        self.contexts = Contexts(options)

    def session(self):
        """Return the session of a new connection, as its server."""
        return OwnSession(self.contexts, None)

    def set_ticket_keys(self, keys):
        """Use other keys for tickets: as `ServerTls.ticket_keys`. It must have been made with some."""
        self.contexts.set_ticket_keys(keys)

    def renew(self, options):
        """As `sessions.TlsContext`."""
        self.contexts.renew(options)


@cython.final
cdef class OwnClient:
    """What a client's sessions with a server are made from, by OpenSSL itself."""

    cdef Client client
    is_client = True

    def __cinit__(self, options):
        self.client = Client(options)

    def session(self, bytes preface=b""):
        """Return the session of a new connection, as its client; it first sends `preface`, as it is."""
        cdef OwnSession made = OwnSession(None, self.client)
        if preface:
            made.hold(preface)
        return made


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
    """What all sessions of a server, or of a client, have in common, by the standard library."""

    def __init__(self, options):
        """As `sessions.open_tls`."""
        from gaiod.core.sessions import open_tls as make  # late: it imports ssl, which takes 2 MB

        self.context = make(options)
        self.is_client = self.context.is_client

    def session(self, preface=b""):
        """As `sessions.TlsContext`."""
        cdef ObjectSession made = ObjectSession(self.context.session(preface))
        made.look()
        return made

    def set_ticket_keys(self, keys):
        """As `sessions.TlsContext`: nothing."""

    def renew(self, options):
        """As `sessions.TlsContext`."""
        self.context.renew(options)


def shares_tickets():
    """As `engine.shares_tickets`."""
    return has_openssl()


def tls_library():
    """As `engine.tls_library`."""
    if has_openssl():
        return OpenSSL_version(0).decode("ascii", "replace"), "openssl"
    from ssl import OPENSSL_VERSION  # late, as above

    return OPENSSL_VERSION, "python"


def open_tls(options):
    """Return what sessions are made from: by OpenSSL itself if it can be had, else by Python's `ssl`."""
    if not has_openssl():
        return ObjectContext(options)
    return OwnClient(options) if isinstance(options, ClientTls) else OwnContext(options)
