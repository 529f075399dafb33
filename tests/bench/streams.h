/* What the C programs move bytes by: a socket as it is, or with TLS around it where WITH_TLS is defined.
 *
 * stream_send and stream_receive answer as send and recv do. With TLS they also make the handshake, whenever the
 * peer's part of it has come: until then they say EAGAIN.
 */
#ifndef GAIOD_BENCH_STREAMS_H
#define GAIOD_BENCH_STREAMS_H

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <unistd.h>

#include "sockets.h"

#ifndef WITH_TLS

enum { SHORT_READ_EMPTIES = true }; /* whoever gets fewer bytes than asked for has all that were there */

struct stream {
    int fd;
};

static inline void streams_prepare(const char *chain, const char *key) {
    (void)chain;
    (void)key;
}

static inline void stream_begin(struct stream *stream) {
    (void)stream;
}

static inline ssize_t stream_send(struct stream *stream, const void *bytes, size_t count) {
    return send(stream->fd, bytes, count, MSG_NOSIGNAL);
}

static inline ssize_t stream_receive(struct stream *stream, void *bytes, size_t count) {
    return recv(stream->fd, bytes, count, 0);
}

static inline void stream_close(struct stream *stream) {
    close(stream->fd);
}

#else

#include <openssl/err.h>
#include <openssl/ssl.h>

enum { SHORT_READ_EMPTIES = false }; /* there may be another record */

struct stream {
    int fd;
    SSL *ssl;
};

static SSL_CTX *tls;
static bool is_server;

/* A server shows a certificate; a client (no chain) looks at none, which costs the server nothing. Both know one
 * version and one suite, so that every server that is compared does the same work. */
static inline void streams_prepare(const char *chain, const char *key) {
    is_server = chain != NULL;
    signal(SIGPIPE, SIG_IGN);
    tls = SSL_CTX_new(is_server ? TLS_server_method() : TLS_client_method());
    if (tls == NULL)
        die("SSL_CTX_new");
    SSL_CTX_set_min_proto_version(tls, TLS1_3_VERSION);
    SSL_CTX_set_ciphersuites(tls, "TLS_AES_128_GCM_SHA256");
    SSL_CTX_set_session_cache_mode(tls, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(tls, 1);
    SSL_CTX_set_read_ahead(tls, 1);
    SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                              SSL_MODE_RELEASE_BUFFERS);
    if (is_server && (SSL_CTX_use_certificate_chain_file(tls, chain) != 1 ||
                      SSL_CTX_use_PrivateKey_file(tls, key, SSL_FILETYPE_PEM) != 1)) {
        ERR_print_errors_fp(stderr);
        exit(EX_NOINPUT);
    }
}

static inline void stream_begin(struct stream *stream) {
    stream->ssl = SSL_new(tls);
    if (stream->ssl == NULL || SSL_set_fd(stream->ssl, stream->fd) != 1)
        die("SSL_new");
    if (is_server)
        SSL_set_accept_state(stream->ssl);
    else
        SSL_set_connect_state(stream->ssl);
}

static inline ssize_t stream_outcome(struct stream *stream, int moved) {
    if (moved > 0)
        return moved;
    switch (SSL_get_error(stream->ssl, moved)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        errno = EAGAIN;
        return -1;
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    default:
        ERR_clear_error();
        errno = EPROTO;
        return -1;
    }
}

static inline ssize_t stream_send(struct stream *stream, const void *bytes, size_t count) {
    return stream_outcome(stream, SSL_write(stream->ssl, bytes, count > INT_MAX ? INT_MAX : (int)count));
}

static inline ssize_t stream_receive(struct stream *stream, void *bytes, size_t count) {
    return stream_outcome(stream, SSL_read(stream->ssl, bytes, count > INT_MAX ? INT_MAX : (int)count));
}

static inline void stream_close(struct stream *stream) {
    SSL_shutdown(stream->ssl);
    ERR_clear_error();
    SSL_free(stream->ssl);
    close(stream->fd);
}

#endif
#endif
