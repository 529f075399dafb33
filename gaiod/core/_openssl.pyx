# cython: language_level=3
"""The libssl that is loaded already: its functions, without headers and without linking it."""

cdef extern from "dlfcn.h" nogil:
    void* dlopen(const char*, int)
    void* dlsym(void*, const char*)
    int RTLD_NOW, RTLD_LOCAL, RTLD_NOLOAD

SSL_GET1_PEER_CERTIFICATE = (b"SSL_get1_peer_certificate", b"SSL_get_peer_certificate")     # as of 3.0, and before

cdef void* libssl = NULL
cdef bint was_looked_for = False
cdef bint is_usable = False


cdef int find(void** function, const char* name) except -1:
    function[0] = dlsym(libssl, name)
    if function[0] == NULL:
        raise ImportError(name.decode())
    return 0


cdef bint has_openssl() except -1:
    """Tell whether there is an OpenSSL in this process that can be used, and find its functions."""
    global was_looked_for, is_usable
    if not was_looked_for:
        was_looked_for = True
        try:
            load_openssl()
            is_usable = True
        except ImportError:
            pass
    return is_usable


cdef int load_openssl() except -1:
    """Find the functions in the libssl that Python's `ssl` has loaded, or else in the system's.

    No headers, and nothing linked: so there is one copy of OpenSSL in the process, which the system keeps up to date.

    Raises:
        ImportError: there is none, it is too old, or another library by its name: LibreSSL, AWS-LC, BoringSSL.
    """
    global libssl
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
    find_verdicts()
    find_tickets()
    find_sessions()
    find_clients()
    find_bios()
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
    find(<void**>&SSL_CTX_set_ciphersuites, b"SSL_CTX_set_ciphersuites")
    find(<void**>&CRYPTO_malloc, b"CRYPTO_malloc")
    find(<void**>&CRYPTO_get_ex_new_index, b"CRYPTO_get_ex_new_index")
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


cdef int find_verdicts() except -1:
    find(<void**>&SSL_CTX_set_verify, b"SSL_CTX_set_verify")
    find(<void**>&SSL_CTX_set_verify_depth, b"SSL_CTX_set_verify_depth")
    find(<void**>&SSL_CTX_set_session_id_context, b"SSL_CTX_set_session_id_context")
    find(<void**>&SSL_CTX_add_client_CA, b"SSL_CTX_add_client_CA")
    find(<void**>&SSL_CTX_get_cert_store, b"SSL_CTX_get_cert_store")
    find(<void**>&SSL_CTX_set_cert_store, b"SSL_CTX_set_cert_store")
    find(<void**>&X509_STORE_up_ref, b"X509_STORE_up_ref")
    find(<void**>&X509_STORE_add_cert, b"X509_STORE_add_cert")
    find(<void**>&X509_STORE_add_crl, b"X509_STORE_add_crl")
    find(<void**>&X509_STORE_set_flags, b"X509_STORE_set_flags")
    find(<void**>&PEM_read_bio_X509_CRL, b"PEM_read_bio_X509_CRL")
    find(<void**>&X509_CRL_free, b"X509_CRL_free")
    find(<void**>&X509_get_subject_name, b"X509_get_subject_name")
    find(<void**>&X509_NAME_size, b"i2d_X509_NAME")
    find(<void**>&SSL_get_verify_result, b"SSL_get_verify_result")
    find(<void**>&X509_verify_cert_error_string, b"X509_verify_cert_error_string")
    find(<void**>&i2d_X509, b"i2d_X509")
    find(<void**>&SSL_get1_peer_certificate, SSL_GET1_PEER_CERTIFICATE[OpenSSL_version_num() < 0x30000000])
    return 0


cdef int find_tickets() except -1:
    find(<void**>&SSL_CTX_set_timeout, b"SSL_CTX_set_timeout")
    find(<void**>&SSL_CTX_set_ex_data, b"SSL_CTX_set_ex_data")
    find(<void**>&SSL_CTX_get_ex_data, b"SSL_CTX_get_ex_data")
    find(<void**>&SSL_get_SSL_CTX, b"SSL_get_SSL_CTX")
    find(<void**>&RAND_bytes, b"RAND_bytes")
    find(<void**>&OPENSSL_cleanse, b"OPENSSL_cleanse")
    find(<void**>&EVP_aes_256_cbc, b"EVP_aes_256_cbc")
    find(<void**>&EVP_EncryptInit_ex, b"EVP_EncryptInit_ex")
    find(<void**>&EVP_DecryptInit_ex, b"EVP_DecryptInit_ex")
    if OpenSSL_version_num() >= OPENSSL_3:
        find(<void**>&SSL_CTX_set_tlsext_ticket_key_evp_cb, b"SSL_CTX_set_tlsext_ticket_key_evp_cb")
        find(<void**>&EVP_MAC_CTX_set_params, b"EVP_MAC_CTX_set_params")
    else:
        find(<void**>&EVP_sha256, b"EVP_sha256")
        find(<void**>&HMAC_Init_ex, b"HMAC_Init_ex")
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


cdef int find_clients() except -1:
    find(<void**>&TLS_client_method, b"TLS_client_method")
    find(<void**>&SSL_CTX_get0_param, b"SSL_CTX_get0_param")
    find(<void**>&SSL_CTX_set_default_verify_paths, b"SSL_CTX_set_default_verify_paths")
    find(<void**>&SSL_CTX_set_alpn_protos, b"SSL_CTX_set_alpn_protos")
    find(<void**>&SSL_CTX_sess_set_new_cb, b"SSL_CTX_sess_set_new_cb")
    find(<void**>&SSL_set_connect_state, b"SSL_set_connect_state")
    find(<void**>&SSL_ctrl, b"SSL_ctrl")
    find(<void**>&SSL_get0_param, b"SSL_get0_param")
    find(<void**>&X509_VERIFY_PARAM_set_flags, b"X509_VERIFY_PARAM_set_flags")
    find(<void**>&X509_VERIFY_PARAM_set_hostflags, b"X509_VERIFY_PARAM_set_hostflags")
    find(<void**>&X509_VERIFY_PARAM_set1_host, b"X509_VERIFY_PARAM_set1_host")
    find(<void**>&X509_VERIFY_PARAM_set1_ip_asc, b"X509_VERIFY_PARAM_set1_ip_asc")
    find(<void**>&SSL_set_session, b"SSL_set_session")
    find(<void**>&SSL_SESSION_free, b"SSL_SESSION_free")
    find(<void**>&SSL_set_ex_data, b"SSL_set_ex_data")
    find(<void**>&SSL_get_ex_data, b"SSL_get_ex_data")
    find(<void**>&SSL_get_ex_data_X509_STORE_CTX_idx, b"SSL_get_ex_data_X509_STORE_CTX_idx")
    find(<void**>&X509_STORE_CTX_get_ex_data, b"X509_STORE_CTX_get_ex_data")
    find(<void**>&X509_STORE_CTX_get_current_cert, b"X509_STORE_CTX_get_current_cert")
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
