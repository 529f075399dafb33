/* What both C programs of the benchmark do to every socket, and how they give up. */
#ifndef GAIOD_BENCH_SOCKETS_H
#define GAIOD_BENCH_SOCKETS_H

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

#endif
