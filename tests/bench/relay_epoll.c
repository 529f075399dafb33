/* relay_epoll: the bare C comparator of proxies, a relay that does nothing but the system calls.
 *
 *   relay_epoll copy|splice PORT SERVER_PORT    listens on 127.0.0.1:PORT and connects each client to
 *                                               127.0.0.1:SERVER_PORT; ends by a signal
 *
 * One thread, non-blocking sockets, edge-triggered epoll with one registration per socket, no epoll_ctl in
 * the steady state. `copy` receives into one buffer that all share, and keeps only what the other side does
 * not take; `splice` moves the bytes through a pipe for each direction. A side whose other side does not take
 * bytes is not read from. The end of a stream is passed on as a FIN, and the other direction goes on. A reset
 * ends both at once.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "sockets.h"

enum {
    EVENTS_MAX = 1024,
    MOVE_BYTES_MAX = 256 * 1024, /* the shared buffer, and a pipe */
};

/* One socket of a pair, and the direction that begins at it. */
struct end {
    int fd;
    struct end *other;
    struct pair *pair;
    bool readable; /* there may be something to receive */
    bool hung_up;  /* the end of the stream has come, perhaps behind more bytes */
    bool at_eof;   /* ... and was received */
    bool fin_sent; /* ... and passed on: this direction is done */
    size_t left_bytes;   /* received, and not taken by the other side yet */
    unsigned char *left; /* copy: owned, NULL if everything was taken */
    size_t left_start;
    int pipe[2]; /* splice */
};

struct pair {
    struct end client;
    struct end server;
    bool connected;
    bool over;
    struct pair *next_over;
};

/* At the beginning of a page, as the kernel's buffers are: 16 bytes behind it, where malloc puts a large block,
 * the copies of 16 and 256 KiB took twice the time (measured on a Zen 3). */
static _Alignas(4096) unsigned char shared_buffer[MOVE_BYTES_MAX];
static bool splicing;
static int epoll_fd;
static struct sockaddr_in server_address;
static struct pair *pairs_over; /* freed once no event of this round can point to them */

/* --- a direction; these return false if the connection is lost --- */

/* Sends what the kernel takes of what is left. */
static bool send_left(struct end *source) {
    while (source->left_bytes > 0) {
        ssize_t sent = send(source->other->fd, source->left + source->left_start, source->left_bytes, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return errno == EAGAIN;
        source->left_start += (size_t)sent;
        source->left_bytes -= (size_t)sent;
    }
    free(source->left);
    source->left = NULL;
    return true;
}

/* Sends what the kernel takes and keeps the rest. */
static bool send_or_keep(struct end *source, const unsigned char *bytes, size_t count) {
    ssize_t sent;
    do
        sent = send(source->other->fd, bytes, count, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent < 0 && errno != EAGAIN)
        return false;
    size_t taken = sent < 0 ? 0 : (size_t)sent;
    if (taken == count)
        return true;
    source->left_bytes = count - taken;
    source->left_start = 0;
    source->left = malloc(source->left_bytes);
    if (source->left == NULL)
        die("malloc");
    memcpy(source->left, bytes + taken, source->left_bytes);
    return true;
}

/* A short read has emptied the socket: bytes that come later make a new edge, so no recv is spent on an
 * EAGAIN. Not so once the peer has hung up: only recv tells the end of the stream. */
static bool copy_on(struct end *source) {
    if (source->left_bytes > 0 && !send_left(source))
        return false;
    while (source->readable && source->left_bytes == 0) {
        ssize_t received = recv(source->fd, shared_buffer, sizeof shared_buffer, 0);
        if (received < 0 && errno == EINTR)
            continue;
        if (received < 0 && errno != EAGAIN)
            return false;
        source->at_eof = received == 0;
        source->readable = received == MOVE_BYTES_MAX || (received > 0 && source->hung_up);
        if (received > 0 && !send_or_keep(source, shared_buffer, (size_t)received))
            return false;
    }
    return true;
}

static bool empty_pipe(struct end *source) {
    while (source->left_bytes > 0) {
        ssize_t sent = splice(source->pipe[0], NULL, source->other->fd, NULL, source->left_bytes,
                              SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return errno == EAGAIN;
        source->left_bytes -= (size_t)sent;
    }
    return true;
}

/* A pipe is full when its slots are, however few bytes they hold: a short splice says nothing about the
 * socket. EAGAIN does, because the pipe is empty before. */
static bool splice_on(struct end *source) {
    if (!empty_pipe(source))
        return false;
    while (source->readable && source->left_bytes == 0) {
        ssize_t received = splice(source->fd, NULL, source->pipe[1], NULL, MOVE_BYTES_MAX,
                                  SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
        if (received < 0 && errno == EINTR)
            continue;
        if (received < 0 && errno != EAGAIN)
            return false;
        source->at_eof = received == 0;
        source->readable = received > 0;
        source->left_bytes = received > 0 ? (size_t)received : 0;
        if (!empty_pipe(source))
            return false;
    }
    return true;
}

/* Moves what can be moved, and the end of the stream behind it. */
static bool relay(struct end *source) {
    if (!(splicing ? splice_on(source) : copy_on(source)))
        return false;
    if (source->at_eof && source->left_bytes == 0 && !source->fin_sent) {
        source->fin_sent = true;
        return shutdown(source->other->fd, SHUT_WR) == 0;
    }
    return true;
}

/* --- pairs --- */

static void watch(struct end *end) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = end};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, end->fd, &event) < 0)
        die("epoll_ctl");
}

static void end_init(struct end *end, struct pair *pair, struct end *other, int fd) {
    end->fd = fd;
    end->other = other;
    end->pair = pair;
    if (!splicing)
        return;
    if (pipe2(end->pipe, O_NONBLOCK | O_CLOEXEC) < 0)
        die("pipe2");
    /* EPERM: the user's pipes hold 64 MiB together (pipe-user-pages-soft). Idle ones may be smaller. */
    if (fcntl(end->pipe[0], F_SETPIPE_SZ, MOVE_BYTES_MAX) < 0 && errno != EPERM)
        die("F_SETPIPE_SZ");
}

/* The client is watched once there is somewhere to send what it says. */
static void pair_open(int client) {
    struct pair *pair = calloc(1, sizeof *pair);
    if (pair == NULL)
        die("calloc");
    int server = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (server < 0)
        die("socket");
    set_tcp_options(server);
    end_init(&pair->client, pair, &pair->server, client);
    end_init(&pair->server, pair, &pair->client, server);
    /* A refusal comes as an event. */
    if (connect(server, (struct sockaddr *)&server_address, sizeof server_address) < 0 && errno != EINPROGRESS)
        die("connect");
    watch(&pair->server);
}

static void end_free(struct end *end) {
    close(end->fd);
    free(end->left);
    if (splicing) {
        close(end->pipe[0]);
        close(end->pipe[1]);
    }
}

static void pair_close(struct pair *pair) {
    end_free(&pair->client);
    end_free(&pair->server);
    pair->over = true;
    pair->next_over = pairs_over;
    pairs_over = pair;
}

static void free_closed_pairs(void) {
    while (pairs_over != NULL) {
        struct pair *pair = pairs_over;
        pairs_over = pair->next_over;
        free(pair);
    }
}

/* Returns false when the pair is over. */
static bool end_serve(struct end *end, uint32_t events) {
    struct pair *pair = end->pair;
    if (events & EPOLLERR)
        return false;
    if (events & (EPOLLRDHUP | EPOLLHUP))
        end->hung_up = true;
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP))
        end->readable = !end->at_eof;
    if (!pair->connected && (events & EPOLLOUT)) {
        pair->connected = true;
        watch(&pair->client);
    }
    return relay(end) && relay(end->other) && !(end->fin_sent && end->other->fin_sent);
}

/* --- the loop --- */

static void accept_all(int listener) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0)
            pair_open(fd);
        else if (errno == EAGAIN)
            return;
        else if (errno != EINTR && errno != ECONNABORTED)
            die("accept4");
    }
}

static void serve(int listener) {
    static struct epoll_event events[EVENTS_MAX];
    for (;;) {
        int count = epoll_wait(epoll_fd, events, EVENTS_MAX, -1);
        if (count < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < count; i++) {
            struct end *end = events[i].data.ptr;
            if (end == NULL)
                accept_all(listener);
            else if (!end->pair->over && !end_serve(end, events[i].events))
                pair_close(end->pair);
        }
        free_closed_pairs();
    }
}

static int port_argument(const char *text) {
    char *end;
    long port = strtol(text, &end, 10);
    if (end == text || *end != '\0' || port < 1 || port > 65535) {
        fprintf(stderr, "relay_epoll: %s: not a port\n", text);
        exit(EX_USAGE);
    }
    return (int)port;
}

int main(int argc, char **argv) {
    splicing = argc == 4 && strcmp(argv[1], "splice") == 0;
    if (argc != 4 || !(splicing || strcmp(argv[1], "copy") == 0)) {
        fputs("usage: relay_epoll copy|splice PORT SERVER_PORT\n", stderr);
        exit(EX_USAGE);
    }
    int listener = listen_on_loopback(port_argument(argv[2]));
    server_address = loopback(port_argument(argv[3]));
    signal(SIGPIPE, SIG_IGN); /* splice has no MSG_NOSIGNAL */
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0)
        die("epoll_create1");
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event) < 0)
        die("epoll_ctl");
    serve(listener);
}
