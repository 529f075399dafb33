/* A published message of the benchmark: its number, the time at which it was published, and bytes that all have. */
#ifndef GAIOD_BENCH_PUSH_H
#define GAIOD_BENCH_PUSH_H

#include <stddef.h>
#include <stdint.h>

enum {
    HEADER_BYTES = 16, /* the number, from 1 in each publication, and CLOCK_MONOTONIC in ns: both in the host's order */
    MESSAGE_BYTES_MAX = 1024 * 1024,
    BODY_PERIOD = 251, /* a prime: a byte missing, doubled or out of place shows */
};

/* A bit of the number: the publication is over. */
static const uint64_t LAST = 1ull << 63;

static inline void fill_body(unsigned char *message, size_t message_bytes) {
    for (size_t i = HEADER_BYTES; i < message_bytes; i++)
        message[i] = (unsigned char)(i % BODY_PERIOD);
}

#endif
