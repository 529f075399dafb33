/* push_epoll: the bare C comparator of publishers, a loop over its subscribers.
 *
 *   push_epoll send|writev      binds 127.0.0.1 and prints "listening PORT"; ends by a signal
 *
 * `send` calls send(2) for every message and subscriber; `writev` hands all messages that are due to a subscriber in
 * one call. One thread, non-blocking sockets, edge-triggered epoll with one registration per connection. What the
 * kernel does not take is sent when it has room; until then nothing more is published.
 *
 * What clients say, a line that comes in one piece:
 *   subscribe                                      it gets what is published from now on
 *   count                                          answer: how many subscribers there are
 *   publish BYTES BURST INTERVAL_NS DURATION_NS    a burst of messages every so often, or if the interval is 0, as soon
 *                                                  as the kernel has all of the one before; answer at the end: how many
 *                                                  messages were published
 */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/uio.h>
#include <unistd.h>

#include "loads.h"
#include "push.h"
#include "sockets.h"

enum {
    EVENTS_MAX = 1024,
    SUBSCRIBERS_MAX = 20000,
    BURST_MAX = 1024, /* IOV_MAX */
    LINE_BYTES_MAX = 256,
    PAGE_BYTES = 4096,
    SEND_BUFFER_BYTES = 64 * 1024, /* servers/publication.py: a subscriber that is slow must not cost megabytes */
};

struct conn {
    int fd;
    bool subscribed;
    size_t index;      /* among the subscribers */
    size_t sent_bytes; /* of the burst */
};

static struct conn *subscribers[SUBSCRIBERS_MAX];
static size_t subscriber_count;
static bool coalescing;
static int epoll_fd;

/* The publication: the messages of a burst lie one behind the other. */
static unsigned char *burst;
static struct iovec pieces[BURST_MAX];
static size_t message_bytes, burst_messages, burst_bytes;
static uint64_t interval_ns, due_ns, end_ns, published;
static struct conn *asker; /* NULL: nothing is being published */
static size_t waiting_count; /* subscribers whose socket had no room for all of the burst */
static bool is_last_burst;

/* A page long: the kernel puts what a process sends one behind the other into its pages, so that a few bytes would move
 * all that is sent later. Where the target of a copy begins a few bytes further within its page than the source, the
 * copy takes twice the time on some processors (glibc's bug 30994), and which server that hits would be an accident. */
static void answer(const struct conn *conn, uint64_t number) {
    char text[PAGE_BYTES + 1];
    snprintf(text, sizeof text, "%*" PRIu64 "\n", PAGE_BYTES - 1, number);
    if (send(conn->fd, text, PAGE_BYTES, MSG_NOSIGNAL) != PAGE_BYTES)
        die("send");
}

/* --- publishing --- */

static void stamp(size_t index, bool is_last) {
    unsigned char *message = burst + index * message_bytes;
    uint64_t number = ++published | (is_last ? LAST : 0), at_ns = now_ns();
    memcpy(message, &number, sizeof number);
    memcpy(message + sizeof number, &at_ns, sizeof at_ns);
}

/* A connection that is lost takes everything; its event tells. */
static void note_sent(struct conn *conn, ssize_t sent) {
    if (sent < 0 && errno != EAGAIN && errno != EINTR)
        conn->sent_bytes = burst_bytes;
    else if (sent > 0)
        conn->sent_bytes += (size_t)sent;
}

static void send_rest(struct conn *conn, size_t until_bytes) {
    while (conn->sent_bytes < until_bytes) {
        size_t message_rest = message_bytes - conn->sent_bytes % message_bytes;
        size_t count = coalescing ? until_bytes - conn->sent_bytes : message_rest;
        ssize_t sent = send(conn->fd, burst + conn->sent_bytes, count, MSG_NOSIGNAL);
        note_sent(conn, sent);
        if (sent < 0 && errno == EAGAIN)
            return;
    }
}

/* Those that had no room for a message get the rest when they have some. */
static void publish_one_by_one(void) {
    for (size_t i = 0; i < burst_messages; i++) {
        stamp(i, is_last_burst && i + 1 == burst_messages);
        for (size_t j = 0; j < subscriber_count; j++)
            if (subscribers[j]->sent_bytes == i * message_bytes)
                send_rest(subscribers[j], (i + 1) * message_bytes);
    }
}

static void publish_together(void) {
    for (size_t i = 0; i < burst_messages; i++)
        stamp(i, is_last_burst && i + 1 == burst_messages);
    for (size_t j = 0; j < subscriber_count; j++) {
        note_sent(subscribers[j], writev(subscribers[j]->fd, pieces, (int)burst_messages));
        send_rest(subscribers[j], burst_bytes);
    }
}

static void publish_burst(void) {
    uint64_t at_ns = now_ns();
    due_ns = interval_ns > 0 ? due_ns + interval_ns : at_ns;
    is_last_burst = due_ns >= end_ns;
    for (size_t j = 0; j < subscriber_count; j++)
        subscribers[j]->sent_bytes = 0;
    if (coalescing)
        publish_together();
    else
        publish_one_by_one();
    waiting_count = 0;
    for (size_t j = 0; j < subscriber_count; j++)
        waiting_count += subscribers[j]->sent_bytes < burst_bytes;
}

/* Publishes what is due. Returns how long epoll_wait may sleep, NULL: for ever. */
static const struct timespec *go_on(void) {
    static struct timespec rest;
    rest = (struct timespec){0};
    if (asker != NULL && waiting_count == 0 && is_last_burst) {
        answer(asker, published);
        asker = NULL;
    }
    if (asker == NULL || waiting_count > 0)
        return NULL;
    uint64_t at_ns = now_ns();
    if (at_ns >= due_ns) {
        publish_burst();
        return &rest;
    }
    rest.tv_sec = (time_t)((due_ns - at_ns) / 1000000000u);
    rest.tv_nsec = (long)((due_ns - at_ns) % 1000000000u);
    return &rest;
}

static void publication_begin(struct conn *conn, const char *line) {
    uint64_t duration_ns;
    if (sscanf(line, "publish %zu %zu %" SCNu64 " %" SCNu64, &message_bytes, &burst_messages, &interval_ns,
               &duration_ns) != 4 || message_bytes < HEADER_BYTES || message_bytes > MESSAGE_BYTES_MAX ||
        burst_messages < 1 || burst_messages > BURST_MAX) {
        fprintf(stderr, "push_epoll: cannot publish: %s", line);
        exit(EX_PROTOCOL);
    }
    burst_bytes = message_bytes * burst_messages;
    free(burst);
    /* At the beginning of a page: see `answer`. Where malloc put it, a delivery of 1 KiB took twice the time. */
    burst = aligned_alloc(PAGE_BYTES, (burst_bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES);
    if (burst == NULL)
        die("aligned_alloc");
    for (size_t i = 0; i < burst_messages; i++) {
        fill_body(burst + i * message_bytes, message_bytes);
        pieces[i] = (struct iovec){.iov_base = burst + i * message_bytes, .iov_len = message_bytes};
    }
    for (size_t j = 0; j < subscriber_count; j++)
        subscribers[j]->sent_bytes = burst_bytes;
    published = 0;
    waiting_count = 0;
    is_last_burst = false;
    due_ns = now_ns();
    end_ns = due_ns + duration_ns;
    asker = conn;
}

/* --- connections --- */

static void conn_open(int fd) {
    struct conn *conn = calloc(1, sizeof *conn);
    if (conn == NULL)
        die("calloc");
    conn->fd = fd;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = conn};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
        die("epoll_ctl");
}

static void conn_close(struct conn *conn) {
    if (conn->subscribed) {
        waiting_count -= conn->sent_bytes < burst_bytes;
        subscribers[conn->index] = subscribers[--subscriber_count];
        subscribers[conn->index]->index = conn->index;
    }
    if (asker == conn)
        asker = NULL;
    close(conn->fd);
    free(conn);
}

static void accept_all(int listener) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0)
            conn_open(fd);
        else if (errno == EAGAIN)
            return;
        else if (errno != EINTR && errno != ECONNABORTED)
            die("accept4");
    }
}

static void subscribe(struct conn *conn) {
    if (subscriber_count == SUBSCRIBERS_MAX) {
        fputs("push_epoll: too many subscribers\n", stderr);
        exit(EX_UNAVAILABLE);
    }
    conn->subscribed = true;
    conn->index = subscriber_count;
    conn->sent_bytes = burst_bytes;
    subscribers[subscriber_count++] = conn;
}

/* Returns false when the connection is over. */
static bool conn_receive(struct conn *conn) {
    char line[LINE_BYTES_MAX + 1];
    ssize_t received;
    while ((received = recv(conn->fd, line, LINE_BYTES_MAX, 0)) > 0) {
        line[received] = '\0';
        if (strcmp(line, "subscribe\n") == 0)
            subscribe(conn);
        else if (strcmp(line, "count\n") == 0)
            answer(conn, subscriber_count);
        else
            publication_begin(conn, line);
    }
    return received < 0 && (errno == EAGAIN || errno == EINTR);
}

static void conn_event(struct conn *conn, uint32_t events) {
    if (conn->subscribed && conn->sent_bytes < burst_bytes) {
        send_rest(conn, burst_bytes);
        waiting_count -= conn->sent_bytes == burst_bytes;
    }
    if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) && !conn_receive(conn))
        conn_close(conn);
}

static void serve(int listener) {
    static struct epoll_event events[EVENTS_MAX];
    for (;;) {
        int count = epoll_pwait2(epoll_fd, events, EVENTS_MAX, go_on(), NULL);
        if (count < 0 && errno != EINTR)
            die("epoll_pwait2");
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr == NULL)
                accept_all(listener);
            else
                conn_event(events[i].data.ptr, events[i].events);
        }
    }
}

int main(int argc, char **argv) {
    coalescing = argc == 2 && strcmp(argv[1], "writev") == 0;
    if (argc != 2 || !(coalescing || strcmp(argv[1], "send") == 0)) {
        fputs("usage: push_epoll send|writev\n", stderr);
        exit(EX_USAGE);
    }
    int send_buffer_bytes = SEND_BUFFER_BYTES;
    int listener = listen_on_loopback(0);
    if (setsockopt(listener, SOL_SOCKET, SO_SNDBUF, &send_buffer_bytes, sizeof send_buffer_bytes) < 0)
        die("SO_SNDBUF");
    signal(SIGPIPE, SIG_IGN); /* writev has no MSG_NOSIGNAL */
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0)
        die("epoll_create1");
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event) < 0)
        die("epoll_ctl");
    tell_port(listener);
    serve(listener);
}
