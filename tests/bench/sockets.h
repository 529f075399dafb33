/* What the C programs of the benchmark do to every socket, how they listen, and how they give up. */
#ifndef GAIOD_BENCH_SOCKETS_H
#define GAIOD_BENCH_SOCKETS_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sysexits.h>

static inline void die(const char *what) {
    perror(what);
    exit(EX_OSERR);
}

/* reno, because bbr paces by timers: on loopback it would measure the pacing and not the server. Both
 * options are inherited from a listening socket by what it accepts. */
static inline void set_tcp_options(int fd) {
    static const char congestion[] = "reno";
    int on = 1;
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0)
        die("TCP_NODELAY");
    if (setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, congestion, sizeof congestion - 1) < 0)
        die("TCP_CONGESTION=reno");
}

static inline struct sockaddr_in loopback(int port) {
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

/* Port 0: any free one. */
static inline int listen_on_loopback(int port) {
    enum { BACKLOG = 4096 };
    struct sockaddr_in address = loopback(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die("socket");
    set_tcp_options(fd);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
        die("bind");
    if (listen(fd, BACKLOG) < 0)
        die("listen");
    return fd;
}

/* Prints `listening PORT`: the runner waits for it. */
static inline void tell_port(int listener) {
    struct sockaddr_in address;
    socklen_t address_bytes = sizeof address;
    if (getsockname(listener, (struct sockaddr *)&address, &address_bytes) < 0)
        die("getsockname");
    printf("listening %d\n", ntohs(address.sin_port));
    fflush(stdout);
}

#endif
