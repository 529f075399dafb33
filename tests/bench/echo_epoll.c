/* echo_epoll: the bare C comparator, an echo server that does nothing but the system calls.
 *
 *   echo_epoll [CHAIN KEY]    binds 127.0.0.1 and prints "listening PORT"; ends by a signal
 *
 * Compiled with -DWITH_TLS it speaks TLS, and shows the certificate of two PEM files.
 *
 * One thread, non-blocking sockets, edge-triggered epoll with one registration per connection, no
 * epoll_ctl in the steady state, one recv and one send per small message. A connection whose peer does not
 * read is not read from.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "streams.h"

enum {
    EVENTS_MAX = 1024,
    RECEIVE_BYTES_MAX = 64 * 1024,
};

struct conn {
    struct stream stream;
    unsigned char *unsent; /* what the kernel did not take; owned, NULL if it took everything */
    size_t unsent_bytes;
    size_t unsent_start;
};

static unsigned char receive_buffer[RECEIVE_BYTES_MAX];

static void conn_open(int epoll_fd, int fd) {
    struct conn *conn = calloc(1, sizeof *conn);
    if (conn == NULL)
        die("calloc");
    conn->stream.fd = fd;
    stream_begin(&conn->stream);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = conn};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
        die("epoll_ctl");
}

static void conn_close(struct conn *conn) {
    stream_close(&conn->stream);
    free(conn->unsent);
    free(conn);
}

static void accept_all(int epoll_fd, int listener) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0)
            conn_open(epoll_fd, fd);
        else if (errno == EAGAIN)
            return;
        else if (errno != EINTR && errno != ECONNABORTED)
            die("accept4");
    }
}

/* Returns how many bytes the kernel took before it had no more room, or -1 if the connection is lost. */
static ssize_t send_some(struct stream *stream, const unsigned char *bytes, size_t count) {
    size_t sent = 0;
    while (sent < count) {
        ssize_t taken = stream_send(stream, bytes + sent, count - sent);
        if (taken >= 0)
            sent += (size_t)taken;
        else if (errno == EAGAIN)
            break;
        else if (errno != EINTR)
            return -1;
    }
    return (ssize_t)sent;
}

static void keep_unsent(struct conn *conn, const unsigned char *bytes, size_t count) {
    conn->unsent = malloc(count);
    if (conn->unsent == NULL)
        die("malloc");
    memcpy(conn->unsent, bytes, count);
    conn->unsent_bytes = count;
    conn->unsent_start = 0;
}

/* Sends what the kernel takes and keeps the rest. Returns false if the connection is lost. */
static bool send_or_keep(struct conn *conn, const unsigned char *bytes, size_t count) {
    ssize_t sent = send_some(&conn->stream, bytes, count);
    if (sent >= 0 && sent < (ssize_t)count)
        keep_unsent(conn, bytes + sent, count - (size_t)sent);
    return sent >= 0;
}

/* Returns false if the connection is lost. */
static bool send_kept(struct conn *conn) {
    if (conn->unsent == NULL)
        return true;
    ssize_t sent = send_some(&conn->stream, conn->unsent + conn->unsent_start, conn->unsent_bytes);
    if (sent < 0)
        return false;
    conn->unsent_start += (size_t)sent;
    conn->unsent_bytes -= (size_t)sent;
    if (conn->unsent_bytes == 0) {
        free(conn->unsent);
        conn->unsent = NULL;
    }
    return true;
}

/* Returns false when the connection is over.
 *
 * A short read has emptied the socket: bytes that come later make a new edge, so no recv is spent on an
 * EAGAIN. Not so once the peer has hung up: that edge may be this one, and only recv tells. */
static bool conn_serve(struct conn *conn, bool hung_up) {
    if (!send_kept(conn))
        return false;
    while (conn->unsent == NULL) {
        ssize_t received = stream_receive(&conn->stream, receive_buffer, sizeof receive_buffer);
        if (received < 0 && errno == EINTR)
            continue;
        if (received < 0)
            return errno == EAGAIN;
        if (received == 0 || !send_or_keep(conn, receive_buffer, (size_t)received))
            return false;
        if (SHORT_READ_EMPTIES && received < RECEIVE_BYTES_MAX && !hung_up)
            return true;
    }
    return true;
}

static void serve(int epoll_fd, int listener) {
    static struct epoll_event events[EVENTS_MAX];
    for (;;) {
        int count = epoll_wait(epoll_fd, events, EVENTS_MAX, -1);
        if (count < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < count; i++) {
            struct conn *conn = events[i].data.ptr;
            bool hung_up = events[i].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR);
            if (conn == NULL)
                accept_all(epoll_fd, listener);
            else if (!conn_serve(conn, hung_up))
                conn_close(conn);
        }
    }
}

int main(int argc, char **argv) {
    streams_prepare(argc == 3 ? argv[1] : NULL, argc == 3 ? argv[2] : NULL);
    int listener = listen_on_loopback(0);
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0)
        die("epoll_create1");
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event) < 0)
        die("epoll_ctl");
    tell_port(listener);
    serve(epoll_fd, listener);
}
