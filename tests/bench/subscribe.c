/* subscribe: the load of the fan-out benchmark, many subscribers of one publisher.
 *
 *   subscribe PORT CONNECTIONS MESSAGE_BYTES
 *
 * Every connection to 127.0.0.1:PORT sends "subscribe\n" and then receives. Messages are described in push.h; each
 * connection has to get every message of a publication once, in order, from the first to the last, byte for byte.
 *
 * Standard output:   started
 *                    stopped messages=N published=N seconds=S p50_us=.. p99_us=.. p999_us=.. skew_p50_us=..
 *                            skew_p99_us=..
 * and so on, for each publication. After `started` it waits for a line or the end of its standard input. `messages` are
 * those received by all connections together. The latency is from the stamp in a message to its receipt; the skew of a
 * message lies between its receipts by the first and by the last connection.
 *
 * Exit status: 0, or 1 if a message was missing, twice, out of order or wrong, or the server closed a connection, or a
 * status of sysexits.h.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "loads.h"
#include "push.h"
#include "sockets.h"

enum {
    EVENTS_MAX = 1024,
    RECEIVE_BYTES_MAX = 64 * 1024,
    SILENCE_MS_MAX = 5000, /* a message that is this late does not come: at least 2 a second are published */
    SPREAD_MAX = 1 << 16,  /* messages between the first and the last subscriber: both sides' buffers hold fewer */
    CONNECTIONS_MAX = 28000, /* the ports of one source address: ip_local_port_range is 32768-60999 */
};

struct conn {
    int fd;
    uint32_t serial;
    uint64_t received; /* messages of this publication */
    size_t offset;     /* in the message that is being received */
    unsigned char header[HEADER_BYTES];
};

/* A message on its way to all. */
struct receipts {
    uint64_t number;
    uint64_t first_ns;
    size_t count;
};

static struct conn *conns;
static size_t conn_count;
static size_t message_bytes;
static unsigned char *expected; /* a message as all are, but for the header */
static int epoll_fd;

static size_t conns_done; /* those that have the last message of the publication */
static uint64_t messages;
static struct histogram latency;
static struct histogram skew;
static struct receipts under_way[SPREAD_MAX];
static unsigned char receive_buffer[RECEIVE_BYTES_MAX];

static _Noreturn void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("subscribe: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(EXIT_FAILURE);
}

/* --- messages --- */

static void note_receipt(uint64_t number, uint64_t at_ns) {
    struct receipts *message = &under_way[number % SPREAD_MAX];
    if (message->number != number) {
        if (message->count != 0)
            fail("message %" PRIu64 " has not reached all, message %" PRIu64 " has come", message->number, number);
        message->number = number;
        message->first_ns = at_ns;
    }
    if (++message->count == conn_count) {
        histogram_add(&skew, at_ns - message->first_ns);
        message->count = 0;
    }
}

static void message_done(struct conn *conn, uint64_t at_ns) {
    uint64_t number, stamp_ns;
    memcpy(&number, conn->header, sizeof number);
    memcpy(&stamp_ns, conn->header + sizeof number, sizeof stamp_ns);
    bool is_last = number & LAST;
    number &= ~LAST;
    if (number != conn->received + 1)
        fail("subscriber %u: message %" PRIu64 " came where %" PRIu64 " was due", conn->serial, number,
             conn->received + 1);
    conn->received = is_last ? 0 : number;
    conn->offset = 0;
    conns_done += is_last;
    messages++;
    histogram_add(&latency, at_ns - stamp_ns);
    note_receipt(number, at_ns);
}

static void take(struct conn *conn, const unsigned char *bytes, size_t count, uint64_t at_ns) {
    while (count > 0) {
        bool in_header = conn->offset < HEADER_BYTES;
        size_t wanted = (in_header ? HEADER_BYTES : message_bytes) - conn->offset;
        size_t taken = count < wanted ? count : wanted;
        if (in_header)
            memcpy(conn->header + conn->offset, bytes, taken);
        else if (memcmp(expected + conn->offset, bytes, taken) != 0)
            fail("subscriber %u: message %" PRIu64 " is not as published", conn->serial, conn->received + 1);
        conn->offset += taken;
        bytes += taken;
        count -= taken;
        if (conn->offset == message_bytes)
            message_done(conn, at_ns);
    }
}

/* A short read has emptied the socket: bytes that come later make a new edge. */
static void conn_receive(struct conn *conn) {
    ssize_t received;
    do {
        received = recv(conn->fd, receive_buffer, sizeof receive_buffer, 0);
        if (received < 0 && errno == EAGAIN)
            return;
        if (received < 0 && errno == EINTR)
            continue;
        if (received <= 0)
            fail("subscriber %u: closed by the server: %s", conn->serial, received < 0 ? strerror(errno) : "a FIN");
        take(conn, receive_buffer, (size_t)received, now_ns());
    } while (received < 0 || received == RECEIVE_BYTES_MAX);
}

/* --- phases --- */

static void conn_open(struct conn *conn, const struct sockaddr_in *address) {
    static const char request[] = "subscribe\n";
    conn->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (conn->fd < 0)
        die("socket");
    set_tcp_options(conn->fd);
    /* Blocking: on loopback the handshake is done before connect returns. */
    if (connect(conn->fd, (const struct sockaddr *)address, sizeof *address) < 0)
        die("connect");
    if (send(conn->fd, request, sizeof request - 1, MSG_NOSIGNAL) != sizeof request - 1)
        die("send");
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLET, .data.ptr = conn};
    if (fcntl(conn->fd, F_SETFL, O_NONBLOCK) < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, conn->fd, &event) < 0)
        die("epoll_ctl");
}

/* Receives until every connection has the last message of a publication. */
static void run_phase(void) {
    struct epoll_event events[EVENTS_MAX];
    conns_done = 0;
    messages = 0;
    memset(&latency, 0, sizeof latency);
    memset(&skew, 0, sizeof skew);
    memset(under_way, 0, sizeof under_way);
    while (conns_done < conn_count) {
        int count = epoll_wait(epoll_fd, events, EVENTS_MAX, SILENCE_MS_MAX);
        if (count < 0 && errno != EINTR)
            die("epoll_wait");
        if (count == 0)
            fail("%zu of %zu subscribers miss the last message", conn_count - conns_done, conn_count);
        for (int i = 0; i < count; i++)
            conn_receive(events[i].data.ptr);
    }
}

static void tell_stopped(double seconds) {
    printf("stopped messages=%" PRIu64 " published=%" PRIu64 " seconds=%.6f p50_us=%.1f p99_us=%.1f p999_us=%.1f "
           "skew_p50_us=%.1f skew_p99_us=%.1f\n",
           messages, skew.total, seconds, quantile_us(&latency, 0.5), quantile_us(&latency, 0.99),
           quantile_us(&latency, 0.999), quantile_us(&skew, 0.5), quantile_us(&skew, 0.99));
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fputs("usage: subscribe PORT CONNECTIONS MESSAGE_BYTES\n", stderr);
        exit(EX_USAGE);
    }
    struct sockaddr_in address = loopback((int)count_argument("subscribe", argv[1], 1, 65535));
    conn_count = count_argument("subscribe", argv[2], 1, CONNECTIONS_MAX);
    message_bytes = count_argument("subscribe", argv[3], HEADER_BYTES, MESSAGE_BYTES_MAX);
    conns = calloc(conn_count, sizeof *conns);
    expected = malloc(message_bytes);
    if (conns == NULL || expected == NULL)
        die("malloc");
    fill_body(expected, message_bytes);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0)
        die("epoll_create1");
    for (size_t i = 0; i < conn_count; i++) {
        conns[i].serial = (uint32_t)i;
        conn_open(&conns[i], &address);
    }
    while (tell_and_wait("started")) {
        uint64_t begun_ns = now_ns();
        run_phase();
        tell_stopped((double)(now_ns() - begun_ns) / 1e9);
    }
}
