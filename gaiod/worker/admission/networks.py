"""Networks: the first of several lists of them that an address is in."""

import socket
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from heapq import heappop, heappush
from typing import Any

from gaiod.addresses import ALL, UNIX

MAPPED = 0xFFFF
"""What is above the 32 bits of an IPv4 address in ::ffff:0:0/96, where IPv6 sockets show IPv4 peers."""

NOWHERE = -1

LOCAL, V4, V6 = 0, 4, 6
"""The families of addresses: `LOCAL` is whoever connects to a unix socket."""


class Networks:
    """Lists of networks, of which the first that has an address counts.

    A family's addresses are cut into ranges. So 10,000 networks cost 1 us for an address (a bisection; CPython 3.11),
    30 ms at the start, and 100 bytes each.
    """

    def __init__(self, lists: Sequence[Iterable[str]]) -> None:
        """Take networks as `ListenerSettings` has them: valid, with no bit set beyond the prefix."""
        self._unix = NOWHERE
        v4: list[tuple[int, int, int]] = []
        v6: list[tuple[int, int, int]] = []
        for number, texts in enumerate(lists):
            for text in texts:
                if text in (UNIX, ALL) and self._unix == NOWHERE:
                    self._unix = number
                if text == ALL:
                    v4.append((0, 1 << 32, number))
                    v6.append((0, 1 << 128, number))
                elif text != UNIX:
                    host, _, prefix = text.partition("/")
                    kind, bits, known = (socket.AF_INET6, 128, v6) if ":" in host else (socket.AF_INET, 32, v4)
                    first = _number(kind, host)
                    known.append((first, first + (1 << bits - int(prefix)), number))
        self._v4 = _cut(v4)
        self._v6 = _cut(v6)

    def find(self, address: Any) -> int:
        """Return which list an address, as `getpeername` has it, is in; -1: in none."""
        return self.find_number(*number_of(address))

    def find_number(self, family: int, number: int) -> int:
        """Return which list an address, as `number_of` has it, is in; -1: in none."""
        if family == V4:
            return _look_up(self._v4, number)
        return _look_up(self._v6, number) if family == V6 else self._unix


def number_of(address: Any) -> tuple[int, int]:
    """Return the family of an address, as `getpeername` has it, and its bits as a number. IPv4-mapped is IPv4."""
    if isinstance(address, str | bytes):
        return LOCAL, 0
    host = address[0]
    if ":" not in host:
        return V4, _number(socket.AF_INET, host)
    number = _number(socket.AF_INET6, host.partition("%")[0])  # fe80::1%eth0
    return (V4, number & 0xFFFFFFFF) if number >> 32 == MAPPED else (V6, number)


_Ranges = tuple[list[int], list[int]]
"""Where each range begins, and which list its addresses are in."""


def _number(kind: socket.AddressFamily, host: str) -> int:
    return int.from_bytes(socket.inet_pton(kind, host), "big")


def _look_up(ranges: _Ranges, number: int) -> int:
    return ranges[1][bisect_right(ranges[0], number) - 1]


def _cut(networks: list[tuple[int, int, int]]) -> _Ranges:
    """Return the ranges of (first address, the one behind the last, list), which may be within each other."""
    networks.sort()
    begins, numbers = [0], [NOWHERE]
    open_ones: list[tuple[int, int]] = []  # list, end: the first list counts
    bounds = sorted({bound for first, end, _ in networks for bound in (first, end)})
    next_one = 0
    for bound in bounds:
        while next_one < len(networks) and networks[next_one][0] == bound:
            _, end, number = networks[next_one]
            heappush(open_ones, (number, end))
            next_one += 1
        while open_ones and open_ones[0][1] <= bound:
            heappop(open_ones)
        number = open_ones[0][0] if open_ones else NOWHERE
        if bound == 0:
            numbers[0] = number
        elif number != numbers[-1]:
            begins.append(bound)
            numbers.append(number)
    return begins, numbers
