/* What the loads of the benchmark share: the clock, histograms, and how they talk to the runner. */
#ifndef GAIOD_BENCH_LOADS_H
#define GAIOD_BENCH_LOADS_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

static inline uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* A latency histogram of relative precision 1/32: 32 buckets for each power of two nanoseconds. */
enum { BUCKET_BITS = 5, BUCKETS_PER_OCTAVE = 1 << BUCKET_BITS, BUCKETS = (64 - BUCKET_BITS) * BUCKETS_PER_OCTAVE };

struct histogram {
    uint64_t counts[BUCKETS];
    uint64_t total;
};

static inline size_t bucket_of(uint64_t value_ns) {
    if (value_ns < BUCKETS_PER_OCTAVE)
        return value_ns;
    unsigned shift = 63u - (unsigned)__builtin_clzll(value_ns) - BUCKET_BITS;
    return (size_t)shift * BUCKETS_PER_OCTAVE + (value_ns >> shift);
}

static inline double bucket_middle_us(size_t bucket) {
    if (bucket < BUCKETS_PER_OCTAVE)
        return (double)bucket / 1e3;
    unsigned shift = (unsigned)(bucket / BUCKETS_PER_OCTAVE - 1);
    uint64_t first_ns = (uint64_t)(BUCKETS_PER_OCTAVE + bucket % BUCKETS_PER_OCTAVE) << shift;
    return ((double)first_ns + (double)(1ull << shift) / 2) / 1e3;
}

static inline void histogram_add(struct histogram *histogram, uint64_t value_ns) {
    histogram->counts[bucket_of(value_ns)]++;
    histogram->total++;
}

static inline double quantile_us(const struct histogram *histogram, double quantile) {
    double wanted = quantile * (double)histogram->total;
    uint64_t seen = 0;
    for (size_t bucket = 0; bucket < BUCKETS; bucket++) {
        seen += histogram->counts[bucket];
        if (seen > 0 && (double)seen >= wanted)
            return bucket_middle_us(bucket);
    }
    return 0;
}

/* Prints a line, and waits for one. Returns false if the standard input has ended instead. */
static inline bool tell_and_wait(const char *line) {
    char answer[64];
    ssize_t received;
    puts(line);
    fflush(stdout);
    do
        received = read(STDIN_FILENO, answer, sizeof answer);
    while (received < 0 && errno == EINTR);
    return received > 0;
}

static inline size_t count_argument(const char *program, const char *text, size_t least, size_t most) {
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value < least || value > most) {
        fprintf(stderr, "%s: %s: not a number from %zu to %zu\n", program, text, least, most);
        exit(EX_USAGE);
    }
    return (size_t)value;
}

#endif
