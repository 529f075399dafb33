# cython: language_level=3, boundscheck=False, wraparound=False
"""What OpenSSL is told of a server: its certificates, who is shown which, and what may be agreed with a client."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset, strcmp
from libc.time cimport time, time_t

from gaiod.core._openssl cimport (
    BIO, BIO_free, BIO_new_mem_buf, CRYPTO_EX_INDEX_SSL_CTX, CRYPTO_get_ex_new_index, CRYPTO_malloc, ERR_clear_error,
    EVP_DecryptInit_ex, EVP_EncryptInit_ex, EVP_MAC_CTX_set_params, EVP_PKEY_free, EVP_aes_256_cbc, EVP_sha256,
    HMAC_Init_ex, OPENSSL_NPN_NEGOTIATED, OPENSSL_cleanse, OSSL_PARAM, OSSL_PARAM_OCTET_STRING, OSSL_PARAM_UTF8_STRING,
    PEM_read_bio_PrivateKey, PEM_read_bio_X509, PEM_read_bio_X509_CRL, RAND_bytes, SSL, SSL_AD_UNRECOGNIZED_NAME,
    SSL_CTRL_EXTRA_CHAIN_CERT, SSL_CTRL_MODE, SSL_CTRL_SET_GROUPS_LIST, SSL_CTRL_SET_MAX_PROTO_VERSION,
    SSL_CTRL_SET_MIN_PROTO_VERSION, SSL_CTRL_SET_SESS_CACHE_MODE, SSL_CTRL_SET_TLSEXT_SERVERNAME_ARG,
    SSL_CTRL_SET_TLSEXT_SERVERNAME_CB, SSL_CTRL_SET_TLSEXT_STATUS_REQ_CB, SSL_CTRL_SET_TLSEXT_STATUS_REQ_OCSP_RESP,
    SSL_CTRL_SET_TLSEXT_TICKET_KEY_CB, SSL_CTX, SSL_CTX_add_client_CA, SSL_CTX_callback_ctrl, SSL_CTX_check_private_key,
    SSL_CTX_ctrl, SSL_CTX_free, SSL_CTX_get_cert_store, SSL_CTX_get_ex_data, SSL_CTX_new, SSL_CTX_set_alpn_select_cb,
    SSL_CTX_set_cert_store, SSL_CTX_set_cipher_list, SSL_CTX_set_ciphersuites, SSL_CTX_set_ex_data,
    SSL_CTX_set_num_tickets, SSL_CTX_set_options, SSL_CTX_set_session_id_context, SSL_CTX_set_timeout,
    SSL_CTX_set_tlsext_ticket_key_evp_cb, SSL_CTX_set_verify, SSL_CTX_set_verify_depth, SSL_CTX_use_PrivateKey,
    SSL_CTX_use_certificate, SSL_MODE_RELEASE_BUFFERS, SSL_OP_CIPHER_SERVER_PREFERENCE, SSL_OP_NO_COMPRESSION,
    SSL_OP_NO_RENEGOTIATION, SSL_OP_NO_TICKET, SSL_TLSEXT_ERR_ALERT_FATAL, SSL_TLSEXT_ERR_NOACK, SSL_TLSEXT_ERR_OK,
    SSL_VERIFY_FAIL_IF_NO_PEER_CERT, SSL_VERIFY_PEER, SSL_ctrl, SSL_get_SSL_CTX, SSL_get_servername,
    SSL_select_next_proto, SSL_set_SSL_CTX, TLS_server_method, X509_CRL_free, X509_NAME_size, X509_STORE_add_cert,
    X509_STORE_add_crl, X509_STORE_set_flags, X509_STORE_up_ref, X509_V_FLAG_CRL_CHECK, X509_V_FLAG_CRL_CHECK_ALL,
    X509_free, X509_get_subject_name,
)

cdef enum:
    NAME_MAX = 256                  # a server name has 255 bytes at most
    AUTHORITIES_MAX = 4096          # bytes of the list of authorities that clients are sent
    OURS = 0                        # where a context has its `Contexts`: OpenSSL keeps that place for its users
    KEY_BYTES = 80                  # as in tls.py: a name, a key of AES, and one of HMAC
    KEY_NAME_BYTES = 16
    KEYS_MAX = 3
    IV_BYTES = 16


@cython.final
cdef class Contexts:
    """What all sessions of a server have in common: an `SSL_CTX` for each certificate, and the names they are for."""

    def __cinit__(self, options):
        cdef Py_ssize_t count = len(options.certificates)
        cdef Py_ssize_t i
        self.certificates = options.certificates
        self.accepts_truncation = options.accepts_truncation
        self.refuses_unknown_names = options.refuses_unknown_names
        self.alpn = list_of(options.alpn)
        self.protocols = <const unsigned char*>PyBytes_AS_STRING(self.alpn)
        self.protocols_size = <unsigned int>PyBytes_GET_SIZE(self.alpn)
        self.contexts = <SSL_CTX**>calloc(count, sizeof(void*))
        if self.contexts == NULL:
            raise MemoryError
        self.count = count
        if options.ticket_keys:
            self.set_ticket_keys(options.ticket_keys)
        for i in range(count):
            self.contexts[i] = self.make(options, i)
        self.name(options.certificates)

    def __dealloc__(self):
        cdef Py_ssize_t i
        if self.key_count:
            OPENSSL_cleanse(self.keys, sizeof(self.keys))
        for i in range(self.count):
            if self.contexts[i] != NULL:
                SSL_CTX_free(self.contexts[i])
        free(self.contexts)
        free(self.names)

    cdef int renew(self, options) except -1:
        """Show other certificates from now on, as many as before: `options` differ in nothing else.

        What is the same stays. Sessions go on with what they have begun with, which their last one frees. No session is
        in a step: those take place in this thread. If it fails, nothing has changed.
        """
        cdef Py_ssize_t i
        cdef void** made = <void**>calloc(self.count, sizeof(void*))
        if made == NULL:
            raise MemoryError
        try:
            for i in range(self.count):
                if options.certificates[i] != self.certificates[i]:
                    made[i] = self.make(options, i)
            self.name(options.certificates)
            self.certificates = options.certificates
            for i in range(self.count):
                if made[i] != NULL:
                    made[i], self.contexts[i] = self.contexts[i], made[i]
        finally:                            # those that are new if it has failed, else those that were
            for i in range(self.count):
                if made[i] != NULL:
                    SSL_CTX_free(made[i])
            free(made)
        return 0

    cdef SSL_CTX* make(self, options, Py_ssize_t number) except NULL:
        """Make the context of a certificate, given which one it is."""
        cdef SSL_CTX* context = make_context(options, options.certificates[number])
        try:
            if options.clients is not None:
                if self.contexts[0] == NULL:
                    ask_clients(context, options.clients)
                else:
                    ask_as_well(context, self.contexts[0], options.clients)
        except BaseException:
            SSL_CTX_free(context)
            raise
        if options.alpn:
            SSL_CTX_set_alpn_select_cb(context, <void*>&choose_protocol, <void*>self)
        if self.key_count:
            SSL_CTX_set_ex_data(context, OURS, <void*>self)
        if number == 0:                     # a session asks the context that it began with, whatever the server is
            SSL_CTX_callback_ctrl(context, SSL_CTRL_SET_TLSEXT_SERVERNAME_CB, <void*>&choose)
            SSL_CTX_ctrl(context, SSL_CTRL_SET_TLSEXT_SERVERNAME_ARG, 0, <void*>self)
            if self.key_count and SSL_CTX_set_tlsext_ticket_key_evp_cb != NULL:
                SSL_CTX_set_tlsext_ticket_key_evp_cb(context, <void*>&use_ticket_key)
            elif self.key_count:
                SSL_CTX_callback_ctrl(context, SSL_CTRL_SET_TLSEXT_TICKET_KEY_CB, <void*>&use_ticket_key)
        return context

    cdef int name(self, certificates) except -1:
        """Take note which certificate is for which names."""
        cdef Py_ssize_t i
        cdef Name* names
        by_name = {}
        for i in range(self.count):
            for name in certificates[i].names:
                by_name.setdefault(name.encode("ascii", "replace"), i)
        texts = sorted(by_name)
        names = <Name*>calloc(max(1, len(texts)), sizeof(Name))
        if names == NULL:
            raise MemoryError
        for i in range(len(texts)):
            names[i].text = PyBytes_AS_STRING(texts[i])
            names[i].number = by_name[texts[i]]
        free(self.names)
        self.names, self.name_count, self.texts = names, len(texts), texts
        return 0

    cdef int set_ticket_keys(self, keys) except -1:
        """Use other keys for tickets, the newest first. No session is in a step: those take place in this thread."""
        cdef bytes all_keys = b"".join(keys)
        if not 1 <= len(keys) <= KEYS_MAX or any(len(key) != KEY_BYTES for key in keys):
            raise ValueError(f"{KEY_BYTES} bytes for each of 1 to {KEYS_MAX} keys are wanted")
        memcpy(self.keys, PyBytes_AS_STRING(all_keys), PyBytes_GET_SIZE(all_keys))
        self.key_count = <int>len(keys)
        return 0

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
                return self.contexts[self.names[middle].number]
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
    if (<Contexts>argument).refuses_unknown_names:
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
    found = (<Contexts>argument).find(name)
    if found == NULL and dot > 0:           # a wildcard stands for the first label
        name[dot - 1] = c"*"
        found = (<Contexts>argument).find(name + dot - 1)
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
        &found, chosen_size, (<Contexts>argument).protocols, (<Contexts>argument).protocols_size, offered,
        offered_size,
    )
    if outcome != OPENSSL_NPN_NEGOTIATED:
        return SSL_TLSEXT_ERR_ALERT_FATAL   # OpenSSL makes no_application_protocol of it
    chosen[0] = found
    return SSL_TLSEXT_ERR_OK


cdef int use_ticket_key(
    SSL* ssl, unsigned char* name, unsigned char* iv, void* cipher, void* mac, int is_new
) noexcept nogil:
    """Make ready what encrypts a ticket, or decrypts one: SSL_CTX_set_tlsext_ticket_key_cb(3).

    Returns:
        1: it is ready; 2: it is, and the client is to get a new ticket; 0: no key is known by that name, so the
        handshake is a full one; -1: it failed.
    """
    cdef void* ours = SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), OURS)
    cdef unsigned char* key = (<Contexts>ours).keys
    cdef int i
    if is_new:
        if RAND_bytes(iv, IV_BYTES) != 1:
            return -1
        memcpy(name, key, KEY_NAME_BYTES)
        if EVP_EncryptInit_ex(cipher, EVP_aes_256_cbc(), NULL, key + KEY_NAME_BYTES, iv) != 1:
            return -1
        return authenticate(mac, key + KEY_NAME_BYTES + 32)
    for i in range((<Contexts>ours).key_count):
        if memcmp(name, key, KEY_NAME_BYTES) == 0:
            if EVP_DecryptInit_ex(cipher, EVP_aes_256_cbc(), NULL, key + KEY_NAME_BYTES, iv) != 1:
                return -1
            if authenticate(mac, key + KEY_NAME_BYTES + 32) != 1:
                return -1
            return 2 if i else 1
        key += KEY_BYTES
    return 0


cdef int authenticate(void* mac, unsigned char* key) noexcept nogil:
    """Have a MAC be HMAC-SHA256 by a key: 1, or -1."""
    cdef OSSL_PARAM params[3]
    cdef const char* digest = b"SHA256"
    if EVP_MAC_CTX_set_params == NULL:      # before OpenSSL 3.0 it is an HMAC_CTX
        return 1 if HMAC_Init_ex(mac, key, 32, EVP_sha256(), NULL) == 1 else -1
    memset(params, 0, sizeof(params))       # the third ends them
    params[0].key = b"key"
    params[0].data_type = OSSL_PARAM_OCTET_STRING
    params[0].data = key
    params[0].data_size = 32
    params[1].key = b"digest"
    params[1].data_type = OSSL_PARAM_UTF8_STRING
    params[1].data = <void*>digest
    params[1].data_size = 6
    return 1 if EVP_MAC_CTX_set_params(mac, params) == 1 else -1


cdef SSL_CTX* new_context(const void* method, options) except NULL:
    """Make a context of what servers and clients have in common: versions, suites, and what is never done."""
    from gaiod.core.contexts import CIPHERS

    cdef SSL_CTX* context = SSL_CTX_new(method)
    cdef bytes ciphers = CIPHERS.encode()
    if context == NULL:
        raise MemoryError
    try:
        versions = [{"1.2": 0x0303, "1.3": 0x0304}[version] for version in options.versions]
        SSL_CTX_ctrl(context, SSL_CTRL_SET_MIN_PROTO_VERSION, <int>min(versions), NULL)
        SSL_CTX_ctrl(context, SSL_CTRL_SET_MAX_PROTO_VERSION, <int>max(versions), NULL)
        SSL_CTX_ctrl(context, SSL_CTRL_MODE, SSL_MODE_RELEASE_BUFFERS, NULL)    # 38 KB of an idle connection
        SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION)
        if SSL_CTX_set_cipher_list(context, ciphers) != 1:
            raise ValueError(f"OpenSSL knows none of the suites {CIPHERS}")
    except BaseException:
        SSL_CTX_free(context)
        raise
    return context


cdef bytes list_of(protocols):
    """Return protocols as ALPN has them: each with its length before it."""
    return b"".join(bytes([len(name)]) + name.encode() for name in protocols)


cdef int believe(SSL_CTX* context, ca) except -1:
    """Believe whoever one of these certificates has signed.

    Raises:
        ValueError: there is none.
    """
    cdef bytes text = ca.encode()
    cdef BIO* bio = BIO_new_mem_buf(PyBytes_AS_STRING(text), <int>PyBytes_GET_SIZE(text))
    cdef void* found
    cdef int count = 0
    ERR_clear_error()
    while True:
        found = PEM_read_bio_X509(bio, NULL, NULL, NULL)
        if found == NULL:
            break
        count += X509_STORE_add_cert(SSL_CTX_get_cert_store(context), found)
        X509_free(found)
    BIO_free(bio)
    ERR_clear_error()                       # the last one found no further certificate
    if count == 0:
        raise ValueError("there is no certificate of an authority")
    return 0


cdef SSL_CTX* make_context(options, certificate) except NULL:
    """Make the context of a certificate.

    Raises:
        ValueError: a certificate or a key is none, or they are no pair.
    """
    cdef SSL_CTX* context = new_context(TLS_server_method(), options)
    try:
        SSL_CTX_ctrl(context, SSL_CTRL_SET_SESS_CACHE_MODE, 0, NULL)            # tickets only
        if options.ticket_lifetime_s is None:
            SSL_CTX_set_options(context, SSL_OP_NO_TICKET)
            SSL_CTX_set_num_tickets(context, 0)
        else:
            SSL_CTX_set_num_tickets(context, 1)
            SSL_CTX_set_timeout(context, <long>options.ticket_lifetime_s)
        choose_cryptography(context, options)
        use_certificate(context, certificate)
        if certificate.staple:
            use_staple(context, certificate.staple, certificate.staple_ends_s)
    except BaseException:
        SSL_CTX_free(context)
        raise
    return context


cdef int staple_place = -1              # where a context has its `Staple`


cdef int use_staple(SSL_CTX* context, bytes response, double ends_s) except -1:
    """Let a context send an OCSP response to clients that ask for one, until it ends. It goes with the context."""
    global staple_place
    cdef Py_ssize_t size = PyBytes_GET_SIZE(response)
    cdef Staple* staple = <Staple*>malloc(sizeof(Staple) + size)
    if staple == NULL:
        raise MemoryError
    staple.size = size
    staple.ends_s = ends_s
    memcpy(<char*>staple + sizeof(Staple), PyBytes_AS_STRING(response), size)
    if staple_place < 0:
        staple_place = CRYPTO_get_ex_new_index(CRYPTO_EX_INDEX_SSL_CTX, 0, NULL, NULL, NULL, <void*>&free_staple)
    if staple_place < 0 or SSL_CTX_set_ex_data(context, staple_place, staple) != 1:
        free(staple)
        raise MemoryError
    SSL_CTX_callback_ctrl(context, SSL_CTRL_SET_TLSEXT_STATUS_REQ_CB, <void*>&send_staple)
    return 0


cdef void free_staple(void* context, void* staple, void* data, int place, long number, void* argument) noexcept nogil:
    """Free what a context has, which is freed."""
    free(staple)


cdef int send_staple(SSL* ssl, void* argument) noexcept nogil:
    """Give a client that asks for it what the authority says of the certificate that it is shown."""
    cdef Staple* staple = <Staple*>SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), staple_place)
    cdef void* copy
    if staple == NULL or time(NULL) >= staple.ends_s:
        return SSL_TLSEXT_ERR_NOACK
    copy = CRYPTO_malloc(staple.size, NULL, 0)
    if copy == NULL:
        return SSL_TLSEXT_ERR_NOACK
    memcpy(copy, <char*>staple + sizeof(Staple), staple.size)
    SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_STATUS_REQ_OCSP_RESP, staple.size, copy)      # takes it
    return SSL_TLSEXT_ERR_OK


cdef int choose_cryptography(SSL_CTX* context, options) except -1:
    """Let a context agree on some suites and groups only, if there are any.

    Raises:
        ValueError: OpenSSL does not know them.
    """
    cdef bytes newer = ":".join(suite for suite in options.suites if suite.startswith("TLS_")).encode()
    cdef bytes older = ":".join(suite for suite in options.suites if not suite.startswith("TLS_")).encode()
    cdef bytes groups = ":".join(options.groups).encode()
    if options.suites:
        SSL_CTX_set_options(context, SSL_OP_CIPHER_SERVER_PREFERENCE)
    if newer and SSL_CTX_set_ciphersuites(context, newer) != 1:
        ERR_clear_error()
        raise ValueError(f"it knows some of the suites {newer.decode()} not")
    if older and SSL_CTX_set_cipher_list(context, older) != 1:
        ERR_clear_error()
        raise ValueError(f"it knows none of the suites {older.decode()}")
    if groups and SSL_CTX_ctrl(context, SSL_CTRL_SET_GROUPS_LIST, 0, PyBytes_AS_STRING(groups)) != 1:
        ERR_clear_error()
        raise ValueError(f"it knows some of the groups {groups.decode()} not")
    return 0


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


cdef int ask_clients(SSL_CTX* context, clients) except -1:
    """Let a context ask for clients' certificates, and compare them with the authorities.

    Raises:
        ValueError: an authority or a revocation list is none.
    """
    cdef void* store = SSL_CTX_get_cert_store(context)
    cdef bytes crl = clients.crl.encode()
    cdef BIO* bio
    cdef void* found
    believe(context, clients.ca)
    if crl:
        X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL)
        bio = BIO_new_mem_buf(PyBytes_AS_STRING(crl), <int>PyBytes_GET_SIZE(crl))
        while True:
            found = PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL)
            if found == NULL:
                break
            X509_STORE_add_crl(store, found)
            X509_CRL_free(found)
        BIO_free(bio)
        ERR_clear_error()
    return ask(context, clients)


cdef int ask_as_well(SSL_CTX* context, SSL_CTX* first, clients) except -1:
    """Let a context ask for the same as the first: what is believed is in memory once."""
    cdef void* store = SSL_CTX_get_cert_store(first)
    X509_STORE_up_ref(store)
    SSL_CTX_set_cert_store(context, store)  # takes the reference
    return ask(context, clients)


cdef int ask(SSL_CTX* context, clients) except -1:
    """Let a context ask for certificates, and say of whom; of nobody, if the list is longer than clients like it."""
    from gaiod.core.contexts import session_id_context

    cdef bytes name = session_id_context(clients)
    cdef bytes ca = clients.ca.encode()
    cdef BIO* bio
    cdef void* found
    cdef Py_ssize_t size = 0
    cdef bint is_sent
    for is_sent in (False, True):
        bio = BIO_new_mem_buf(PyBytes_AS_STRING(ca), <int>PyBytes_GET_SIZE(ca))
        while size <= AUTHORITIES_MAX:
            found = PEM_read_bio_X509(bio, NULL, NULL, NULL)
            if found == NULL:
                break
            if is_sent:
                SSL_CTX_add_client_CA(context, found)
            else:
                size += 2 + X509_NAME_size(X509_get_subject_name(found), NULL)
            X509_free(found)
        BIO_free(bio)
    ERR_clear_error()
    SSL_CTX_set_verify(
        context, SSL_VERIFY_PEER | (SSL_VERIFY_FAIL_IF_NO_PEER_CERT if clients.are_required else 0), NULL
    )
    if clients.depth is not None:
        SSL_CTX_set_verify_depth(context, <int>clients.depth)
    SSL_CTX_set_session_id_context(context, PyBytes_AS_STRING(name), <unsigned int>PyBytes_GET_SIZE(name))
    return 0


cdef int no_passphrase(char* memory, int size, int is_writing, void* argument) noexcept nogil:
    """Ask nobody: OpenSSL's own asks the terminal."""
    return -1
