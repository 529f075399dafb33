"""OpenSSL as far as it is used: functions that are found once it is known which one there is.

Types and numbers are of openssl/ssl.h, bio.h and tls1.h, whose ABI has been stable since 1.1.1.
"""

ctypedef void SSL
ctypedef void SSL_CTX
ctypedef void BIO

cdef enum:
    SSL_ERROR_WANT_READ = 2
    SSL_ERROR_ZERO_RETURN = 6
    SSL_CTRL_EXTRA_CHAIN_CERT = 14
    SSL_CTRL_MODE = 33
    SSL_CTRL_SET_GROUPS_LIST = 92
    SSL_CTRL_SET_TLSEXT_STATUS_REQ_CB = 63
    SSL_CTRL_SET_TLSEXT_STATUS_REQ_OCSP_RESP = 71
    SSL_TLSEXT_ERR_NOACK = 3
    CRYPTO_EX_INDEX_SSL_CTX = 1
    SSL_CTRL_SET_SESS_CACHE_MODE = 44
    SSL_CTRL_SET_TLSEXT_SERVERNAME_CB = 53
    SSL_CTRL_SET_TLSEXT_SERVERNAME_ARG = 54
    SSL_CTRL_SET_TLSEXT_TICKET_KEY_CB = 72
    SSL_CTRL_SET_MIN_PROTO_VERSION = 123
    SSL_CTRL_SET_MAX_PROTO_VERSION = 124
    SSL_CTRL_SET_TLSEXT_HOSTNAME = 55
    SSL_SESS_CACHE_OFF = 0
    SSL_SESS_CACHE_CLIENT = 1
    SSL_SESS_CACHE_NO_INTERNAL = 0x300
    SSL_VERIFY_NONE = 0
    SSL_VERIFY_PEER = 1
    X509_V_FLAG_PARTIAL_CHAIN = 0x80000
    X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS = 4
    SSL_MODE_RELEASE_BUFFERS = 0x10
    SSL_OP_NO_TICKET = 0x4000
    SSL_OP_NO_COMPRESSION = 0x20000
    SSL_OP_NO_RENEGOTIATION = 0x40000000
    SSL_OP_CIPHER_SERVER_PREFERENCE = 0x00400000
    SSL_TLSEXT_ERR_OK = 0
    SSL_TLSEXT_ERR_ALERT_FATAL = 2
    SSL_AD_UNRECOGNIZED_NAME = 112
    OPENSSL_NPN_NEGOTIATED = 1
    SSL_VERIFY_FAIL_IF_NO_PEER_CERT = 2
    X509_V_FLAG_CRL_CHECK = 0x4
    X509_V_FLAG_CRL_CHECK_ALL = 0x8
    BIO_CTRL_FLUSH = 11
    BIO_TYPE_SOURCE_SINK = 0x400
    BIO_FLAGS_RETRY_READ = 0x09
    BIO_FLAGS_ALL = 0x0F
    OPENSSL_MIN = 0x10101000        # 1.1.1
    OPENSSL_3 = 0x30000000
    OSSL_PARAM_UTF8_STRING = 4
    OSSL_PARAM_OCTET_STRING = 5

cdef struct OSSL_PARAM:
    const char* key
    unsigned int data_type
    void* data
    size_t data_size
    size_t return_size

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
cdef long (*SSL_CTX_set_timeout)(SSL_CTX*, long) noexcept nogil
cdef int (*SSL_CTX_set_ex_data)(SSL_CTX*, int, void*) noexcept nogil
cdef void* (*SSL_CTX_get_ex_data)(SSL_CTX*, int) noexcept nogil
cdef int (*SSL_CTX_set_tlsext_ticket_key_evp_cb)(SSL_CTX*, void*) noexcept nogil     # NULL before 3.0
cdef int (*SSL_CTX_set_cipher_list)(SSL_CTX*, const char*) noexcept nogil
cdef void* (*CRYPTO_malloc)(size_t, const char*, int) noexcept nogil
cdef int (*CRYPTO_get_ex_new_index)(int, long, void*, void*, void*, void*) noexcept nogil
cdef int (*SSL_CTX_set_ciphersuites)(SSL_CTX*, const char*) noexcept nogil
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
cdef SSL_CTX* (*SSL_get_SSL_CTX)(SSL*) noexcept nogil
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
cdef const void* (*TLS_client_method)() noexcept nogil
cdef void (*SSL_CTX_set_verify)(SSL_CTX*, int, void*) noexcept nogil
cdef void* (*SSL_CTX_get_cert_store)(SSL_CTX*) noexcept nogil
cdef void* (*SSL_CTX_get0_param)(SSL_CTX*) noexcept nogil
cdef int (*SSL_CTX_set_default_verify_paths)(SSL_CTX*) noexcept nogil
cdef int (*SSL_CTX_set_alpn_protos)(SSL_CTX*, const unsigned char*, unsigned int) noexcept nogil
cdef void (*SSL_CTX_sess_set_new_cb)(SSL_CTX*, void*) noexcept nogil
cdef int (*X509_STORE_add_cert)(void*, void*) noexcept nogil
cdef void (*SSL_set_connect_state)(SSL*) noexcept nogil
cdef long (*SSL_ctrl)(SSL*, int, long, void*) noexcept nogil
cdef void* (*SSL_get0_param)(SSL*) noexcept nogil
cdef int (*X509_VERIFY_PARAM_set_flags)(void*, unsigned long) noexcept nogil
cdef void (*X509_VERIFY_PARAM_set_hostflags)(void*, unsigned int) noexcept nogil
cdef int (*X509_VERIFY_PARAM_set1_host)(void*, const char*, size_t) noexcept nogil
cdef int (*X509_VERIFY_PARAM_set1_ip_asc)(void*, const char*) noexcept nogil
cdef int (*SSL_set_session)(SSL*, void*) noexcept nogil
cdef void (*SSL_SESSION_free)(void*) noexcept nogil
cdef long (*SSL_get_verify_result)(SSL*) noexcept nogil
cdef const char* (*X509_verify_cert_error_string)(long) noexcept nogil
cdef int (*SSL_set_ex_data)(SSL*, int, void*) noexcept nogil
cdef void* (*SSL_get_ex_data)(SSL*, int) noexcept nogil
cdef int (*SSL_get_ex_data_X509_STORE_CTX_idx)() noexcept nogil
cdef void* (*X509_STORE_CTX_get_ex_data)(void*, int) noexcept nogil
cdef void* (*X509_STORE_CTX_get_current_cert)(void*) noexcept nogil
cdef int (*i2d_X509)(void*, unsigned char**) noexcept nogil
cdef void (*SSL_CTX_set_verify_depth)(SSL_CTX*, int) noexcept nogil
cdef int (*SSL_CTX_set_session_id_context)(SSL_CTX*, const char*, unsigned int) noexcept nogil
cdef int (*SSL_CTX_add_client_CA)(SSL_CTX*, void*) noexcept nogil
cdef void (*SSL_CTX_set_cert_store)(SSL_CTX*, void*) noexcept nogil
cdef int (*X509_STORE_up_ref)(void*) noexcept nogil
cdef int (*X509_STORE_add_crl)(void*, void*) noexcept nogil
cdef int (*X509_STORE_set_flags)(void*, unsigned long) noexcept nogil
cdef void* (*PEM_read_bio_X509_CRL)(BIO*, void*, void*, void*) noexcept nogil
cdef void (*X509_CRL_free)(void*) noexcept nogil
cdef void* (*X509_get_subject_name)(void*) noexcept nogil
cdef int (*X509_NAME_size)(void*, void*) noexcept nogil
cdef void* (*SSL_get1_peer_certificate)(SSL*) noexcept nogil
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
cdef int (*RAND_bytes)(unsigned char*, int) noexcept nogil
cdef void (*OPENSSL_cleanse)(void*, size_t) noexcept nogil
cdef const void* (*EVP_aes_256_cbc)() noexcept nogil
cdef int (*EVP_EncryptInit_ex)(void*, const void*, void*, const unsigned char*, const unsigned char*) noexcept nogil
cdef int (*EVP_DecryptInit_ex)(void*, const void*, void*, const unsigned char*, const unsigned char*) noexcept nogil
cdef int (*EVP_MAC_CTX_set_params)(void*, const OSSL_PARAM*) noexcept nogil          # NULL before 3.0
cdef const void* (*EVP_sha256)() noexcept nogil
cdef int (*HMAC_Init_ex)(void*, const void*, int, const void*, void*) noexcept nogil

cdef bint has_openssl() except -1
