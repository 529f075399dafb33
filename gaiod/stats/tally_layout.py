"""How many connections each client has, and how many came lately, over all workers: memory that they share.

    HEAD | SEAT | SEAT | ...            SEAT: BUCKETS times (8 tags | 8 numbers of connections | 8 recent ones)

A worker process has a seat, a table that it alone writes and that all others read: what a client has is the sum over
the seats. No process waits for another one, and what one leaves behind goes with its seat. A client is a tag, a secret
hash of what the limit is about; where its bucket is full, the coldest one leaves. So the memory is bounded, and a
client that nobody remembers has none. The supervisor deals out the seats (`supervisor/processes/seats.py`).

What came lately is a level that decays by itself: it loses a part of 1/e in each window. Such levels add up, which the
fill of a token bucket does not: each worker keeps one of what it has admitted, and their sum is that of all together.
"""

import struct

MAGIC = b"tallies1"
"""Of another version of this format another one."""

SEATS_MAX = 4096
"""Processes at the same time, those included that drain or keep connections. A daemon has half of them."""

HEAD = struct.Struct("=8s2q144s")
"""MAGIC, how often the seats have changed (one cell for each side that deals out seats), and the secret."""

OWNERS = HEAD.size // 8
"""The cell of the first seat's owner: the process number of the supervisor that has dealt it out; 0: it is free."""

HEAD_BYTES = HEAD.size + 8 * SEATS_MAX

CHANGES = 1
"""The first cell of those that say how often the seats have changed."""

SECRET = slice(24, HEAD.size)

WAYS = 8
BUCKETS = 8192
BUCKET_CELLS = 3 * WAYS

SEAT_BYTES = 8 * BUCKETS * BUCKET_CELLS
"""1.5 MiB for 65,536 clients of each worker, of which the system gives what is used."""

LEVEL_BITS, LEVEL_ONE = 24, 256
LEVEL_MASK = (1 << LEVEL_BITS) - 1
"""A recent cell is the time in ms (CLOCK_MONOTONIC) above a level in 1/256: one cell, so nobody reads half of it."""

LEVEL_MAX = LEVEL_MASK // LEVEL_ONE
"""No burst may be larger."""

NUMBER_BITS = 129
"""Of what becomes a tag."""

HASH_BITS = 64
HASH_MASK = (1 << HASH_BITS) - 1
MIXER = 0xBF58476D1CE4E5B9
"""An odd number whose bits are well mixed, of SplitMix64."""

TAG_MAX = HASH_MASK >> 1
"""A tag fills a cell."""

NAME_BITS = 8 * 63
"""Of the name of a listener."""

FACTOR_BYTES = (NUMBER_BITS + HASH_BITS + 7) // 8


def start_of(seat: int) -> int:
    """Return where in the file a seat begins."""
    return HEAD_BYTES + seat * SEAT_BYTES
