/* load: a closed-loop echo client. Each connection sends one message, waits for all of the echo, compares
 * every byte, and only then sends the next.
 *
 *   load echo    HOST PORT CONNECTIONS MESSAGE_BYTES DURATION_S WARMUP_S
 *   load connect HOST PORT CONNECTIONS MESSAGE_BYTES DURATION_S WARMUP_S
 *   load idle    HOST PORT CONNECTIONS
 *
 * HOST is an IPv4 address, or "unix" with a path for PORT. `connect` opens a new connection for every message.
 * `idle` echoes one message on each connection, so that the server is known to have accepted it, and then
 * holds them.
 *
 * Compiled with -DWITH_TLS it speaks TLS: `connect` then makes a handshake for every message.
 *
 * Standard output:   started
 *                    stopped messages=N seconds=S p50_us=.. p99_us=.. p999_us=.. mismatches=N errors=N lost=N
 * After each line it waits for a line or the end of its standard input. At both points no message is in
 * flight, so the CPU time the server has used in between is that of these N messages and of nothing else.
 * `idle` prints only `started`.
 *
 * Exit status: 0, or 1 if an echo was wrong (mismatches), a connection failed (errors) or an echo never came
 * (lost), or a status of sysexits.h.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/un.h>
#include <unistd.h>

#include "loads.h"
#include "streams.h"

enum {
    EVENTS_MAX = 256,
    DRAIN_S_MAX = 5, /* an echo that is this late does not come: the slowest server takes 0.1 s for 64 MiB */
    IDLE_MESSAGE_BYTES = 64,
    OPEN_BATCH = 2048, /* half of every server's listen backlog */
    MESSAGE_BYTES_MIN = sizeof(uint64_t), /* room for the stamp */
    MESSAGE_BYTES_MAX = 16 * 1024 * 1024,
    CONNECTIONS_MAX = 28000, /* the ports of one source address: ip_local_port_range is 32768-60999 */
};

struct conn {
    struct stream stream; /* fd -1: failed, and not opened again */
    uint32_t serial;
    uint32_t sequence;
    size_t sent_bytes;
    size_t received_bytes;
    uint64_t begun_ns;
};

struct load {
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_un un;
    } address;
    socklen_t address_bytes;
    int epoll_fd;
    struct conn *conns;
    size_t conn_count;
    size_t message_bytes;
    bool reconnects;        /* a new connection for each message */
    bool draining;          /* an echo that has come is not followed by the next message */
    unsigned char *message; /* shared: stamped anew for a connection before each use */
    unsigned char *echo;    /* shared: one byte more than a message */
    size_t in_flight;
    uint64_t messages;
    uint64_t mismatches;
    uint64_t errors;
    struct histogram latency;
};

/* --- messages --- */

/* Writes connection and sequence number over both ends of the shared message. */
static void stamp(struct load *load, const struct conn *conn) {
    uint64_t value = (uint64_t)conn->serial << 32 | conn->sequence;
    memcpy(load->message, &value, sizeof value);
    memcpy(load->message + load->message_bytes - sizeof value, &value, sizeof value);
}

/* Fills the space between the stamps so that a byte missing, doubled or out of place shows. */
static void fill(unsigned char *bytes, size_t count) {
    uint32_t state = 2463534242u; /* xorshift32 (Marsaglia 2003) */
    for (size_t i = 0; i < count; i++) {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        bytes[i] = (unsigned char)(state >> 8);
    }
}

static bool is_in_flight(const struct load *load, const struct conn *conn) {
    return conn->received_bytes < load->message_bytes;
}

static void conn_fail(struct load *load, struct conn *conn, uint64_t *counter) {
    ++*counter;
    if (is_in_flight(load, conn))
        load->in_flight--;
    stream_close(&conn->stream);
    conn->stream.fd = -1;
}

/* Sends what the kernel takes; the next EPOLLOUT edge goes on. */
static void message_send(struct load *load, struct conn *conn) {
    stamp(load, conn);
    while (conn->sent_bytes < load->message_bytes) {
        const unsigned char *rest = load->message + conn->sent_bytes;
        ssize_t sent = stream_send(&conn->stream, rest, load->message_bytes - conn->sent_bytes);
        if (sent >= 0)
            conn->sent_bytes += (size_t)sent;
        else if (errno == EAGAIN)
            return;
        else if (errno != EINTR) {
            conn_fail(load, conn, &load->errors);
            return;
        }
    }
}

static void message_begin(struct load *load, struct conn *conn, uint64_t at_ns) {
    conn->sequence++;
    conn->sent_bytes = 0;
    conn->received_bytes = 0;
    conn->begun_ns = at_ns;
    load->in_flight++;
    message_send(load, conn);
}

static bool conn_open(struct load *load, struct conn *conn) {
    conn->sent_bytes = conn->received_bytes = load->message_bytes; /* nothing is in flight yet */
    int fd = socket(load->address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die("socket");
    if (load->address.any.sa_family == AF_INET)
        set_tcp_options(fd);
    /* Blocking: on loopback the handshake is done before connect returns. */
    if (connect(fd, &load->address.any, load->address_bytes) < 0) {
        close(fd);
        conn->stream.fd = -1;
        return false;
    }
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = conn};
    if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0 || epoll_ctl(load->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
        die("epoll_ctl");
    conn->stream.fd = fd;
    stream_begin(&conn->stream);
    return true;
}

static void next_message(struct load *load, struct conn *conn, uint64_t at_ns) {
    if (load->draining)
        return;
    if (load->reconnects) {
        stream_close(&conn->stream);
        at_ns = now_ns();
        if (!conn_open(load, conn)) {
            load->errors++;
            return;
        }
    }
    message_begin(load, conn, at_ns);
}

static void message_done(struct load *load, struct conn *conn) {
    uint64_t at_ns = now_ns();
    histogram_add(&load->latency, at_ns - conn->begun_ns);
    load->messages++;
    load->in_flight--;
    next_message(load, conn, at_ns);
}

static bool echo_matches(const struct load *load, const struct conn *conn, size_t received) {
    return received <= load->message_bytes - conn->received_bytes &&
           memcmp(load->echo, load->message + conn->received_bytes, received) == 0;
}

/* Reads until a message is whole or nothing more is there. It asks for one byte more than is due: an echo
 * that is too long shows, and the read that completes a message is a short one, which empties the socket. */
static void echo_receive(struct load *load, struct conn *conn, bool hung_up) {
    for (;;) {
        size_t wanted = load->message_bytes - conn->received_bytes + 1;
        ssize_t received = stream_receive(&conn->stream, load->echo, wanted);
        if (received < 0 && errno == EINTR)
            continue;
        if (received < 0 && errno == EAGAIN)
            return;
        if (received <= 0) {
            conn_fail(load, conn, &load->errors);
            return;
        }
        stamp(load, conn);
        if (!echo_matches(load, conn, (size_t)received)) {
            conn_fail(load, conn, &load->mismatches);
            return;
        }
        conn->received_bytes += (size_t)received;
        if (!is_in_flight(load, conn)) {
            message_done(load, conn);
            return;
        }
        if (SHORT_READ_EMPTIES && (size_t)received < wanted && !hung_up)
            return;
    }
}

static void conn_event(struct load *load, struct conn *conn, uint32_t events) {
    if (conn->stream.fd >= 0 && conn->sent_bytes < load->message_bytes)
        message_send(load, conn);
    if (conn->stream.fd >= 0 && is_in_flight(load, conn)) /* else its handshake begins with its first message */
        echo_receive(load, conn, events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR));
}

/* --- phases --- */

/* Serves events until the deadline, or until no message is in flight. */
static void run_until(struct load *load, uint64_t deadline_ns) {
    struct epoll_event events[EVENTS_MAX];
    for (uint64_t now = now_ns(); now < deadline_ns && load->in_flight > 0; now = now_ns()) {
        int timeout_ms = (int)((deadline_ns - now) / 1000000u) + 1;
        int count = epoll_wait(load->epoll_fd, events, EVENTS_MAX, timeout_ms);
        if (count < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < count; i++)
            conn_event(load, events[i].data.ptr, events[i].events);
    }
}

static void drain(struct load *load) {
    load->draining = true;
    run_until(load, now_ns() + DRAIN_S_MAX * 1000000000ull);
    load->draining = false;
}

/* Runs one phase: begins a message on every connection, goes on for `duration_s`, waits for the last echo.
 * Returns the seconds from the first message to the last echo. */
static double run_phase(struct load *load, double duration_s) {
    uint64_t begun_ns = now_ns();
    memset(&load->latency, 0, sizeof load->latency);
    load->messages = 0;
    for (size_t i = 0; i < load->conn_count; i++)
        if (load->conns[i].stream.fd >= 0)
            message_begin(load, &load->conns[i], now_ns());
    run_until(load, begun_ns + (uint64_t)(duration_s * 1e9));
    drain(load);
    return (double)(now_ns() - begun_ns) / 1e9;
}

/* A server accepts in the order of the connects: the echo on the last connection of a batch says that none of
 * them waits in the listen backlog any more. Where that is full, the kernel drops SYNs, and each costs a second. */
static void open_all(struct load *load) {
    for (size_t i = 0; i < load->conn_count; i++) {
        load->conns[i].serial = (uint32_t)i;
        if (!conn_open(load, &load->conns[i]))
            die("connect");
        if ((i + 1) % OPEN_BATCH == 0) {
            message_begin(load, &load->conns[i], now_ns());
            drain(load);
        }
    }
}

static void close_all(struct load *load) {
    for (size_t i = 0; i < load->conn_count; i++)
        if (load->conns[i].stream.fd >= 0)
            stream_close(&load->conns[i].stream);
}

static int status_of(const struct load *load) {
    return load->mismatches + load->errors + load->in_flight == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static void print_stopped(const struct load *load, double seconds, char *line, size_t line_bytes) {
    const struct histogram *latency = &load->latency;
    snprintf(line, line_bytes,
             "stopped messages=%" PRIu64 " seconds=%.6f p50_us=%.1f p99_us=%.1f p999_us=%.1f "
             "mismatches=%" PRIu64 " errors=%" PRIu64 " lost=%zu",
             load->messages, seconds, quantile_us(latency, 0.5), quantile_us(latency, 0.99),
             quantile_us(latency, 0.999), load->mismatches, load->errors, load->in_flight);
}

/* A warm-up that fails is reported at once, without `started`. */
static void run_echo(struct load *load, double duration_s, double warmup_s) {
    char line[256];
    double seconds = run_phase(load, warmup_s);
    if (status_of(load) == EXIT_SUCCESS) {
        tell_and_wait("started");
        seconds = run_phase(load, duration_s);
    }
    print_stopped(load, seconds, line, sizeof line);
    tell_and_wait(line);
}

/* One connection after the other, so that no listen backlog is too short for it. */
static void run_idle(struct load *load) {
    for (size_t i = 0; i < load->conn_count; i++) {
        message_begin(load, &load->conns[i], now_ns());
        drain(load);
    }
    if (status_of(load) == EXIT_SUCCESS)
        tell_and_wait("started");
}

/* --- the command line --- */

static void usage(void) {
    fputs("usage: load echo|connect HOST PORT CONNECTIONS MESSAGE_BYTES DURATION_S WARMUP_S\n"
          "       load idle HOST PORT CONNECTIONS\n"
          "HOST is an IPv4 address, or \"unix\" with a path for PORT\n",
          stderr);
    exit(EX_USAGE);
}

static double seconds_argument(const char *text) {
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value >= 0 && value <= 3600)) {
        fprintf(stderr, "load: %s: not a number of seconds from 0 to 3600\n", text);
        exit(EX_USAGE);
    }
    return value;
}

static void set_address(struct load *load, const char *host, const char *port) {
    if (strcmp(host, "unix") == 0) {
        load->address.un.sun_family = AF_UNIX;
        if (strlen(port) >= sizeof load->address.un.sun_path)
            usage();
        strcpy(load->address.un.sun_path, port);
        load->address_bytes = sizeof load->address.un;
        return;
    }
    load->address.in.sin_family = AF_INET;
    load->address.in.sin_port = htons((uint16_t)count_argument("load", port, 1, 65535));
    if (inet_pton(AF_INET, host, &load->address.in.sin_addr) != 1)
        usage();
    load->address_bytes = sizeof load->address.in;
}

static void set_size(struct load *load, size_t conn_count, size_t message_bytes) {
    load->conn_count = conn_count;
    load->message_bytes = message_bytes;
    load->conns = calloc(conn_count, sizeof *load->conns);
    load->message = malloc(message_bytes);
    load->echo = malloc(message_bytes + 1);
    if (load->conns == NULL || load->message == NULL || load->echo == NULL)
        die("malloc");
    fill(load->message, message_bytes);
}

int main(int argc, char **argv) {
    static struct load load;
    bool idle = argc == 5 && strcmp(argv[1], "idle") == 0;
    load.reconnects = argc == 8 && strcmp(argv[1], "connect") == 0;
    if (!idle && !load.reconnects && !(argc == 8 && strcmp(argv[1], "echo") == 0))
        usage();
    streams_prepare(NULL, NULL);
    set_address(&load, argv[2], argv[3]);
    set_size(&load, count_argument("load", argv[4], 1, CONNECTIONS_MAX),
             idle ? IDLE_MESSAGE_BYTES : count_argument("load", argv[5], MESSAGE_BYTES_MIN, MESSAGE_BYTES_MAX));
    load.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (load.epoll_fd < 0)
        die("epoll_create1");
    open_all(&load);
    if (idle)
        run_idle(&load);
    else
        run_echo(&load, seconds_argument(argv[6]), seconds_argument(argv[7]));
    close_all(&load);
    return status_of(&load);
}
